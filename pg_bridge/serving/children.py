"""Child processes that never outlive the process that started them.

In: the id of a process or a process group, and a directory that belongs to it. Out: a guard that ends both as
soon as we are gone, however we went (an exception, SIGTERM, SIGKILL). It never touches anything else, and it
never runs inside PostgreSQL.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

# The guard reads one line. "done" means that we have cleaned up ourselves; end of file means that we died.
_GUARD_SCRIPT = """
trap '' INT TERM HUP QUIT
read -r line
[ "$line" = done ] && exit 0
kill -s "$2" -- "$1" 2>/dev/null
tenths=0
while kill -s 0 -- "$1" 2>/dev/null && [ "$tenths" -lt 100 ]; do
    sleep 0.1
    tenths=$((tenths + 1))
done
kill -s KILL -- "$1" 2>/dev/null
[ -n "$3" ] && rm -rf -- "$3"
"""


class Guard:
    """A small process that ends another one when we die without having done so.

    Args:
        target: A process id, or the negative of a process group's id.
        first_signal: What the target gets first; ten seconds later it gets SIGKILL.
        directory: Removed afterwards; None for nothing.
    """

    def __init__(self, target: int, first_signal: signal.Signals, directory: Path | None = None) -> None:
        words = [str(target), first_signal.name.removeprefix("SIG"), str(directory or "")]
        # A session of its own, so that Ctrl-C at the terminal reaches us and not the guard.
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD_SCRIPT, "pg_bridge-guard", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )

    def release(self) -> None:
        """Tell the guard that there is nothing left to do."""
        with contextlib.suppress(OSError, ValueError):
            self._process.communicate(b"done\n", timeout=5)


def is_running(pid: int) -> bool:
    """Say whether a process exists and is not merely waiting to be reaped."""
    return birth(pid) != 0


def birth(pid: int) -> int:
    """Return when a process started, in clock ticks after boot; 0 if it does not run.

    A process id alone, read back from a file, may meanwhile belong to somebody else.
    """
    words = _stat(Path(f"/proc/{pid}/stat"))
    return int(words[19]) if words else 0


def _stat(path: Path) -> list[str]:
    """Return the words after a process's name in its stat file; none if it does not run (a zombie does not)."""
    try:
        words = path.read_text().rpartition(")")[2].split()
    except OSError:
        return []
    return words if words and words[0] not in "ZX" else []


def wait_until_gone(pid: int, timeout_s: float) -> bool:
    """Wait for a process to end, our own child or not; False if it still runs after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while is_running(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def group_is_running(group: int) -> bool:
    """Say whether any process of a group still runs (zombies do not count)."""
    everybody = (_stat(path) for path in Path("/proc").glob("[0-9]*/stat"))
    return any(words and int(words[2]) == group for words in everybody)


def end_group(group: int, timeout_s: float) -> None:
    """End every process of a group: SIGTERM, and SIGKILL for those left after `timeout_s`."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)
        deadline = time.monotonic() + timeout_s
        while group_is_running(group) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(group, signal.SIGKILL)


def private_directory(name: str) -> Path:
    """Make a directory of our own for a child's sockets and files: in $TMPDIR, unless that is too long a path.

    A socket's path may have 107 bytes, and the names in the directory have up to some fifty.
    """
    place = tempfile.gettempdir()
    if len(place) + len(name) > 40:
        place = "/tmp"  # noqa: S108 - mkdtemp makes a private directory in it
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=place))


@contextlib.contextmanager
def interrupt_on_sigterm() -> Iterator[None]:
    """Make SIGTERM and SIGHUP raise KeyboardInterrupt in this block, so that `finally` runs as after Ctrl-C.

    Once the first has arrived, further signals are ignored: an impatient second Ctrl-C must not stop the
    cleaning.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def interrupt(signum: int, frame: FrameType | None) -> NoReturn:
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt(signal.Signals(signum).name)

    previous = {each: signal.signal(each, interrupt) for each in signals}
    try:
        yield
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)


def tail(path: Path, lines: int = 20) -> str:
    """Return the last lines of a log file; empty if there is none."""
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
