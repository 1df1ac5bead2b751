"""Which process wrote a row, so that rows of those that are gone can be told: a process killed by SIGKILL removes none.

In: nothing, or what an earlier process wrote down of itself. Out: a process, and whether it is still there. A number
alone does not tell, for numbers are given again; with the time at which it began, it does where the system shows that.
"""

from __future__ import annotations

import os
from typing import NamedTuple

_STATE, _BEGAN = 0, 19  # fields 3 and 22 of /proc/PID/stat, counted from behind the program's name
_GONE = {"Z", "X"}  # a zombie, and a dead one


class Process(NamedTuple):
    """One process.

    Attributes:
        pid: Its number.
        began: When it began, in ticks since the machine did; 0 where the system does not tell.
    """

    pid: int
    began: int

    @property
    def is_alive(self) -> bool:
        """Whether it is still there."""
        if not is_used(self.pid):
            return False
        stat = _stat(self.pid)
        return stat is None or (stat[_STATE] not in _GONE and (not self.began or int(stat[_BEGAN]) == self.began))


def this_process() -> Process:
    """The one that asks."""
    pid = os.getpid()
    stat = _stat(pid)
    return Process(pid, 0 if stat is None else int(stat[_BEGAN]))


def is_used(pid: int) -> bool:
    """Whether there is a process of that number, which takes far less time to tell."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it is somebody else's
    return True


def _stat(pid: int) -> list[str] | None:
    """What /proc tells of a process, from its state on; None where it tells nothing."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].decode().split()
    except OSError:
        return None
