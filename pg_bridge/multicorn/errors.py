"""Errors in the one form that Multicorn passes on with its hint. It cannot carry a SQLSTATE.

Of a cancel PostgreSQL says so itself, where it has the native module: see native/multicorn_guard.c.

In: any exception. Out: Multicorn's own, which it raises after it has left Python.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from logging import ERROR, WARNING
from typing import NoReturn, ParamSpec, TypeVar

from multicorn.utils import log_to_postgres

from pg_bridge.backend.faults import describe_error
from pg_bridge.errors import OptionError

P = ParamSpec("P")
T = TypeVar("T")


def refuse(error: Exception) -> NoReturn:
    """Raise an error so that PostgreSQL shows its message, detail and hint."""
    fault = describe_error(error)
    log_to_postgres(fault.message, ERROR, hint=fault.hint or None, detail=fault.detail or f"SQLSTATE {fault.sqlstate}")
    raise RuntimeError(fault.message) from None


def warn(message: str, hint: str) -> None:
    """Tell the user of something that does not end the statement."""
    log_to_postgres(message, WARNING, hint=hint)


def refusing(method: Callable[P, T]) -> Callable[P, T]:
    """Let a method's errors leave in the form that Multicorn passes on."""

    @wraps(method)
    def wrapped(*arguments: P.args, **named: P.kwargs) -> T:
        try:
            return method(*arguments, **named)
        except SystemError:  # Multicorn called with an exception pending, of a value that it could not convert
            refuse(
                OptionError(
                    "Multicorn cannot hand over a value of one of the conditions",
                    hint="Dates and timestamps that it cannot are infinity, -infinity and those outside the years 1 to "
                    "9999.",
                )
            )
        except Exception as error:
            refuse(error)

    return wrapped
