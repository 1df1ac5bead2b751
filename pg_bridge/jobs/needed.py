"""What a database needs and files do not: psycopg is an extra."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pg_bridge.errors import BrokenInstallation


@contextmanager
def psycopg_needed(besides: str = "") -> Iterator[None]:
    """Import in it what needs psycopg.

    Args:
        besides: Goes behind the hint.

    Raises:
        BrokenInstallation: It cannot be imported.
    """
    try:
        yield
    except ImportError as error:
        raise BrokenInstallation(
            "psycopg 3.2 or later is needed to reach a database, and cannot be imported",
            detail=str(error),
            hint=f"Install it where this command is: pip install 'pg-bridge[jobs]'.{besides}",
        ) from error
