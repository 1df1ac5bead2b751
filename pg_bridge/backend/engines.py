"""Engines as a backend needs them: stopped with the statement, within what holds for all sessions, and seen waiting."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from hashlib import blake2b

from pg_bridge.asking.seen import Seen
from pg_bridge.backend import postgres
from pg_bridge.backend.interrupts import Interrupts
from pg_bridge.backend.opened import open_running
from pg_bridge.backend.waits import EngineWait
from pg_bridge.engine import Engine, Usage
from pg_bridge.ledger.leases import Limits
from pg_bridge.ledger.running import ServerGate
from pg_bridge.options import Server

_MOST_USAGES = 64
_USAGES: dict[tuple[int, str], deque[Usage]] = {}  # of the latest engines, by role and server


def new_engine(server: Server) -> Engine:
    """A way to a server's engine, for one run."""
    engine = Engine(server, check_interrupts=Interrupts().check, gate=_gate(server), waiting=EngineWait())
    key = (postgres.current_role_oid(), server.name)
    _USAGES.setdefault(key, deque(maxlen=_MOST_USAGES)).append(engine.usage)
    return engine


def seen_here(server: Server) -> Seen:
    """How fast a server's engine has been for the current role in this session, as far as the engine's figures tell.

    The latest runs count together, so that one of a single question says little beside one of thousands.
    """
    seen = Seen()
    for usage in _USAGES.get((postgres.current_role_oid(), server.name), ()):
        if usage.prompt_tokens and usage.cached_tokens is not None:
            seen = replace(
                seen,
                computed_tokens=seen.computed_tokens + usage.prompt_tokens - usage.cached_tokens,
                seconds=seen.seconds + usage.wait_s,
            )
    return seen


def new_onlooker(server: Server) -> Engine:
    """A way to what the engine tells of itself; nothing is asked on it, so it is held to no limit."""
    return Engine(server, check_interrupts=Interrupts().check, waiting=EngineWait())


def _gate(server: Server) -> ServerGate:
    """The way in that all sessions share which ask the same endpoint by the same server."""
    named = "\0".join([postgres.database(), str(server.owner), server.name, server.endpoint])
    limits = Limits(server.max_in_flight, server.requests_per_minute, server.tokens_per_minute)
    return open_running().gate(blake2b(named.encode(), digest_size=16).hexdigest(), limits)
