"""Chooses the interpreter for the engine's environment, and where its torch comes from.

In: the interpreters on this machine and what pip, as it is configured here, can have for them. Out: `name=value` lines
for scripts/setup.sh: `python`, its `version`, `torch`, `lock`, `index` (empty for pip's own), `megabytes` (of what
would be fetched from elsewhere) and `why`. It installs and fetches nothing. Exit status 1, and a reason on stderr, if
there is no torch to be had.

The engine is a process of its own, so its Python need not be the server's: torch's build for CPUs exists for some
versions of Python in one place and for others in another. In order: that build as pip is configured (a local wheel, a
mirror), the same from PyTorch's own index, and PyPI's build for GPUs, with which vLLM for CPUs runs just as well, but
which is several times as large.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VERSIONS = ("3.11", "3.12", "3.13")  # for which all of requirements/engine-cpu.txt exists as wheels
CPU_LOCK, GPU_LOCK = "requirements/torch-cpu.txt", "requirements/torch-cuda.txt"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CPU_INDEX_TIMEOUT_S = 15

# pyenv and builds from source leave out what they find no headers for; vLLM imports all of these.
_PROBE = """
import sys, ssl, bz2, lzma, sqlite3, ctypes, venv, ensurepip
assert sys.implementation.name == "cpython" and getattr(sys, "_is_gil_enabled", lambda: True)()
print("%d.%d" % sys.version_info[:2], getattr(sys, "_base_executable", sys.executable))
"""

Report = list[dict[str, Any]]
"""What pip would install: a list of distributions, each with `metadata` and `download_info`."""

Ask = Callable[[str, str, str], Report | None]
"""(version of Python, lock file, index or "") to what pip would install, or None if it cannot."""


@dataclass(frozen=True)
class Source:
    """An interpreter, and where its torch comes from."""

    python: Path
    version: str
    lock: str
    index: str
    report: Report
    why: str

    @property
    def torch(self) -> str:
        """The version of torch."""
        return next(str(each["metadata"]["version"]) for each in self.report if each["metadata"]["name"] == "torch")


def candidates(search: str, home: Path) -> Iterator[Path]:
    """Name the interpreters that might do, best first: the system's, those on the path, those of pyenv."""
    names = ["python3", *(f"python{version}" for version in VERSIONS)]
    for name in names:
        yield Path("/usr/bin", name)
    for folder in search.split(os.pathsep):
        for name in names:
            if folder:
                yield Path(folder, name)
    for version in VERSIONS:
        yield from sorted(home.glob(f".pyenv/versions/{version}.*/bin/python3"), reverse=True)


def interpreters(candidates: Iterable[Path]) -> dict[str, Path]:
    """Return, for each version that will do, the first interpreter that works."""
    found: dict[str, Path] = {}
    for candidate in candidates:
        if not os.access(candidate, os.X_OK):
            continue
        # -E -s: as the environment's own interpreter will run. A shim of pyenv prints its trouble to stderr.
        outcome = subprocess.run([candidate, "-E", "-s", "-c", _PROBE], capture_output=True, text=True, check=False)
        version, _, executable = outcome.stdout.strip().partition(" ")
        if outcome.returncode == 0 and version in VERSIONS:
            found.setdefault(version, Path(executable))
    return found


def choose(found: dict[str, Path], ask: Ask, index_answers: Callable[[str], bool]) -> Source | None:
    """Return the best source, or None if there is no torch for any of the interpreters.

    Args:
        found: The interpreters by version, best first.
        ask: What pip would install.
        index_answers: Whether an index can be reached.
    """
    ways = [
        (CPU_LOCK, "", "pip has its build for CPUs"),
        (CPU_LOCK, CPU_INDEX, "PyTorch's index has its build for CPUs"),
        (GPU_LOCK, "", "its build for CPUs is not to be had here, this one runs on CPUs too"),
    ]
    refused: list[str] = []
    for lock, index, why in ways:
        if index and not index_answers(index):
            continue
        for version, python in found.items():
            report = ask(version, lock, index)
            if report:
                others = f", but not for {' or '.join(refused)}" if refused and lock == CPU_LOCK else ""
                return Source(python, version, lock, index, report, f"{why}{others}")
            if lock == CPU_LOCK and version not in refused:
                refused.append(version)
    return None


def ask_pip(version: str, lock: str, index: str) -> Report | None:
    """Ask this environment's pip, on behalf of another Python; nothing is installed."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps"]
        command += ["--only-binary=:all:", "--python-version", version, "--target", str(Path(folder, "target"))]
        command += ["--report", str(report), "--requirement", lock, *(["--index-url", index] if index else [])]
        outcome = subprocess.run(command, capture_output=True, check=False)
        if outcome.returncode:
            return None
        installs: Report = json.loads(report.read_text())["install"]
        return installs


def index_answers(index: str) -> bool:
    """Ask for the index's page of torch, for not longer than a user waits gladly."""
    request = urllib.request.Request(f"{index}/torch/", method="HEAD")  # noqa: S310 - https, written above
    try:
        with urllib.request.urlopen(request, timeout=CPU_INDEX_TIMEOUT_S):  # noqa: S310
            return True
    except OSError:
        return False


def megabytes(report: Report) -> int:
    """Sum up what would be fetched, as far as it is told; files on this machine count nothing."""
    total = 0
    for each in report:
        url = str(each["download_info"]["url"])
        if url.startswith("file:"):
            continue
        try:
            request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - as pip would
            with urllib.request.urlopen(request, timeout=CPU_INDEX_TIMEOUT_S) as answer:  # noqa: S310
                total += int(answer.headers["Content-Length"] or 0)
        except OSError:
            break  # the next would be waited for as long
    return round(total / 1e6)


def main() -> int:
    """Print the choice."""
    search = os.environ.get("PATH", os.defpath)
    found = interpreters(candidates(search, Path.home()))
    if not found:
        sys.stderr.write(f"no Python {VERSIONS[0]} to {VERSIONS[-1]} was found that can make an environment\n")
        return 1
    source = choose(found, ask_pip, index_answers)
    if source is None:
        sys.stderr.write(f"pip finds no torch for Python {', '.join(found)} and PyTorch's CPU index has none either\n")
        return 1
    values = {"python": source.python, "version": source.version, "torch": source.torch, "lock": source.lock}
    values |= {"index": source.index, "megabytes": megabytes(source.report), "why": source.why}
    sys.stdout.writelines(f"{name}={value}\n" for name, value in values.items())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
