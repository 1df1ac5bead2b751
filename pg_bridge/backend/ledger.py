"""The backend's way to the ledger: where its files are, the accounts of statements, and what SQL may ask of it.

In: servers, and requests of `llm._ledger` as JSON. Out: accounts; replies as JSON. Whoever sends a request, what he may
see or do is decided here, by the role that is current and the servers that were put into the session for it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import asdict
from typing import Any

from pg_bridge.backend import postgres
from pg_bridge.backend.faults import describe_error
from pg_bridge.backend.health import health
from pg_bridge.backend.interrupts import Interrupts
from pg_bridge.backend.opened import open_ledger
from pg_bridge.backend.session import SESSION, ServerOf
from pg_bridge.errors import NotPermitted, OptionError
from pg_bridge.ledger import progress
from pg_bridge.ledger.account import Account, Asker, Ledger
from pg_bridge.ledger.progress import Job, Owner
from pg_bridge.options import Server

Warn = Callable[[str, str], None]
Servers = Mapping[str, ServerOf]


def open_account(server: Server, warn: Warn, reader: int | None = None) -> Account:
    """The current role's account of a statement with a server; without a ledger it keeps nothing.

    Args:
        server: The server.
        warn: Tells the user (message, hint).
        reader: The role whose statement it is, if that is not the current one; it sees how far the statement is.
    """
    ledger = open_ledger() or Ledger(None)
    database, role = postgres.database(), postgres.current_role_oid()
    seen_by = role if reader is None else reader
    job = Job(ledger.running, Owner(seen_by, postgres.role_name(seen_by), database, server.name))
    return Account(ledger, Asker(database, role, server.owner), server, warn, job, SESSION.spending(server.name))


def reply(request: str | None, role: Hashable) -> str:
    """Answer a request of `llm._ledger`: {"answer": …} or {"fault": […]}.

    Args:
        request: JSON.
        role: The current role, as the host has put its servers into the session.
    """
    try:
        asked = json.loads(request or "null")
        verb = VERBS.get(str(asked.get("do"))) if isinstance(asked, dict) else None
        if verb is None:
            raise OptionError(
                "this is no request to the ledger", hint="Call llm.cache_stats, llm.usage and their kin instead."
            )
        return json.dumps({"answer": verb(asked, SESSION.servers_of(role))})
    except Exception as error:
        return json.dumps({"fault": describe_error(error)})


def _cache_stats(_: Mapping[str, Any], known: Servers) -> list[dict[str, object]]:
    ledger = open_ledger()
    servers = [name for name, server in known.items() if server.usable]
    return [asdict(each) for each in ledger.stats(postgres.database(), servers, Interrupts().check)] if ledger else []


def _cache_clear(asked: Mapping[str, Any], known: Servers) -> int:
    """Forget answers of a server, or of all; only its owner may."""
    wanted, age_s = asked.get("server"), asked.get("older_than_s")
    if not isinstance(wanted, str | None) or not isinstance(age_s, int | float | None):
        raise OptionError("the server is no text, or older_than no interval")
    owned = [name for name, server in known.items() if server.owned]
    if wanted is not None and wanted not in owned and not postgres.is_superuser():
        raise NotPermitted(
            f'must be owner of foreign server "{wanted}" to clear its answers', hint="Its owner calls llm.cache_clear."
        )
    servers = [wanted] if wanted is not None else None if postgres.is_superuser() else owned
    ledger = open_ledger()
    if ledger is None:
        return 0
    count = ledger.clear(
        postgres.database(), servers, None if age_s is None else time.time() - age_s, Interrupts().check
    )
    if count is None:
        raise OptionError("the ledger cannot be written at the moment", hint="See the server's log, and try again.")
    return count


def _usage(_: Mapping[str, Any], _known: Servers) -> list[dict[str, object]]:
    ledger = open_ledger()
    role = None if postgres.reads_all_stats() else postgres.current_role_oid()
    return ledger.listed(postgres.database(), role) if ledger else []


def _usage_reset(_: Mapping[str, Any], _known: Servers) -> int:
    if not postgres.is_superuser():
        raise NotPermitted(
            "permission denied to reset usage", hint="Daily budgets count by it; call llm.usage_reset(), if you may."
        )
    ledger = open_ledger()
    return ledger.reset_usage(postgres.database()) if ledger else 0


def _progress(_: Mapping[str, Any], _known: Servers) -> list[dict[str, object]]:
    ledger = open_ledger()
    if ledger is None:
        return []
    sees_all = postgres.reads_all_stats()
    role = None if sees_all else postgres.current_role_oid()
    database = None if sees_all else postgres.database()
    ledger.running.look()
    return ledger.running.read(lambda connection: progress.listed(connection, role, database), [])


def _last_errors(_: Mapping[str, Any], _known: Servers) -> list[dict[str, object]]:
    return SESSION.last_errors()


VERBS: dict[str, Callable[[Mapping[str, Any], Servers], object]] = {
    "cache_stats": _cache_stats,
    "cache_clear": _cache_clear,
    "usage": _usage,
    "usage_reset": _usage_reset,
    "progress": _progress,
    "last_errors": _last_errors,
    "health": health,
}
