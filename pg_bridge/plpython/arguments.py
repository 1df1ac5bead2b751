"""What SQL functions of the PL/Python host are called with: anybody may call the internal ones, with anything.

In: SQL arguments as PL/Python hands them over. Out: JSON values, and rows of cursors that `llm._open` has opened.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pg_bridge.asking.streamed import Fetch
from pg_bridge.errors import OptionError
from pg_bridge.plpython.spi import QueryRows


def parse_json(text: str | None) -> Any:
    """Parse JSON that PostgreSQL has taken for JSON; NULL is null."""
    try:
        return json.loads(text or "null")
    except ValueError:  # an integer of thousands of digits
        raise OptionError("an option cannot be read as JSON") from None


def parse_each(texts: Sequence[str | None]) -> list[Any]:
    """Parse JSON texts, of which many are equal; None is NULL.

    Raises:
        OptionError: One cannot be read.
    """
    values: dict[str | None, Any] = {None: None}
    for text in texts:
        if text not in values:
            values[text] = parse_json(text)
    return [values[text] for text in texts]


def is_flat(array: Any) -> bool:
    """Whether an SQL array is one, of one dimension or empty; arrays are rectangular, so its first element tells."""
    return isinstance(array, list) and not (array and isinstance(array[0], list))


def require(fits: bool) -> None:
    """Anybody may call the functions that the extension's own functions call, with anything."""
    if not fits:
        raise OptionError(
            "an internal function of pg_bridge was called with arguments that do not fit",
            hint="Call llm.map, llm.complete and their kin instead.",
        )


def rows_of(plpy: Any, cursor: str, columns: list[str]) -> Fetch:
    """What fetches the rows of a cursor that `llm._open` has opened; anybody may name another, or none."""
    require(cursor is not None and is_flat(columns) and None not in columns)
    return QueryRows(plpy, cursor).fetch
