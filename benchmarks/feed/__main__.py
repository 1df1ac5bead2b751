"""How well fast engines are fed: `python -m benchmarks.feed`.

The paper's tables in PostgreSQL, asked through SQL and directly, in front of an engine double in a process of its own
that is as fast as a vLLM on a GPU (`pg_bridge.testing.fast_engine`, fitted to runs on one); and in front of a real vLLM
on this machine with a model that hardly computes. The double shows what our side and vLLM's front end lose, and nothing
that only a card could show.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

import psycopg

from benchmarks.feed import fit, real
from benchmarks.feed.charts import draw
from benchmarks.feed.engines import ENGINES, MAIN
from benchmarks.feed.lines import EXPLAINED, engine_head, table_lines, verdicts
from benchmarks.feed.runs import Fed, measure, warm_up
from benchmarks.hosts import make_hosts
from benchmarks.machine import describe
from benchmarks.report import Report, parser_of
from pg_bridge.dev.devdb import Double
from pg_bridge.testing.cluster import Cluster
from pg_bridge.testing.speeds import H200_1B, H200_8B


def main() -> int:
    """Run the benchmark."""
    parser = parser_of("benchmarks.feed", __doc__)
    parser.add_argument("--engines", nargs="*", default=list(ENGINES), choices=list(ENGINES))
    parser.add_argument("--tables", nargs="+", choices=list(MAIN.rows), help="of each engine's (default: all of them)")
    parser.add_argument("--rows", type=int, help="of each table, at most (default: as many as each engine is for)")
    parser.add_argument("--repeats", type=int, default=1, help="the median of which is told (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the tables (default: %(default)s)")
    parser.add_argument(
        "--vllm-rows", type=int, default=1000, help="in front of a real vLLM; 0 starts none (default: 1000)"
    )
    parser.add_argument(
        "--no-fit", action="store_true", help="do not compare the model with what was measured on a GPU"
    )
    parser.add_argument("--charts", type=Path, metavar="FOLDER", help="also draw the picture there")
    arguments = parser.parse_args()
    report = Report(arguments)
    report.add(*describe(arguments))
    if not arguments.no_fit:
        report.add("", "The model beside what was measured on an H200, with the client of those runs:")
        report.add(*fit.lines(list(fit.modelled(fit.asked(), H200_8B, H200_1B))))
    report.add("", *EXPLAINED)
    fed: list[Fed] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        double = Double(log_path=folder / "double.log", detached=False).start()
        stack.callback(double.stop)
        cluster = stack.enter_context(Cluster())
        host = make_hosts(cluster, double.endpoint)[0]
        connection = stack.enter_context(psycopg.connect(host.dsn, autocommit=True))
        warm_up(double.endpoint, connection, arguments.seed)
        for name in arguments.engines:
            engine = ENGINES[name].fewer(arguments.rows).only(arguments.tables)
            report.add(*engine_head(engine))
            for of_table in measure(engine, double.endpoint, connection, arguments.seed, arguments.repeats):
                report.add(*table_lines(of_table))
                fed += of_table
    report.add(*verdicts(fed))
    if arguments.vllm_rows:
        for line in real.lines(arguments.vllm_rows, arguments.seed):
            report.add(line)
    if arguments.charts and (drawn := [each for each in fed if each.engine == MAIN.name]):
        note = f"{MAIN.name}, by the model fitted to runs on an H200; filters; python -m benchmarks.feed"
        report.add("", f"drawn: {draw(drawn, arguments.charts, note).name}")
    return report.close()


if __name__ == "__main__":
    raise SystemExit(main())
