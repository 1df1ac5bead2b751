"""What is pushed to a source, or judged of an answer, never loses a row that satisfies the condition."""

from __future__ import annotations

import operator as op
import re
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from pg_bridge.foreign.answers import BOOL, DATE, FLOAT8, INT4, NUMERIC, TEXT, TIMESTAMP, ColumnType
from pg_bridge.foreign.quals import ILIKE, Qual, source_condition, surely_fails
from pg_bridge.multicorn.quals import times_of, translate

OPERATORS = {"=": op.eq, "<>": op.ne, "<": op.lt, "<=": op.le, ">": op.gt, ">=": op.ge}
comparison = st.sampled_from(list(OPERATORS))
decimals = st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30)
near = st.decimals(min_value=-1, max_value=1, places=25)


def column(oid: int) -> ColumnType:
    return ColumnType(oid, -1, "t")


def given_qual(operator: Any, value: Any) -> SimpleNamespace:
    return SimpleNamespace(field_name="c", operator=operator, value=value)


def holds(quals: list[Qual], value: Any, parse: Any) -> bool:
    """Whether a value satisfies translated quals, in Python's own arithmetic."""
    for qual in quals:
        compared = [OPERATORS[qual.operator](value, parse(each)) for each in qual.values]
        if not (all(compared) if qual.quantifier == "all" else any(compared)):
            return False
    return True


@given(comparison, decimals, near)
def test_numeric_that_came_as_a_float(operator: str, exact: Decimal, offset: Decimal) -> None:
    quals = translate(given_qual(operator, float(exact)), column(NUMERIC))
    for value in (exact, exact + offset, exact * (1 + offset / 10**14)):
        if OPERATORS[operator](value, exact):
            assert holds(quals, value, Decimal)


@given(st.lists(decimals, min_size=1, max_size=4), st.integers(0, 3))
def test_a_list_of_numerics(listed: list[Decimal], i: int) -> None:
    quals = translate(given_qual(("=", True), [float(each) for each in listed]), column(NUMERIC))
    assert holds(quals, listed[i % len(listed)], Decimal)


moments = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59))


@given(comparison, moments, st.timedeltas(timedelta(seconds=-2), timedelta(seconds=2)))
def test_timestamp_that_came_without_its_fraction(operator: str, exact: datetime, offset: timedelta) -> None:
    assume(datetime(1, 1, 1, 0, 0, 2) < exact < datetime(9998, 12, 31))
    quals = translate(given_qual(operator, exact.replace(microsecond=0)), column(TIMESTAMP))
    for value in (exact, exact + offset):
        if OPERATORS[operator](value, exact):
            assert holds(quals, value, datetime.fromisoformat)


@given(comparison, st.dates(), st.dates(), st.sampled_from([DATE, TIMESTAMP]))
def test_minus_infinity_that_came_as_another_date(operator: str, real: date, later: date, oid: int) -> None:
    """`c < real AND c <operator> -infinity`: the second shows the date that the first left in memory."""
    times = [datetime(real.year, real.month, real.day) if oid == TIMESTAMP else real] * 2
    quals = [given_qual("<", times[0]), given_qual(operator, times[1])]
    assert times_of(quals) == times
    pushed = translate(quals[1], column(oid), times)
    if operator in (">", ">=", "<>", "="):
        assert pushed == []  # nothing is sure


DOTTED, DOTLESS = "\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}", "\N{LATIN SMALL LETTER DOTLESS I}"
letters = f"abKkiIsSäÄ%_\\ {DOTTED}{DOTLESS}\N{KELVIN SIGN}\N{LATIN SMALL LETTER LONG S}"
texts = st.text(st.sampled_from(letters), max_size=6)


def like(pattern: str, text: str) -> bool:
    """LIKE, as PostgreSQL has it with the escape `\\`."""
    parts = re.findall(r"\\.|.", pattern)
    made = "".join(".*" if part == "%" else "." if part == "_" else re.escape(part[-1]) for part in parts)
    return re.fullmatch(made, text, re.DOTALL) is not None


FOLDS: list[Callable[[str], str]] = [
    lambda text: text.lower(),
    lambda text: "".join(c.lower() if c.isascii() else c for c in text),  # the collation C
    lambda text: text.replace("I", DOTLESS).replace(DOTTED, "i").lower(),  # Turkish
]


@given(texts, texts, st.integers(0, 2))
def test_ilike_in_whatever_collation(pattern: str, text: str, fold: int) -> None:
    assume(not re.search(r"(?<!\\)(\\\\)*\\$", pattern))  # it must not end with an escape
    folded = FOLDS[fold]
    parameters: list[str] = []

    def parameter(value: str) -> str:
        parameters.append(value)
        return "$1"

    made = source_condition(Qual("c", ILIKE, pattern), column(TEXT), "c", parameter, is_enum=False, bytewise=True)
    assert made == "c OPERATOR(pg_catalog.~~*) $1::text"
    if like(folded(pattern), folded(text)):
        for other in FOLDS:
            assert like(other(parameters[0]), other(text))


@given(comparison, st.integers(-3, 3), st.integers(-3, 3), st.sampled_from([INT4, NUMERIC, FLOAT8]))
def test_numbers_are_judged_exactly(operator: str, answer: int, value: int, oid: int) -> None:
    fails = surely_fails(Qual("c", operator, str(value)), column(oid), str(answer), bytewise=True)
    assert fails == (not OPERATORS[operator](answer, value))


@given(comparison, texts, texts, st.booleans())
def test_texts_are_judged_only_where_no_collation_counts(
    operator: str, answer: str, value: str, bytewise: bool
) -> None:
    fails = surely_fails(Qual("c", operator, value), column(TEXT), answer, bytewise=bytewise)
    if operator in ("=", "<>") and bytewise:
        assert fails == (not OPERATORS[operator](answer, value))
    else:
        assert not fails


def test_null_satisfies_only_is_null() -> None:
    assert surely_fails(Qual("c", "=", "t"), column(BOOL), None, bytewise=True)
    assert surely_fails(Qual("c", "IS NOT NULL"), column(BOOL), None, bytewise=True)
    assert not surely_fails(Qual("c", "IS NULL"), column(BOOL), None, bytewise=True)
    assert surely_fails(Qual("c", "IS NULL"), column(BOOL), "t", bytewise=True)


def test_an_array_with_null() -> None:
    assert translate(given_qual(("<>", False), ["a", None]), column(TEXT)) == []
    assert translate(given_qual(("=", True), ["a", None]), column(TEXT)) == [Qual("c", "=", ("a",), "any")]
    assert translate(given_qual(("=", True), None), column(TEXT)) == []
