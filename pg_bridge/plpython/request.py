"""What the native module says of a scan, in JSON: its conditions, with exact values or expressions, and its sort keys.

In: a request as `native/foreign_calls.c` and `native/foreign_quals.c` write it. Out: `Qual` and `SortKey`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pg_bridge.foreign.answers import INTEGERS, TIMES
from pg_bridge.foreign.definition import Column, Definition
from pg_bridge.foreign.quals import Qual
from pg_bridge.foreign.source import SortKey


def is_known(given: Mapping[str, Any]) -> bool:
    """Whether a qual has its value, or needs none."""
    return "value" in given or "type" not in given


def qual_of(given: Mapping[str, Any], definition: Definition) -> Qual:
    """A qual; one whose value is not known yet has an empty one."""
    column = next(column for column in definition.columns if column.name == given["column"])
    values = given.get("value", [""])
    return Qual(
        column.name,
        given["operator"],
        tuple(values) if given["quantifier"] else values[0] if "type" in given else "",
        given["quantifier"],
        _value_type(column, given) if "type" in given else "",
        given.get("collation", ""),
    )


def _value_type(column: Column, given: Mapping[str, Any]) -> str:
    """The type to read the value as; for answers empty where it is as good as the column's own."""
    if not column.options:
        return str(given["type_name"])
    alike = given["type"] == column.type.oid or {given["type"], column.type.oid} <= INTEGERS.keys()
    return "" if alike else TIMES.get(given["type"], str(given["type_name"]))


@dataclass(frozen=True, slots=True)
class Shown(Qual):
    """A qual whose value is not known yet: it is an expression, as PostgreSQL prints it."""

    def __str__(self) -> str:
        operator = str(Qual(self.column, self.operator)).removeprefix(f"{self.column} ").removesuffix(" ''")
        value = f"{self.quantifier.upper()} ({self.value})" if self.quantifier else self.value
        return f"{self.column} {operator} {value}"


def sort_of(given: Iterable[Mapping[str, Any]]) -> tuple[SortKey, ...]:
    """The sort keys."""
    return tuple(SortKey(key["column"], key["descending"], key["nulls_first"]) for key in given)
