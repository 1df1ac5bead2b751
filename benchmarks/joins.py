"""What a condition over two tables costs, by how its pairs are asked about: each, in lists, in blocks, as cost says.

Reviews and titles of the made table Movies, each with each, asked in SQL of a double with vLLM's cache rules, whose
speed is the model of --speed, in real time. It says yes where the title is the review's own film, however it is asked,
so that all four joins must be the same. How good a real model's answers are in a list or a block is not measured here.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any, get_args

import psycopg

from benchmarks.hosts import make_hosts
from benchmarks.machine import describe
from benchmarks.paper_tables import make
from benchmarks.report import Report, parser_of
from pg_bridge.options.values import Pairs
from pg_bridge.testing.cluster import Cluster
from pg_bridge.testing.double import EngineDouble
from pg_bridge.testing.speeds import SPEEDS

SIZES = ((20, 5), (200, 10), (200, 100), (1000, 40))

JOIN = """
SELECT r.id, f.title FROM reviews AS r JOIN films AS f
    ON llm.is_true('Is {{review}} about the film {{title}}?', llm.row(r, f), pairs => '{way}', cache => 'transaction')
ORDER BY 1, 2
"""

_CANDIDATE = re.compile(r"^[0-9]+\. (\{.*\})$", re.M)


class Truth:
    """Which film each review is about, told in whatever form is asked for."""

    def __init__(self, film_of: dict[str, str]) -> None:
        self._film_of = film_of

    def __call__(self, prompt: str) -> str:
        """Answer a prompt."""
        question, _, told = prompt.rpartition("\n")
        row = json.loads(told)
        titles = [json.loads(found)["title"] for found in _CANDIDATE.findall(question)]
        if not titles:
            return "yes" if self._film_of[row["review"]] == row["title"] else "no"
        if "review" in row:
            return json.dumps({"yes": self._fitting(row, titles)})
        return json.dumps({number: self._fitting(each, titles) for number, each in row.items()})

    def _fitting(self, row: dict[str, str], titles: list[str]) -> list[int]:
        return [number for number, title in enumerate(titles, 1) if self._film_of[row["review"]] == title]


def load(connection: psycopg.Connection[Any], reviews: int, films: int, seed: int) -> dict[str, str]:
    """Make the two tables; returns the film of each review."""
    made = make("movies", 40 * films, seed)
    cells = {name: [json.loads(cell) for cell in column] for name, column in zip(made.columns, made.cells, strict=True)}
    titles = list(dict.fromkeys(cells["movietitle"]))[:films]
    film_of = {
        review: titles[number % len(titles)]
        for number, review in enumerate(list(dict.fromkeys(cells["reviewcontent"]))[:reviews])
    }
    connection.execute("DROP TABLE IF EXISTS reviews, films; CREATE TABLE reviews (id int, review text)")
    connection.execute("CREATE TABLE films (title text)")
    with connection.cursor() as cursor:
        cursor.executemany("INSERT INTO reviews VALUES (%s, %s)", list(enumerate(film_of)))
        cursor.executemany("INSERT INTO films VALUES (%s)", [(title,) for title in titles])
    connection.execute("ANALYZE reviews, films")
    return film_of


def compare(
    connection: psycopg.Connection[Any], engine: EngineDouble, reviews: int, films: int, seed: int
) -> Iterator[str]:
    """Ask one join in each way."""
    film_of = load(connection, reviews, films, seed)
    yield f"{len(film_of)} reviews and {len(set(film_of.values()))} films"
    yield f"  {'pairs':<8} {'questions':>9} {'prompt tokens':>13} {'computed':>10} {'answered':>8} {'seconds':>8}"
    engine.behaviour.answer = Truth(film_of)
    found = []
    for way in get_args(Pairs):
        engine.reset()
        before = engine.cache.queried_tokens, engine.cache.hit_tokens
        started = time.perf_counter()
        found.append(connection.execute(JOIN.format(way=way).encode()).fetchall())
        took_s = time.perf_counter() - started
        queried, hit = engine.cache.queried_tokens - before[0], engine.cache.hit_tokens - before[1]
        told = connection.execute("SELECT unique_prompts, completion_tokens FROM llm.last_run()").fetchone()
        questions, answers = told or (0, 0)
        yield f"  {way:<8} {questions:>9,} {queried:>13,} {queried - hit:>10,} {answers:>8,} {took_s:>8.2f}"
    if any(each != found[0] for each in found) or len(found[0]) != len(film_of):
        yield "  missed: the joins differ"


def main() -> int:
    """Compare all sizes."""
    parser = parser_of("benchmarks.joins", __doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--speed", choices=list(SPEEDS), default="h100-8b", help="(h100-8b)")
    arguments = parser.parse_args()
    report = Report(arguments)
    report.add(*describe(arguments), "")
    with Cluster() as cluster, EngineDouble(speed=arguments.speed) as engine:
        engine.behaviour.record = False
        (host,) = (host for host in make_hosts(cluster, engine.url) if host.name == "plpython")
        with psycopg.connect(host.dsn, autocommit=True) as connection:
            connection.execute("LOAD 'pg_bridge'")
            for reviews, films in SIZES:
                report.add(*compare(connection, engine, reviews, films, arguments.seed))
    return report.close()


if __name__ == "__main__":
    raise SystemExit(main())
