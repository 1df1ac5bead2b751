"""The pace in front of the model of an engine, in virtual time: what is fast is full, what is slow is not flooded."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pg_bridge.engine.engine import POLL_S
from pg_bridge.engine.flight import FIRST_LOOK_S, LOOKS_EVERY_S
from pg_bridge.engine.pace import Load, Pace
from pg_bridge.testing.fast_engine import FastEngine, Prompt, Request
from pg_bridge.testing.speeds import H200_1B, H200_8B, L4_8B, EngineSpeed


def rows(count: int, shared: int = 230, own: int = 50) -> list[Prompt]:
    """Prompts of which forty each have a long beginning in common."""
    return [Prompt.of([-1 - i // 40] * shared + [i] * own, 16) for i in range(count)]


def ask(engine: FastEngine, pace: Pace, prompts: list[Prompt], *, tells: bool = True, comes_s: float = 0.0) -> float:
    """Ask about all prompts; returns the seconds that a stranger waited, who came at a moment, if one came."""
    sent, in_flight, now_s = 0, 0, 0.0
    look_s = FIRST_LOOK_S if tells else float("inf")
    comes_s = comes_s or float("inf")
    stranger_request: Request | None = None
    while True:
        while sent < len(prompts) and (room := pace.room(in_flight, 0, now_s)):
            batch = prompts[sent : sent + room]
            engine.submit(now_s, batch, server=engine.least_busy_server())
            sent, in_flight = sent + len(batch), in_flight + len(batch)
        next_s = engine.next_event_s()
        if next_s is None:
            break
        now_s = min(next_s, look_s, comes_s, now_s + POLL_S if sent < len(prompts) else float("inf"))
        for request in engine.advance(now_s):
            if request is not stranger_request:
                in_flight -= len(request.prompts)
                pace.land(len(request.prompts), now_s - request.came_s, now_s)
        if now_s == look_s:
            look_s += LOOKS_EVERY_S
            if pace.wants_to_hear(in_flight, now_s):
                pace.hear(Load(engine.running, engine.waiting), in_flight)
        if now_s == comes_s:
            comes_s = float("inf")
            stranger_request = engine.submit(now_s, rows(1), server=engine.least_busy_server())
    if stranger_request is None:
        return 0.0
    assert stranger_request.done_s is not None
    return stranger_request.done_s - stranger_request.came_s


FAST = {
    "8B": replace(H200_8B, api_servers=4),
    "1B": replace(H200_1B, api_servers=8),
    "L4": L4_8B,
    "long answers": EngineSpeed(tokens_per_s=40_000, step_s=0.02, render_s=2e-3, answer_tokens=100, api_servers=4),
}


@pytest.mark.some(3)
@pytest.mark.parametrize("tells", [True, False], ids=["metrics", "no metrics"])
@pytest.mark.parametrize("name", FAST)
def test_an_engine_is_kept_full(name: str, tells: bool) -> None:
    prompts = rows(600 if name == "L4" else 6000)
    engine, flooded = FastEngine(FAST[name]), FastEngine(FAST[name])
    ask(engine, Pace(1024, eager=True), prompts, tells=tells)
    for start in range(0, len(prompts), 8):
        flooded.submit(0.0, prompts[start : start + 8], server=flooded.least_busy_server())
    while (next_s := flooded.next_event_s()) is not None:
        flooded.advance(next_s)
    span_s = engine.busy_s + engine.idle_s
    assert engine.busy_s >= 0.9 * span_s
    # Who sends all at once can only be told from it by the beginning.
    assert span_s <= 1.15 * (flooded.busy_s + flooded.idle_s) + 0.3


@pytest.mark.some(1)
@pytest.mark.parametrize(
    "speed",
    [
        EngineSpeed(tokens_per_s=400, step_s=0.05, max_num_batched_tokens=2048),
        EngineSpeed(tokens_per_s=4_000, step_s=0.05),
        H200_8B,
    ],
    ids=["400 tokens a second", "4,000", "44,000"],
)
def test_whoever_else_asks_waits_for_little(speed: EngineSpeed) -> None:
    def waits(pace: Pace) -> float:
        return ask(FastEngine(speed), pace, rows(8000, 20, 180), comes_s=30.0)

    paced, fixed = waits(Pace(1024, eager=True)), waits(_Fixed(1024, eager=True))
    step_s = speed.step_s + speed.max_num_batched_tokens / speed.tokens_per_s
    assert paced < 1 + 3 * step_s + 5
    assert paced < fixed / 2


class _Fixed(Pace):
    """As many in flight as there may be, whatever the engine does."""

    def limit(self, now_s: float) -> int:
        return self.max_in_flight
