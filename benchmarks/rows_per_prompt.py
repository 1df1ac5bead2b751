"""Rows that share a prompt: what engines with and without a prefix cache are spared, and what a model makes of it.

One yes-or-no question about films' reviews, by `llm.map`, with 1, 4, 8 and 16 rows a prompt. Of an engine double, which
answers a row the same however it is asked, figures tell what was sent: without a cache all prompt tokens are computed.
With `--endpoint` a model is asked, too, and its answers are compared with those that it gives about rows alone. Each
number begins with an empty ledger; the double also with an empty prefix cache. Its tokens are of four characters.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import psycopg

from benchmarks import counters
from benchmarks.hosts import make_hosts
from benchmarks.machine import describe
from benchmarks.planner.tables import SHARED_DATA
from benchmarks.report import Report, parser_of
from benchmarks.sembench.gold import load_reviews
from pg_bridge.testing.cluster import Cluster
from pg_bridge.testing.double import EngineDouble

NUMBERS = (1, 4, 8, 16)
QUESTION = "Is {review} positive about the film {film}?"
HEAD = "rows a prompt  prompts prompt tokens  computed  answers  repairs  alike"
_WORDS = ("dull", "lovely", "slow", "brave", "loud", "warm", "odd", "clever", "long", "bright")

Rows = list[tuple[int, str, str]]


def made_rows(count: int, seed: int) -> Rows:
    """Reviews of twenty films with their stories, where SemBench's are not here."""
    rng = random.Random(seed)
    films = [f"Film no. {number}: {' '.join(rng.choices(_WORDS, k=50))}." for number in range(20)]
    texts = (" ".join(f"It is {rng.choice(_WORDS)}." for _ in range(rng.randint(4, 20))) for _ in range(count))
    return [(number, films[number % 20], text) for number, text in enumerate(texts)]


def rows_of(count: int, seed: int) -> tuple[str, Rows]:
    """Whose reviews, and they."""
    if not (SHARED_DATA / "movie_reviews.csv").exists():
        return "made-up reviews", made_rows(count, seed)
    found = [(number, each.film, each.text) for number, each in enumerate(load_reviews())]
    return "SemBench's reviews", sorted(random.Random(seed).sample(found, min(count, len(found))))


def measure(connection: psycopg.Connection[Any], endpoint: str, number: int) -> tuple[str, list[Any]]:
    """Ask with so many rows a prompt: a line of the table, and the answers."""
    before = counters.read(endpoint)
    prompts = json.dumps({"positive": {"prompt": QUESTION, "type": "boolean", "rows_per_prompt": number}})
    query = "SELECT outputs FROM llm.map('TABLE reviews', %s::jsonb, cache => 'transaction') ORDER BY row_id"
    answers = connection.execute(query.encode(), (prompts,)).fetchall()
    spent = counters.read(endpoint).since(before)
    told = connection.execute("SELECT unique_prompts, completion_tokens, together FROM llm.last_run()").fetchone()
    sent, completion, together = told or (0, 0, None)
    repairs = (together or {}).get("repairs", 0)
    return (
        f"{number:>13} {sent:>8} {spent.prompt_tokens:>13} {spent.prompt_tokens - spent.cached_tokens:>9}"
        f" {completion or 0:>8} {repairs:>8}",
        answers,
    )


def compare(endpoint: str, rows: Rows, double: EngineDouble | None = None) -> Iterator[str]:
    """Ask with each number of rows a prompt."""
    yield HEAD
    with Cluster() as cluster, psycopg.connect(make_hosts(cluster, endpoint)[0].dsn, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS reviews; CREATE TABLE reviews (id int, film text, review text)")
        with connection.cursor() as cursor, cursor.copy("COPY reviews FROM STDIN") as into:
            for row in rows:
                into.write_row(row)
        alone: list[Any] = []
        for number in NUMBERS:
            if double is not None:
                double.reset()
            line, answers = measure(connection, endpoint, number)
            alone = alone or answers
            alike = sum(one == other for one, other in zip(alone, answers, strict=True))
            yield f"{line} {100 * alike / len(rows):>5.0f}%"


def main() -> int:
    """Ask a double, and a model if one is named."""
    parser = parser_of("benchmarks.rows_per_prompt", __doc__)
    parser.add_argument("--rows", type=int, default=400, help="reviews (400)")
    parser.add_argument("--seed", type=int, default=0, help="of which reviews")
    parser.add_argument("--endpoint", help="of an engine with a model, to be asked as well")
    arguments = parser.parse_args()
    report = Report(arguments)
    report.add(*describe(arguments), "")
    whose, rows = rows_of(arguments.rows, arguments.seed)
    with EngineDouble(max_model_len=8192, record=False) as double:
        report.add(f"the engine double, {len(rows)} of {whose}", *compare(double.url, rows, double), "")
    if arguments.endpoint:
        report.add("the model", *compare(arguments.endpoint, rows), "")
    return report.close()


if __name__ == "__main__":
    raise SystemExit(main())
