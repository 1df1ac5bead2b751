"""Multicorn's conditions as conditions of ours, which keep at least the rows that satisfy them.

In: quals as Multicorn hands them over. Out: `Qual`s. Multicorn's values are not exact: of a numeric it shows a float,
of a timestamp whole seconds, of -infinity the date that it converted before, of a condition neither the collation nor
whether `IS NULL` or `= NULL` was meant. PostgreSQL applies the exact condition to what comes out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import MAXYEAR, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from pg_bridge.backend import postgres
from pg_bridge.foreign.answers import DATE, FLOAT4, FLOAT8, NUMERIC, TIMES, TIMESTAMP, ColumnType
from pg_bridge.foreign.quals import COMPARISONS, ILIKE, IS_NOT_NULL, IS_NULL, LIKE, NOT_ILIKE, NOT_LIKE, Qual


def times_of(quals: Sequence[Any]) -> list[date]:
    """All dates and timestamps that a scan's quals name."""
    values = [value for qual in quals for value in (qual.value if isinstance(qual.value, list) else [qual.value])]
    return [value for value in values if isinstance(value, date)]


def translate(given: Any, type_: ColumnType, times: Sequence[date] = ()) -> list[Qual]:
    """Turn a qual of Multicorn's into conditions that hold wherever it holds; none where nothing is sure.

    Args:
        given: `field_name`, `operator` (with a flag for ANY or ALL if the value is a list) and `value`.
        type_: The column's type.
        times: All dates and timestamps that the scan's quals name: -infinity comes as the one before it.
    """
    name, operator, value = given.field_name, given.operator, given.value
    if isinstance(operator, tuple):
        return _of_list(name, operator[0], value, type_, "any" if operator[1] else "all", times)
    if operator in ("IS", "IS NOT"):  # IS TRUE and its kin; UNKNOWN comes without telling which of the two was meant
        wanted = {("IS", "t"): "=", ("IS", "f"): "="}.get((operator, value))
        return [Qual(name, wanted, value)] if wanted else []
    if value is None:
        null = {"=": IS_NULL, "<>": IS_NOT_NULL}.get(operator)
        return [Qual(name, null)] if null else []
    return _of_value(name, operator, value, type_, times)


def _of_list(
    name: str, operator: str, value: Any, type_: ColumnType, quantifier: Any, times: Sequence[date]
) -> list[Qual]:
    """`operator ANY` or `operator ALL` of an array; an array that is NULL comes as None."""
    if not isinstance(value, list) or (quantifier == "all" and None in value):
        return []
    rounded = type_.oid in (NUMERIC, FLOAT4, FLOAT8, *TIMES)
    if rounded and (operator, quantifier) != ("=", "any"):
        return []
    parts = [_of_value(name, operator, each, type_, times) for each in value if each is not None]
    if not parts or not all(parts):
        return []
    first = parts[0][0]
    if all(len(part) == 1 and part[0] == replace(first, value=part[0].value) for part in parts):
        return [replace(first, value=tuple(str(part[0].value) for part in parts), quantifier=quantifier)]
    if first.value_type or not rounded:
        return []
    lowest = min((part[0] for part in parts), key=lambda qual: _order(qual, type_))
    highest = max((part[-1] for part in parts), key=lambda qual: _order(qual, type_))
    return [lowest, highest]  # ranges: from the least to the most


def _order(qual: Qual, type_: ColumnType) -> Any:
    return datetime.fromisoformat(str(qual.value)) if type_.oid in (DATE, TIMESTAMP) else Decimal(str(qual.value))


def _of_value(name: str, operator: str, value: Any, type_: ColumnType, times: Sequence[date]) -> list[Qual]:
    if operator not in (*COMPARISONS, LIKE, NOT_LIKE, ILIKE, NOT_ILIKE):
        return []
    if type_.oid in (NUMERIC, FLOAT4, FLOAT8):
        return _of_float(name, operator, str(value), narrow=type_.oid == NUMERIC)
    if type_.oid in TIMES:
        doubtful = isinstance(value, date) and sum(_may_be_left_from(value, time) for time in times) > 1
        if doubtful and operator not in ("<", "<="):  # which keep what -infinity would
            return []
        return _of_time(name, operator, value, type_)
    return [Qual(name, operator, str(value))]


def _may_be_left_from(value: date, other: date) -> bool:
    """Whether Multicorn may show the value because the other is still in the memory that it reads."""
    if not isinstance(value, datetime):
        return (value.year, value.month, value.day) == (other.year, other.month, other.day)
    return value == (other if isinstance(other, datetime) else datetime(other.year, other.month, other.day))


def _of_float(name: str, operator: str, text: str, *, narrow: bool) -> list[Qual]:
    """Between two numbers around one that may have been rounded: as numeric to a double, as a double to a single."""
    try:
        number = Decimal(text)
    except ArithmeticError:
        return []
    if not number.is_finite() or operator == "<>":
        return []
    slack = abs(number) * (Decimal("1e-15") if narrow else Decimal("1e-6")) + Decimal("1e-30")
    low, high = f"{number - slack:e}", f"{number + slack:e}"
    if operator == "=":
        return [Qual(name, ">=", low), Qual(name, "<=", high)]
    return [Qual(name, "<=", high)] if operator in ("<", "<=") else [Qual(name, ">=", low)]


def _of_time(name: str, operator: str, value: Any, type_: ColumnType) -> list[Qual]:
    if isinstance(value, datetime):  # a timestamp without its fraction of a second
        if value.year == MAXYEAR:
            return []
        value_type, low, high = "timestamp", value.isoformat(), (value + timedelta(seconds=1)).isoformat()
    elif isinstance(value, date):
        value_type, low, high = "date", value.isoformat(), value.isoformat()
    elif postgres.setting("DateStyle").startswith("ISO"):
        value_type, low, high = "timestamptz", str(value), str(value)
    else:
        return []
    value_type = "" if value_type == TIMES[type_.oid] else value_type
    if low == high:
        return [Qual(name, operator, low, value_type=value_type)]
    if operator == "=":
        return [Qual(name, ">=", low, value_type=value_type), Qual(name, "<", high, value_type=value_type)]
    if operator in ("<", "<="):
        return [Qual(name, "<", high, value_type=value_type)]
    return [Qual(name, ">=", low, value_type=value_type)] if operator in (">", ">=") else []
