"""LLM calls over whole row sets inside PostgreSQL: deduplicated, ordered for prefix reuse, answered by vLLM.

These names are what a Python user may call: `map_rows`, which asks about rows of one's own, and what it is made of,
the planner and an engine. They are imported at their first use, because a backend imports this package before it wants
numpy and aiohttp.

`pg_bridge.asking.streamed` is the product in one function; `docs/decisions` says why each part is as it is.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pg_bridge.engine import Engine
    from pg_bridge.errors import PgBridgeError
    from pg_bridge.jobs.mapping import MapOptions, RowAnswer, map_rows
    from pg_bridge.jobs.mapping_async import map_rows_async
    from pg_bridge.options import Server
    from pg_bridge.ordering import Ordering, plan
    from pg_bridge.rows.table import Table

__all__ = [
    "Engine",
    "MapOptions",
    "Ordering",
    "PgBridgeError",
    "RowAnswer",
    "Server",
    "Table",
    "__version__",
    "map_rows",
    "map_rows_async",
    "plan",
]

__version__ = "0.2.0"
EXTENSION_VERSION = "0.2"

# Elsewhere pip sees to it; a server's Python is led here by PYTHONPATH, and may be any. What is above must parse in it.
if sys.version_info < (3, 11):  # noqa: UP036
    raise ImportError(
        f"pg_bridge {__version__} needs Python 3.11 or later, and this is {sys.version.split()[0]}: "
        "take a server whose PL/Python embeds a newer one, or pg-bridge map, beside the server (docs/install.md)"
    )

_HOMES = {
    "Engine": "pg_bridge.engine",
    "MapOptions": "pg_bridge.jobs.mapping",
    "Ordering": "pg_bridge.ordering",
    "PgBridgeError": "pg_bridge.errors",
    "RowAnswer": "pg_bridge.jobs.mapping",
    "Server": "pg_bridge.options",
    "Table": "pg_bridge.rows.table",
    "map_rows": "pg_bridge.jobs.mapping",
    "map_rows_async": "pg_bridge.jobs.mapping_async",
    "plan": "pg_bridge.ordering",
}


if not TYPE_CHECKING:  # a type checker shall know these names only, not any

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = getattr(import_module(_HOMES[name]), name)
        return globals()[name]

    def __dir__() -> list[str]:
        return sorted({*globals(), *_HOMES})
