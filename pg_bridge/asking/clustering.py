"""Rows that belong together: clusters of their embeddings, each with a name that the model gives it.

In: rows, a criterion, embeddings, a statement's memory and what asks. Out: of each row its cluster, the cluster's name
and how far the row is from its centre. The names are one round. It knows neither PostgreSQL nor HTTP.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from pg_bridge.asking.centres import Clustering, find_clusters
from pg_bridge.asking.inquiry import Ask
from pg_bridge.asking.memory import Memory
from pg_bridge.asking.nearness import Vectors
from pg_bridge.asking.prompt import escape
from pg_bridge.asking.ranking import Entrants
from pg_bridge.asking.reduction import room_for
from pg_bridge.asking.together import Failed, Round, outcomes_at
from pg_bridge.errors import CallError, OptionError
from pg_bridge.options import Call
from pg_bridge.rows.media import joined
from pg_bridge.rows.table import Table

SYSTEM_PROMPT = "You name groups of rows of a table. They are given as JSON. Reply with the answer alone."
MOST_CLUSTERS = 1_000
_MEMBERS = 8  # that a name is found from, and as many of other clusters
_TASK = (
    "The rows inside belong together by this, those outside do not belong to them. Name what those inside have in "
    "common, and those outside have not, in one to five words."
)
_TASK_ALONE = "These rows belong together by this. Name what they have in common, in one to five words."
_BETWEEN = 2  # bytes of JSON between two rows


class Clustered(NamedTuple):
    """Where a row of the query belongs.

    Attributes:
        place: Its place in the query, from 0.
        cluster: From 1, the one of most rows; None for a row of NULLs, and one without an embedding.
        name: The cluster's; None where there is none.
        distance: 1 less the cosine of the row and the cluster's centre.
    """

    place: int
    cluster: int | None
    name: str | None
    distance: float | None


def check_count(k: int | None) -> int:
    """How many clusters are wanted.

    Raises:
        OptionError: That is no such number.
    """
    if k is None or not 1 <= k <= MOST_CLUSTERS:
        raise OptionError(f"k is not from 1 to {MOST_CLUSTERS}", hint="It is how many clusters are wanted.")
    return k


def cluster(
    entrants: Entrants,
    vectors: Vectors,
    k: int,
    call: Call,
    context_tokens: int,
    memory: Memory,
    begin: Callable[[], Round],
    work: Callable[[], None],
) -> list[Clustered]:
    """Find clusters, and ask for their names.

    Args:
        entrants: The rows.
        vectors: (n, d) of each different one; zeros, which point nowhere, where there is none.
        k: How many clusters are wanted.
        call: How names are asked for.
        context_tokens: What a prompt and its answer may have together.
        memory: Of the statement.
        begin: Begins what asks.
        work: Called now and then.

    Returns:
        (n,) the rows of the query, in its order.

    Raises:
        OptionError: There is no room for a row in a prompt.
        CallError: A cluster has no name, and `on_error` is `fail`.
        BudgetExceeded: More would have to be asked than a budget allows, and `on_budget` is `fail`.
        EngineError: The engine failed as a whole.
    """
    somewhere = set(np.flatnonzero(vectors.any(axis=1)).tolist())
    names = [name for name in entrants.in_order() if name in somewhere]
    nothing = [Clustered(place, None, None, None) for place in range(len(entrants.numbers))]
    if not names:
        return nothing
    counts = Counter(entrants.numbers)
    weights = [counts[name] for name in names]
    clustering = find_clusters(vectors[names], weights, k, work)
    order = _by_size(clustering, weights)
    shown = _Shown([entrants.texts[name] for name in names], clustering)
    prompt = f"{entrants.criterion}\n{_TASK}"
    room = room_for(context_tokens, call.max_tokens, prompt, call.system_prompt)
    called = _name(entrants.criterion, [shown.sides(number, room) for number in order], call, memory, begin)
    number_of = {number: at for at, number in enumerate(order)}
    found = {
        name: (number_of[number] + 1, called[number_of[number]], distance)
        for name, number, distance in zip(
            names, clustering.clusters.tolist(), clustering.distances.tolist(), strict=True
        )
    }
    return [
        Clustered(place, *found[number]) if number in found else nothing[place]
        for place, number in enumerate(entrants.numbers)
    ]


def _by_size(clustering: Clustering, weights: Sequence[int]) -> list[int]:
    """The clusters, the one of most rows first; of equally large ones the one of the first text."""
    sizes = np.bincount(clustering.clusters, weights)
    firsts = [int(np.argmax(clustering.clusters == number)) for number in range(len(sizes))]
    return sorted(range(len(sizes)), key=lambda number: (-sizes[number], firsts[number]))


class _Shown:
    """What is shown of clusters: the rows that are nearest to their centres.

    Args:
        texts: The rows.
        clustering: Their clusters.
    """

    def __init__(self, texts: Sequence[str], clustering: Clustering) -> None:
        self._texts = texts
        order = np.lexsort((np.arange(len(texts)), clustering.distances, clustering.clusters))
        starts = np.searchsorted(clustering.clusters[order], np.arange(len(clustering.centres)))
        self._nearest = [order[start : start + _MEMBERS].tolist() for start in starts.tolist()]
        for number, members in enumerate(self._nearest):
            members[:] = [row for row in members if clustering.clusters[row] == number]
        self._centres = clustering.centres

    def sides(self, number: int, room: int) -> tuple[str, str | None]:
        """Rows of a cluster, and of the others the ones in the middle of those nearest to it, as JSON arrays."""
        apart = (-(self._centres @ self._centres[number])).round(6)
        others = [other for other in np.argsort(apart, kind="stable").tolist() if other != number]
        inside = [self._texts[row] for row in self._nearest[number]]
        outside = [self._texts[self._nearest[other][0]] for other in others[:_MEMBERS]]
        inside = _within(inside, room * 2 // 3 if outside else room) or inside[:1]
        outside = _within(outside, room - sum(len(text.encode()) + _BETWEEN for text in inside))
        return _list_of(inside), _list_of(outside) if outside else None


def _list_of(texts: Sequence[str]) -> str:
    """A JSON array, with the media of its rows."""
    return joined("", ["[", joined(", ", texts), "]"])


def _within(texts: Sequence[str], room: int) -> list[str]:
    """Those of some texts for which there is room, in their order; a long one is left out."""
    chosen = []
    for text in texts:
        size = len(text.encode()) + _BETWEEN
        if size <= room:
            chosen.append(text)
            room -= size
    return chosen


def _name(
    criterion: str, sides: Sequence[tuple[str, str | None]], call: Call, memory: Memory, begin: Callable[[], Round]
) -> list[str | None]:
    """Names, of all clusters together."""
    asking = begin()
    alone = [place for place, (_, outside) in enumerate(sides) if outside is None]
    beside = [place for place, (_, outside) in enumerate(sides) if outside is not None]
    tables = []
    if alone:
        table = Table.from_cells(["inside"], [[sides[place][0] for place in alone]])
        tables.append((_TASK_ALONE, alone, table))
    if beside:
        cells = [[sides[place][0] for place in beside], [sides[place][1] or "" for place in beside]]
        tables.append((_TASK, beside, Table.from_cells(["inside", "outside"], cells)))
    call = replace(call, reorder="rows")
    try:
        groups = asking.ask(
            len(sides),
            lambda: (
                asking.group([memory.inquiry(Ask(escape(f"{criterion}\n{task}"), call))], table)
                for task, _, table in tables
            ),
        )
    except Failed as failed:
        raise CallError(failed.reason) from None
    outcomes = outcomes_at(groups, [places for _, places, _ in tables], len(sides))
    return [None if text is None else text.strip() or None for text, _ in outcomes]
