"""Errors as data, which SQL raises: an exception that leaves PL/Python or Multicorn loses its message or its SQLSTATE.

In: any Python error. Out: SQLSTATE, message, detail and hint. What is not pg_bridge's own is named, never quoted.
"""

from __future__ import annotations

import json
import platform
from importlib import import_module
from pathlib import Path

from pg_bridge import __version__
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
    return f"pg_bridge {__version__} from {Path(__file__).parents[2]}, Python {platform.python_version()}"


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


def fault(sqlstate: str, message: str, detail: str | None, hint: str | None) -> str:
    """An error as data for the SQL function `llm._raise`, which raises it."""
    return json.dumps({"sqlstate": sqlstate, "message": message, "detail": detail, "hint": hint})


def fault_of(error: Exception) -> str:
    """Any Python error as data for `llm._raise`; an unforeseen one is named but not quoted, for it may hold data."""
    if isinstance(error, PgBridgeError):
        return fault(error.sqlstate, error.message, error.detail, error.hint)
    if isinstance(error, RecursionError):
        return fault("54001", "a JSON value is nested too deeply", None, "It may have some hundred levels.")
    if isinstance(error, MemoryError):
        return fault("53200", "out of memory", None, "Fewer rows in a window (window_rows) take less.")
    if isinstance(error, ImportError):
        broken = broken_import(error)
        return fault(broken.sqlstate, broken.message, broken.detail, broken.hint)
    return fault(
        "XX000",
        f"pg_bridge failed with {type(error).__name__}",
        None,
        "This is a defect of pg_bridge: please report it with the statement that led to it.",
    )
