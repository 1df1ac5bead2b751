"""The client of the runs on the GPU, in virtual time: a fixed number in flight, requests of a quarter of it.

In: prompts, a `FastEngine`. Out: seconds. It is what pg_bridge's pacing was at 7162f51, so that what was
measured with it can be compared with what the model says of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from pg_bridge.testing.fast_engine import FastEngine, Prompt, Request

LARGEST_BATCH = 128
FAST_S = 0.25
SLOW_S = 2.0


def ask(engine: FastEngine, prompts: Sequence[Prompt], max_in_flight: int) -> float:
    """Ask about all prompts from moment 0 on; returns when the last is answered, in s."""
    largest = max(1, min(LARGEST_BATCH, max_in_flight // 4))
    size, sent, in_flight, now_s = largest, 0, 0, 0.0
    while True:
        while sent < len(prompts):
            room = min(max_in_flight - in_flight, size)
            if room < size and in_flight:
                break
            batch = prompts[sent : sent + room]
            engine.submit(now_s, batch, server=engine.least_busy_server())
            sent += len(batch)
            in_flight += len(batch)
        next_s = engine.next_event_s()
        if next_s is None:
            return now_s
        now_s = next_s
        for request in engine.advance(now_s):
            in_flight -= len(request.prompts)
            size = _adapted(size, largest, request, now_s)


def _adapted(size: int, largest: int, request: Request, now_s: float) -> int:
    took_s, count = now_s - request.came_s, len(request.prompts)
    if took_s > SLOW_S:
        return max(1, min(size, count // 2))
    if took_s < FAST_S and count >= size:
        return min(size * 2, largest)
    return size
