"""What one backend remembers between calls: the servers each role may use, and what the latest run did.

In: servers as the SQL function `llm._servers` lists them. Out: a parsed `Server`. Secrets live here, in the memory
of one backend, and nowhere else; nothing here prints them. All of it is kept by role, because one session may act as
several, by SET ROLE or inside a SECURITY DEFINER function: what one asked is nothing that another may learn of.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from pg_bridge import EXTENSION_VERSION
from pg_bridge.asking.calls import Calls
from pg_bridge.asking.failures import Failures
from pg_bridge.asking.inquiry import Ask
from pg_bridge.asking.memory import Memory
from pg_bridge.asking.prompt import parse_question
from pg_bridge.asking.run import Run
from pg_bridge.asking.several import ask_several, parse_questions
from pg_bridge.asking.streamed import Answer, Fetch, ask
from pg_bridge.backend import postgres
from pg_bridge.backend.engines import new_engine
from pg_bridge.backend.servers import open_server
from pg_bridge.backend.transaction import call_at_end_of_transaction, end_with_transaction, until_its_end
from pg_bridge.errors import ModuleMismatch, OptionError, ServerDenied, UnknownServer, VersionMismatch
from pg_bridge.ledger.account import Account
from pg_bridge.ledger.spending import Spending
from pg_bridge.options import Call, Server
from pg_bridge.rows.cutting import as_row, columns_of

_STATEMENTS = 16


@dataclass(slots=True)
class _Known:
    """What is remembered of one statement of one role.

    Attributes:
        answers: What its calls were answered.
        servers: The servers that it asks, by name, as they were when it first did.
        accounts: Its accounts with the ledger, by the server's name.
    """

    answers: Memory = field(default_factory=Memory)
    servers: dict[str, Server] = field(default_factory=dict, repr=False)
    accounts: dict[str, Account] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class ServerOf:
    """A server as one role sees it.

    Attributes:
        options: The server's and the user mapping's, one JSON object.
        usable: Whether the role holds USAGE.
        owned: Whether it has the rights of the server's owner.
        owner: That owner's oid.
    """

    options: str = field(repr=False)
    usable: bool
    owned: bool
    owner: int


def pick_server(servers: Mapping[str, ServerOf], name: str) -> Server:
    """A server of those that were put into the session for a role.

    Raises:
        UnknownServer: No server of pg_bridge has that name.
        ServerDenied: The role has no USAGE on it.
        OptionError: Its options do not parse.
        NotPermitted: Its owner had no right to one of them.
    """
    if name not in servers:
        known = ", ".join(sorted(servers)) or "none"
        raise UnknownServer(
            f'server "{name}" does not exist',
            hint="CREATE SERVER … FOREIGN DATA WRAPPER pg_bridge OPTIONS (endpoint 'http://…'); "
            f"servers of pg_bridge in this database: {known}.",
        )
    found = servers[name]
    if not found.usable:
        raise ServerDenied(name)
    return open_server(name, json.loads(found.options), found.owner)


@dataclass(slots=True)
class Session:
    """One backend's memory.

    Attributes:
        module: Whether the native module is there: None before anybody looked, else `preloaded`, `loaded`, `missing`,
            or `said` once the user has been told.
        extension: The version of the extension's SQL, as it said when it last told of servers.
    """

    module: str | None = None
    extension: str = EXTENSION_VERSION
    _servers: dict[Hashable, dict[str, ServerOf]] = field(default_factory=dict, repr=False)
    _statements: dict[tuple[int, int], _Known] = field(default_factory=dict, repr=False)  # by role and number
    _calls: dict[tuple[int, int, int], Calls] = field(default_factory=dict, repr=False)  # by role, number and node
    _last_runs: dict[int, Run] = field(default_factory=dict, repr=False)  # by role
    _failures: dict[int, Failures] = field(default_factory=dict, repr=False)  # by role
    _spendings: dict[tuple[int, str], tuple[int, Spending]] = field(default_factory=dict)  # by role and server

    def forget(self, role: Hashable, extension: str) -> None:
        """Forget the servers of a role, before they are listed anew; all go with the transaction.

        Args:
            role: As for `connect`.
            extension: The version of the extension's SQL.
        """
        self.extension = extension
        if not self._servers:
            call_at_end_of_transaction(self._servers.clear)
        self._servers[role] = {}

    def connect(self, role: Hashable, name: str, server: ServerOf) -> None:
        """Note one server of a role.

        Args:
            role: The role's name or oid; whatever the host looks it up by.
            name: The server's name.
            server: As that role sees it.
        """
        self._servers.setdefault(role, {})[name] = server

    def servers_of(self, role: Hashable) -> Mapping[str, ServerOf]:
        """The servers of a role, by name, whether it may use them or not."""
        return self._servers.get(role, {})

    def server(self, role: Hashable, name: str) -> Server:
        """Look up a server for a role; raises as `pick_server` does.

        Raises:
            VersionMismatch: The extension in this database is of another version.
            ModuleMismatch: So is the native module, which a session keeps for as long as it lives.
        """
        if self.extension != EXTENSION_VERSION:
            raise VersionMismatch(self.extension, EXTENSION_VERSION)
        if (module := postgres.module_version()) not in {None, EXTENSION_VERSION}:
            raise ModuleMismatch(str(module), EXTENSION_VERSION)
        return pick_server(self._servers.get(role, {}), name)

    def find_server(self, number: int, name: str, look_up: Callable[[], Server]) -> Server:
        """A server, looked up once in one of the current role's statements, and so with the rights at its start.

        Args:
            number: As for `statement`.
            name: The server's name.
            look_up: Looks it up, or raises an error.
        """
        servers = self._remember(number).servers
        if name not in servers:
            servers[name] = look_up()
        return servers[name]

    def find_account(self, number: int, server: Server, open_one: Callable[[Server], Account]) -> Account:
        """The account of one of the current role's statements with a server.

        Args:
            number: As for `statement`.
            server: The server.
            open_one: Opens it, at the first question.
        """
        accounts = self._remember(number).accounts
        if server.name not in accounts:
            accounts[server.name] = open_one(server)
        return accounts[server.name]

    def spending(self, server: str) -> Spending:
        """What the current role has taken of a server in the client's statement, with all that this runs.

        It outlives transactions: a procedure begins new ones, and is one statement.
        """
        key, number = (postgres.current_role_oid(), server), postgres.statement_number()
        if key not in self._spendings or self._spendings[key][0] != number:
            self._spendings[key] = number, Spending()
        return self._spendings[key][1]

    def statement(self, number: int, reader: int | None = None) -> Memory:
        """The memory of what one of the current role's statements was answered; its run is the reader's latest.

        Args:
            number: What the calls of one statement share; nobody else can guess it.
            reader: The role whose statement it is, if that is not the current one: who reads a foreign table in a view,
                say, which is scanned as the view's owner.
        """
        found = self._remember(number).answers
        self.begin_run(found.run, reader)
        return found

    def _remember(self, number: int) -> _Known:
        """The memory of one of the current role's statements.

        The latest few are kept, for statements run other statements, until the transaction ends.
        """
        if not self._statements:
            call_at_end_of_transaction(self._statements.clear)
        key = (postgres.current_role_oid(), number)
        found = self._statements.pop(key) if key in self._statements else _Known()
        self._statements[key] = found  # the latest last
        while len(self._statements) > _STATEMENTS:
            del self._statements[next(iter(self._statements))]
        return found

    def calls(self, number: int, node: int, begin: Callable[[], Calls]) -> Calls:
        """The calls of the window that a batch node is reading; they end with the transaction or subtransaction.

        Args:
            number: As for `statement`; only the role that began a window can go on with it.
            node: The plan node.
            begin: Begins a window, if none is begun.
        """
        key = (postgres.current_role_oid(), number, node)
        found = self._calls.get(key)
        if found is None or found.is_closed:
            self._calls = {each: calls for each, calls in self._calls.items() if not calls.is_closed}
            found = self._calls[key] = begin()
            end_with_transaction(found)
        return found

    def end_calls(self, number: int, node: int) -> None:
        """The window of a batch node has been answered, or has failed."""
        calls = self._calls.pop((postgres.current_role_oid(), number, node), None)
        if calls is not None:
            calls.close()

    def report(self, number: int, node: int) -> Run | None:
        """What a plan node of one of the current role's statements did so far; None where it did nothing."""
        found = self._statements.get((postgres.current_role_oid(), number))
        return found.answers.nodes.get(node) if found else None

    def begin_run(self, run: Run, reader: int | None = None) -> None:
        """Make a run the latest of a role, which is the current one if none is named."""
        role = postgres.current_role_oid() if reader is None else reader
        self._last_runs[role] = run
        run.failures = self._failures.setdefault(role, Failures())

    def last_run_json(self) -> str | None:
        """The current role's latest run as `llm.last_run()` reads it, or None before the first."""
        run = self._last_runs.get(postgres.current_role_oid())
        return json.dumps(run.as_dict()) if run else None

    def last_errors(self) -> list[dict[str, object]]:
        """The current role's latest failures as `llm.last_errors()` reads them, the latest first."""
        failures = self._failures.get(postgres.current_role_oid(), Failures())
        return [asdict(failure) for failure in reversed(failures.latest)]


