"""The paper's table, re-run on the product: `python -m benchmarks.paper`.

Seven tables of the paper's shape in PostgreSQL, the paper's sixteen queries on them, eight ways to ask. Two vLLM
engines with the same model run beside each other, one with its prefix cache off; only one of them works at a time. Ways
take turns within every repeat, and medians of the repeats are printed.
"""

from __future__ import annotations

import argparse
import random
from contextlib import ExitStack
from pathlib import Path
from typing import cast, get_args

import psycopg

from benchmarks.hosts import make_hosts
from benchmarks.machine import describe
from benchmarks.paper import answers, developer
from benchmarks.paper.charts import draw
from benchmarks.paper.engines import options
from benchmarks.paper.results import lines, verdicts
from benchmarks.paper.runs import SAMPLE, Run, fill, floor_rate, run
from benchmarks.paper.ways import UNSHUFFLED, WAYS
from benchmarks.paper.workloads import Kind, workloads
from benchmarks.paper_tables import PAPER_TABLES, make
from benchmarks.report import Report, parser_of
from pg_bridge.dev.random_model import ModelSize, random_model
from pg_bridge.options import Server
from pg_bridge.serving.demo import demo_engine
from pg_bridge.serving.launch import VllmEngine
from pg_bridge.testing.cluster import Cluster


def main() -> int:
    """Run the benchmark."""
    arguments = _parser().parse_args()
    report = Report(arguments)
    report.add(*describe(arguments))
    size = ModelSize(hidden=arguments.hidden, layers=arguments.layers)
    model = arguments.model or random_model(size)
    described = arguments.model or f"random weights, {size.layers} layers {size.hidden} wide"
    scale = f"rows of some {arguments.tokens} prompt tokens of each table, {arguments.repeats} repeats"
    held = f"holds {arguments.cache_tokens} tokens" if arguments.cache_tokens else "as large as vLLM makes it"
    report.add(f"cache:     {held}")
    report.add(f"model:     {described}", f"tables:    {scale}; one by one: {SAMPLE} rows, extrapolated")
    with ExitStack() as stack:
        engines = {
            cached: stack.enter_context(
                VllmEngine(
                    model,
                    prefix_caching=cached,
                    **options(model, arguments.device, arguments.cache_tokens, arguments.extra),
                )
            )
            for cached in (True, False)
        }
        cluster = stack.enter_context(Cluster())
        host = make_hosts(cluster, engines[True].endpoint)[0]
        connection = stack.enter_context(psycopg.connect(host.dsn, autocommit=True))
        servers = {cached: Server("vllm", engine.endpoint) for cached, engine in engines.items()}
        chance = random.Random(arguments.seed)
        unlike = [" ".join(str(chance.random()) for _ in range(60)) for _ in range(40)]
        rate = floor_rate(servers[True], unlike)
        report.add(f"floor:     {rate:.0f} prompt tokens a second that share nothing")
        runs: dict[str, dict[str, list[Run]]] = {}
        kinds = cast("tuple[Kind, ...]", tuple(arguments.kinds))
        for workload in workloads(arguments.tokens, arguments.seed, tuple(arguments.tables), kinds):
            fill(connection, workload.table, workload.half)
            tried = [way for way in WAYS if workload.shuffled or way.name in UNSHUFFLED]
            ways: dict[str, list[Run]] = {way.name: [] for way in tried}
            for repeat in range(arguments.repeats):
                for way in tried:
                    if repeat == 0 or not way.once:
                        ways[way.name].append(run(workload, way, servers[way.cached], connection))
            runs[workload.name] = ways
            report.add(*lines(workload, ways, rate))
        report.add(*verdicts(runs), "")
        if arguments.developer_rows:
            fill(connection, make("movies", arguments.developer_rows, arguments.seed), frozenset())
            connection.execute("ALTER TABLE movies RENAME TO questioned")
            report.add(*developer.lines(host.dsn, engines[True].endpoint, arguments.developer_rows), "")
    if arguments.answer_rows:
        with demo_engine() as engine:
            report.add(*answers.lines(arguments.answer_rows, arguments.seed, Server("vllm", engine.endpoint)))
    if arguments.charts:
        note = f"{scale}; {described}; python -m benchmarks.paper"
        report.add("", *(f"drawn: {path.name}" for path in draw(runs, arguments.charts, note)))
    return report.close()


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("benchmarks.paper", __doc__)
    parser.add_argument(
        "--tokens", type=int, default=52_000, help="prompt tokens of each table's rows, about (default: %(default)s)"
    )
    parser.add_argument("--repeats", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--tables", nargs="+", default=list(PAPER_TABLES), choices=list(PAPER_TABLES))
    parser.add_argument("--kinds", nargs="+", default=list(get_args(Kind)), choices=list(get_args(Kind)))
    parser.add_argument("--seed", type=int, default=0, help="of the tables (default: %(default)s)")
    parser.add_argument("--model", default="", help="a model's name or folder; a random one if left out")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="(default: %(default)s)")
    parser.add_argument("--developer-rows", type=int, default=500, help="of the loop (default: %(default)s)")
    parser.add_argument("--answer-rows", type=int, default=400, help="with known answers (default: %(default)s)")
    parser.add_argument("--hidden", type=int, default=384, help="width of the random model (default: %(default)s)")
    parser.add_argument("--layers", type=int, default=6, help="layers of the random model (default: %(default)s)")
    parser.add_argument(
        "--cache-tokens",
        type=int,
        default=4096,
        help="room in the engine's KV cache; 0 for all that it takes (default: %(default)s)",
    )
    parser.add_argument("extra", nargs="*", metavar="-- ARGUMENT", help="more arguments for vLLM, of both engines")
    parser.add_argument("--charts", type=Path, metavar="FOLDER", help="also draw the two pictures there")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
