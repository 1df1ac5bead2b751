"""llm.cascade, llm.cascade_labels, llm.share and llm.mean on the PL/Python host.

In: `plpy`, a cursor that `llm._open` has opened, a prompt and options. Out: rows for PostgreSQL, or a fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from pg_bridge.backend.faults import Fault
from pg_bridge.backend.sampled import sample_call, sample_rows
from pg_bridge.plpython.arguments import parse_json, rows_of
from pg_bridge.plpython.functions import find_server, open_account
from pg_bridge.plpython.spi import describe_failure

Row = tuple[int | None, str | None, str | None, Fault | None]


def sample(
    plpy: Any, cursor: str, columns: list[str], prompt: str | None, function: str | None, options: str
) -> Sequence[Row]:
    """Ask about rows of a cursor, some of them drawn by chance; the body of `llm._sample`.

    Returns:
        (row_id, input, what was found as JSON, fault); a row with a fault is the only one.
    """
    try:
        call = sample_call(function, parse_json(options))
        fetch = rows_of(plpy, cursor, columns)
        servers, accounts = partial(find_server, plpy), partial(open_account, plpy)
        found = sample_rows(fetch, columns, prompt, str(function), call, servers, accounts)
        return [(*row, None) for row in found]
    except Exception as error:
        return [(None, None, None, describe_failure(plpy, error))]