SESSION = Session()


def start_run(
    fetch: Fetch,
    columns: Sequence[str | None],
    asked: Ask | Mapping[str, Ask],
    server: Server,
    *,
    every_row: bool = False,
    account: Account | None = None,
) -> Iterator[Answer]:
    """Ask one question about each row, or several by name, and make it the role's latest run.

    It ends with its transaction; other arguments as for `streamed.ask` and `several.ask_several`.
    """
    memory = Memory()
    SESSION.begin_run(memory.run)
    if isinstance(asked, Ask):
        prompt, call, run, engine = asked.prompt, asked.call, memory.run, new_engine(server)
        return until_its_end(ask(fetch, columns, prompt, call, engine, run, every_row=every_row, account=account))
    engines = partial(new_engine, server)
    return until_its_end(ask_several(fetch, columns, asked, engines, memory, every_row=every_row, account=account))


def read_asked(prompt: str | None, arguments: Mapping[str, Any]) -> tuple[Call, Ask | dict[str, Ask]]:
    """What is asked about each row by `llm.map`: its options, and the prompt with them, or the questions of `prompts`.

    Raises:
        OptionError: The arguments are no options, or no questions.
    """
    if not isinstance(arguments, Mapping) or "prompts" not in arguments:
        call = Call.from_arguments(arguments)
        return call, Ask(prompt, call)
    common = {name: value for name, value in arguments.items() if name != "prompts"}
    return Call.from_arguments(common), parse_questions(arguments["prompts"], common)


def one_row(prompt: str | None, value: str | None) -> tuple[Fetch, Sequence[str | None]]:
    """One input as a row set of its own, and its columns.

    Args:
        prompt: The prompt; a NULL input has the columns that it names.
        value: Its JSON text, or None.

    Raises:
        OptionError: It is not JSON.
    """
    row = as_row(value)
    rows = [row]
    try:
        columns = parse_question(prompt).columns if row is None else columns_of(row)
    except ValueError:
        raise OptionError("the input is not JSON") from None

    def fetch(count: int) -> list[str | None]:
        taken, rows[:] = rows[:count], rows[count:]
        return list(taken)

    return fetch, columns
