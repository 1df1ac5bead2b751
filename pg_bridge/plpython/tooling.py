"""llm.map_with_tools on the PL/Python host: which functions a model may call, and the calls.

In: `plpy`, a cursor that `llm._open` has opened, the oids of functions. Out: rows for PostgreSQL, or a fault. A call is
a statement that PostgreSQL itself has written (`llm._tools`), with what the model gave as one parameter; it is run as
the caller, in a subtransaction that writes nothing (`llm._use_tool`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pg_bridge.asking.tools import Argument, Tool, Wanted, by_place, cell_of, failed_cell
from pg_bridge.backend.faults import Fault
from pg_bridge.backend.tooled import map_rows, tools_call
from pg_bridge.backend.transaction import until_its_end
from pg_bridge.errors import NotPermitted, OptionError
from pg_bridge.plpython.arguments import is_flat, parse_json, rows_of
from pg_bridge.plpython.functions import access
from pg_bridge.plpython.spi import describe_failure, run_prepared

MOST_TOOLS = 64

Row = tuple[int | None, str | None, str | None, str | None, str | None, Fault | None]

_FIND = "SELECT name, refusal, comment, returns, arguments, call FROM llm._tools($1)"
_USE = "SELECT result, problem FROM llm._use_tool($1, $2, $3)"
_HINTS = {
    "it is VOLATILE": "A function that a model may call only reads: ALTER FUNCTION … STABLE, if that is true of it.",
    "permission denied": "GRANT EXECUTE ON FUNCTION … TO …",
}
_USUAL_HINT = "Name plain functions that read and are not pg_bridge's own: '{stock_of(text)}'::regprocedure[]."


def map_with_tools(
    plpy: Any,
    cursor: str,
    columns: list[str],
    prompt: str | None,
    tools: list[int | None] | None,
    options: str,
    every_row: bool | None,
) -> Iterator[Row]:
    """Ask about the rows of a cursor; the body of `llm._map_with_tools`.

    Yields:
        (row_id, input, output, error, calls, fault). A row with a fault is the last, and has nothing else.
    """
    try:
        call = tools_call(parse_json(options))
        fetch = rows_of(plpy, cursor, columns)
        bench = Bench.of(plpy, tools, call.max_result_bytes)
        server, account = access(plpy, call.server)
        known = [tool for tool, _ in bench.tools.values()]
        rows = map_rows(
            fetch, columns, prompt, known, call, server, account, bench.make_calls, every_row=bool(every_row)
        )
        for row in until_its_end(rows):
            yield *row, None
    except Exception as error:
        yield None, None, None, None, None, describe_failure(plpy, error)


@dataclass(frozen=True, slots=True)
class Bench:
    """The functions of one statement.

    Attributes:
        plpy: PL/Python's module.
        tools: By their names: what is told of them, and the statement that calls them.
        most_bytes: Of a result that the model is shown.
    """

    plpy: Any
    tools: dict[str, tuple[Tool, str]]
    most_bytes: int

    @classmethod
    def of(cls, plpy: Any, oids: list[int | None] | None, most_bytes: int) -> Bench:
        """Look functions up.

        Raises:
            OptionError: One cannot be called by a model.
            NotPermitted: The current role may not execute it.
        """
        if not oids or not is_flat(oids) or None in oids or len(set(oids)) > MOST_TOOLS:
            raise OptionError(f"tools are 1 to {MOST_TOOLS} functions", hint=_USUAL_HINT)
        tools: dict[str, tuple[Tool, str]] = {}
        for row in run_prepared(plpy, _FIND, ["pg_catalog.oid[]"], [list(dict.fromkeys(oids))]):
            name, refusal = row["name"], row["refusal"]
            if refusal is not None:
                kind = NotPermitted if refusal == "permission denied" else OptionError
                hint = _HINTS.get(refusal, _USUAL_HINT)
                raise kind(f'function "{name}" cannot be called by a model: {refusal}', hint=hint)
            if name in tools:
                raise OptionError(
                    f'two of the functions are called "{name}"',
                    hint="A model tells them apart by their names: name one of the two, or another over it.",
                )
            arguments = tuple(
                Argument(**each | {"labels": tuple(each["labels"])}) for each in json.loads(row["arguments"])
            )
            if len({argument.name for argument in arguments}) < len(arguments):
                raise OptionError(f'two arguments of function "{name}" have one name')
            plpy.prepare(row["call"], ["pg_catalog.json", "pg_catalog.int4"])  # what is wrong with it is told before
            tools[name] = Tool(name, arguments, row["returns"], row["comment"]), row["call"]
        return cls(plpy, tools, most_bytes)

    def make_calls(self, wanted: Sequence[Wanted]) -> list[str]:
        """Make calls, and give for each what stands in the row of its result."""
        return [self._make(each) for each in wanted]

    def _make(self, wanted: Wanted) -> str:
        problem = wanted.problem
        if not problem:
            tool, call = self.tools[wanted.tool]
            try:
                arguments = by_place(tool, wanted.arguments)
            except ValueError:
                problem = "an argument is no JSON"
        if problem:
            return failed_cell(problem, self.most_bytes)
        used = run_prepared(
            self.plpy,
            _USE,
            ["pg_catalog.text", "pg_catalog.json", "pg_catalog.int4"],
            [call, arguments, self.most_bytes + 1],
        )[0]
        if used["problem"] is not None:
            return failed_cell(used["problem"], self.most_bytes)
        return "null" if used["result"] is None else cell_of(used["result"], self.most_bytes)
