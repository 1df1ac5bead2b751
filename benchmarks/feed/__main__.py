"""How well fast engines are fed: `python -m benchmarks.feed`.

The paper's tables in PostgreSQL, asked through SQL and directly, in front of an engine double in a process of its own
that is as fast as a vLLM on a GPU (`pg_bridge.testing.fast_engine`, fitted to runs on one); the same in virtual time,
where nothing but the order of events is slow; and in front of a real vLLM on this machine with a model that hardly
computes. It shows what our side and vLLM's front end lose, and nothing that only a card could show.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import psycopg

from benchmarks.feed import fit, paced, real
from benchmarks.feed.charts import draw
from benchmarks.feed.engines import ENGINES, MAIN, FedEngine
from benchmarks.feed.lines import EXPLAINED, engine_head, table_lines, verdicts
from benchmarks.feed.runs import Fed, measure, warm_up
from benchmarks.hosts import make_hosts
from benchmarks.machine import describe
from benchmarks.report import Report, parser_of
from pg_bridge.dev.devdb import Double
from pg_bridge.testing.cluster import Cluster
from pg_bridge.testing.speeds import H200_1B, H200_8B

FIT, VIRTUAL, CLOCK, VLLM = "fit", "virtual", "clock", "vllm"
PARTS = (FIT, VIRTUAL, CLOCK, VLLM)


def main() -> int:
    """Run the benchmark."""
    arguments = _parser().parse_args()
    report = Report(arguments)
    report.add(*describe(arguments))
    engines = [ENGINES[name].only(arguments.tables) for name in arguments.engines]
    if FIT in arguments.parts:
        report.add("", "The model beside what was measured on an H200, with the client of those runs:")
        report.add(*fit.lines(list(fit.modelled(fit.asked(), H200_8B, H200_1B))))
    report.add("", *EXPLAINED)
    found: list[Fed] = []
    if VIRTUAL in arguments.parts:
        found = _in_virtual_time([engine.whole().fewer(arguments.rows) for engine in engines], arguments.seed, report)
    if CLOCK in arguments.parts:
        found = _beside_a_clock([engine.fewer(arguments.rows) for engine in engines], arguments, report)
    if arguments.charts and (drawn := [each for each in found if each.engine == MAIN.name]):
        clock = "beside a clock" if CLOCK in arguments.parts else "in virtual time"
        note = f"{MAIN.name}, by the model fitted to runs on an H200, {clock}; filters; python -m benchmarks.feed"
        report.add("", f"drawn: {draw(drawn, arguments.charts, note).name}")
    if VLLM in arguments.parts:
        for line in real.lines(arguments.vllm_rows, arguments.seed):
            report.add(line)
    return report.close()


def _in_virtual_time(engines: Sequence[FedEngine], seed: int, report: Report) -> list[Fed]:
    report.add(
        "", "In virtual time, by pg_bridge's pacing; prompts are all there, tokens are Tekken's, no SQL, no HTTP:"
    )
    found: list[Fed] = []
    for engine, tables in zip(engines, paced.measure(engines, seed), strict=True):
        report.add(*engine_head(engine))
        for of_table in tables:
            report.add(*table_lines(of_table))
            found += of_table
    report.add(*verdicts(found, "in virtual time"))
    return found


def _beside_a_clock(engines: Sequence[FedEngine], arguments: argparse.Namespace, report: Report) -> list[Fed]:
    report.add("", "Beside a clock: PostgreSQL, planning, client and HTTP are real, the engine is the double:")
    found: list[Fed] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        double = Double(log_path=folder / "double.log", detached=False).start()
        stack.callback(double.stop)
        cluster = stack.enter_context(Cluster())
        host = make_hosts(cluster, double.endpoint)[0]
        connection = stack.enter_context(psycopg.connect(host.dsn, autocommit=True))
        warm_up(double.endpoint, connection, arguments.seed)
        for engine in engines:
            report.add(*engine_head(engine))
            for of_table in measure(engine, double.endpoint, connection, arguments.seed, arguments.repeats):
                report.add(*table_lines(of_table))
                found += of_table
    report.add(*verdicts(found, "beside a clock"))
    return found


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("benchmarks.feed", __doc__)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS, help="(default: all)")
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=list(ENGINES), help="(default: all)")
    parser.add_argument("--tables", nargs="+", choices=list(MAIN.rows), help="of each engine's (default: all of them)")
    parser.add_argument("--rows", type=int, help="of each table, at most (default: as many as each engine is for)")
    parser.add_argument("--repeats", type=int, default=1, help="beside the clock; the median is told (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the tables (default: %(default)s)")
    parser.add_argument("--vllm-rows", type=int, default=1000, help="in front of vLLM (default: %(default)s)")
    parser.add_argument("--charts", type=Path, metavar="FOLDER", help="also draw the picture there")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
