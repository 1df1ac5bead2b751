"""llm.rank and llm.rank_estimate: the rows of a query that fit a criterion best.

In: rows, a criterion, how many are wanted, a call, a server that the current role may use. Out: rows with their ranks;
or what finding them would take, as JSON. Where rows are many they go to an unnamed temporary file, as a row set's do.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from typing import Any, NamedTuple

from pg_bridge.asking.memory import Memory
from pg_bridge.asking.ranking import SYSTEM_PROMPT, Entrants, arrange, rank
from pg_bridge.asking.streamed import Fetch
from pg_bridge.backend.engines import begin_round, context_of
from pg_bridge.backend.ledger import Warn
from pg_bridge.backend.rowsets import RowSet
from pg_bridge.backend.session import SESSION
from pg_bridge.ledger.account import Account
from pg_bridge.options import Call, Server

_FETCHED = 1000
_CHARS_OF_TOKEN = 4


class RankedRow(NamedTuple):
    """A row of llm.rank.

    Attributes:
        row_id: Its place in the query, from 1.
        input: The row as it came, JSON text.
        found: Its rank, its ties and its agreement, a JSON object.
    """

    row_id: int
    input: str | None
    found: str


def rank_call(given: Any) -> Call:
    """The options of a call, as for `Call.from_arguments`."""
    return Call.from_arguments(given, SYSTEM_PROMPT)


def rank_rows(
    fetch: Fetch,
    columns: Sequence[str | None],
    criterion: str | None,
    k: int | None,
    call: Call,
    server: Server,
    account: Account,
    warn: Warn,
) -> list[RankedRow]:
    """Rank, and make it the role's latest run.

    Args:
        fetch: Fetches the rows.
        columns: Theirs.
        criterion: What they are ranked by.
        k: How many are wanted; None for all.
        call: How they are asked about.
        server: Which is asked.
        account: The statement's with the ledger.
        warn: Tells the user (message, hint).
    """
    memory = Memory()
    SESSION.begin_run(memory.run)
    with closing(RowSet()) as rows:
        entrants = read_entrants(fetch, columns, criterion, rows)
        SESSION.begin_run(memory.run)  # again: the query may have asked something itself
        match = arrange(entrants, k, call, context_of(server, call) if entrants.texts else 0)
        ranked, unanswered = rank(entrants, match, k, call, memory, partial(begin_round, memory, server, account))
        warn_of_unanswered(warn, unanswered, match.effort.questions)
        return [
            RankedRow(
                each.place + 1,
                rows.fetch(each.place, 1)[0],
                json.dumps({"rank": each.rank, "ties": each.ties, "agreement": each.agreement}),
            )
            for each in ranked
        ]


def warn_of_unanswered(warn: Warn, unanswered: int, asked: int) -> None:
    """Tell the user how many comparisons have no answer, if there are some."""
    if unanswered:
        warn(
            f"{unanswered} of {asked} comparisons have no answer: their rows stand as if they had not been compared",
            "llm.last_errors() tells why.",
        )


def foresee_ranking(
    fetch: Fetch, columns: Sequence[str | None], criterion: str | None, k: int | None, call: Call, server: Server
) -> str:
    """Say what `rank_rows` would ask, as a JSON object; no model is asked anything."""
    with closing(RowSet()) as rows:
        entrants = read_entrants(fetch, columns, criterion, rows)
        count = len(rows)
    match = arrange(entrants, k, call, context_of(server, call) if entrants.texts else 0)
    chars = sum(map(len, entrants.texts)) / max(1, len(entrants.texts)) * match.size + len(entrants.criterion)
    return json.dumps(
        {
            "rows": count,
            "unique_rows": len(entrants.texts),
            "list_size": match.size if match.effort.questions else 0,
            "questions": match.effort.questions,
            "rounds": match.effort.rounds,
            "prompt_tokens": round(match.effort.questions * (chars + len(call.system_prompt)) / _CHARS_OF_TOKEN),
        }
    )


def read_entrants(fetch: Fetch, columns: Sequence[str | None], criterion: str | None, rows: RowSet) -> Entrants:
    """Read all rows, into a row set, too."""
    entrants = Entrants(criterion, columns)
    while some := fetch(_FETCHED):
        rows.extend(some)
        entrants.add(some)
    return entrants
