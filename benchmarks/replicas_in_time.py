"""Many engines in virtual time: pg_bridge's own queue, runs and pacing before a model of each engine.

In: prompts in their planned order, as many `FastEngine` as there are engines. Out: what they computed and when each
ended. What it leaves out is what takes this machine's time: planning, SQL, JSON, HTTP. So it tells what the order of
events costs, with any number of engines, and not how many one session can keep busy.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from pg_bridge.engine import AHEAD_PROMPTS
from pg_bridge.engine.engine import MOST_AHEAD
from pg_bridge.engine.flight import FIRST_LOOK_S, LOOKS_EVERY_S
from pg_bridge.engine.pace import Load, Pace
from pg_bridge.engine.queue import PromptQueue
from pg_bridge.engine.records import Portion
from pg_bridge.options.records import IN_FLIGHT_OF_EACH
from pg_bridge.testing.fast_engine import FastEngine, Prompt
from pg_bridge.testing.speeds import EngineSpeed

PORTION = 4096


class Outcome(NamedTuple):
    """What came of one run.

    Attributes:
        computed: Prompt tokens that no cache had.
        cached: Those that one had.
        ended_s: When each engine answered its last prompt, in s from the beginning.
        asked: Prompts that each was sent.
    """

    computed: int
    cached: int
    ended_s: Sequence[float]
    asked: Sequence[int]

    @property
    def seconds(self) -> float:
        """Until all were answered."""
        return max(self.ended_s)

    @property
    def apart(self) -> float:
        """By how much of that the first engine ended sooner than the last."""
        return 1 - min(self.ended_s) / self.seconds


def ask(speeds: Sequence[EngineSpeed], texts: Sequence[str], *, placed: bool = True) -> Outcome:
    """Ask about all texts; each engine its run of them, or all in turn whichever has the least to do."""
    fleet = _Fleet([FastEngine(speed) for speed in speeds], texts, placed=placed)
    fleet.run()
    return fleet.outcome()


def things(number: int, rows: int) -> list[str]:
    """Texts about so many things, so many rows of each; the beginning, which is most of a text, is a thing's."""
    return [
        f"{f'film {i // rows} and what is known of it, ' * 20}its review {i} {'of words ' * (5 + i * 7919 % 40)}"
        for i in range(number * rows)
    ]


def speeds_of(speed: EngineSpeed, factors: Sequence[float]) -> list[EngineSpeed]:
    """Engines so many times as slow as one of a speed."""
    return [
        replace(
            speed,
            tokens_per_s=speed.tokens_per_s / factor,
            step_s=speed.step_s * factor,
            sequence_s=speed.sequence_s * factor,
            render_s=speed.render_s * factor,
        )
        for factor in factors
    ]


class _Fleet:
    def __init__(self, engines: Sequence[FastEngine], texts: Sequence[str], *, placed: bool) -> None:
        self._engines = engines
        self._queue = PromptQueue(_portions(texts), len(engines) if placed else 1)
        self._placed = placed
        self._paces = [Pace(IN_FLIGHT_OF_EACH, eager=True) for _ in engines]
        self._in_flight = [0] * len(engines)
        self._asked = [0] * len(engines)
        self._ended_s = [0.0] * len(engines)
        self._next_look_s = [FIRST_LOOK_S] * len(engines)
        self._events: list[tuple[float, int]] = []

    def run(self) -> None:
        for number in range(len(self._engines)):
            self._send(number, 0.0)
        while self._events:
            now_s, number = heapq.heappop(self._events)
            engine, pace = self._engines[number], self._paces[number]
            for request in engine.advance(now_s):
                self._in_flight[number] -= len(request.prompts)
                self._ended_s[number] = now_s
                pace.land(len(request.prompts), now_s - request.came_s, now_s)
            if now_s >= self._next_look_s[number]:
                self._next_look_s[number] = now_s + LOOKS_EVERY_S
                if pace.wants_to_hear(self._in_flight[number], now_s):
                    pace.hear(Load(engine.running, engine.waiting), self._in_flight[number])
            self._send(number, now_s)

    def outcome(self) -> Outcome:
        hits = sum(engine.hit_tokens for engine in self._engines)
        queried = sum(engine.queried_tokens for engine in self._engines)
        return Outcome(queried - hits, hits, self._ended_s, self._asked)

    def _send(self, number: int, now_s: float) -> None:
        engine = self._engines[number]
        while (room := self._paces[number].room(self._in_flight[number], 0, now_s)) > 0:
            while not self._queue.ended and self._queue.waiting < AHEAD_PROMPTS * min(len(self._engines), MOST_AHEAD):
                self._queue.make_more()
            _, batch = self._queue.pull(room, (number,) if self._placed else (0,))
            if not batch:
                break
            size = engine.speed.block_size
            server = self._asked[number] % engine.speed.api_servers
            engine.submit(now_s, [_prompt(text, size) for _, text in batch], server=server)
            self._in_flight[number] += len(batch)
            self._asked[number] += len(batch)
        next_s = engine.next_event_s()
        if next_s is not None and self._in_flight[number]:
            heapq.heappush(self._events, (min(next_s, max(self._next_look_s[number], now_s)), number))


def _portions(texts: Sequence[str]) -> Iterator[Portion]:
    for start in range(0, len(texts), PORTION):
        portion = texts[start : start + PORTION]
        yield Portion(iter(portion), len(portion))


@lru_cache(1 << 16)
def _prompt(text: str, block_size: int) -> Prompt:
    """Of four bytes each token has."""
    encoded = text.encode()
    return Prompt.of(np.frombuffer(encoded.ljust(-(-len(encoded) // 4) * 4), np.int32), block_size)
