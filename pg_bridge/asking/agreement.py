"""Whether answers agree with the answers that are known, and how sure figures about that are.

In: an answer's text, and a known one as the JSON of its column. Out: yes or no; counts, shares, exact intervals and an
exact test. It asks nothing, and what it compares is the two alone: whoever wants a kinder comparison writes it in SQL.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pg_bridge.options import YES_OR_NO, Kind
from pg_bridge.options.forms import fold

SURE = 0.95
"""How often an interval holds the truth, at least; and what is called better is so by chance with one in twenty."""

_YES, _NO = frozenset({YES_OR_NO[0], "true"}), frozenset({YES_OR_NO[1], "false"})
_UNREADABLE = object()  # agrees with nothing
_STEPS = 50  # each halves what is not known of a bound


@dataclass(frozen=True, slots=True)
class Known:
    """An answer that is known.

    Attributes:
        value: Parsed JSON; numbers are `Decimal`, texts are folded.
        is_yes: Whether it is a yes, where it is a yes or a no.
    """

    value: Any
    is_yes: bool | None

    @classmethod
    def of(cls, cell: str) -> Known:
        """Read the JSON text of a cell.

        >>> [Known.of(cell).is_yes for cell in ("true", '" No "', "1")]
        [True, False, None]
        """
        value = _parse(cell)
        if isinstance(value, str):
            value = fold(value)
        word = "true" if value is True else "false" if value is False else value
        is_word = isinstance(word, str) and word in _YES | _NO
        return cls(value, word in _YES if is_word else None)

    @property
    def kind(self) -> Kind:
        """The form of answers like it, as far as its type says so."""
        return "boolean" if isinstance(self.value, bool) else "number" if isinstance(self.value, Decimal) else "text"

    def agrees(self, answer: str, within: float = 0.0) -> bool:
        """Whether an answer is the same.

        Texts are, but for capitals and spaces; numbers, if they differ by no more than `within`; lists of texts, in any
        order; other JSON, if it has the same value.

        >>> known = Known.of('"Not sure"')
        >>> known.agrees(" not  SURE"), known.agrees("sure"), Known.of("4.50").agrees("4.5"), Known.of("4").agrees("x")
        (True, False, True, False)
        """
        if isinstance(self.value, bool):
            return fold(answer) in (_YES if self.value else _NO)
        if isinstance(self.value, Decimal):
            return _is_near(answer, self.value, within)
        if isinstance(self.value, str):
            return fold(answer) == self.value
        given = _parse(answer, None)
        texts, others = _texts(given), _texts(self.value)
        return given == self.value if texts is None or others is None else texts == others


def says_yes(answer: str) -> bool:
    """Whether an answer is a yes, in one word."""
    return fold(answer) in _YES


def _parse(text: str, otherwise: Any = _UNREADABLE) -> Any:  # noqa: ANN401 - any JSON
    try:
        return json.loads(text, parse_int=Decimal, parse_float=Decimal, strict=False)
    except (ValueError, ArithmeticError, RecursionError):
        return otherwise


def _is_near(answer: str, number: Decimal, within: float) -> bool:
    try:
        return bool(abs(Decimal(answer.strip()) - number) <= Decimal(repr(within)))
    except ArithmeticError:  # it is no number, or one of a thousand digits
        return False


def _texts(value: object) -> frozenset[str] | None:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        return None
    return frozenset(map(fold, value))


@dataclass(slots=True)
class Tally:
    """How many answers agree.

    Attributes:
        rows: Rows that were asked about.
        agree: Those of them whose answer is the one that is known.
        errors: Those without an answer, which count as wrong.
        yes: Rows of which yes is known.
        no: Those of which no is.
        said_yes: Rows of which the answer is yes.
        rightly: Those of them of which yes is known.
    """

    rows: int = 0
    agree: int = 0
    errors: int = 0
    yes: int = 0
    no: int = 0
    said_yes: int = 0
    rightly: int = 0

    def count(self, known: Known, answer: str | None, within: float) -> bool:
        """Count an answer, None where there is none; returns whether it agrees."""
        agrees = answer is not None and known.agrees(answer, within)
        self.rows += 1
        self.agree += agrees
        self.errors += answer is None
        self.yes += known.is_yes is True
        self.no += known.is_yes is False
        if answer is not None and says_yes(answer):
            self.said_yes += 1
            self.rightly += known.is_yes is True
        return agrees

    @property
    def accuracy(self) -> float | None:
        """Of all rows those whose answer agrees."""
        return self.agree / self.rows if self.rows else None

    @property
    def precision(self) -> float | None:
        """Where all that is known is yes or no: of those that were said to be yes those that are."""
        return self.rightly / self.said_yes if self._is_of_two and self.said_yes else None

    @property
    def recall(self) -> float | None:
        """Where all that is known is yes or no: of those that are yes those of which it was said."""
        return self.rightly / self.yes if self._is_of_two and self.yes else None

    @property
    def _is_of_two(self) -> bool:
        return self.yes + self.no == self.rows


def interval(agree: int, rows: int) -> tuple[float | None, float | None]:
    """Between what the share lies of which so many of so many rows are a sample, 19 times in 20 at least.

    The exact interval of Clopper and Pearson, which holds for few rows, too, and is somewhat wide.

    >>> interval(0, 0), [round(bound, 3) for bound in interval(9, 10)]
    ((None, None), [0.555, 0.997])
    """
    if not rows:
        return None, None
    rest = (1 - SURE) / 2
    low = 0.0 if agree == 0 else _solve(lambda share: at_least(agree, rows, share) < rest)
    high = 1.0 if agree == rows else 1 - _solve(lambda share: at_least(rows - agree, rows, share) < rest)
    return low, high


def by_chance(gained: int, lost: int) -> float:
    """How likely at least so many gains are by chance, if each of the rows that differ could as well have been a loss.

    The exact sign test (McNemar's), one-sided.

    >>> round(by_chance(5, 0), 5), by_chance(0, 0)
    (0.03125, 1.0)
    """
    return at_least(gained, gained + lost, 0.5)


def at_least(count: int, rows: int, share: float) -> float:
    """How likely so many of some rows have what each has with a probability between 0 and 1."""
    if count <= 0:
        return 1.0
    taken, ways = np.arange(count, rows + 1), _log_factorials(rows)
    logs = ways[rows] - ways[taken] - ways[rows - taken] + taken * np.log(share) + (rows - taken) * np.log1p(-share)
    return float(min(1.0, np.exp(logs).sum()))


def _log_factorials(most: int) -> NDArray[np.float64]:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, most + 1)))])


def _solve(is_below: Callable[[float], bool]) -> float:
    """The share, from 0 to 1, up to which something holds."""
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return (low + high) / 2


def all_of_kind(known: Iterable[Known]) -> Kind:
    """The form of answers like all of these."""
    kinds = {each.kind for each in known}
    return kinds.pop() if len(kinds) == 1 else "text"
