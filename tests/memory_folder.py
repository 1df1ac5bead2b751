"""Where the throw-away clusters of a test run live: in memory, where the machine has room for it.

Making a database writes three hundred small files, which costs a disk's file system ten times what it costs one in
memory; docs/decisions/0036 has the figures. pytest's own `tmp_path` stays where it was.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

FOLDER = Path("/dev/shm")  # noqa: S108 - every cluster makes a private directory in it
NEEDED_BYTES = 8 << 30  # four clusters, with the Python that each of them imports, and a slow test's million rows


def use_memory() -> None:
    """Let $TMPDIR, of this process and of those that it starts, be a folder in memory; a $TMPDIR that is set stays."""
    if "TMPDIR" not in os.environ and has_room(FOLDER):
        os.environ["PYTEST_DEBUG_TEMPROOT"] = tempfile.gettempdir()
        os.environ["TMPDIR"] = tempfile.tempdir = str(FOLDER)


def has_room(folder: Path) -> bool:
    """Whether a folder in memory can hold clusters: everybody writes there, libraries may run there, enough is free."""
    try:
        shape = os.statvfs(folder)
        mode = folder.stat().st_mode
        free_bytes = _available_bytes()
    except OSError:
        return False
    open_to_all = mode & 0o1777 == 0o1777 and not shape.f_flag & os.ST_NOEXEC
    return open_to_all and min(shape.f_bavail * shape.f_frsize, free_bytes) >= NEEDED_BYTES


def _available_bytes() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), 0)
