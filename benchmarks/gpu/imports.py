"""Imports what an engine on a GPU imports, on a machine without one: `python -m benchmarks.gpu.imports SITE`.

In: the kit's `site`, on a Python that has what the bare machine has. Out: the modules, or the first error. A
library without a device stands in for the driver's, a platform that claims a Hopper card for vLLM's.
"""

from __future__ import annotations

import ctypes
import importlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

MODULES = (
    "vllm._C_stable_libtorch",
    "vllm.entrypoints.cli.main",
    "vllm.entrypoints.cli.serve",
    "vllm.entrypoints.openai.api_server",
    "vllm.v1.engine.core",
    "vllm.v1.executor.multiproc_executor",
    "vllm.v1.worker.gpu_worker",
    "vllm.v1.worker.gpu_model_runner",
    "vllm.v1.structured_output.backend_xgrammar",
    "vllm.vllm_flash_attn._vllm_fa3_C",
    "vllm.v1.attention.backends.flash_attn",
    "vllm.model_executor.models.llama",
)


def main() -> int:
    """Import."""
    site = Path(sys.argv[1]).absolute()
    sys.path.insert(0, str(site))
    _stand_in_for_the_driver(site)
    _claim_a_card()
    for name in MODULES:
        importlib.import_module(name)
        print(name, flush=True)
    print(f"an API server with {_routes()} routes", flush=True)
    return 0


def _routes() -> int:
    """Build vLLM's API server, which imports what each of its parts asks for; returns how many routes it has."""
    from vllm.entrypoints.openai.api_server import build_app  # noqa: PLC0415 - of the site
    from vllm.entrypoints.openai.cli_args import make_arg_parser  # noqa: PLC0415
    from vllm.utils.argparse_utils import FlexibleArgumentParser  # noqa: PLC0415

    arguments = make_arg_parser(FlexibleArgumentParser()).parse_args([])
    return len(build_app(arguments, ("generate",)).routes)


def _stand_in_for_the_driver(site: Path) -> None:
    """Load a library of the driver's name, with what vLLM's libraries ask of it; each function says: no device."""
    libraries = [str(path) for path in site.glob("vllm/**/*.so")]
    told = subprocess.run(
        ["nm", "-D", "--undefined-only", *libraries], check=True, capture_output=True, text=True
    ).stdout
    wanted = sorted(set(re.findall(r" U (cu[A-Z]\w+)$", told, re.MULTILINE)))
    code = "".join(f"int {name}(void) {{ return 100; }}\n" for name in wanted)
    with tempfile.TemporaryDirectory() as folder:
        driver = Path(folder, "libcuda.so.1")
        command = ["gcc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-x", "c", "-", "-o", str(driver)]
        subprocess.run(command, input=code, text=True, check=True)
        ctypes.CDLL(str(driver), mode=ctypes.RTLD_GLOBAL)


def _claim_a_card() -> None:
    import vllm.platforms  # noqa: PLC0415 - of the site, which is on the path by now
    from vllm.platforms.cuda import NonNvmlCudaPlatform  # noqa: PLC0415
    from vllm.platforms.interface import DeviceCapability  # noqa: PLC0415

    class Hopper(NonNvmlCudaPlatform):  # type: ignore[misc]
        @classmethod
        def get_device_capability(cls, device_id: int = 0) -> DeviceCapability:
            return DeviceCapability(9, 0)

    vllm.platforms._current_platform = Hopper()


if __name__ == "__main__":
    raise SystemExit(main())
