"""llm.map_with_tools: rows in, answers out, with calls of SQL functions in between.

In: rows, a prompt, functions, a call, a server that the current role may use, and what makes calls. Out: rows with
their answers, a window at a time: each is over before its first row is handed out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from pg_bridge.asking.memory import Memory
from pg_bridge.asking.streamed import Fetch
from pg_bridge.asking.tooled import Consultation, MakeCalls
from pg_bridge.asking.tools import SYSTEM_PROMPT, Tool, Wanted
from pg_bridge.asking.windows import read_windows
from pg_bridge.backend import postgres
from pg_bridge.backend.engines import begin_round
from pg_bridge.backend.session import SESSION
from pg_bridge.errors import NotPermitted
from pg_bridge.ledger.account import Account
from pg_bridge.options import Call, Server


class ToldRow(NamedTuple):
    """A row of llm.map_with_tools.

    Attributes:
        row_id: Its place in the query, from 1.
        input: The row as it came, JSON text.
        output: Its answer.
        error: Why there is none.
        calls: What was called for it, a JSON array.
    """

    row_id: int
    input: str | None
    output: str | None
    error: str | None
    calls: str


def tools_call(given: Any) -> Call:
    """The options of a call, as for `Call.from_arguments`."""
    return Call.from_arguments(given, SYSTEM_PROMPT)


def map_rows(
    fetch: Fetch,
    columns: Sequence[str | None],
    prompt: str | None,
    tools: Sequence[Tool],
    call: Call,
    server: Server,
    account: Account,
    make_calls: MakeCalls,
    *,
    every_row: bool,
) -> Iterator[ToldRow]:
    """Ask, and make it the role's latest run.

    Args:
        fetch: Fetches the rows.
        columns: Theirs.
        prompt: The question.
        tools: The functions that may be called.
        call: How it is asked.
        server: Which is asked.
        account: The statement's with the ledger.
        make_calls: Makes calls.
        every_row: Whether every row will be taken.

    Raises:
        NotPermitted: Another role goes on with it: the functions were named by the one that began.
    """
    memory, role = Memory(), postgres.current_role_oid()
    SESSION.begin_run(memory.run)

    def make(wanted: Sequence[Wanted]) -> Sequence[str]:
        results = make_calls(wanted)
        SESSION.begin_run(memory.run)  # a function may have asked something itself
        return results

    begin = partial(begin_round, memory, server, account)
    asked = Consultation(prompt, columns, tools, call, memory, begin, make)
    for window in read_windows(
        fetch,
        lambda row: len(row or ""),
        memory.run,
        every_row=every_row,
        most_rows=call.window_rows,
        ahead=False,
    ):
        if postgres.current_role_oid() != role:
            raise NotPermitted(
                "llm.map_with_tools was begun by another role",
                hint="A cursor over it is read to its end by the role that opened it.",
            )
        answers = asked.answers(window.rows, window.first_row_id)
        for place, (row, answer) in enumerate(zip(window.rows, answers, strict=True)):
            yield ToldRow(window.first_row_id + place, row, *answer)
