"""SemBench's ten questions as SQL: what each costs and how good its answer is, beside what the paper tells of others.

Asked of an engine double that answers by the gold labels and errs about 5 % of the texts, others in each of five runs;
and of a real vLLM with the model in the box, a toy. The double's quality is that of the SQL, not of a model; questions
and tokens are what an engine was sent, whichever it is, the double's tokens being of four characters. All of the double
are means of the runs, as the published lines are; those are of Gemini 2.5 Flash, of whose prices and seconds nothing
here tells. Each question begins with an empty ledger and, at the double, with an empty prefix cache.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import psycopg

from benchmarks import counters
from benchmarks.hosts import make_hosts
from benchmarks.machine import describe
from benchmarks.planner.tables import SHARED_DATA
from benchmarks.report import Report, parser_of
from benchmarks.sembench.gold import Film, Review, fill, knowing, load_films, load_reviews
from benchmarks.sembench.published import PUBLISHED, SYSTEMS, Line
from benchmarks.sembench.questions import quality, questions, tables_sql
from pg_bridge.serving.demo import demo_engine
from pg_bridge.testing.cluster import Cluster
from pg_bridge.testing.double import EngineDouble

TARGETS = {"7": 300}  # questions at most
HEAD = f"{'':>2} {'questions':>9} {'prompt tokens':>13} {'computed':>8} {'s':>6} {'quality':>7}"


class Asked(NamedTuple):
    """What one question cost, and how good the answer is."""

    prompts: float
    prompt_tokens: float
    computed_tokens: float
    seconds: float
    quality: float

    def line(self, number: str) -> str:
        """As a line of the table."""
        return (
            f"{number:>2} {self.prompts:>9.0f} {self.prompt_tokens:>13.0f} {self.computed_tokens:>8.0f}"
            f" {self.seconds:>6.2f} {self.quality:>7.2f}"
        )


def mean(runs: list[Asked]) -> Asked:
    """The mean of runs."""
    return Asked(*(sum(each) / len(runs) for each in zip(*runs, strict=True)))


def published_line(number: str) -> str:
    """The four others' lines."""
    return "".join(f"{_shown(line):>20}" for line in PUBLISHED[number])


def _shown(line: Line | None) -> str:
    return "-" if line is None else f"{line.dollars:g} / {line.quality:.2f} / {line.seconds:g}"


def ask(
    connection: psycopg.Connection[Any], endpoint: str, number: str, query: str, gold: tuple[list[Review], list[Film]]
) -> Asked:
    """Ask one question."""
    before = counters.read(endpoint)
    began = time.perf_counter()
    rows = connection.execute(query.encode()).fetchall()
    seconds = time.perf_counter() - began
    spent = counters.read(endpoint).since(before)
    computed = spent.prompt_tokens - spent.cached_tokens
    return Asked(spent.prompts, spent.prompt_tokens, computed, seconds, quality(number, rows, *gold))


@contextmanager
def database(endpoint: str) -> Iterator[psycopg.Connection[Any]]:
    """A database with SemBench's tables."""
    with Cluster() as cluster, psycopg.connect(make_hosts(cluster, endpoint)[0].dsn, autocommit=True) as connection:
        connection.execute(tables_sql().encode())
        fill(connection)
        yield connection


def of_the_double(gold: tuple[list[Review], list[Film]], noise: float, seeds: Iterable[int]) -> Iterator[str]:
    """Ask all ten of the double."""
    most = len({review.text for review in gold[0]})
    with EngineDouble(record=False) as double, database(double.url) as connection:
        for number, query in questions().items():
            runs = []
            for seed in seeds:
                double.reset()
                double.behaviour.answer = knowing(gold[0], noise, seed)
                runs.append(ask(connection, double.url, number, query, gold))
            yield mean(runs).line(number) + published_line(number)
            if (asked := max(run.prompts for run in runs)) > TARGETS.get(number, most):
                yield f"   missed: {asked:.0f} questions, at most {TARGETS.get(number, most)} wanted"


def of_the_model(gold: tuple[list[Review], list[Film]]) -> Iterator[str]:
    """Ask all ten of the model in the box."""
    with demo_engine() as engine, database(engine.endpoint) as connection:
        for number, query in questions().items():
            yield ask(connection, engine.endpoint, number, query, gold).line(number)


def main() -> int:
    """Ask all ten of both engines."""
    parser = parser_of("benchmarks.sembench", __doc__)
    parser.add_argument("--noise", type=float, default=0.05, help="share of texts about which the double errs (0.05)")
    parser.add_argument("--runs", type=int, default=5, help="of the double, each with other errors (5)")
    parser.add_argument("--seed", type=int, default=0, help="of the first run's errors")
    parser.add_argument("--double-only", action="store_true", help="without the model in the box")
    arguments = parser.parse_args()
    report = Report(arguments)
    report.add(*describe(arguments), "")
    if not (SHARED_DATA / "movies.csv").exists():
        report.add("skipped: SemBench's tables are not here")
        return report.close()
    gold = load_reviews(), load_films()
    report.add(f"A double that errs about {arguments.noise:.0%} of the texts; the others' dollars / quality / seconds:")
    report.add(HEAD + "".join(f"{system:>20}" for system in SYSTEMS))
    report.add(*of_the_double(gold, arguments.noise, range(arguments.seed, arguments.seed + arguments.runs)), "")
    if not arguments.double_only:
        report.add("vLLM with the model in the box, which was made for other texts:", HEAD)
        report.add(*of_the_model(gold))
    return report.close()


if __name__ == "__main__":
    raise SystemExit(main())
