"""Ends what a transaction left running, at the moment when PostgreSQL ends the transaction.

An error elsewhere in the statement (a division by zero in the select list, say) leaves a suspended Python generator
behind, with requests in flight: PostgreSQL frees its own memory and does not know of them. So a callback is
registered with PostgreSQL, as a C extension would do, that closes the generators of the transaction or
subtransaction that ends. It runs no SQL and calls nothing that could raise a PostgreSQL error.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Protocol, TypeVar, cast
from weakref import WeakKeyDictionary, WeakSet

from pg_bridge.errors import RunEnded

T = TypeVar("T")

_COMMIT, _ABORT = 0, 2  # XACT_EVENT_COMMIT, XACT_EVENT_ABORT
_ABORT_SUB = 2  # SUBXACT_EVENT_ABORT_SUB


class Closable(Protocol):
    """What can be left half done: a generator, say."""

    def close(self) -> None:
        """End it; it may have ended already."""


_XactCallback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p)
_SubXactCallback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p)

_last_calls: list[Callable[[], None]] = []
_live: WeakKeyDictionary[Closable, int] = WeakKeyDictionary()
_ended: WeakSet[Closable] = WeakSet()  # those that were not at their end
_backend = ctypes.CDLL(None)
_registered: list[Any] = []  # keeps the callbacks alive for the life of the backend


def end_with_transaction(begun: Closable) -> None:
    """Close something at the end of the current transaction or subtransaction, if it is still about then."""
    _register()
    _live[begun] = _nesting_level()


def until_its_end(generator: Iterator[T]) -> Iterator[T]:
    """Yield what a generator yields, which ends with the transaction or subtransaction that is current at the start.

    Raises:
        RunEnded: It was ended by a subtransaction, and more is wanted of it.
    """
    begun = cast("Closable", generator)
    end_with_transaction(begun)
    yield from generator
    if begun in _ended:
        raise RunEnded


def call_at_end_of_transaction(function: Callable[[], None]) -> None:
    """Call a function once, at the end of the current transaction, however it ends."""
    _register()
    _last_calls.append(function)


def _register() -> None:
    if not _registered:
        _registered[:] = [_XactCallback(_transaction_ends), _SubXactCallback(_subtransaction_ends)]
        _backend.RegisterXactCallback(_registered[0], None)
        _backend.RegisterSubXactCallback(_registered[1], None)


def _transaction_ends(event: int, _: Any) -> None:
    if event in (_COMMIT, _ABORT):
        _close_from(0)
        while _last_calls:
            _last_calls.pop()()


def _subtransaction_ends(event: int, _own: int, _parent: int, _: Any) -> None:
    if event == _ABORT_SUB:
        _close_from(_nesting_level())


def _nesting_level() -> int:
    return int(_backend.GetCurrentTransactionNestLevel())


def _close_from(level: int) -> None:
    for begun, began_at in list(_live.items()):
        if began_at >= level:
            _ended.add(begun)
            with suppress(Exception):  # a generator that is running, under a FATAL error, cannot be closed
                begun.close()
