"""Rows whose answers are known: read, sampled, and split into those to learn from and those to judge by.

In: rows as JSON texts, which column holds the known answer, a seed. Out: rows without that column, and beside each its
known answer: what is asked about them is made of the former, so it cannot hold the latter. Which rows are taken follows
from the seed and from what stands in them, not from the order of the query: so answers are found again in the ledger.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from heapq import nsmallest

from pg_bridge.asking.agreement import Known
from pg_bridge.asking.prompt import Question, columns_hint, resolve_columns
from pg_bridge.errors import OptionError, UnknownColumn
from pg_bridge.rows.cutting import NULL, cut, object_of


@dataclass(frozen=True, slots=True)
class Labelled:
    """A row whose answer is known.

    Attributes:
        row: Its columns but that one, as JSON.
        answer: The known answer, as JSON.
    """

    row: str
    answer: str

    @property
    def known(self) -> Known:
        """The same, to compare answers with."""
        return Known.of(self.answer)


def columns_without(columns: Sequence[str | None], truth: object) -> tuple[str, ...]:
    """The columns that may be sent: all but that of the known answers.

    Raises:
        UnknownColumn: There is none of its name.
        OptionError: Nobody has named it, or there is no other column.
    """
    names = [name for name in columns if name is not None]
    if not isinstance(truth, str):
        raise OptionError(
            "truth is NULL" if truth is None else "truth is no text",
            hint="It is the name of the column that holds the known answers, which is not sent.",
        )
    if truth not in names:
        raise UnknownColumn(f'column "{truth}" does not exist in the rows', hint=columns_hint(truth, names))
    others = tuple(name for name in names if name != truth)
    if not others:
        raise OptionError(
            "the rows have no column but the one with the known answers", hint="Select what is asked about, too."
        )
    return others


def columns_sent(question: Question, columns: Sequence[str], truth: str) -> tuple[str, ...]:
    """The columns that a question needs of those that may be sent.

    Raises:
        UnknownColumn: It names another, that of the known answers for one.
    """
    if truth in question.columns:
        raise UnknownColumn(
            f'column "{truth}" holds the known answers, which are not sent', hint="Leave it out of the prompt."
        )
    return resolve_columns(question, columns)


class Reading:
    """Gathers rows whose answers are known.

    Args:
        columns: Those to keep of a row; not `truth`.
        truth: The column of the known answers; a row where it is NULL is left out.
    """

    def __init__(self, columns: Sequence[str], truth: str) -> None:
        self._columns = (*columns, truth)
        self._rows: list[Labelled] = []

    def add(self, rows: Sequence[str | None]) -> None:
        """Add rows, each the text of a JSON object."""
        for columns, cells in cut(rows, lambda _: self._columns):
            if cells[-1] != NULL:
                row = object_of(zip(columns[:-1], cells[:-1], strict=True))
                self._rows.append(Labelled(row, cells[-1]))

    def sample(self, most: int | None, seed: int) -> list[Labelled]:
        """So many of the rows, or all of them; equal ones are several."""
        if most is None or most >= len(self._rows):
            return self._rows
        met: Counter[str] = Counter()
        places: list[tuple[bytes, int]] = []
        for row in self._rows:
            places.append((_place(row.row, seed, met[row.row]), len(places)))
            met[row.row] += 1
        return [self._rows[number] for _, number in nsmallest(most, places)]

    def distinct(self, most: int | None, seed: int) -> list[Labelled]:
        """So many of the different rows, in an order of chance; each with the answer that most of its like have."""
        answers: dict[str, Counter[str]] = {}
        for row in self._rows:
            answers.setdefault(row.row, Counter())[row.answer] += 1
        chosen = nsmallest(len(answers) if most is None else most, answers, key=lambda row: _place(row, seed, 0))
        return [Labelled(row, min(answers[row], key=lambda answer: (-answers[row][answer], answer))) for row in chosen]


def _place(row: str, seed: int, occurrence: int) -> bytes:
    return blake2b(f"{seed} {occurrence} {row}".encode(errors="surrogatepass"), digest_size=16).digest()


def spread(rows: Sequence[Labelled], count: int) -> list[int]:
    """The numbers of some rows, of as many different answers as there are.

    >>> rows = [Labelled("1", '"a"'), Labelled("2", '"a"'), Labelled("3", '"b"')]
    >>> spread(rows, 2), spread(rows, 9)
    ([0, 2], [0, 1, 2])
    """
    met: Counter[str] = Counter()
    turns = []
    for number, row in enumerate(rows):
        turns.append((met[row.answer], number))
        met[row.answer] += 1
    return sorted(number for _, number in nsmallest(count, turns))
