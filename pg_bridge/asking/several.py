"""Several questions about the rows of one query, in one pass: rows in, one answer a row out, an object of all of them.

    rows of one window → Table → unique rows → Ordering → prompts of all questions → completions → objects a row

In: a function that fetches rows, named questions, what asks. Out: answers, window by window. Where questions stand,
before the rows or behind them, is decided for those together that need the same columns. It knows neither PostgreSQL
nor HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from pg_bridge.asking.books import reading
from pg_bridge.asking.inquiry import Ask, NotAsked, Outcome
from pg_bridge.asking.memory import Memory
from pg_bridge.asking.prompt import resolve_columns
from pg_bridge.asking.streamed import Answer, Fetch
from pg_bridge.asking.together import Failed, Round, answer_columns, find_failed
from pg_bridge.asking.windows import Window, read_windows
from pg_bridge.engine import Engine
from pg_bridge.errors import CallError, OptionError, PgBridgeError, RowError
from pg_bridge.ledger.account import Account
from pg_bridge.options import YES_OR_NO, Call, Kind, options_of
from pg_bridge.rows.table import Table

_KINDS: Mapping[str, Kind] = {
    "text": "text",
    "boolean": "boolean",
    "number": "number",
    "integer": "integer",
    "date": "date",
    "timestamp": "timestamp",
    "timestamptz": "timestamptz",
    "json": "json",
    "text[]": "labels",
}
_FORM = ("choices", "descriptions", "low", "high", "schema")
_OWN = tuple(option.name for option in options_of(Call) if "column" in option.places)
"""What a question may say of itself besides its form: what a model column of a foreign table may."""
_HINT = 'For example: {"kind": "Is {review} kind?", "stars": {"prompt": "How good is {review}?", "low": 1, "high": 5}}'


def parse_questions(
    prompts: object, common: Mapping[str, Any], *, called: str = "question", own: Sequence[str] = ()
) -> dict[str, Ask]:
    """Read named questions.

    Args:
        prompts: Each a prompt, or an object of a `prompt` and options; parsed JSON.
        common: The options of all of them, for which a question may have its own.
        called: What each is called in errors.
        own: What else it may say of itself.

    Raises:
        OptionError: They are no such questions.
    """
    if not isinstance(prompts, Mapping) or not prompts:
        name = "prompts" if called == "question" else f"{called}s"
        raise OptionError(f"{name} is no JSON object of {called}s", hint=_HINT)
    asks = {}
    for name, said in prompts.items():
        try:
            asks[name] = _parse_question({"prompt": said} if isinstance(said, str) else said, common, called, own)
        except PgBridgeError as error:
            error.message = f'{called} "{name}": {error.message}'
            raise
    return asks


def _parse_question(said: object, common: Mapping[str, Any], called: str, further: Sequence[str]) -> Ask:
    if not isinstance(said, Mapping) or not isinstance(said.get("prompt"), str):
        raise OptionError("it has no prompt", hint=_HINT)
    for key in said:
        if key not in {"prompt", "type", *_FORM, *_OWN, *further}:
            names = ", ".join(("prompt", "type", *_FORM, *_OWN, *further))
            raise OptionError(f'invalid option "{key}"', hint=f"A {called} may have: {names}.")
    own = {key: value for key, value in said.items() if key not in {"prompt", "type"} and value is not None}
    kind = _kind_of(said.get("type"), own)
    if kind is not None:
        common = {key: value for key, value in common.items() if key not in _FORM}
        own["kind"] = kind
    if kind == "json":
        own.setdefault("schema", {"type": "object"})
    _see_that_it_fits(kind, own)
    alone = {"confidence": None, "gives": None}  # an answer has one value here
    return Ask(said["prompt"], Call.from_arguments({**common, **own, **alone, "shares_limits": True}))


def _kind_of(named: object, own: Mapping[str, Any]) -> Kind | None:
    """The form of an answer, as it is named or follows from what is said of it; None for what all questions have."""
    if named is not None:
        if not isinstance(named, str) or named not in _KINDS:
            raise OptionError('invalid value for option "type"', hint=f"It must be one of {', '.join(_KINDS)}.")
        kind = _KINDS[named]
        return "label" if kind == "text" and ("choices" in own or "descriptions" in own) else kind
    if "schema" in own:
        return "json"
    if "low" in own or "high" in own:
        return "integer"
    return "label" if "choices" in own or "descriptions" in own else None


def _see_that_it_fits(kind: Kind | None, own: Mapping[str, Any]) -> None:
    """See that nothing is said that has no meaning for answers of a kind: it would be taken for a promise."""
    of_kind: Mapping[Kind, tuple[str, ...]] = {
        "label": ("choices", "descriptions"),
        "labels": ("choices", "descriptions"),
        "integer": ("low", "high"),
        "number": ("low", "high"),
        "json": ("schema",),
    }
    for key in _FORM:
        if key in own and (kind is None or key not in of_kind.get(kind, ())):
            raise OptionError(f'the option "{key}" does not go with its type', hint="Leave one of the two out.")


def columns_of(asks: Mapping[str, Ask], memory: Memory, columns: Sequence[str | None]) -> tuple[str, ...]:
    """The columns that some questions need together.

    Raises:
        TemplateError: A prompt does not parse or names an unknown column.
    """
    needed: dict[str, None] = {}
    for name, ask in asks.items():
        try:
            needed |= dict.fromkeys(resolve_columns(memory.inquiry(ask).question, columns))
        except PgBridgeError as error:
            error.message = f'question "{name}": {error.message}'
            raise
    return tuple(needed)


def ask_several(
    fetch: Fetch,
    columns: Sequence[str | None],
    asks: Mapping[str, Ask],
    new_engine: Callable[[], Engine],
    memory: Memory,
    *,
    every_row: bool = False,
    account: Account | None = None,
) -> Iterator[Answer]:
    """Ask some questions about every row.

    Args:
        fetch: Gives the rows.
        columns: The names of the rows' columns, in the rows' order.
        asks: The questions, by name; all of one server.
        new_engine: Makes what asks, for one window.
        memory: Of the statement; its run is filled in.
        every_row: Whether all answers will be taken.
        account: The statement's with the ledger.

    Yields:
        One answer for each row, in the rows' order: an object of answers, and one of the reasons why there are none.

    Raises:
        TemplateError: A prompt does not parse or names an unknown column.
        RowError: A question about a row failed and its `on_error` is `fail`; CallError where nobody knows which row.
        BudgetExceeded: More would have to be asked than a budget allows, and `on_budget` is `fail`.
        EngineError: The engine failed as a whole.
    """
    names = columns_of(asks, memory, columns)
    with reading(account, fetch) as counted:
        for window in read_windows(
            counted,
            lambda row: len(row or ""),
            memory.run,
            every_row=every_row,
            most_rows=next(iter(asks.values())).call.window_rows,
            ahead=False,
        ):
            engine = new_engine()
            with closing(Round(memory, 0, engine, account)) as asking:
                table = Table.from_json(window.rows, names, asking.work)
                try:
                    outcomes = answer_columns(memory, list(asks.values()), table, asking)
                except Failed as failed:
                    raise _error_of(failed, asks, window, table, memory, engine.server_name) from None
            yield from _answers(window, asks, outcomes, memory, table, engine.server_name)


def _error_of(
    failed: Failed, asks: Mapping[str, Ask], window: Window[str | None], table: Table, memory: Memory, server: str
) -> PgBridgeError:
    name = next(name for name, ask in asks.items() if memory.inquiry(ask) is failed.inquiry)
    digests = find_failed(memory, [asks[name]], table)
    is_found = failed.prompt in digests  # not where equal rows are asked about each by itself
    row_id = window.first_row_id + digests.index(failed.prompt) if is_found else None
    memory.run.failures.add(server, failed.prompt, failed.reason, row_id=row_id)
    return CallError(failed.reason) if row_id is None else RowError(row_id, failed.reason, name)


def _answers(
    window: Window[str | None],
    asks: Mapping[str, Ask],
    outcomes: Sequence[Sequence[Outcome]],
    memory: Memory,
    table: Table,
    server: str,
) -> Iterator[Answer]:
    heads = [f"{json.dumps(name, ensure_ascii=False)}: " for name in asks]
    failed: dict[str, list[str | None]] = {}  # digests of prompts, where any question about a row failed
    for place, row in enumerate(window.rows):
        values, reasons = [], []
        for number, (name, ask) in enumerate(asks.items()):
            value, reason = _value(ask.call, outcomes[number][place])
            values.append(heads[number] + value)
            if reason is None:
                continue
            reasons.append(heads[number] + json.dumps(str(reason), ensure_ascii=False))
            if not isinstance(reason, NotAsked):
                if name not in failed:  # once for the window, however many rows fail
                    failed[name] = find_failed(memory, [ask], table)
                row_id = window.first_row_id + place
                memory.run.failures.add(server, failed[name][place], reason, row_id=row_id)
                if ask.call.on_error == "fail":
                    raise RowError(row_id, reason, name)
        error = f"{{{', '.join(reasons)}}}" if reasons else None
        yield Answer(window.first_row_id + place, row, f"{{{', '.join(values)}}}", error)


def _value(call: Call, outcome: Outcome) -> tuple[str, str | None]:
    """An answer as JSON, and why there is none."""
    text, error = outcome
    if text is None:
        return "null", error
    try:
        return _WRITTEN.get(call.kind, _as_text)(text), None
    except ValueError:  # the 31st of February
        return "null", f"the engine's answer is no {call.kind}"


def _as_text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _as_number(text: str) -> str:
    return f"{Decimal(text):f}"


def _as_labels(text: str) -> str:
    return json.dumps(sorted(set(json.loads(text))), ensure_ascii=False)


def _as_date(text: str) -> str:
    date.fromisoformat(text)
    return _as_text(text)


def _as_timestamp(text: str) -> str:
    datetime.fromisoformat(text)
    return _as_text(text)


_WRITTEN: Mapping[Kind, Callable[[str], str]] = {
    "boolean": lambda text: json.dumps(text == YES_OR_NO[0]),
    "number": _as_number,
    "integer": _as_number,
    "labels": _as_labels,
    "json": str,
    "date": _as_date,
    "timestamp": _as_timestamp,
    "timestamptz": _as_timestamp,
}
"""From an answer that is of its form to JSON."""
