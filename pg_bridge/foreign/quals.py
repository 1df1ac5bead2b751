"""Conditions on columns: the part that the source can apply, and what can be told of a model's answers.

In: a `Qual` as PostgreSQL hands it over, and the type of its column. Out: a piece of SQL that keeps at least the rows
which satisfy it, or nothing where no SQL is sure to; for a model column, whether an answer surely fails it.

PostgreSQL applies every qual again to the rows that come out, so it is enough never to lose a row. What a collation
could change is therefore left to PostgreSQL unless the collation is known: the order of texts always, and equal texts
where the database has a collation in which texts are equal that differ in their bytes.
"""

from __future__ import annotations

import math
import operator as op
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal

from pg_bridge.foreign.answers import (
    BOOL,
    BPCHAR,
    DATE,
    FLOAT4,
    FLOAT8,
    INTEGERS,
    JSON,
    JSONB,
    NUMERIC,
    TEXT,
    TEXT_ARRAY,
    TEXTS,
    TIMES,
    TIMESTAMP,
    TIMESTAMPTZ,
    UUID,
    VARCHAR,
    ColumnType,
    array_literal,
)

COMPARISONS = ("=", "<>", "<", "<=", ">", ">=")
IS_NULL, IS_NOT_NULL = "IS NULL", "IS NOT NULL"
LIKE, NOT_LIKE, ILIKE, NOT_ILIKE = "~~", "!~~", "~~*", "!~~*"

_CASTS = {
    **dict.fromkeys(INTEGERS, "bigint"),
    NUMERIC: "numeric",
    FLOAT4: "double precision",
    FLOAT8: "double precision",
    BOOL: "boolean",
    TEXT: "text",
    VARCHAR: "text",
    BPCHAR: "bpchar",
    UUID: "uuid",
    **TIMES,
}
_PATTERN_PARTS = re.compile(r"\\?.", re.DOTALL)
_ALIKE_EVERYWHERE = re.compile(r"(?![iIkKsS])[\x00-\x7f]")

Value = str | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Qual:
    """A condition on one column; all of a scan's quals must hold.

    Attributes:
        column: The column's name.
        operator: One of PostgreSQL's operators, `IS NULL` or `IS NOT NULL`.
        value: What it is compared with, as PostgreSQL prints it; the elements of an array without its NULLs, if there
            is a quantifier; empty for `IS NULL` and `IS NOT NULL`.
        quantifier: `any` or `all` for an array, else empty.
        value_type: The value's type, where it is not the column's; `date`, `timestamp` or `timestamptz` for a column of
            one of these.
        collation: The SQL name of the collation that it is decided by; empty where that is not known.
    """

    column: str
    operator: str
    value: Value = ""
    quantifier: Literal["", "any", "all"] = ""
    value_type: str = ""
    collation: str = ""

    @property
    def values(self) -> tuple[str, ...]:
        """All values that it names."""
        return self.value if isinstance(self.value, tuple) else (self.value,)

    def __str__(self) -> str:
        """As a person would write it, for EXPLAIN."""
        operator = {LIKE: "LIKE", NOT_LIKE: "NOT LIKE", ILIKE: "ILIKE", NOT_ILIKE: "NOT ILIKE"}.get(
            self.operator, self.operator
        )
        if self.operator in (IS_NULL, IS_NOT_NULL):
            return f"{self.column} {operator}"
        quantified = f"{self.quantifier.upper()} " if self.quantifier else ""
        listed = ", ".join(f"'{value}'" for value in self.values)
        return f"{self.column} {operator} {quantified}" + (f"({listed})" if self.quantifier else listed)


