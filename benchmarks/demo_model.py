"""The model in the box on rows that nobody made for it, through vLLM and llm.map: film reviews and pg_settings.

The reviews are those of critics, with the label that their site gives them; no model of this repository was trained on
such text. The settings are PostgreSQL's own; what they are about is taken from their category. Also: how long the
engine takes to be ready, and how fast it answers.
"""

from __future__ import annotations

import csv
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg

from benchmarks.hosts import make_hosts
from benchmarks.machine import describe
from benchmarks.planner.tables import SHARED_DATA
from benchmarks.report import Report, parser_of
from pg_bridge.serving.demo import demo_engine
from pg_bridge.testing.cluster import Cluster

REVIEWS = SHARED_DATA / "movie_reviews.csv"

_TOPICS = {
    "Resource Usage / Memory": "memory",
    "Resource Usage / Disk": "storage",
    "Connections and Authentication / Connection Settings": "network",
    "Connections and Authentication / TCP Settings": "network",
    "Connections and Authentication / SSL": "security",
    "Connections and Authentication / Authentication": "security",
    "Reporting and Logging / What to Log": "logging",
    "Reporting and Logging / When to Log": "logging",
    "Reporting and Logging / Where to Log": "logging",
    "Query Tuning / Planner Method Configuration": "query planner",
    "Query Tuning / Planner Cost Constants": "query planner",
    "Query Tuning / Other Planner Options": "query planner",
    "Autovacuum": "vacuum",
}


@dataclass(frozen=True, slots=True)
class Question:
    """A question whose right answers are known.

    Attributes:
        name: What is asked about.
        query: The rows, with a column `truth`, which is not sent.
        prompt: The question.
        choices: The answers.
    """

    name: str
    query: str
    prompt: str
    choices: tuple[str, ...]


QUESTIONS = (
    Question(
        "critics' reviews",
        "SELECT review, truth FROM review ORDER BY id",
        "Is the sentiment of {review} positive or negative?",
        ("positive", "negative"),
    ),
    Question(
        "pg_settings",
        "SELECT short_desc, truth FROM setting ORDER BY short_desc",
        f"What is {{short_desc}} about: {', '.join(sorted(set(_TOPICS.values())))}?",
        tuple(sorted(set(_TOPICS.values()))),
    ),
)


def fill(connection: psycopg.Connection[Any]) -> None:
    """Make the tables `review` and `setting`."""
    connection.execute("CREATE TABLE review (id int, review text, truth text)")
    if REVIEWS.exists():
        with REVIEWS.open(newline="", encoding="utf-8") as lines:
            rows = [
                (i, row["reviewText"], row["scoreSentiment"].lower()) for i, row in enumerate(csv.DictReader(lines))
            ]
        with connection.cursor() as cursor, cursor.copy("COPY review FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
    connection.execute("CREATE TABLE topic (category text, truth text)")
    with connection.cursor() as cursor:
        cursor.executemany("INSERT INTO topic VALUES (%s, %s)", list(_TOPICS.items()))
    connection.execute("CREATE TABLE setting AS SELECT short_desc, truth FROM pg_settings JOIN topic USING (category)")


def answers(connection: psycopg.Connection[Any], asked: Question) -> Iterator[str]:
    """Ask a question; say how many answers are right, what always saying the same would reach, and how fast it went."""
    started = time.monotonic()
    rows = connection.execute(
        "SELECT input ->> 'truth', output FROM llm.map(%s, %s, choices => %s)",
        [asked.query, asked.prompt, list(asked.choices)],
    ).fetchall()
    seconds = time.monotonic() - started
    if not rows:
        yield f"{asked.name}: skipped, there is no {REVIEWS.name} in shared/data"
        return
    truths = Counter(truth for truth, _ in rows)
    right = Counter(truth for truth, answer in rows if truth == answer)
    yield f"{asked.name}: {asked.prompt}"
    yield f"  {right.total()} of {len(rows)} right: {right.total() / len(rows):.1%}"
    yield f"  always saying '{truths.most_common(1)[0][0]}': {truths.most_common(1)[0][1] / len(rows):.1%}"
    yield "  of each: " + ", ".join(f"{truth} {right[truth]} of {count}" for truth, count in sorted(truths.items()))
    tokens = connection.execute("SELECT unique_prompts, prompt_tokens, cached_tokens FROM llm.last_run()").fetchone()
    assert tokens is not None  # noqa: S101 - it tells of the run above
    prompts, sent, cached = tokens
    computed = sent - cached
    yield f"  {seconds:.1f} s: {prompts / seconds:.0f} prompts/s, {computed / seconds:.0f} prompt tokens/s computed"
    yield f"  {cached / sent:.0%} of the prompt tokens came from the prefix cache"


def main() -> int:
    """Run the benchmark."""
    arguments = parser_of("benchmarks.demo_model", __doc__).parse_args()
    report = Report(arguments)
    report.add(*describe(arguments), "")
    started = time.monotonic()
    with demo_engine() as engine:
        report.add(f"vLLM was ready after {time.monotonic() - started:.0f} s", "")
        with Cluster() as cluster:
            ask_all(report, make_hosts(cluster, engine.endpoint)[0].dsn)
    return report.close()


def ask_all(report: Report, dsn: str) -> None:
    """Ask all questions in a database."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        fill(connection)
        for asked in QUESTIONS:
            report.add(*answers(connection, asked), "")


if __name__ == "__main__":
    raise SystemExit(main())
