"""Whether a value is of the shape that a schema says: as far as a column's type needs it, and never an exception."""

from __future__ import annotations

import pytest

from pg_bridge.engine.shape import is_of

NULLABLE = {
    "integer": {"type": ["integer", "null"], "minimum": -3, "maximum": 3},
    "text": {"type": ["string", "null"], "maxLength": 2},
    "date": {"type": ["string", "null"], "format": "date"},
    "moment": {"type": ["string", "null"], "format": "date-time"},
    "array": {"type": ["array", "null"], "items": {"type": ["integer", "null"]}},
    "label": {"enum": ["a", None]},
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("integer", 3), ("integer", None), ("text", "ab"), ("date", "2028-02-29"), ("moment", "2026-11-28T10:00:00Z"),
        ("moment", "2026-11-28T10:00:00+05:30"), ("array", [1, None]), ("array", []), ("label", "a"), ("label", None),
    ],
)  # fmt: skip
def test_a_value_of_the_shape_fits(name: str, value: object) -> None:
    assert is_of(value, NULLABLE[name])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("integer", 4), ("integer", -4), ("integer", True), ("integer", 1.0), ("integer", "1"), ("text", "abc"),
        ("text", 1), ("date", "2027-02-29"), ("date", "20261128"), ("date", "2026-W01-1"), ("date", "२०२६-११-२८"),
        ("moment", "2026-11-28T10:00:00+23:00"), ("moment", "now"), ("array", [1, "2"]), ("array", 1), ("array", [[1]]),
        ("label", "b"), ("label", ["a"]), ("label", {}),
    ],
)  # fmt: skip
def test_any_other_does_not(name: str, value: object) -> None:
    assert not is_of(value, NULLABLE[name])


@pytest.mark.parametrize(
    "schema",
    [
        None, 7, [], {}, {"type": 7}, {"type": []}, {"type": [{}]}, {"type": "nothing"}, {"enum": 7}, {"items": 7},
        {"minimum": "x", "maximum": None, "maxLength": "2"}, {"format": 7}, {"$ref": "#/x"},
    ],
)  # fmt: skip
def test_what_says_nothing_takes_anything(schema: object) -> None:
    for value in (None, True, 1, 1.5, "x", [1, "x"], {"a": 1}):
        assert is_of(value, schema)