def source_condition(
    qual: Qual, type_: ColumnType, expression: str, parameter: Callable[[str], str], *, is_enum: bool, bytewise: bool
) -> str | None:
    """Write what the source can apply of a qual.

    Args:
        qual: The qual.
        type_: Its column's type.
        expression: The column in the source's SQL, of that type.
        parameter: Makes a parameter of a text and returns its place in the SQL.
        is_enum: Whether the type is an enum.
        bytewise: Whether equal texts are equal bytes in all collations of the database.

    Returns:
        SQL that holds for every row for which the qual holds; None where that is not sure of any.
    """
    if qual.operator in (IS_NULL, IS_NOT_NULL):
        return f"{expression} {qual.operator}"
    if type_.oid in TEXTS:
        if not _is_sure_of_texts(qual, bytewise=bytewise):
            return None
        cast = "bpchar" if type_.oid == BPCHAR and qual.operator in COMPARISONS else "text"
    elif qual.operator not in COMPARISONS or not (is_enum or type_.oid in _CASTS):
        return None
    else:
        cast = type_.name if is_enum else _CASTS[type_.oid]
        cast = qual.value_type or cast
    values = qual.values
    if qual.operator == ILIKE and not qual.collation:
        values = tuple(map(_folded_alike, values))
    operator = f"OPERATOR(pg_catalog.{qual.operator})"  # whatever else is called so
    collate = f" COLLATE {qual.collation}" if qual.collation and type_.oid in TEXTS else ""
    if qual.quantifier:
        return (
            f"{expression}{collate} {operator} {qual.quantifier.upper()} ({parameter(array_literal(values))}::{cast}[])"
        )
    return f"{expression}{collate} {operator} {parameter(values[0])}::{cast}"


def _is_sure_of_texts(qual: Qual, *, bytewise: bool) -> bool:
    """Whether the source decides a qual on texts as PostgreSQL will."""
    if qual.collation:
        return qual.operator in (*COMPARISONS, LIKE, NOT_LIKE, ILIKE, NOT_ILIKE)
    return bytewise and qual.operator in ("=", "<>", LIKE, NOT_LIKE, ILIKE)


def _folded_alike(pattern: str) -> str:
    """A pattern of ILIKE that matches, in every collation, whatever the given one matches in some.

    Collations fold these differently: letters beyond ASCII, and those of ASCII that one of these folds to.
    """
    return _PATTERN_PARTS.sub(lambda part: part[0] if _ALIKE_EVERYWHERE.match(part[0][-1]) else "%", pattern)


def surely_fails(qual: Qual, type_: ColumnType, answer: str | None, *, bytewise: bool) -> bool:
    """Whether a model's answer cannot satisfy a qual, whatever PostgreSQL makes of it.

    Args:
        qual: A qual on a model column.
        type_: The column's type.
        answer: The text of the column's value; None for NULL.
        bytewise: As for `source_condition`.
    """
    if qual.operator == IS_NULL:
        return answer is not None
    if answer is None:
        return True
    if qual.operator == IS_NOT_NULL:
        return False
    try:
        holds = [_holds(qual, type_, answer, value, bytewise=bytewise) for value in qual.values]
    except (ValueError, ArithmeticError):
        return False
    return not (any(holds) if qual.quantifier != "all" else all(holds))


def _holds(qual: Qual, type_: ColumnType, answer: str, value: str, *, bytewise: bool) -> bool:
    """Whether it may hold for one value."""
    parse = _PARSERS.get(type_.oid)
    if qual.operator not in COMPARISONS or qual.value_type not in ("", TIMES.get(type_.oid)):
        return True
    if parse is None:  # a text, or an enum, whose order is not known here
        alike = answer.rstrip(" ") == value.rstrip(" ") if type_.oid == BPCHAR else answer == value
        return not bytewise or qual.operator not in ("=", "<>") or alike == (qual.operator == "=")
    return _compare(qual.operator, parse(answer), parse(value))


_PARSERS: dict[int, Callable[[str], Any]] = {
    **dict.fromkeys((*INTEGERS, NUMERIC), Decimal),
    BOOL: lambda text: text[0] == "t",
    FLOAT8: lambda text: None if math.isnan(float(text)) else float(text),
    DATE: date.fromisoformat,
    TIMESTAMP: datetime.fromisoformat,
    **dict.fromkeys((FLOAT4, TIMESTAMPTZ, JSON, JSONB, TEXT_ARRAY), lambda _: None),  # left to PostgreSQL
}


def _compare(operator: str, left: Any, right: Any) -> bool:  # noqa: ANN401 - two values of one type that has an order
    if left is None or right is None:
        return True
    return bool(_OPERATORS[operator](left, right))


_OPERATORS = {"=": op.eq, "<>": op.ne, "<": op.lt, "<=": op.le, ">": op.gt, ">=": op.ge}
