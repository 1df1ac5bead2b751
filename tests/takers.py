"""A process that asks for places of a server again and again, as a session does; one of many in a test.

    python -m tests.takers RUNNING_DB IN_FLIGHT TIMES SEED

It says `ready`, begins when a line comes in, and prints a line for each time: when it had how many more, or fewer. The
moments lie inside those in which it held them, so that sums over all processes are never too large. With no times it
takes all it can, says how many, and holds them until it ends.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

from pg_bridge.ledger.database import Database, Warnings
from pg_bridge.ledger.leases import SCHEMA, Limits
from pg_bridge.ledger.running import Running, ServerGate

BUSY_S = 0.005


def open_running(path: Path, warnings: Warnings | None = None) -> Running:
    warnings = warnings or Warnings()
    return Running(Database(path, SCHEMA, 1, warnings, "OFF", BUSY_S), warnings.add)


def take(gate: ServerGate, prompts: int) -> int:
    while True:
        granted, wait_s = gate.take(prompts, 1, 0)
        if granted:
            return granted
        time.sleep(wait_s)


def main(path: str, in_flight: str, times: str, seed: str) -> None:
    gate = open_running(Path(path)).gate("vllm", Limits(int(in_flight)))
    chance = random.Random(int(seed))
    print("ready", flush=True)
    sys.stdin.readline()
    if times == "0":
        print(take(gate, int(in_flight)), flush=True)
        sys.stdin.readline()
    for _ in range(int(times)):
        held = take(gate, chance.randint(1, int(in_flight)))
        print(f"{time.monotonic():.6f} {held}")
        time.sleep(chance.uniform(0.0, 0.004))
        print(f"{time.monotonic():.6f} {-held}")
        gate.give_back(held)
        gate.tend()
    gate.leave()


if __name__ == "__main__":
    main(*sys.argv[1:])
