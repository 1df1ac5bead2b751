"""Errors as data, which SQL raises: an exception that leaves PL/Python or Multicorn loses its message or its SQLSTATE.

In: any Python error. Out: a `Fault`. What is not pg_bridge's own is named, never quoted.
"""

from __future__ import annotations

import platform
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from pg_bridge import __version__
from pg_bridge.backend.postgres import module_version
from pg_bridge.errors import BrokenInstallation, PgBridgeError

RUNTIME_MODULES = ("numpy", "aiohttp")  # imported at the first question, not before


def check_installation() -> str:
    """Import what the first question would; returns what there is, for people and for `pg-bridge doctor`.

    Raises:
        BrokenInstallation: A module is missing, or is not for this Python.
    """
    try:
        for name in RUNTIME_MODULES:
            import_module(name)
    except ImportError as error:
        raise broken_import(error) from error
    module = module_version()
    return (
        f"pg_bridge {__version__} from {Path(__file__).parents[2]}, "
        f"{f'native module {module}' if module else 'no native module'}, Python {platform.python_version()}"
    )


def broken_import(error: ImportError, extra: str = "") -> BrokenInstallation:
    """The error for a module that cannot be imported: its text is about this machine's files, never about rows.

    Args:
        error: What the import raised.
        extra: The extra of pg_bridge that the module comes with; empty for what it always needs.
    """
    what = (
        f"pg_bridge's extra {extra} (pip install 'pg-bridge[{extra}]')" if extra else "pg_bridge with its dependencies"
    )
    return BrokenInstallation(
        f"the server's Python {platform.python_version()} cannot import {error.name or 'a module'}",
        detail=str(error).strip(),
        hint=f"Install {what} for this version of Python, and connect anew: docs/install.md.",
    )


class Fault(NamedTuple):
    """An error as data: what `llm._raise` and `native/foreign_calls.c` take as an array of four texts."""

    sqlstate: str
    message: str
    detail: str = ""
    hint: str = ""


def describe_error(error: Exception) -> Fault:
    """Any Python error as data; an unforeseen one is named but not quoted, for it may hold data."""
    if isinstance(error, ImportError):
        error = broken_import(error)
    if isinstance(error, PgBridgeError):
        return Fault(error.sqlstate, error.message, error.detail, error.hint)
    if isinstance(error, RecursionError):
        return Fault("54001", "a JSON value is nested too deeply", hint="It may have some hundred levels.")
    if isinstance(error, MemoryError):
        return Fault("53200", "out of memory", hint="Fewer rows in a window (window_rows) take less.")
    return Fault(
        "XX000",
        f"pg_bridge failed with {type(error).__name__}",
        hint="This is a defect of pg_bridge: please report it with the statement that led to it.",
    )
