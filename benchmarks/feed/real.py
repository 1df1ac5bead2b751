"""The same in front of a real vLLM on this machine's CPU, with a model so small that its front end is the slow part.

In: a number of rows. Out: lines. It has no floor: engine, API server, client and database share the machine's cores.
CPU seconds tell who needed them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg

from benchmarks.feed.runs import FED_WAYS, cpu_seconds, workload
from benchmarks.hosts import make_hosts
from benchmarks.paper.runs import fill, run
from benchmarks.paper.ways import ORIGINAL
from pg_bridge.dev.random_model import ModelSize, random_model
from pg_bridge.options import Server
from pg_bridge.serving.launch import VllmEngine
from pg_bridge.testing.cluster import Cluster

SIZE = ModelSize(hidden=128, layers=1)
TABLE = "movies"

_ENGINE_CORE = "VLLM::EngineCor"  # as the kernel cuts it
_HEAD = f"  {'way':<28}{'seconds':>9}{'rows/s':>9}{'computed':>11}{'front CPU':>11}{'engine CPU':>12}{'orig./it':>10}"


def lines(rows: int, seed: int) -> Iterator[str]:
    """Ask about a table in every way."""
    with ExitStack() as stack:
        engine = stack.enter_context(VllmEngine(random_model(SIZE), device="cpu"))
        cluster = stack.enter_context(Cluster())
        host = make_hosts(cluster, engine.endpoint)[0]
        connection = stack.enter_context(psycopg.connect(host.dsn, autocommit=True))
        server = Server("vllm", engine.endpoint)
        for warming, count in ((True, 40), (False, rows)):
            asked = workload(TABLE, count, seed)
            fill(connection, asked.table, asked.half)
            if not warming:
                yield ""
                yield f"vLLM on this CPU, {SIZE.layers} layer {SIZE.hidden} wide: {TABLE}, {count} rows"
                yield _HEAD
            original = 0.0
            for way in FED_WAYS:
                before = group_seconds(engine.pid)
                found = run(asked, way, server, connection)
                front_s, core_s = (now - then for now, then in zip(group_seconds(engine.pid), before, strict=True))
                original = found.seconds if way.name == ORIGINAL else original
                if not warming:
                    yield (
                        f"  {way.name:<28}{found.seconds:>9.2f}{count / found.seconds:>9.0f}"
                        f"{found.prompt_tokens - found.cached_tokens:>11,}{front_s:>9.2f} s{core_s:>10.2f} s"
                        f"{original / found.seconds:>10.2f}"
                    )


def group_seconds(group: int) -> tuple[float, float]:
    """CPU seconds of a vLLM's processes: those that serve HTTP, and the engine's own.

    Args:
        group: The process group that it is.
    """
    front = core = 0.0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name, _, rest = (folder / "stat").read_text().partition("(")[2].rpartition(")")
            seconds = cpu_seconds(int(folder.name)) if int(rest.split()[2]) == group else 0.0
        except OSError:  # it has just ended
            continue
        if _ENGINE_CORE in name:
            core += seconds
        else:
            front += seconds
    return front, core
