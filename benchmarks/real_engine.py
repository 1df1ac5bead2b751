"""The same rows on a real vLLM: one request a row, all at once in the rows' order, and planned.

The model has random weights: its answers mean nothing, its arithmetic and its KV cache are real. The rows are made
up but shaped like a join of reviews with films: the text of a review, which is unique, comes first, and the film's
long attributes repeat; the rows are shuffled. Each way asks the question in other words, so that nothing but the
system prompt, which all share, can be reused from one way to the next.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg

from benchmarks.hosts import make_hosts
from benchmarks.machine import describe
from benchmarks.report import Report, parser_of
from pg_bridge.dev.random_model import ModelSize, random_engine
from pg_bridge.testing.cluster import Cluster

SIZE = ModelSize(hidden=384, layers=6)
MAX_TOKENS = 8
FILMS = 40
COLUMNS = ("review", "title", "director", "genre", "actors", "synopsis")

# Same length, different from the first word on.
QUESTION_ALONE = "Does this review recommend the film? Say yes or no."
QUESTION_ORIGINAL = "Is the person who wrote this pleased? Say yes or no."
QUESTION_PLANNED = "Would its author watch the film twice? Say yes or no."

_TEXT = """
the a slow good story of one long night in small town where two people wait for the last train and music fine
ending great actors did what they could with it quality was happy some had to wait more than weeks river house
"""

_COUNTERS = "prompt_tokens, cached_tokens, completion_tokens"


def make_rows(count: int, seed: int) -> list[tuple[str, ...]]:
    """Return reviews joined with films, shuffled; the cells are in the order of COLUMNS."""
    chance = random.Random(seed)
    vocabulary = _TEXT.split()

    def words(number: int) -> str:
        return " ".join(chance.choices(vocabulary, k=number))

    films = [
        (f"{words(3)} {number}", words(2), chance.choice(("drama", "comedy", "crime")), words(20), words(70))
        for number in range(FILMS)
    ]
    rows: list[tuple[str, ...]] = [(f"{words(38)} {number}", *films[number % FILMS]) for number in range(count)]
    chance.shuffle(rows)
    return rows


@dataclass(frozen=True, slots=True)
class Result:
    """What one way took.

    Attributes:
        name: Of the way.
        rows: Rows asked about.
        seconds: Wall-clock for these rows.
        prompt_tokens: The engine's own figure, as the next two.
        cached_tokens: Those of them that came from the prefix cache.
        completion_tokens: Tokens of the answers.
    """

    name: str
    rows: int
    seconds: float
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int

    @property
    def ms_per_row(self) -> float:
        """Milliseconds a row."""
        return 1000 * self.seconds / self.rows


def one_by_one(connection: psycopg.Connection[Any], rows: int) -> Result:
    """Ask about the first rows with a request each, one after the other."""
    statement = (
        f"SELECT llm.complete(%s, r, max_tokens => {MAX_TOKENS}) "
        f"FROM (SELECT {', '.join(COLUMNS)} FROM reviewed WHERE number = %s) AS r"
    )
    counted = [0, 0, 0]
    seconds = 0.0
    for number in range(rows):
        started = time.perf_counter()
        connection.execute(statement, (QUESTION_ALONE, number)).fetchall()
        seconds += time.perf_counter() - started
        counted = [total + new for total, new in zip(counted, _counters(connection), strict=True)]
    return Result("one by one", rows, seconds, *counted)


def together(connection: psycopg.Connection[Any], name: str, rows: int, question: str, options: str) -> Result:
    """Ask about all rows in one statement."""
    query = f"SELECT {', '.join(COLUMNS)} FROM reviewed ORDER BY number"
    statement = f"SELECT count(output) FROM llm.map(%s, %s, max_tokens => {MAX_TOKENS}{options})"
    started = time.perf_counter()
    answered = connection.execute(statement, (query, question)).fetchone()
    seconds = time.perf_counter() - started
    if answered is None or answered[0] != rows:
        raise RuntimeError(f"{name}: not every row was answered")
    return Result(name, rows, seconds, *_counters(connection))


def _counters(connection: psycopg.Connection[Any]) -> tuple[int, int, int]:
    row: Any = connection.execute(f"SELECT {_COUNTERS} FROM llm.last_run()").fetchone()
    if row[1] is None:
        raise RuntimeError("the engine's cached tokens are unknown: does something else use it?")
    return row[0], row[1], row[2]


def measure(dsn: str, rows: int, sample: int, seed: int) -> Iterator[Result]:
    """Yield the result of each way."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            f"CREATE TABLE reviewed (number integer PRIMARY KEY, {', '.join(f'{name} text' for name in COLUMNS)})"
        )
        with connection.cursor() as cursor, cursor.copy("COPY reviewed FROM STDIN") as copy:
            for number, row in enumerate(make_rows(rows, seed)):
                copy.write_row((number, *row))
        # The engine's and the backend's first requests are slow; nobody measures them.
        connection.execute("SELECT llm.complete('Warm up ' || n, max_tokens => 8) FROM generate_series(1, 5) AS n")
        yield one_by_one(connection, sample)
        no_plan = ", reorder => 'none', dedup => false"
        yield together(connection, "all at once", rows, QUESTION_ORIGINAL, no_plan)
        yield together(connection, "planned", rows, QUESTION_PLANNED, "")


def line(result: Result, rows: int, planned_ms: float) -> str:
    """Return one line of the table."""
    return (
        f"{result.name:<12} {result.rows:>5} {result.seconds:>8.1f} {result.ms_per_row * rows / 1000:>9.1f}"
        f" {result.prompt_tokens:>13} {result.cached_tokens:>13} {result.cached_tokens / result.prompt_tokens:>9.0%}"
        f" {result.completion_tokens:>13} {result.ms_per_row / planned_ms:>6.2f}"
    )


def main() -> int:
    """Run the benchmark."""
    parser = parser_of("benchmarks.real_engine", __doc__)
    parser.add_argument("--rows", type=int, default=500, help="(default: %(default)s)")
    parser.add_argument("--sample", type=int, default=100, help="rows asked about one by one (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=2, help="of the rows (default: %(default)s)")
    arguments = parser.parse_args()
    rows, sample = arguments.rows, min(arguments.sample, arguments.rows)
    report = Report(arguments)
    report.add(*describe(arguments), "")
    report.add(
        f"Model: random weights, {SIZE.layers} layers {SIZE.hidden} wide, float32. Host: plpython. {rows} rows of",
        f"{FILMS} films, {MAX_TOKENS} tokens an answer at most. Each way asks in other words: one's prefix cache",
        f"does not help the next. One by one asks about the first {sample} rows only: its seconds of all rows are",
        "extrapolated. ratio: seconds of all rows / those of planned. Token counts are vLLM's; those cached",
        "include, in every way, the beginning of the prompt, which all its rows share.",
        "",
        f"{'way':<12} {'rows':>5} {'seconds':>8} {'s of all':>9} {'prompt tokens':>13} {'cached tokens':>13}"
        f" {'hit rate':>9} {'answer tokens':>13} {'ratio':>6}",
    )
    with Cluster() as cluster, random_engine(SIZE) as engine:
        host = make_hosts(cluster, engine.endpoint)[0]
        results = list(measure(host.dsn, rows, sample, arguments.seed))
    report.add(*(line(result, rows, results[-1].ms_per_row) for result in results))
    return report.close()


if __name__ == "__main__":
    raise SystemExit(main())
