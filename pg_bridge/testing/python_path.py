"""Copies pg_bridge and what it imports into a directory that a server's embedded Python can read.

In: the installed distributions of this Python. Out: a directory for PYTHONPATH. It never installs anything
and never copies what only the engine needs (torch, vLLM).
"""

from __future__ import annotations

import re
import shutil
from importlib import metadata
from importlib.util import cache_from_source
from pathlib import Path, PurePath

import pg_bridge

DISTRIBUTION = "pg-bridge"


def copy_python(target: Path) -> None:
    """Copy the package and its run-time distributions.

    A copy, because the server runs as a user who often may not read the checkout (root's home, mode 0700),
    and because the environment's own site-packages would show the server everything else installed there.

    Args:
        target: A directory that does not exist yet.
    """
    target.mkdir(parents=True)
    left_out = shutil.ignore_patterns("__pycache__", "native")
    shutil.copytree(Path(pg_bridge.__file__).parent, target / "pg_bridge", ignore=left_out, copy_function=copy_file)
    for name in sorted(runtime_distributions()):
        copy_distribution(name, target)


def runtime_distributions() -> set[str]:
    """Return the names of the distributions that both hosts need at run time, pg_bridge itself not included."""
    # What is an extra, as psycopg is for the Multicorn host and its compiled half for itself, is no plain requirement.
    waiting, found = [*_requirements(DISTRIBUTION), "psycopg", "psycopg-binary"], set()
    while waiting:
        name = waiting.pop()
        if name not in found and _is_installed(name):
            found.add(name)
            waiting += _requirements(name)
    return found


def _requirements(distribution: str) -> list[str]:
    """Return the plain requirements of a distribution; those of its extras are not among them.

    Markers for other platforms are not evaluated: what they name is not installed here and drops out later.
    """
    lines = metadata.requires(distribution) or []
    plain = [line for line in lines if not re.search(r";.*\bextra\b", line)]
    return [_normal(re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0]) for line in plain]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _is_installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def copy_distribution(name: str, target: Path) -> None:
    """Copy what is installed under a name, but its scripts and its tests."""
    distribution, made = metadata.distribution(name), set[PurePath]()
    for file in distribution.files or []:
        # Scripts lie outside site-packages ("../../../bin/x"); tests are half of numpy's files.
        if ".." in file.parts or "tests" in file.parts or "__pycache__" in file.parts:
            continue
        destination = target / file
        if file.parent not in made:
            destination.parent.mkdir(parents=True, exist_ok=True)
            made.add(file.parent)
        source = Path(str(distribution.locate_file(file)))
        if source.is_file():
            copy_file(source, destination)


def copy_file(source: str | Path, destination: str | Path) -> None:
    """Copy a file with its time stamp, and what a module was compiled to, which then is valid beside the copy, too.

    Else the first backend of every cluster would compile numpy and aiohttp, which takes longer than a test.
    """
    shutil.copy2(source, destination)
    if str(source).endswith(".py"):
        compiled, copied = Path(cache_from_source(str(source))), Path(cache_from_source(str(destination)))
        if compiled.is_file():
            copied.parent.mkdir(exist_ok=True)
            shutil.copy2(compiled, copied)
