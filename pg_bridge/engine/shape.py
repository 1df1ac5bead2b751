"""Whether a value that an engine gave is of the shape that a JSON schema says, as far as a column's type needs it.

In: a parsed value, and a schema of a property. Out: whether it fits. Of the schema it looks at types, labels, bounds,
lengths, dates and what arrays hold; of the rest nothing, for the engine is held to the whole of it. It never fails,
whatever the schema is, which is the user's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from typing import Any

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_WIDEST_ZONE = timedelta(hours=16)  # of PostgreSQL's, exclusive

_IS: Mapping[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "null": lambda value: value is None,
}


def is_of(value: object, schema: object) -> bool:
    """Whether a value fits.

    >>> is_of(4, {"type": ["integer", "null"], "maximum": 5}), is_of("4", {"type": ["integer", "null"]})
    (True, False)
    >>> is_of("2026-02-31", {"type": "string", "format": "date"}), is_of("b", {"enum": ["a", None]})
    (False, False)
    """
    if not isinstance(schema, Mapping):
        return True
    labels, types = schema.get("enum"), schema.get("type")
    if isinstance(labels, list) and value not in labels:
        return False
    of = [each for each in (types if isinstance(types, list) else [types]) if isinstance(each, str) and each in _IS]
    if of and not any(_IS[each](value) for each in of):
        return False
    if isinstance(value, str):
        return _is_text_of(value, schema)
    if isinstance(value, list):
        return all(is_of(item, schema.get("items")) for item in value)
    return isinstance(value, bool) or not isinstance(value, int | float) or _is_within(value, schema)


def _is_within(value: float, schema: Mapping[str, Any]) -> bool:
    least, most = schema.get("minimum"), schema.get("maximum")
    return not (isinstance(least, int | float) and value < least) and not (
        isinstance(most, int | float) and value > most
    )


def _is_text_of(value: str, schema: Mapping[str, Any]) -> bool:
    most = schema.get("maxLength")
    if isinstance(most, int) and len(value) > most:
        return False
    try:
        if schema.get("format") == "date":
            return bool(_DATE.fullmatch(value) and date.fromisoformat(value))
        if schema.get("format") == "date-time":
            return abs(datetime.fromisoformat(value).utcoffset() or timedelta()) < _WIDEST_ZONE
    except ValueError:
        return False
    return True
