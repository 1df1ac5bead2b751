"""What a statement would ask and take: `llm.estimate`, and what EXPLAIN knows besides PostgreSQL's figures.

In: rows, a prompt, a call, a server that the current role may use. Out: an `Estimate` as JSON; what an engine did
lately, and how many answers are kept. Nothing is asked of a model, nothing is remembered, and nothing is written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial

from pg_bridge.asking.books import Books
from pg_bridge.asking.counting import Engineering
from pg_bridge.asking.estimate import estimate
from pg_bridge.asking.inquiry import Ask, context_of
from pg_bridge.asking.prompt import Question
from pg_bridge.asking.run import Run
from pg_bridge.asking.seen import Seen
from pg_bridge.asking.streamed import Fetch
from pg_bridge.backend import postgres
from pg_bridge.backend.engines import new_onlooker, seen_here
from pg_bridge.backend.opened import open_ledger
from pg_bridge.engine import EngineTokenizer, survey
from pg_bridge.ledger.account import Account, Asker
from pg_bridge.options import Call, Server


def lately(server: Server) -> Seen:
    """What a server's engine did for the current role.

    Its speed is that in this session, or else on the last day that tells it; its answers are those of the last day on
    which it was asked.
    """
    here = seen_here(server)
    ledger = open_ledger()
    if ledger is None:
        return Seen(*here)
    asker = Asker(postgres.database(), postgres.current_role_oid(), server.owner)
    day = ledger.latest(asker.database, asker.role, server.name, server.model)
    speed = here if here.computed_tokens else ledger.speed(asker, server)
    return Seen(*speed, answers=day.questions - day.failures, completion_tokens=day.completion_tokens)


def count_kept(server: Server, question: Question, call: Call) -> int | None:
    """How many answers to a question, about any rows, are kept for the current role; no engine is asked.

    Returns:
        About so many; None where the ledger cannot be read.
    """
    ledger = open_ledger()
    if ledger is None or call.cache_at(server) != "persistent":
        return 0
    asker = Asker(postgres.database(), postgres.current_role_oid(), server.owner)
    return ledger.count(asker, server, context_of(question, call, server), call.max_age)


def foresee(
    fetch: Fetch,
    columns: Sequence[str | None],
    asked: Ask | Mapping[str, Ask],
    server: Server,
    *,
    every_row: bool,
    account: Account | None,
) -> str:
    """Estimate a run; arguments as for `session.start_run`."""
    with new_onlooker(server) as engine:
        found = estimate(
            fetch,
            columns,
            [asked] if isinstance(asked, Ask) else list(asked.values()),
            Engineering(
                server,
                lambda: survey(engine, server),
                partial(EngineTokenizer, engine, server),
                lately(server),
            ),
            Books(account, engine, Run()),
            every_row=every_row,
            work=engine.work,
        )
    return json.dumps(asdict(found))
