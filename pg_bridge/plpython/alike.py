"""llm.resolve and llm.clusters on the PL/Python host.

In: `plpy`, a cursor that `llm._open` has opened, a criterion and options. Out: rows for PostgreSQL, or a fault.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from pg_bridge.backend.alike import Ways, find_alike, read_task
from pg_bridge.plpython.arguments import parse_json, rows_of
from pg_bridge.plpython.functions import find_server, open_account, warn
from pg_bridge.plpython.ranking import Row
from pg_bridge.plpython.spi import describe_failure


def find(
    plpy: Any,
    cursor: str,
    columns: list[str],
    criterion: str | None,
    k: int | None,
    options: str,
    task: str | None,
) -> Iterator[Row]:
    """Resolve or cluster the rows of a cursor; the body of `llm._alike`.

    Yields:
        (row_id, input, what was found as JSON, fault); a row with a fault is the last, and has nothing else.
    """
    try:
        fetch = rows_of(plpy, cursor, columns)
        ways = Ways(partial(find_server, plpy), partial(open_account, plpy), partial(warn, plpy))
        for row in find_alike(fetch, columns, criterion, k, parse_json(options), read_task(task), ways):
            yield *row, None
    except Exception as error:
        yield None, None, None, describe_failure(plpy, error)
