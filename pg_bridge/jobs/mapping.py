"""`map_rows`: one prompt about each row of a Python program, by the road that `llm.map` goes in a database.

    rows → texts → window by window, distinct questions, planned → engine → an answer for each row

In: an iterable of mappings, a DataFrame or an Arrow table; a prompt; an engine; the options of `llm.map`. Out: answers,
in the rows' order or as they land. It needs no database.
"""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, Unpack

from pg_bridge.asking import streamed
from pg_bridge.asking.prompt import Question, parse_question, resolve_columns
from pg_bridge.asking.run import Run
from pg_bridge.errors import OptionError
from pg_bridge.jobs.asker import Desk
from pg_bridge.jobs.texts import Rows, Texts, iterate
from pg_bridge.options import Call, Server
from pg_bridge.options.values import Cache, Kind, OnBudget, OnError, Reasoning, Reorder

SERVER_NAME = "engine"  # in errors, where a URL is given

OnRun = Callable[[Mapping[str, object]], object]
"""Is given the figures of `llm.last_run()`."""


class MapOptions(TypedDict, total=False):
    """The options of `llm.map`, with its defaults: docs/sql.md has their meanings; `kind` is docs/jobs.md's."""

    max_tokens: int
    temperature: float
    system_prompt: str
    choices: Sequence[str]
    on_error: OnError
    reorder: Reorder
    dedup: bool
    window_rows: int
    rows_per_prompt: int
    context_tokens: int | None
    cache: Cache
    max_age: float
    priority: int
    reasoning: Reasoning
    max_reasoning_tokens: int
    request_options: Mapping[str, object]
    kind: Kind
    schema: Mapping[str, object]
    max_requests: int
    max_prompt_tokens: int
    max_completion_tokens: int
    max_seconds: float
    max_cost: float
    on_budget: OnBudget


class RowAnswer(NamedTuple):
    """The answer to one row.

    Attributes:
        row: The row's place among the rows, from 0.
        output: The engine's text, of the form that `choices`, `kind` or `schema` ask for; None where `error` is set.
        error: Why the row has no answer; None where it has one.
    """

    row: int
    output: str | None
    error: str | None


def map_rows(
    rows: Rows,
    prompt: str,
    server: Server | str,
    *,
    ordered: bool = True,
    ledger: Path | str | None = None,
    on_run: OnRun | None = None,
    **options: Unpack[MapOptions],
) -> Generator[RowAnswer, None, None]:
    """Ask one prompt about each row.

    Every row is asked about, up to `window_rows` of them together: they are read, deduplicated and planned, and a few
    are asked about ahead while more are read. Who wants fewer answers hands over fewer rows. Closing the iterator
    aborts what is in flight.

    Args:
        rows: Mappings of column names to values; a pandas DataFrame; an Arrow table, batch or stream of batches.
        prompt: The question; `{column}` names a column to send. Where it names none, all columns are sent.
        server: The engine: its URL, or a `Server` with a key, a model, limits, prices.
        ordered: Whether answers come in the rows' order; else as they land, which holds none of them back.
        ledger: A folder where answers are kept, and found again by the next run that asks the same.
        on_run: Is given the figures of `llm.last_run()` at the end.
        **options: As for `llm.map`.

    Yields:
        One answer for each row.

    Raises:
        OptionError: An option is not valid, or a row has a value that JSON has not.
        TemplateError: The prompt does not parse, or names an unknown column.
        RowError: A row cannot be answered, and `on_error` is `fail`, as it is by default; `row_id` counts from 1.
        BudgetExceeded: More would have to be asked than a budget allows, and `on_budget` is `fail`.
        EngineError: The engine failed as a whole.
    """
    asked = Asked.check(prompt, server, options, None if ledger is None else Path(ledger))
    answers = ask(asked, lambda: Texts(iterate(rows)), on_run)
    return in_order(answers) if ordered else answers


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked, and how: checked before a row is read.

    Attributes:
        prompt: As the user wrote it.
        question: The same, parsed.
        server: Who is asked.
        call: The options.
        ledger: The ledger's folder.
    """

    prompt: str
    question: Question
    server: Server
    call: Call
    ledger: Path | None

    @classmethod
    def check(cls, prompt: str, server: Server | str, options: Mapping[str, Any], ledger: Path | None) -> Asked:
        """Check what a user has said.

        Raises:
            OptionError: An option is not valid.
            TemplateError: The prompt does not parse.
        """
        if isinstance(server, str):
            server = Server.from_options(SERVER_NAME, {"endpoint": server})
        elif not isinstance(server, Server):
            raise OptionError("the server is neither a URL nor a Server", hint="map_rows(rows, prompt, 'http://…')")
        given = dict(options)
        if given.get("schema") is not None:
            given.setdefault("kind", "json")
        return cls(prompt, parse_question(prompt), server, Call.from_arguments(given), ledger)


def ask(
    asked: Asked,
    open_texts: Callable[[], Texts],
    on_run: OnRun | None,
    *,
    check: Callable[[], None] = lambda: None,
) -> Generator[RowAnswer, None, None]:
    """Ask, and yield answers as they land.

    Args:
        asked: What, whom and how.
        open_texts: Begins to read the rows; called at the first answer that is wanted.
        on_run: Is given the run's figures at the end, however it ends.
        check: Called at least every 20 ms while an engine is waited for; raises to stop.
    """
    with contextlib.suppress(RuntimeError):
        asyncio.get_running_loop()
        raise OptionError(
            "map_rows cannot be used where an asyncio loop runs, as in a coroutine or a notebook",
            hint="async for answer in map_rows_async(…)",
        )
    texts = open_texts()
    if texts.is_empty:
        return
    columns = resolve_columns(asked.question, texts.columns)
    texts.send(columns)
    run = Run()
    with closing(Desk(asked.server, asked.ledger, _warn, check)) as desk:
        try:
            answers = streamed.ask(
                texts.fetch,
                columns,
                asked.prompt,
                asked.call,
                desk.engine(),
                run,
                every_row=True,
                account=desk.account,
            )
            with closing(answers):  # type: ignore[type-var]  # it is a generator
                for answer in answers:
                    yield RowAnswer(answer.row_id - 1, answer.output, answer.error)
        finally:
            if on_run is not None:
                on_run(run.as_dict())


def in_order(answers: Generator[RowAnswer, None, None]) -> Generator[RowAnswer, None, None]:
    """The same answers in the order of their rows; holds those that come early."""
    early: dict[int, RowAnswer] = {}
    wanted = 0
    with closing(answers):
        for answer in answers:
            early[answer.row] = answer
            while (found := early.pop(wanted, None)) is not None:
                yield found
                wanted += 1


def _warn(message: str, hint: str) -> None:
    warnings.warn(f"{message}. {hint}".strip(), RuntimeWarning, stacklevel=2)
