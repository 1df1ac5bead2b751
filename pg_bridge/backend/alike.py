"""llm.resolve and llm.clusters: rows of a query that mean the same, and rows that belong together.

In: rows, a criterion, a call, a host's ways to servers. Out: all rows, in their order, with what is found of them.
Where rows are many they go to an unnamed temporary file, as a row set's do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast, get_args

from pg_bridge.asking import clustering, ranking
from pg_bridge.asking.clustering import check_count, cluster
from pg_bridge.asking.failures import digest_prompt
from pg_bridge.asking.memory import Memory
from pg_bridge.asking.nearness import Vectors
from pg_bridge.asking.ranking import Entrants
from pg_bridge.asking.sameness import resolve, see_that_few
from pg_bridge.asking.streamed import Fetch
from pg_bridge.asking.together import Failed, Round
from pg_bridge.asking.vectors import embed_texts, text_of
from pg_bridge.backend.engines import begin_round, context_of
from pg_bridge.backend.interrupts import Interrupts
from pg_bridge.backend.ledger import Warn
from pg_bridge.backend.ranked import RankedRow, read_entrants, warn_of_unanswered
from pg_bridge.backend.rowsets import RowSet
from pg_bridge.backend.session import SESSION
from pg_bridge.errors import OptionError, RowError
from pg_bridge.ledger.account import Account
from pg_bridge.options import Call, Server

Task = Literal["resolve", "clusters"]

_NULL = "null"


@dataclass(frozen=True, slots=True)
class Ways:
    """A host's ways to servers, and to the user.

    Attributes:
        server: Finds a server that the current role may use.
        account: Opens the statement's account with one.
        warn: Tells the user (message, hint).
    """

    server: Callable[[str], Server]
    account: Callable[[Server], Account]
    warn: Warn

    def begin(self, server: Server, memory: Memory) -> Callable[[], Round]:
        """What begins rounds at a server."""
        return partial(begin_round, memory, server, self.account(server))


def read_task(task: object) -> Task:
    """Which of the two functions is called.

    Raises:
        OptionError: Neither.
    """
    if task not in get_args(Task):
        raise OptionError(
            "an internal function of pg_bridge was called with arguments that do not fit",
            hint="Call llm.resolve or llm.clusters instead.",
        )
    return cast("Task", task)


def find_alike(
    fetch: Fetch,
    columns: Sequence[str | None],
    criterion: str | None,
    k: int | None,
    options: Any,
    task: Task,
    ways: Ways,
) -> Iterator[RankedRow]:
    """Resolve or cluster rows, and make it the role's latest run.

    Args:
        fetch: Fetches the rows.
        columns: Theirs.
        criterion: By what they are alike.
        k: How many clusters are wanted.
        options: How they are asked about, as for `Call.from_arguments`.
        task: Which of the two.
        ways: To servers.

    Yields:
        The rows; of each what is found of it as a JSON object.
    """
    memory = Memory()
    SESSION.begin_run(memory.run)
    is_resolving = task == "resolve"
    call = Call.from_arguments(options, ranking.SYSTEM_PROMPT if is_resolving else clustering.SYSTEM_PROMPT)
    server = ways.server(call.server)
    embedder = None if call.embedder is None else ways.server(call.embedder)
    if not is_resolving:
        k = check_count(k)
        if embedder is None:
            raise OptionError(
                "llm.clusters was called without an embedder",
                hint="Name a server whose model makes embeddings: embedder => 'e5' (docs/alike.md).",
            )
    with closing(RowSet()) as rows:
        entrants = read_entrants(fetch, columns, criterion, rows)
        SESSION.begin_run(memory.run)  # again: the query may have asked something itself
        see_that_few(entrants, call)
        vectors = None if embedder is None else _embed(entrants, embedder, call, memory, ways)
        begin, work = ways.begin(server, memory), Interrupts().check
        if is_resolving:
            yield from _resolve(entrants, vectors, call, memory, begin, work, rows, ways.warn)
        else:
            context = context_of(server, call) if entrants.texts else 0
            found = cluster(entrants, cast("Vectors", vectors), cast("int", k), call, context, memory, begin, work)
            for each in found:
                said = {"cluster": each.cluster, "name": each.name, "distance": each.distance}
                yield RankedRow(each.place + 1, rows.fetch(each.place, 1)[0], json.dumps(said))


def _embed(entrants: Entrants, embedder: Server, call: Call, memory: Memory, ways: Ways) -> Vectors:
    texts = list(map(text_of, entrants.texts))
    if any(not text and "\0" in row for text, row in zip(texts, entrants.texts, strict=True)):
        raise OptionError(
            "a row has nothing but pictures, recordings or documents, by which none is near to another here",
            hint="Send a text beside them. llm.resolve without embedder compares all pairs.",
        )
    asked = call.embeds_at(embedder.name, "dimensions")
    try:
        return embed_texts(texts, asked, memory, ways.begin(embedder, memory), are_rows=True)
    except Failed as failed:
        number = next(number for number, text in enumerate(texts) if digest_prompt(text) == failed.prompt)
        raise RowError(entrants.numbers.index(number) + 1, failed.reason) from None


def _resolve(
    entrants: Entrants,
    vectors: Vectors | None,
    call: Call,
    memory: Memory,
    begin: Callable[[], Round],
    work: Callable[[], None],
    rows: RowSet,
    warn: Warn,
) -> Iterator[RankedRow]:
    resolved, unanswered = resolve(entrants, vectors, call, memory, begin, work)
    warn_of_unanswered(warn, unanswered, memory.run.pairs.alone)
    for each in resolved:
        entity = _NULL if each.entity is None else str(each.entity + 1)
        stands = None if each.representative is None else rows.fetch(each.representative, 1)[0]
        said = f'{{"entity": {entity}, "representative": {stands or _NULL}, "agreement": {json.dumps(each.agreement)}}}'
        yield RankedRow(each.place + 1, rows.fetch(each.place, 1)[0], said)
