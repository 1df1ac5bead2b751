"""The client of today in virtual time: pg_bridge's own pacing before a model of an engine.

In: prompts that are all there, a `FastEngine`. Out: seconds. What it leaves out is what takes this machine's time:
planning, SQL, JSON, HTTP; so what is lost here is lost by the order of events alone, and is the same on every machine.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from functools import cache

from benchmarks.feed.engines import FedEngine
from benchmarks.feed.prompts import prompts
from benchmarks.feed.runs import V1, Fed, fed
from benchmarks.paper.ways import GGR, ORIGINAL, OURS
from benchmarks.paper_tables import make
from pg_bridge.engine.flight import FIRST_LOOK_S, LOOKS_EVERY_S
from pg_bridge.engine.pace import Load, Pace
from pg_bridge.options import Server
from pg_bridge.testing.fast_engine import FastEngine, Prompt

_ORDER_OF = {ORIGINAL: "orig", V1: "v1", GGR: "ggr", OURS: "ours"}
_CEILING = Server("", "http://engine").most_in_flight


def measure(engines: Sequence[FedEngine], seed: int) -> Iterator[Iterator[list[Fed]]]:
    """Ask about every table of each engine in every way; yields engine after engine, and of it table after table."""
    made = cache(make)

    @cache
    def sent(table: str, rows: int, order: str, block_size: int) -> Sequence[Prompt]:
        return prompts(made(table, rows, seed), order, block_size)

    def of_engine(engine: FedEngine) -> Iterator[list[Fed]]:
        size = engine.speed.block_size
        for table, rows in engine.rows.items():
            yield [_feed(engine, table, rows, way, sent(table, rows, order, size)) for way, order in _ORDER_OF.items()]

    return map(of_engine, engines)


def _feed(engine: FedEngine, table: str, rows: int, way: str, sent: Sequence[Prompt]) -> Fed:
    model = FastEngine(engine.speed)
    seconds, requests = ask(model, sent)
    return fed(
        engine,
        table,
        way,
        rows,
        asked=len(sent),
        requests=requests,
        seconds=seconds,
        prompt_tokens=sum(prompt.tokens for prompt in sent),
        computed_tokens=model.computed_tokens,
        busy_s=model.busy_s,
        rendering_s=model.render_busy_s,
    )


def ask(engine: FastEngine, sent: Sequence[Prompt], max_in_flight: int = _CEILING) -> tuple[float, int]:
    """Ask about all prompts from moment 0 on; returns when the last is answered, in s, and in how many requests."""
    pace = Pace(max_in_flight, eager=True)
    idle: deque[int] = deque()  # connections by their API server; the one that has been idle for longest is used first
    opened: list[int] = []
    now_s, next_look_s, at, in_flight, requests = 0.0, FIRST_LOOK_S, 0, 0, 0
    while at < len(sent) or in_flight:
        while at < len(sent) and (room := pace.room(in_flight, 0, now_s)):
            if not idle:
                opened.append(min(range(engine.speed.api_servers), key=opened.count))
                idle.append(opened[-1])
            batch = sent[at : at + room]
            engine.submit(now_s, batch, server=idle.popleft())
            at, in_flight, requests = at + len(batch), in_flight + len(batch), requests + 1
        next_s = engine.next_event_s()
        assert next_s is not None  # noqa: S101 - something is in flight
        now_s = min(next_s, next_look_s)
        for request in engine.advance(now_s):
            in_flight -= len(request.prompts)
            idle.append(request.server)
            pace.land(len(request.prompts), now_s - request.came_s, now_s)
        if now_s >= next_look_s:
            next_look_s = now_s + LOOKS_EVERY_S
            if pace.wants_to_hear(in_flight, now_s):
                pace.hear(Load(engine.running, engine.waiting), in_flight)
    return now_s, requests
