"""The same road, all at once: rows in, all their answers out, for who waits for the whole window.

    calls of one window → Table → unique rows → Ordering → prompts → completions → answers in the calls' order

In: questions about rows, as a batch node's calls or a foreign table's columns ask them, a statement's memory and an
engine. Out: all answers at once; what the statement has been answered before, in any of its nodes, is not asked again.
It knows neither PostgreSQL nor HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain

from pg_bridge.asking.books import Books, telling
from pg_bridge.asking.inquiry import Ask, Outcome
from pg_bridge.asking.memory import Memory
from pg_bridge.asking.portions import Group, Portions
from pg_bridge.asking.prompt import Question, resolve_columns
from pg_bridge.asking.run import Run
from pg_bridge.engine import Engine
from pg_bridge.errors import CallError, OptionError
from pg_bridge.ledger.account import Account
from pg_bridge.options import Call
from pg_bridge.rows.table import Table


def answer_calls(
    memory: Memory,
    node: int,
    prompts: Sequence[str | None],
    rows: Sequence[str | None],
    call: Call,
    engine: Engine,
    account: Account | None = None,
) -> list[str | None]:
    """Ask about the rows of one window, each row its own prompt.

    Args:
        memory: Of the statement.
        node: The plan node that the calls belong to.
        prompts: (n,) the prompt of each call.
        rows: (n,) the row of each call, JSON text or None.
        call: The options that all of them have.
        engine: Where the prompts go; closed at the end.
        account: The statement's with the ledger.

    Returns:
        (n,) the answers; None for a row that failed, if `call.on_error` is `null`.

    Raises:
        TemplateError: A prompt does not parse or names an unknown column.
        OptionError: A row is no JSON object.
        CallError: A row failed and `call.on_error` is `fail`.
        EngineError: The engine failed as a whole.
    """
    places_of: dict[str | None, list[int]] = {}
    for place, prompt in enumerate(prompts):
        places_of.setdefault(prompt, []).append(place)
    places: list[list[int]] = []  # of each group

    def make_groups(books: Books) -> Iterator[Group]:
        for prompt, of_prompt in places_of.items():
            inquiry = memory.inquiry(Ask(prompt, call))
            for members, table in _cut(inquiry.question, [rows[i] for i in of_prompt]):
                places.append([of_prompt[i] for i in members])
                yield Group([inquiry], table, remembered=books.remembers(call))

    answers: list[str | None] = [None] * len(rows)
    with telling(account) as count:
        count(len(rows))
        groups = _answer(memory, node, len(rows), make_groups, engine, account, note_failures=True)
    for group, of_group in zip(groups, places, strict=True):
        for place, (text, error) in zip(of_group, group.outcomes(0), strict=True):
            if error is not None and call.on_error == "fail":
                raise CallError(error)
            answers[place] = text
    _forget(groups)
    return answers


def answer_columns(
    memory: Memory, node: int, asks: Sequence[Ask], table: Table, engine: Engine, account: Account | None = None
) -> list[list[Outcome]]:
    """Ask several questions about the same rows; those that need the same columns share the work on them.

    Args:
        memory: Of the statement.
        node: The plan node that asks.
        asks: The questions.
        table: The n rows, with all columns that a question may name.
        engine: Where the prompts go; closed at the end.
        account: The statement's with the ledger.

    Returns:
        For each question (n,) outcomes.

    Raises:
        TemplateError: A prompt does not parse or names an unknown column.
        EngineError: The engine failed as a whole.
    """
    numbers: dict[tuple[object, ...], list[int]] = {}  # of the questions that go together
    for number, ask in enumerate(asks):
        needed = resolve_columns(memory.inquiry(ask).question, table.columns)
        call = ask.call
        numbers.setdefault((needed, call.reorder, call.dedup, call.cache), []).append(number)

    def make_groups(books: Books) -> Iterator[Group]:
        for together in numbers.values():
            inquiries = [memory.inquiry(asks[number]) for number in together]
            needed = resolve_columns(inquiries[0].question, table.columns)
            yield Group(inquiries, table.select(needed), remembered=books.remembers(inquiries[0].call))

    answers: list[list[Outcome]] = [[] for _ in asks]
    groups = _answer(memory, node, table.rows, make_groups, engine, account)
    for group, together in zip(groups, numbers.values(), strict=True):
        for place, number in enumerate(together):
            answers[number] = group.outcomes(place)
    _forget(groups)
    return answers


def find_known(
    memory: Memory, ask: Ask, table: Table, engine: Engine, account: Account | None = None
) -> list[Outcome | None]:
    """Tell what a question about some rows has been answered before; None where it has not been asked.

    Args:
        memory: Of the statement.
        ask: The question.
        table: The n rows, with all columns that it may name.
        engine: Tells which model would answer; closed at the end.
        account: The statement's with the ledger.
    """
    inquiry = memory.inquiry(ask)
    run = Run(usage=engine.usage)
    books = Books(account, engine, run)
    if not books.remembers(ask.call):
        return [None] * table.rows
    needed = table.select(resolve_columns(inquiry.question, table.columns))
    group = Group([inquiry], needed, remembered=True)
    try:
        books.recall(inquiry, group.keys)
    finally:
        engine.close()
        books.close()
        memory.run.add(run)
    return group.known()


def find_failed(memory: Memory, asks: Sequence[Ask], table: Table) -> list[str | None]:
    """Tell which prompts about some rows have failed.

    Args:
        memory: Of the statement.
        asks: Questions that need the same columns; the first that failed for a row counts.
        table: The n rows, with all columns that they may name.

    Returns:
        (n,) digests of the prompts; None where none is known.
    """
    found: list[str | None] = [None] * table.rows
    for inquiry in map(memory.inquiry, reversed(asks)):
        needed = table.select(resolve_columns(inquiry.question, table.columns))
        failed = Group([inquiry], needed, remembered=True).failed()
        found = [digest or known for digest, known in zip(failed, found, strict=True)]
    return found


def _answer(
    memory: Memory,
    node: int,
    rows: int,
    make_groups: Callable[[Books], Iterator[Group]],
    engine: Engine,
    account: Account | None,
    *,
    note_failures: bool = False,
) -> list[Group]:
    """Make groups, then ask what they have to ask; their outcomes are known afterwards."""
    run = Run(rows=rows, usage=engine.usage)
    portions = Portions(memory, run, Books(account, engine, run), engine.work)
    try:
        with run.planning():
            groups = list(make_groups(portions.books))
        made = chain.from_iterable(map(portions.of_group, groups))
        for completion in engine.complete_portions(made, portions.sampling_of, eager=True, landed=portions.land):
            if completion is not None:
                inquiry, key, (_, error) = portions.learn(completion)
                if error is not None and note_failures:
                    memory.run.failures.add(engine.server_name, inquiry.failed[key], error)
    finally:
        engine.close()
        portions.books.close()
        memory.run.add(run)
        memory.nodes.setdefault(node, Run()).add(run)
    return groups


def _forget(groups: Sequence[Group]) -> None:
    for group in groups:
        for inquiry in group.inquiries:
            inquiry.forget()


def _cut(question: Question, rows: Sequence[str | None]) -> list[tuple[list[int], Table]]:
    """The places and the table of the rows that have the same columns to send.

    A NULL row has the columns that the prompt names.
    """
    try:
        return Table.group_json(
            rows, lambda columns: resolve_columns(question, question.columns if columns is None else columns)
        )
    except ValueError:
        raise OptionError(
            "the input is neither a row nor a JSON object",
            hint="Pass a whole row (the table's alias) or jsonb_build_object('column', value, …).",
        ) from None
