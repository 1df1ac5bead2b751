"""Shows in `pg_stat_activity` that a backend waits for an engine.

In: a `with` block. Out: a wait event of type Extension while the block runs: `PgBridgeEngine` where PostgreSQL lets
an extension name one, which is from version 17 on and with the native module; else the one for all extensions.
"""

from __future__ import annotations

import ctypes
from types import TracebackType

_BACKEND = ctypes.CDLL(None)
_ANY_EXTENSION = 0x07000000  # PG_WAIT_EXTENSION
_NO_WAIT = 0


class EngineWait:
    """A context, to be entered as often as there is something to wait for.

    Only for use inside a backend: the constructor raises ValueError where the program has no such variable. Nothing of
    PostgreSQL's may run in the block, for it would take the wait as ended.
    """

    def __init__(self) -> None:
        self._shown = ctypes.POINTER(ctypes.c_uint32).in_dll(_BACKEND, "my_wait_event_info").contents
        self._event = _event()

    def __enter__(self) -> None:
        self._shown.value = self._event

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shown.value = _NO_WAIT


def _event() -> int:
    """The number of the event, as the native module knows it if this session has loaded one."""
    try:
        named = _BACKEND.pg_bridge_wait_event
    except AttributeError:
        return _ANY_EXTENSION
    named.restype, named.argtypes = ctypes.c_uint32, []
    return int(named())
