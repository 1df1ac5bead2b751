"""One table asked in one way in front of an engine of a certain speed.

In: a double in a process of its own, a database whose server points at it, a table, a way. Out: a `Fed`. SQL, client
and HTTP are real, and so is the time; the engine alone is the model of `pg_bridge.testing.fast_engine`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import psycopg

from benchmarks.feed.engines import FedEngine
from benchmarks.paper.runs import fill
from benchmarks.paper.runs import run as ask
from benchmarks.paper.ways import GGR, ORIGINAL, OURS, WAYS, Way
from benchmarks.paper.workloads import Asked, Workload
from benchmarks.paper_tables import make
from pg_bridge.options import YES_OR_NO, Call, Server
from pg_bridge.testing.speeds import EngineSpeed

V1 = "v1 fixed order"
FED_WAYS = tuple(way for way in WAYS if way.name in {ORIGINAL, V1, GGR, OURS})

_FILTERED = Call(max_tokens=4, kind="boolean", choices=YES_OR_NO)
_WARM_UP_ROWS = 40


@dataclass(frozen=True, slots=True)
class Fed:
    """What one way took; medians where it was asked several times.

    Attributes:
        engine: The engine's name.
        table: The table's.
        way: The way's.
        rows: Rows asked about.
        asked: Prompts sent.
        seconds: From the first thing done for the question to its last answer: planning, SQL and all.
        prompt_tokens: Of all prompts.
        computed_tokens: Those of them that were not cached.
        busy_s: Seconds in which a step was on, in a rank.
        rendering_s: Seconds in which an API server had work.
        floor_s: What the computed tokens take in full steps, after one prompt was rendered and before one is answered.
        front_s: What the API servers need for the prompts if all have work all the time.
        cpu_s: CPU seconds of the process that asked, a backend or this one; None in virtual time.
    """

    engine: str
    table: str
    way: str
    rows: int
    asked: int
    seconds: float
    prompt_tokens: int
    computed_tokens: int
    busy_s: float
    rendering_s: float
    floor_s: float
    front_s: float
    cpu_s: float | None = None

    @property
    def above_floor(self) -> float:
        """How many times the floor it took."""
        return self.seconds / self.floor_s

    @property
    def busy(self) -> float:
        """The share of time in which a step was on."""
        return self.busy_s / self.seconds


def workload(table: str, rows: int, seed: int) -> Workload:
    """The filter of a table."""
    made = make(table, rows, seed)
    return Workload(made, "filter", (Asked(made.question, _FILTERED),), frozenset())


def measure(
    engine: FedEngine, endpoint: str, connection: psycopg.Connection[Any], seed: int, repeats: int
) -> Iterator[list[Fed]]:
    """Ask about every table of an engine in every way; yields one table's at a time."""
    for table, rows in engine.rows.items():
        asked = workload(table, rows, seed)
        fill(connection, asked.table, asked.half)
        every: dict[str, list[Fed]] = {way.name: [] for way in FED_WAYS}
        for _ in range(repeats):
            for way in FED_WAYS:
                every[way.name].append(_feed(engine, asked, way, endpoint, connection))
        yield [sorted(fed, key=lambda each: each.seconds)[len(fed) // 2] for fed in every.values()]


def warm_up(endpoint: str, connection: psycopg.Connection[Any], seed: int) -> None:
    """Ask something in every way, so that what is loaded once is loaded."""
    tell(endpoint, EngineSpeed())
    few = workload("movies", _WARM_UP_ROWS, seed)
    fill(connection, few.table, few.half)
    for way in FED_WAYS:
        ask(few, way, Server("double", endpoint), connection)


def tell(endpoint: str, speed: EngineSpeed) -> None:
    """Make a double so fast, and let it forget."""
    constants = asdict(speed)
    if speed == EngineSpeed():
        constants = {}  # JSON has no infinity
    with urlopen(Request(f"{endpoint}/double", json.dumps({"speed": constants}).encode())):  # noqa: S310 - our double
        pass


def told_by(endpoint: str) -> dict[str, Any]:
    """What a double tells of itself."""
    with urlopen(f"{endpoint}/double") as page:  # noqa: S310 - our double
        told: dict[str, Any] = json.load(page)
    return told


def _feed(engine: FedEngine, asked: Workload, way: Way, endpoint: str, connection: psycopg.Connection[Any]) -> Fed:
    speed = engine.speed
    tell(endpoint, speed)
    earlier = told_by(endpoint)["queried_tokens"]  # counters go on
    pid = os.getpid() if way.order else connection.info.backend_pid
    before_s = cpu_seconds(pid)
    run = ask(asked, way, Server("double", endpoint), connection)
    cpu_s = cpu_seconds(pid) - before_s
    told = told_by(endpoint)
    if told["answered"] != run.asked:
        raise RuntimeError(f"{engine.name}, {asked.name}, {way.name}: {told['answered']} answers, not {run.asked}")
    return fed(
        engine,
        asked.table.name,
        way.name,
        asked.rows,
        asked=run.asked,
        requests=told["requests"],
        seconds=run.seconds,
        prompt_tokens=told["queried_tokens"] - earlier,
        computed_tokens=told["computed_tokens"],
        busy_s=told["busy_s"],
        rendering_s=told["render_busy_s"],
        cpu_s=cpu_s,
    )


def cpu_seconds(pid: int) -> float:
    """CPU seconds that a process of this machine has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def fed(engine: FedEngine, table: str, way: str, rows: int, *, requests: int, **figures: Any) -> Fed:  # noqa: ANN401 - Fed's
    """What one way took, beside what it has to take."""
    speed = engine.speed
    asked, tokens = figures["asked"], figures["prompt_tokens"]
    one_s = speed.front_s(1, 1, tokens // asked) * speed.api_servers + speed.answer_tokens * speed.step_s
    floor_s = figures["computed_tokens"] / (speed.full_tokens_per_s * speed.ranks) + one_s
    return Fed(
        engine.name, table, way, rows, floor_s=floor_s, front_s=speed.front_s(requests, asked, tokens), **figures
    )
