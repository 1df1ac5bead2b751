"""The paper's query types on its seven tables: which questions are asked about which rows.

In: a scale. Out: workloads. The wording is ours; the types are the paper's: a filter, a projection, both in one query,
an average of scores, and questions over retrieved passages. Each is asked of its tables in the paper: sixteen queries.

The model has random weights, so its yes or no says nothing: where a second question is asked about the rows that passed
a first, they are a seeded half of the rows, the same in every way.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from benchmarks.paper_tables import PAPER_TABLES, PaperTable, make
from pg_bridge.options import YES_OR_NO, Call

Kind = Literal["filter", "projection", "filter and projection", "aggregation", "retrieval"]

_PROJECTION = {
    "movies": "In a few words, what does the review say of the film?",
    "products": "In a few words, what does the customer like or dislike about the product?",
    "bird": "In a few words, what is the comment about?",
    "pdmx": "In a few words, what kind of music is this score?",
    "beer": "In a few words, how does the taster find the beer?",
}
_SCORE = {
    "movies": "From 1 to 5, how well does the review speak of the film?",
    "products": "From 1 to 5, how content is the customer?",
}
RETRIEVAL = ("fever", "squad")
_LISTED_BY = {
    "movies": "rottentomatoeslink",
    "products": "parent_asin",
    "bird": "PostId",
    "pdmx": "path",
    "beer": "beer/beerId",
    "fever": "evidence1",
    "squad": "context1",
}
"""The column by which each table's rows come out of their source, if nobody shuffles them."""

_FILTERED = Call(max_tokens=4, kind="boolean", choices=YES_OR_NO)
_PROJECTED = Call(max_tokens=16)
_SCORED = Call(max_tokens=4, kind="label", choices=("1", "2", "3", "4", "5"))


@dataclass(frozen=True, slots=True)
class Asked:
    """One question of a workload.

    Attributes:
        question: Without braces, so that all columns are sent.
        call: How it is answered.
        halved: Whether it is asked about half of the rows only.
    """

    question: str
    call: Call
    halved: bool = False


@dataclass(frozen=True, slots=True)
class Workload:
    """A query of the paper's.

    Attributes:
        table: The rows.
        kind: The query's type.
        asked: Its questions, one after the other.
        half: The numbers of the rows that passed the first.
        shuffled: Whether rows stand in random order, as in the paper; else as they come out of their source.
    """

    table: PaperTable
    kind: Kind
    asked: tuple[Asked, ...]
    half: frozenset[int]
    shuffled: bool = True

    @property
    def rows(self) -> int:
        """How many rows the table has."""
        return len(self.table.cells[0])

    @property
    def name(self) -> str:
        """Table, type and order of rows."""
        return f"{self.table.name}, {self.kind}" + ("" if self.shuffled else ", unshuffled")


def workloads(tokens: int, seed: int, tables: tuple[str, ...], kinds: tuple[Kind, ...]) -> Iterator[Workload]:
    """Make the workloads; one type of each table also unshuffled.

    Args:
        tokens: Of the prompts of each table's rows together, by the paper's average: so that no table's jobs are much
            longer than another's.
        seed: Of the tables and of the halves.
        tables: Names of the tables to take.
        kinds: Types to take.
    """
    for name in PAPER_TABLES:
        if name not in tables:
            continue
        rows = max(2, min(PAPER_TABLES[name].rows, tokens // PAPER_TABLES[name].tokens))
        table = make(name, rows, seed)
        half = frozenset(random.Random(seed).sample(range(rows), rows // 2))
        for kind, asked in _types(name, table.question):
            if kind in kinds:
                yield Workload(table, kind, asked, half)
                if kind in {"filter", "retrieval"}:
                    yield Workload(_listed(table), kind, asked, half, shuffled=False)


def _listed(table: PaperTable) -> PaperTable:
    """The rows about one thing together, as data sets have them."""
    by = table.cells[table.columns.index(_LISTED_BY[table.name])]
    rows = sorted(range(len(by)), key=by.__getitem__)
    return replace(table, cells=tuple([cells[row] for row in rows] for cells in table.cells))


def _types(name: str, question: str) -> Iterator[tuple[Kind, tuple[Asked, ...]]]:
    if name in RETRIEVAL:
        yield "retrieval", (Asked(question, _PROJECTED),)
        return
    filtered, projected = Asked(question, _FILTERED), Asked(_PROJECTION[name], _PROJECTED)
    yield "filter", (filtered,)
    yield "projection", (projected,)
    if name in _SCORE:
        yield "filter and projection", (filtered, Asked(projected.question, projected.call, halved=True))
        yield "aggregation", (Asked(_SCORE[name], _SCORED),)
