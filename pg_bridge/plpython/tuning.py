"""llm.evaluate, llm.tune and llm.tune_estimate on the PL/Python host.

In: `plpy`, a cursor that `llm._open` has opened, what is asked and options. Out: rows for PostgreSQL, or a fault.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from pg_bridge.backend.faults import Fault
from pg_bridge.backend.tuned import try_rows
from pg_bridge.plpython.arguments import parse_json, rows_of
from pg_bridge.plpython.functions import access
from pg_bridge.plpython.spi import describe_failure


def try_prompts(
    plpy: Any, cursor: str, columns: list[str], asked: str | None, options: str
) -> list[tuple[str | None, Fault | None]]:
    """Compare prompts on the rows of a cursor; the body of `llm._try`.

    Returns:
        (what was found as JSON, fault); a row with a fault is the only one.
    """
    try:
        given = parse_json(options)
        fetch = rows_of(plpy, cursor, columns)
        return [(found, None) for found in try_rows(fetch, columns, asked, given, partial(access, plpy))]
    except Exception as error:
        return [(None, describe_failure(plpy, error))]
