"""The ways to ask about all rows of a table: in which order rows and columns are sent, and what else differs.

In: a table. Out: an ordering. All but the first and the last go straight to the engine, with prompts of the same form
and the same client; `pg_bridge` goes through SQL, with all that this costs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.ggr import ggr
from pg_bridge.analysis.bound import most_shared_by_neighbours, most_shared_chars
from pg_bridge.asking.prompt import Question, render
from pg_bridge.ordering import Ordering, order_by, plan, weigh
from pg_bridge.ordering.cells import Cells
from pg_bridge.rows.table import Table


@dataclass(frozen=True, slots=True)
class Way:
    """A way to ask.

    Attributes:
        name: As printed.
        order: From a table to its ordering; None where SQL is asked.
        cached: Whether the engine's prefix cache is on.
        one_by_one: Whether each request waits for the one before.
        once: Whether one measurement will do, because nothing else comes near.
    """

    name: str
    order: Callable[[Table], Ordering] | None
    cached: bool = True
    one_by_one: bool = False
    once: bool = False


def _original(table: Table) -> Ordering:
    return order_by("original", table)


def _buckets(table: Table) -> Ordering:
    """Prompts sorted as texts, columns as they are: neighbours share prefixes, and nothing else is done about them."""
    original = order_by("original", table)
    texts = list(render(Question("", ()), table, original))
    rows = np.array(sorted(range(table.rows), key=texts.__getitem__), np.intp)
    return weigh("buckets", table, rows, original.column_order)


def _ggr(table: Table) -> Ordering:
    return weigh("GGR", table, *ggr(table))


ORIGINAL = "all at once, original order"
GGR = "GGR"
OURS = "pg_bridge"

WAYS = (
    Way("one by one", None, one_by_one=True),
    Way("all at once, no cache", _original, cached=False, once=True),
    Way(ORIGINAL, _original),
    Way("rows sorted", lambda table: order_by("rows only", table)),
    Way("prefix buckets", _buckets),
    Way("v1 fixed order", lambda table: order_by("v1", table)),
    Way(GGR, _ggr),
    Way(OURS, None),
)

UNSHUFFLED = (ORIGINAL, GGR, OURS)
"""The ways that rows in the order of their source are asked in: those that sort rows do the same to them."""


def room(table: Table) -> str:
    """How much of the rows two of the ways share, and how much no ordering does: what is left to be won."""
    own, theirs = plan(table), _ggr(table)
    cells = Cells(table)
    most = min(most_shared_chars(cells), most_shared_by_neighbours(cells)) / own.total_chars
    return (
        f"of the rows' characters {OURS} shares {own.hit_rate:.1%}, GGR {theirs.hit_rate:.1%}, "
        f"no ordering more than {most:.1%}"
    )
