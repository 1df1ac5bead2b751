"""llm.evaluate, llm.tune and llm.tune_estimate on the PL/Python host.

In: `plpy`, a cursor that `llm._open` has opened, what is asked and options. Out: rows for PostgreSQL, or a fault.
"""

from __future__ import annotations

from typing import Any

from pg_bridge.backend.faults import Fault
from pg_bridge.backend.tuned import try_rows
from pg_bridge.ledger.account import Account
from pg_bridge.options import Server
from pg_bridge.plpython.functions import find_server, is_flat, open_account, parse_json, require
from pg_bridge.plpython.spi import QueryRows, describe_failure


def try_prompts(
    plpy: Any, cursor: str, columns: list[str], asked: str | None, options: str
) -> list[tuple[str | None, Fault | None]]:
    """Compare prompts on the rows of a cursor; the body of `llm._try`.

    Returns:
        (what was found as JSON, fault); a row with a fault is the only one.
    """

    def access(name: str) -> tuple[Server, Account]:
        server = find_server(plpy, name)
        return server, open_account(plpy, server)

    try:
        given = parse_json(options)
        require(cursor is not None and is_flat(columns) and None not in columns)
        return [(found, None) for found in try_rows(QueryRows(plpy, cursor).fetch, columns, asked, given, access)]
    except Exception as error:
        return [(None, describe_failure(plpy, error))]
