"""How engines are, for `llm.health`.

In: a request of `llm._ledger`, and the servers of the current role. Out: findings as rows. Its few questions keep to
the server's limits and count for no budget; nothing of what it learns is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from pg_bridge.backend.engines import new_engine
from pg_bridge.backend.session import ServerOf, pick_server
from pg_bridge.engine.health import examine
from pg_bridge.options import Call


def health(asked: Mapping[str, Any], known: Mapping[str, ServerOf]) -> list[dict[str, object]]:
    """Look at the engine of a server, or at each of them.

    Raises:
        PgBridgeError: The server does not exist, or is not for this role; what the engine lacks is no error.
    """
    server = pick_server(known, Call.from_arguments({"server": asked.get("server")}).server)
    return [
        {"endpoint": each.endpoint, **finding._asdict()}
        for each in server.engines
        for finding in examine(each, partial(new_engine, each))
    ]
