"""llm.rank and llm.rank_estimate on the PL/Python host.

In: `plpy`, a cursor that `llm._open` has opened, a criterion and options. Out: rows for PostgreSQL, or a fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pg_bridge.backend.faults import Fault
from pg_bridge.backend.ranked import foresee_ranking, rank_call, rank_rows
from pg_bridge.plpython.functions import find_server, is_flat, open_account, parse_json, require
from pg_bridge.plpython.spi import QueryRows, describe_failure

Row = tuple[int | None, str | None, str | None, Fault | None]


def rank(
    plpy: Any,
    cursor: str,
    columns: list[str],
    criterion: str | None,
    k: int | None,
    options: str,
    is_estimate: bool | None,
) -> Sequence[Row]:
    """Rank the rows of a cursor, or tell what it would take; the body of `llm._rank`.

    Returns:
        (row_id, input, what was found as JSON, fault); a row with a fault is the only one.
    """
    try:
        call = rank_call(parse_json(options))
        require(cursor is not None and is_flat(columns) and None not in columns)
        fetch, server = QueryRows(plpy, cursor).fetch, find_server(plpy, call.server)
        if is_estimate:
            return [(None, None, foresee_ranking(fetch, columns, criterion, k, call, server), None)]
        account = open_account(plpy, server)
        found = rank_rows(
            fetch, columns, criterion, k, call, server, account, lambda text, hint: warn(plpy, text, hint)
        )
        return [(*row, None) for row in found]
    except Exception as error:
        return [(None, None, None, describe_failure(plpy, error))]


def warn(plpy: Any, message: str, hint: str) -> None:
    """Tell the user of something that does not end the statement."""
    plpy.warning(message, hint=hint)
