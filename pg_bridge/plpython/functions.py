"""The PL/Python host: `llm.map` and `llm.complete` as PL/Python functions.

In: `plpy`, the module that PL/Python gives to a function, and SQL arguments. Out: rows for PostgreSQL. The query runs
through `plpy`, so it has the caller's rights, transaction and snapshot. Errors leave as fault rows, which SQL
raises: an exception that leaves a PL/Python iterator loses its message.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from pg_bridge import __version__
from pg_bridge.asking.calls import Calls
from pg_bridge.asking.inquiry import Ask
from pg_bridge.asking.pair_plans import Terms
from pg_bridge.asking.together import Round
from pg_bridge.backend import ledger, postgres
from pg_bridge.backend.engines import begin_round, context_of
from pg_bridge.backend.estimates import foresee
from pg_bridge.backend.faults import Fault, check_installation
from pg_bridge.backend.session import SESSION, ServerOf, one_row, read_asked, start_run
from pg_bridge.errors import BrokenInstallation
from pg_bridge.ledger.account import Account
from pg_bridge.options import Call, Server
from pg_bridge.plpython.arguments import is_flat, parse_each, parse_json, require, rows_of
from pg_bridge.plpython.spi import describe_failure, run_prepared

ResultRow = tuple[int | None, str | None, str | None, str | None, Fault | None]
CompleteRow = tuple[str | None, str | None, Fault | None]

_SERVERS = "SELECT server, usable, options::text, owned, owner FROM llm._servers($1)"


def connect(plpy: Any, role: str, extension: str) -> None:
    """Put the servers that a role may use into the session; the body of `llm._connect`.

    Args:
        plpy: PL/Python's module.
        role: The role.
        extension: The version of the extension's SQL.
    """
    _load_module(plpy)
    SESSION.forget(role, extension)
    for row in run_prepared(plpy, _SERVERS, ["pg_catalog.name"], [role]):
        server = ServerOf(row["options"], row["usable"], row["owned"], int(row["owner"]))
        SESSION.connect(role, row["server"], server)


def map_rows(
    plpy: Any, cursor: str, columns: list[str], prompt: str | None, options: str, every_row: bool | None
) -> Iterator[ResultRow]:
    """Ask a prompt about each row of a cursor that `llm._open` has opened, or several; the body of `llm._map`.

    Yields:
        (row_id, input, output, error, fault). A row with a fault is the last, and has nothing else.
    """
    try:
        call, asked = read_asked(prompt, parse_json(options))
        fetch = rows_of(plpy, cursor, columns)
        server, account = access(plpy, call.server)
        for answer in start_run(fetch, columns, asked, server, every_row=bool(every_row), account=account):
            yield *answer, None
    except Exception as error:
        yield None, None, None, None, describe_failure(plpy, error)


def estimate_rows(
    plpy: Any, cursor: str, columns: list[str], prompt: str | None, options: str
) -> list[tuple[str | None, Fault | None]]:
    """Foresee a run over the rows of a cursor that `llm._open` has opened; the body of `llm._estimate`.

    Returns:
        One (estimate as JSON, fault).
    """
    try:
        call, asked = read_asked(prompt, parse_json(options))
        fetch = rows_of(plpy, cursor, columns)
        server, account = access(plpy, call.server)
        every_row = bool(postgres.setting("pg_bridge.batching"))  # with the module a run knows when it has all rows
        found = foresee(fetch, columns, asked, server, every_row=every_row, account=account)
        return [(found, None)]
    except Exception as error:
        return [(None, describe_failure(plpy, error))]


def complete(plpy: Any, prompt: str | None, row: str | None, options: str) -> list[CompleteRow]:
    """Ask a prompt about one row; the body of `llm._complete`.

    Returns:
        One (output, error, fault).
    """
    try:
        call = Call.from_arguments(parse_json(options))
        server = find_server(plpy, call.server)
        say_that_it_is_alone(plpy)
        run = start_run(*one_row(prompt, row), Ask(prompt, call), server, account=open_account(plpy, server))
        return [(answer.output, answer.error, None) for answer in run]
    except Exception as error:
        return [(None, None, describe_failure(plpy, error))]


def batch(
    plpy: Any,
    statement: int,
    node: int,
    more: bool,
    prompts: list[str | None],
    rows: list[str | None],
    fixed: str,
    names: list[str],
    options: list[list[str | None]],
) -> list[tuple[list[str | None] | None, Fault | None]]:
    """Take calls of a window, and answer all that were taken, once no more follow; the body of `llm._batch`.

    Args:
        plpy: PL/Python's module.
        statement: A number that the calls of one statement share.
        node: The plan node that the calls belong to.
        more: Whether more calls of the window follow.
        prompts: (n,) JSON texts.
        rows: (n,) JSON texts.
        fixed: Options that are the same for all calls, a JSON object.
        names: The names of the other options.
        options: For each of them its value in every call, JSON text.

    Returns:
        One (answers, fault): no answers while more calls follow, then those of the first calls, some at a time.
    """
    try:
        common = parse_json(fixed)
        require(is_flat(prompts) and is_flat(rows) and len(rows) == len(prompts) and isinstance(common, dict))
        require(is_flat(names) and None not in names)
        require(len(options) == (len(names) if prompts else 0))  # an array of empty arrays is empty
        require(all(is_flat(values) and len(values) == len(prompts) for values in options))
        asked = parse_each(prompts)
        require(all(prompt is None or isinstance(prompt, str) for prompt in asked))
        places_of: dict[Call, list[int]] = {}
        for values, places in places_by_values(options).items():
            call = Call.from_arguments(common | dict(zip(names, parse_each(values), strict=True)))
            places_of.setdefault(call, []).extend(places)
        calls = SESSION.calls(statement, node, lambda: _begin_calls(plpy, statement, node))
        calls.add(asked, rows, places_of)
        if more:
            calls.ask_ahead()
            return [(None, None)]
        answers = calls.take()
        if calls.are_taken:
            SESSION.end_calls(statement, node)
        return [(answers, None)]
    except Exception as error:
        SESSION.end_calls(statement, node)
        return [(None, describe_failure(plpy, error))]


def _begin_calls(plpy: Any, statement: int, node: int) -> Calls:
    memory = SESSION.statement(statement)

    def begin(call: Call) -> Round:
        server = find_server(plpy, call.server, statement)
        account = SESSION.find_account(statement, server, partial(open_account, plpy))
        return begin_round(memory, server, account, node)

    def terms(call: Call) -> Terms:
        server = find_server(plpy, call.server, statement)
        return Terms.of(server, context_of(server, call))

    return Calls(memory, begin, terms)


def report(statement: int, node: int) -> list[str]:
    """Say what the calls of a plan node did so far; the body of `llm._report`."""
    run = SESSION.report(statement, node)
    return run.as_report() if run else []


def reply(plpy: Any, request: str | None) -> str:
    """Answer a request to the ledger; the body of `llm._reply`."""
    plpy.execute("SELECT llm._connect(current_user)")
    return ledger.reply(request, postgres.current_role())


def session_state() -> list[tuple[str, str | None]]:
    """The body of `llm._session`: (package version, latest run as JSON); a DEBUG message tells of the installation."""
    import plpy  # noqa: PLC0415 - exists in a backend only

    try:
        plpy.debug(check_installation())
    except BrokenInstallation as error:
        plpy.error(error.message, detail=error.detail, hint=error.hint, sqlstate=error.sqlstate)
    return [(__version__, SESSION.last_run_json())]


def _load_module(plpy: Any) -> None:
    """Load the native module, once a session, if it is not preloaded; the statement at hand is planned already."""
    if SESSION.module is None:
        loaded = plpy.execute("SELECT current_setting('pg_bridge.batching', true) AS on")[0]["on"] is not None
        SESSION.module = "preloaded" if loaded else "missing"
        if not loaded:
            try:
                plpy.execute("LOAD 'pg_bridge'")
                SESSION.module = "loaded"
            except plpy.SPIError:
                pass


def say_that_it_is_alone(plpy: Any) -> None:
    """Say, once a session, that a function asks one request a call."""
    if SESSION.module == "missing":
        plpy.notice(
            "each call of this function is a request of its own",
            hint="Calls are asked in batches where the server has the module pg_bridge: see `pg-bridge install`.",
        )
    elif SESSION.module == "loaded":
        plpy.notice(
            "each call of this function is a request of its own in this statement",
            hint="The module pg_bridge has been loaded: from the next statement on calls are asked in batches. "
            "With session_preload_libraries = 'pg_bridge' it is there from the first one on.",
        )
    SESSION.module = "said"


def find_server(plpy: Any, name: str, statement: int | None = None) -> Server:
    """A server, with what the current role may know of it: looked up now, or once in the statement of that number."""

    def look_up() -> Server:
        plpy.execute("SELECT llm._connect(current_user)")
        return SESSION.server(postgres.current_role(), name)

    return look_up() if statement is None else SESSION.find_server(statement, name, look_up)


def open_account(plpy: Any, server: Server, reader: int | None = None) -> Account:
    """The current role's account of a statement with a server; arguments as for `ledger.open_account`."""
    return ledger.open_account(server, partial(warn, plpy), reader)


def access(plpy: Any, name: str) -> tuple[Server, Account]:
    """A server that the current role may use, by its name, and the statement's account with it."""
    server = find_server(plpy, name)
    return server, open_account(plpy, server)


def warn(plpy: Any, message: str, hint: str) -> None:
    """Tell the user of something that does not end the statement."""
    plpy.warning(message, hint=hint)


def places_by_values(options: Sequence[Sequence[str | None]]) -> dict[tuple[str | None, ...], list[int]]:
    """Gather the calls that have the same options.

    Args:
        options: For each option its value in every call.

    Returns:
        The values of all options → the calls that have them.
    """
    places: dict[tuple[str | None, ...], list[int]] = {}
    for place, values in enumerate(zip(*options, strict=True)):
        places.setdefault(values, []).append(place)
    return places
