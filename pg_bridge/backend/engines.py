"""Engines as a backend needs them: stopped with the statement, within what holds for all sessions, and seen waiting."""

from __future__ import annotations

from hashlib import blake2b

from pg_bridge.backend import postgres
from pg_bridge.backend.interrupts import Interrupts
from pg_bridge.backend.opened import open_running
from pg_bridge.backend.waits import EngineWait
from pg_bridge.engine import Engine
from pg_bridge.ledger.leases import Limits
from pg_bridge.ledger.running import ServerGate
from pg_bridge.options import Server


def new_engine(server: Server) -> Engine:
    """A way to a server's engine, for one run."""
    return Engine(server, check_interrupts=Interrupts().check, gate=_gate(server), waiting=EngineWait())


def new_onlooker(server: Server) -> Engine:
    """A way to what the engine tells of itself; nothing is asked on it, so it is held to no limit."""
    return Engine(server, check_interrupts=Interrupts().check, waiting=EngineWait())


def _gate(server: Server) -> ServerGate:
    """The way in that all sessions share which ask the same endpoint by the same server."""
    named = "\0".join([postgres.database(), str(server.owner), server.name, server.endpoint])
    limits = Limits(server.max_in_flight, server.requests_per_minute, server.tokens_per_minute)
    return open_running().gate(blake2b(named.encode(), digest_size=16).hexdigest(), limits)
