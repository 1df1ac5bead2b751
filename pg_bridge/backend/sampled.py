"""llm.cascade, llm.cascade_labels, llm.share and llm.mean: what is asked about some of a query's rows, drawn by chance.

In: rows, a prompt, a call, servers that the current role may use. Out: rows with their answers, or an estimate, as
JSON. Where rows are many they go to an unnamed temporary file, as a row set's do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from typing import NamedTuple

from pg_bridge.asking.inquiry import Ask
from pg_bridge.asking.memory import Memory
from pg_bridge.asking.sampled import Asking, Course, Population, proxy_call, run_cascade, run_poll
from pg_bridge.asking.streamed import Fetch
from pg_bridge.backend.engines import begin_round
from pg_bridge.backend.rowsets import RowSet
from pg_bridge.backend.session import SESSION
from pg_bridge.errors import OptionError
from pg_bridge.ledger.account import Account
from pg_bridge.options import Call, Server

_FETCHED = 1000
_KINDS = {"cascade": "boolean", "cascade_labels": "label", "share": "boolean", "mean": "number"}


class SampledRow(NamedTuple):
    """A row of one of the functions.

    Attributes:
        row_id: Its place in the query, from 1; None for an estimate.
        input: The row as it came, JSON text.
        found: Its answer, or the estimate, a JSON object.
    """

    row_id: int | None
    input: str | None
    found: str


def sample_call(function: object, given: object) -> Call:
    """The options of a call.

    Args:
        function: Which of the functions it is.
        given: Named arguments, as for `Call.from_arguments`.

    Raises:
        OptionError: One is unknown or its value is not valid, or there is no such function.
    """
    if not isinstance(function, str) or function not in _KINDS:
        raise OptionError("there is no such function over a sample", hint=f"There are: {', '.join(_KINDS)}.")
    kind = {"kind": _KINDS[function], "gives": None, "confidence": None}
    return Call.from_arguments(given | kind if isinstance(given, dict) else given)  # type: ignore[arg-type]


def sample_rows(
    fetch: Fetch,
    columns: Sequence[str | None],
    prompt: str | None,
    function: str,
    call: Call,
    find_server: Callable[[str], Server],
    open_account: Callable[[Server], Account],
) -> list[SampledRow]:
    """Ask, and make it the role's latest run.

    Args:
        fetch: Fetches the rows.
        columns: Theirs.
        prompt: What is asked about each.
        function: Which of the functions it is.
        call: How they are asked about.
        find_server: Finds a server that the current role may use.
        open_account: Opens its account with the ledger.
    """
    memory = Memory()

    def asking_of(of: Call) -> Asking:
        server = find_server(of.server)
        begin = partial(begin_round, memory, server, open_account(server))
        return Asking(population, Ask(prompt, of), memory, begin)

    population = Population(prompt, columns)
    if function in ("share", "mean"):
        asking = asking_of(call)
        SESSION.begin_run(memory.run)
        while some := fetch(_FETCHED):
            population.add(some)
        SESSION.begin_run(memory.run)  # again: the query may have asked something itself
        population.close()
        polled = run_poll(population, call, asking)
        found: dict[str, object] = {"rows": len(population.numbers), "asked": polled.asked}
        if polled.bounds:
            bounds = polled.bounds
            found |= {"estimate": bounds.estimate, "at_least": bounds.low, "at_most": bounds.high}
        return [SampledRow(None, None, json.dumps(found))]
    small, large = asking_of(proxy_call(call)), asking_of(call)
    SESSION.begin_run(memory.run)
    with closing(RowSet()) as rows:
        while some := fetch(_FETCHED):
            rows.extend(some)
            population.add(some)
        SESSION.begin_run(memory.run)  # again: the query may have asked something itself
        population.close()
        course = run_cascade(population, call, small, large)
        memory.run.cascade = _told(course, population, call)
        return _answers(rows, course, population, call)


def _answers(rows: RowSet, course: Course, population: Population, call: Call) -> list[SampledRow]:
    found = [
        json.dumps(
            {
                "output": each.answer,
                "asked_of": call.proxy if each.by_proxy else None if each.answer is None else call.server,
                "error": each.error,
            },
            ensure_ascii=False,
        )
        for each in course.decided
    ]
    answers: list[SampledRow] = []
    for begin in range(0, len(rows), _FETCHED):
        inputs = rows.fetch(begin, _FETCHED)
        answers += [
            SampledRow(begin + place + 1, each, found[population.numbers[begin + place]])
            for place, each in enumerate(inputs)
        ]
    return answers


def _told(course: Course, population: Population, call: Call) -> dict[str, object]:
    """What `llm.last_cascade()` tells."""
    by_proxy = sum(course.decided[number].by_proxy for number in population.numbers)
    return {
        "rows": len(population.numbers),
        "unique_rows": len(population.different),
        "proxy": call.proxy,
        "server": call.server,
        "proxy_questions": course.of_proxy,
        "server_questions": course.of_server,
        "drawn": course.drawn,
        "proxy_rows": by_proxy,
        "no_up_to": course.thresholds.no,
        "yes_from": course.thresholds.yes if call.kind == "boolean" else None,
        "sure_from": None if call.kind == "boolean" else course.thresholds.yes,
    }
