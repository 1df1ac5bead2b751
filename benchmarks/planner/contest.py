"""Every strategy on one table, and what is sent: how much of its prompts a prefix cache holds.

In: a table's name, its strategies' orderings and the prompts that statements sent. Out: a `Quality`. Rows are
deduplicated first, the same for all.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.planner.fresh import OURS, Arrays, load_ordering
from benchmarks.planner.prefixes import BOUNDED_CACHE, Rates, rates
from benchmarks.planner.prompts import Prompts
from benchmarks.planner.results import Quality
from benchmarks.planner.sent import load_prompts
from benchmarks.planner.stand_in import stand_in
from benchmarks.planner.tables import load
from pg_bridge.analysis.bound import most_shared_by_groups, most_shared_by_neighbours, most_shared_chars
from pg_bridge.ordering import weigh
from pg_bridge.ordering.cells import Cells
from pg_bridge.rows.dedup import dedup

_MOST_CELLS = 20_000_000  # looked at for the bound by groups of rows


@dataclass(frozen=True, slots=True)
class Entry:
    """What to measure on one table.

    Attributes:
        table: Its name.
        rows: How many rows at most; None for all.
        seed: Of the table.
        orderings: By strategy, the file of its ordering.
        sent: By way in, the file of the prompts that came to the engine.
    """

    table: str
    rows: int | None
    seed: int
    orderings: dict[str, str]
    sent: dict[str, str]


def contest(entry: Entry) -> Quality:
    """Measure every strategy on one table."""
    made = load(entry.table, entry.rows, entry.seed)
    with_equals = made.table()
    table = dedup(with_equals).table
    prompts = Prompts(made, table)
    tokens = sum(map(len, prompts.tokens(*prompts.as_they_came)))
    orderings = {name: load_ordering(Path(path)) for name, path in entry.orderings.items()}
    return Quality(
        table=entry.table,
        rows=with_equals.rows,
        unique_rows=table.rows,
        columns=len(table.columns),
        tokens=tokens,
        instruction=prompts.head_tokens() * table.rows / tokens,
        bound=_bound(prompts),
        rates=_rates(prompts, orderings, int(BOUNDED_CACHE * tokens)),
        stand_in=stand_in(prompts),
        sent=_sent(prompts, entry.sent, int(BOUNDED_CACHE * tokens)),
    )


def _rates(prompts: Prompts, orderings: dict[str, Arrays], cache_tokens: int) -> dict[str, Rates]:
    """By strategy; orderings that are equal are measured once."""
    measured: dict[str, Rates] = {}
    for name, ordering in orderings.items():
        equal = [other for other in measured if _equal(orderings[other], ordering)]
        measured[name] = (
            measured[equal[0]] if equal else rates(prompts.texts(*ordering), prompts.tokens(*ordering), cache_tokens)
        )
    return measured


def _sent(prompts: Prompts, files: dict[str, str], cache_tokens: int) -> dict[str, Rates]:
    """By way in. However its cells are ordered, a row has as many characters."""
    chars = sum(map(len, prompts.texts(*prompts.as_they_came)))
    measured: dict[str, Rates] = {}
    for way, file in files.items():
        texts = load_prompts(file)
        if (len(texts), sum(map(len, texts))) != (prompts.table.rows, chars):
            raise RuntimeError(
                f"{way} sent {len(texts)} prompts that are not those of the table's {prompts.table.rows}"
            )
        measured[way] = rates(texts, prompts.tokens_of(texts), cache_tokens)
    return measured


def _equal(one: Arrays, other: Arrays) -> bool:
    return np.array_equal(one[0], other[0]) and np.array_equal(one[1], other[1])


def _bound(prompts: Prompts) -> float:
    """No ordering shares more of the prompts' characters: the tightest bound that can be had."""
    came = weigh(OURS, prompts.table, *prompts.as_they_came)
    cells = Cells(prompts.table)
    by_groups = most_shared_by_groups(cells, _MOST_CELLS)
    most = min(most_shared_chars(cells), most_shared_by_neighbours(cells) if by_groups is None else by_groups)
    rows, head = prompts.table.rows, prompts.head_chars
    return (most + head * (rows - 1)) / (came.total_chars + head * rows)
