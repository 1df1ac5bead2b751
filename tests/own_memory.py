"""How much memory a backend takes while a block runs: its own, for shared buffers count for whoever touches them."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Self

import psycopg

MIB = 1024 * 1024
_EVERY_S = 0.005


class OwnMemory:
    """Looks at a session's process again and again, from the block's begin to its end.

    Attributes:
        peak_bytes: The most that the process had.
        grown_bytes: How much more that is than what it had before the block.
    """

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._status = Path(f"/proc/{connection.info.backend_pid}/status")
        self._before = self.peak_bytes = self._now()
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    @property
    def grown_bytes(self) -> int:
        return self.peak_bytes - self._before

    def __enter__(self) -> Self:
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watcher.join()

    def _watch(self) -> None:
        while not self._over.wait(_EVERY_S):
            self.peak_bytes = max(self.peak_bytes, self._now())

    def _now(self) -> int:
        lines = self._status.read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024
