"""llm.rank and llm.rank_estimate on the PL/Python host.

In: `plpy`, a cursor that `llm._open` has opened, a criterion and options. Out: rows for PostgreSQL, or a fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from pg_bridge.backend.faults import Fault
from pg_bridge.backend.ranked import foresee_ranking, rank_call, rank_rows
from pg_bridge.plpython.arguments import parse_json, rows_of
from pg_bridge.plpython.functions import find_server, open_account, warn
from pg_bridge.plpython.spi import describe_failure

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
        fetch, server = rows_of(plpy, cursor, columns), find_server(plpy, call.server)
        if is_estimate:
            return [(None, None, foresee_ranking(fetch, columns, criterion, k, call, server), None)]
        account = open_account(plpy, server)
        found = rank_rows(fetch, columns, criterion, k, call, server, account, partial(warn, plpy))
        return [(*row, None) for row in found]
    except Exception as error:
        return [(None, None, None, describe_failure(plpy, error))]
