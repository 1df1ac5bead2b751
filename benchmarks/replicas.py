"""What several engines compute, and when each ends: prompts scattered over ranks, and placed by pg_bridge.

Each rank has a prefix cache of its own. Scattered (option `ranks` left out) the engine sends each prompt to the rank
that has the least to do, as vLLM's balancer does. Placed, each rank is sent a run of the planned order, and so is each
engine of a server whose endpoint names several. Asked through SQL of a double with vLLM's cache rules; its speed is the
model of --speed, in real time, with four API servers for each rank; many ranks are faster than this machine can ask.
Target: placed prompts have at least 98 % of the cached tokens of one rank, and the last ends within 10 % of the first.

More engines than this machine can play are asked in virtual time, as `benchmarks.replicas_in_time` does: that tells
what the order of events costs, and not how many prompts a session can make.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import NamedTuple
from urllib.request import urlopen

import psycopg
from psycopg import sql

from benchmarks import replicas_in_time
from benchmarks.hosts import make_hosts
from benchmarks.loading import load_table
from benchmarks.machine import describe
from benchmarks.paper_tables import PAPER_TABLES, PaperTable, make
from benchmarks.report import Report, parser_of
from pg_bridge.serving.ports import free_port
from pg_bridge.testing.cluster import Cluster
from pg_bridge.testing.double import EngineDouble
from pg_bridge.testing.speeds import SPEEDS, speed_of

LEAST_CACHED, MOST_APART = 0.98, 0.1
PROMPTS_EACH = {2: 20_000, 8: 5_000, 64: 6_000, 1000: 100}  # of engines in virtual time, each
ROUTED = ("round_robin", "cache_aware", "consistent_hash")
API_SERVERS = 4  # for each rank: with fewer of them the front end is full before the ranks are


class Asked(NamedTuple):
    """What came of one run.

    Attributes:
        cached: Prompt tokens from the ranks' caches.
        computed: Those that were not.
        seconds: Until the last rank ended.
        apart: By how much of that the first rank ended sooner.
    """

    cached: int
    computed: int
    seconds: float
    apart: float

    def line(self, head: str, one: Asked) -> str:
        """As a line of the table, beside one rank."""
        return (
            f"{head:<18} {self.computed:>10,} {self.computed / one.computed:>7.3f} {self.cached / one.cached:>8.1%}"
            f" {self.seconds:>8.2f} {self.apart:>7.0%}"
        )


def ask(table: PaperTable, ranks: int, told: int, speed: str) -> Asked:
    """Ask about a table of an engine with so many ranks, of which pg_bridge is told so many."""
    serving = replace(speed_of(speed), ranks=ranks, api_servers=API_SERVERS * ranks)
    with EngineDouble(speed=serving, record=False) as double:
        return _ask(table, [double], told)


def ask_several(table: PaperTable, count: int, speed: str) -> Asked:
    """Ask about a table of so many engines."""
    serving = replace(speed_of(speed), api_servers=API_SERVERS)
    with ExitStack() as stack:
        doubles = [stack.enter_context(EngineDouble(speed=serving, record=False)) for _ in range(count)]
        return _ask(table, doubles, 1)


def ask_behind(table: PaperTable, count: int, router: str, policy: str, speed: str) -> Asked:
    """Ask about a table of so many engines behind vllm-router, as one engine."""
    serving = replace(speed_of(speed), api_servers=API_SERVERS)
    with ExitStack() as stack:
        doubles = [stack.enter_context(EngineDouble(speed=serving, record=False)) for _ in range(count)]
        endpoint = stack.enter_context(_routed(router, policy, [double.url for double in doubles]))
        return _ask(table, doubles, 1, endpoint)


@contextmanager
def _routed(router: str, policy: str, workers: Sequence[str]) -> Iterator[str]:
    port = str(free_port())
    command = [router, "--host", "127.0.0.1", "--port", port, "--policy", policy]
    command += ["--prometheus-port", str(free_port()), "--worker-urls", *workers]
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        try:
            for _ in range(300):
                with suppress(OSError), urlopen(f"{url}/health") as page:  # noqa: S310 - our own
                    if page.status == 200:
                        break
                time.sleep(0.1)
            yield url
        finally:
            running.terminate()


def _ask(table: PaperTable, doubles: Sequence[EngineDouble], told: int, endpoint: str = "") -> Asked:
    endpoint = endpoint or ",".join(double.url for double in doubles)
    with (
        Cluster() as cluster,
        psycopg.connect(make_hosts(cluster, endpoint)[0].dsn, autocommit=True) as connection,
    ):
        connection.execute(sql.SQL("ALTER SERVER vllm OPTIONS (ADD ranks {})").format(sql.Literal(str(told))))
        load_table(connection, table, "asked")
        query = sql.SQL("SELECT count(output) FROM llm.map('SELECT * FROM asked', {}, max_tokens => 4)")
        connection.execute(query.format(sql.Literal(table.question)))
        ranks = [rank for double in doubles for rank in double.engine.ranks]
        began_s = min(double.engine.began_s or 0.0 for double in doubles)
        ended = [rank.ended_s - began_s for rank in ranks]
        hits = sum(rank.cache.hit_tokens for rank in ranks)
        queried = sum(rank.cache.queried_tokens for rank in ranks)
        return Asked(hits, queried - hits, max(ended), 1 - min(ended) / max(ended))


def compare(table: PaperTable, name: str, counts: list[int], speed: str, router: str = "") -> Iterator[str]:
    """One table, over more and more ranks, and engines behind a router if there is one."""
    one = ask(table, 1, 1, speed)
    yield f"{name}, {len(table.cells[0])} rows"
    yield f"  {'':<18} {'computed':>8} {'x one':>7} {'cached':>8} {'seconds':>8} {'apart':>7}"
    yield "  " + one.line("1 rank", one)
    for count in counts:
        yield "  " + ask(table, count, 1, speed).line(f"{count} ranks, scattered", one)
        for what, placed in (("ranks", ask(table, count, count, speed)), ("engines", ask_several(table, count, speed))):
            yield "  " + placed.line(f"{count} {what}, placed", one)
            if placed.cached < LEAST_CACHED * one.cached or placed.apart > MOST_APART:
                yield "    missed"
        for policy in ROUTED if router else ():
            yield "  " + ask_behind(table, count, router, policy, speed).line(f"{count}, {policy}", one)


def simulate(cases: Sequence[tuple[int, int]], speed: str) -> Iterator[str]:
    """So many engines, and prompts for each, in virtual time; the last engine half as fast, too."""
    yield "in virtual time, things of 40 rows each; the last of the engines as fast as the others, or half as fast"
    yield f"  {'engines':>7} {'prompts':>9} {'slowness':>8} {'x one':>7} {'cached':>8} {'seconds':>8} {'apart':>7}"
    for engines, prompts in cases:
        rows = replicas_in_time.things(engines * prompts // 40, 40)
        one = replicas_in_time.ask([speed_of(speed)], rows)
        for slowness in (1, 2) if engines > 1 else (1,):
            speeds = replicas_in_time.speeds_of(speed_of(speed), [1] * (engines - 1) + [slowness])
            told = replicas_in_time.ask(speeds, rows)
            yield (
                f"  {engines:>7} {len(rows):>9,} {slowness:>8} {told.computed / one.computed:>7.3f} "
                f"{told.cached / one.cached:>8.1%} {told.seconds:>8.2f} {told.apart:>7.0%}"
            )


def main() -> int:
    """Compare all tables."""
    parser = parser_of("benchmarks.replicas", __doc__)
    parser.add_argument("--rows", type=int, default=8000, help="rows of each table, at most (8,000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--speed", choices=list(SPEEDS), default="h100-8b", help="of each rank (h100-8b)")
    parser.add_argument("--table", action="append", choices=list(PAPER_TABLES), help="only this one; may be repeated")
    parser.add_argument("--ranks", type=int, nargs="*", default=[2, 4, 8], help="how many ranks (2 4 8)")
    parser.add_argument(
        "--simulate",
        type=int,
        nargs="*",
        choices=list(PROMPTS_EACH),
        default=[2, 8, 64, 1000],
        help="engines in virtual time",
    )
    parser.add_argument("--router", default="", help="vllm-router's program: engines behind it, too")
    arguments = parser.parse_args()
    report = Report(arguments)
    report.add(*describe(arguments), "")
    for name in arguments.table or ("movies", "products", "bird"):
        table = make(name, min(arguments.rows, PAPER_TABLES[name].rows), arguments.seed)
        report.add(*compare(table, name, arguments.ranks, arguments.speed, arguments.router))
    if arguments.simulate:
        report.add("", *simulate([(each, PROMPTS_EACH[each]) for each in arguments.simulate], arguments.speed))
    return report.close()


if __name__ == "__main__":
    raise SystemExit(main())
