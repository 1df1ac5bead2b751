"""Sees that the statement should stop, while Python waits inside a PostgreSQL backend.

PostgreSQL's signal handlers only set flags; the C code acts on them at its own safe points. A Python loop that waits
for an engine reaches no such point, so it reads the flags itself and raises an ordinary exception. Calling
PostgreSQL's own `CHECK_FOR_INTERRUPTS` from here would jump over Python's frames and leave the interpreter broken.

One kind of interrupt must be acted on at once: from version 15 on DROP DATABASE, and what is like it, waits until every
backend of the cluster has closed its files when it is told to, and would wait for the engine. That is PostgreSQL's own
function, which raises no error.

A client that closed its connection sets no flag unless `client_connection_check_interval` is on (it is off by
default), so the client's socket is looked at too, in the way that PostgreSQL itself does.
"""

from __future__ import annotations

import ctypes
import select
import time

from pg_bridge.errors import Cancelled, ClientGone

_CLIENT_CHECK_INTERVAL_S = 0.1


class Interrupts:
    """Reads the backend's flags and its client's socket.

    Only for use inside a backend: the constructor raises ValueError where the program has no such variables.
    """

    def __init__(self) -> None:
        backend = ctypes.CDLL(None)
        self._cancel = ctypes.c_int.in_dll(backend, "QueryCancelPending")
        self._die = ctypes.c_int.in_dll(backend, "ProcDiePending")
        self._barrier = ctypes.c_int.in_dll(backend, "ProcSignalBarrierPending")
        self._held_off = ctypes.c_uint32.in_dll(backend, "InterruptHoldoffCount")
        self._pass_barrier = backend.ProcessProcSignalBarrier
        self._pass_barrier.restype, self._pass_barrier.argtypes = None, []
        port = ctypes.c_void_p.in_dll(backend, "MyProcPort").value
        # The socket is the first member of struct Port in every supported version.
        self._socket = ctypes.c_int.from_address(port).value if port else -1
        self._client = select.poll()
        if self._socket >= 0:
            self._client.register(self._socket, getattr(select, "POLLRDHUP", 0))
        self._next_client_check = 0.0

    @property
    def pending(self) -> bool:
        """Whether a cancel, a timeout or a termination waits to be acted on."""
        return bool(self._cancel.value or self._die.value)

    def check(self) -> None:
        """Return quietly while the statement may go on.

        Raises:
            Cancelled: `pg_cancel_backend`, `statement_timeout` or `pg_terminate_backend`.
            ClientGone: Nobody is left to read the answers.
        """
        if self.pending:
            raise Cancelled("canceling statement due to user request or timeout")
        if self._barrier.value and not self._held_off.value:
            self._pass_barrier()
        now = time.monotonic()
        if now >= self._next_client_check:
            self._next_client_check = now + _CLIENT_CHECK_INTERVAL_S
            if self._client.poll(0):
                raise ClientGone("the client closed its connection")
