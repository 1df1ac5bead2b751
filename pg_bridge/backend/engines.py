"""Engines as a backend needs them: stopped with the statement, within what holds for all sessions, and seen waiting."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

from pg_bridge.asking.memory import Memory
from pg_bridge.asking.reduction import least_context
from pg_bridge.asking.seen import speed_shown
from pg_bridge.asking.together import Round
from pg_bridge.backend import postgres
from pg_bridge.backend.interrupts import Interrupts
from pg_bridge.backend.opened import open_running
from pg_bridge.backend.waits import EngineWait
from pg_bridge.engine import Acquaintance, Engine, Notice, Usage
from pg_bridge.errors import EngineError
from pg_bridge.ledger.account import Account
from pg_bridge.ledger.leases import Limits
from pg_bridge.ledger.running import ServerGate
from pg_bridge.ledger.salt import salt_of
from pg_bridge.ledger.speed import Speed
from pg_bridge.options import Call, Server

_MOST_USAGES = 64
_USAGES: dict[tuple[int, str, str, str | None], list[Usage]] = {}  # of the latest runs, by role and engine

# By role and server: one that has other options is met anew.
_ACQUAINTANCES: dict[tuple[int, Server], Acquaintance] = {}
_LATEST_NOTICE: dict[str, int] = {}  # the client's statement that each was shown in, by its beginning


def new_engine(server: Server, acquaintance: Acquaintance | None = None) -> Engine:
    """A way to a server's engine, for one run.

    Args:
        server: The server.
        acquaintance: What is known of the engine; None is what the current role has learnt of it in this session.
    """
    engine = Engine(
        _salted(server),
        check_interrupts=Interrupts().check,
        gate=_gate(server),
        waiting=EngineWait(),
        acquaintance=acquaintance or _ACQUAINTANCES.setdefault((postgres.current_role_oid(), server), Acquaintance()),
        tell=_tell_once,
    )
    usages = _USAGES.setdefault(_key(server), [])
    telling = [usage for usage in usages if speed_shown(usage) is not None]
    others = [usage for usage in usages if speed_shown(usage) is None]  # some may not be at their end yet
    usages[:] = [*telling[-_MOST_USAGES:], *others[-_MOST_USAGES:], engine.usage]
    return engine


def begin_round(memory: Memory, server: Server, account: Account, node: int = 0) -> Round:
    """Begin to ask a server, for a plan node of a statement; the round tells how far it is, and what has failed."""
    return Round(memory, node, new_engine(server), account, tells=True)


def context_of(server: Server, call: Call) -> int:
    """How long a prompt and its answer may be together: what the engine says, or less if the call says so."""
    told = None
    with contextlib.closing(new_engine(server)) as engine, contextlib.suppress(EngineError):
        told = engine.find_model().context_tokens
    return least_context(told, call.context_tokens)


def _salted(server: Server) -> Server:
    """The server with what keeps the current role's prompts apart, if it shall."""
    if server.cache_salt == "off":
        return server
    folder = postgres.ledger_folder()
    who = (postgres.database(), server.owner, server.name, server.endpoint, postgres.current_role_oid())
    return replace(server, salt=salt_of(Path(folder) if folder else None, *who))


def _tell_once(notice: Notice) -> None:
    """Tell the user that an engine is waited for; once a statement, which may make many runs."""
    about, number = notice.message.partition(":")[0], postgres.statement_number()
    if _LATEST_NOTICE.get(about) != number:
        _LATEST_NOTICE[about] = number
        postgres.tell(*notice)


def seen_here(server: Server) -> Speed:
    """How fast a server's engine has been for the current role in this session; its latest runs that tell, together."""
    shown = [each for each in map(speed_shown, _USAGES.get(_key(server), ())) if each is not None]
    return Speed(sum(each.computed_tokens for each in shown), sum(each.seconds for each in shown))


def _key(server: Server) -> tuple[int, str, str, str | None]:
    """Whose figures count: those of the current role, at an engine that this server leads to; others are others."""
    return postgres.current_role_oid(), server.name, server.endpoint, server.model


def new_onlooker(server: Server) -> Engine:
    """A way to what the engine tells of itself; nothing is asked on it, so it is held to no limit."""
    return Engine(server, check_interrupts=Interrupts().check, waiting=EngineWait())


def _gate(server: Server) -> ServerGate:
    """The way in that all sessions share which ask the same endpoint by the same server."""
    named = "\0".join([postgres.database(), str(server.owner), server.name, server.endpoint])
    limits = Limits(server.most_in_flight, server.requests_per_minute, server.tokens_per_minute)
    return open_running().gate(blake2b(named.encode(), digest_size=16).hexdigest(), limits)
