"""Calls in a plain SELECT, gathered into batches against made one by one; and what the executor node itself costs.

First the node alone: a function whose batch function answers at once, so that what is left above a plain scan are the
windows, the arguments as JSON and the way to the batch function and back. Then llm.complete with an engine double that
answers at once. Then three queries over reviews on a real vLLM with the model in the box, batching on and off. Repeats
are interleaved and medians printed. Target: less than 15 µs a row for the node.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psycopg

from benchmarks import counters
from benchmarks.hosts import make_hosts
from benchmarks.machine import describe
from benchmarks.report import Report, parser_of
from pg_bridge.dev.devdb import Double
from pg_bridge.serving.demo import demo_engine
from pg_bridge.testing.cluster import Cluster

Conn = psycopg.Connection[Any]

INSTANT = """
CREATE FUNCTION one(t text, n int) RETURNS int LANGUAGE plpgsql STABLE COST 10000 AS 'BEGIN RETURN 1; END';
CREATE FUNCTION one_batch(statement bigint, node int, t json[], n json[]) RETURNS int[] LANGUAGE sql AS
    'SELECT array_fill(1, ARRAY[cardinality(t)])';
SELECT llm.register_batch('one(text, int)', 'one_batch(bigint, int, json[], json[])');
"""

REVIEWS = """
CREATE TABLE products (product_id int PRIMARY KEY, name text);
CREATE TABLE reviews (id int PRIMARY KEY, product_id int, stars int, review text, created date);
INSERT INTO products SELECT i, 'product ' || i FROM generate_series(1, 40) AS i;
INSERT INTO reviews
SELECT i, 1 + i % 40, 1 + i * 7 % 5,
       (ARRAY['The battery ', 'The screen ', 'The price ', 'Its sound ', 'The case '])[1 + i % 5]
       || (ARRAY['is great', 'is terrible', 'is good', 'was broken', 'is not bad', 'is superb'])[1 + i % 6]
       || (ARRAY['.', ' and I love it.', ' but I expected more.', '. Never again!', '. Recommended.',
                 '. Two weeks and it still works.', '. What a waste.'])[1 + i % 7],
       date '2026-01-01' + i % 300
FROM generate_series(1, ROWS) AS i;
CREATE VIEW review_insight AS
SELECT r.*, llm.classify('What is the sentiment of {review}?', r, '{positive,negative,mixed}') AS sentiment
FROM reviews AS r;
ANALYZE;
"""

QUERIES = {
    "join, filter, top 20": """
        SELECT p.name, llm.complete('What is {review} about?', r, max_tokens => 8)
        FROM reviews AS r JOIN products AS p USING (product_id)
        WHERE r.stars <= 2 AND llm.is_true('Does {review} mention the battery?', r)
        ORDER BY r.created DESC LIMIT 20""",
    "view, grouped": "SELECT sentiment, count(*) FROM review_insight WHERE stars <= 2 GROUP BY 1",
    "average": """
        SELECT avg(llm.score('From 1 to 5, how satisfied is the author of {review}?', r, max_tokens => 4))
        FROM reviews AS r""",
}


@dataclass(frozen=True, slots=True)
class Cost:
    """What one statement took.

    Attributes:
        seconds: Wall-clock.
        requests: Prompts that the engine answered, by its own count.
        prompt_tokens: Tokens of them, by its own count.
        cached_tokens: Those of them that came from the prefix cache.
    """

    seconds: float
    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0


def timed(connection: Conn, query: str) -> float:
    """Run a statement; returns its seconds."""
    started = time.perf_counter()
    connection.execute(query.encode()).fetchall()
    return time.perf_counter() - started


def node_alone(connection: Conn, rows: int, repeats: int) -> Iterator[str]:
    """Measure the node with a batch function that answers at once."""
    connection.execute(INSTANT)
    connection.execute(
        "CREATE TABLE item AS SELECT i AS id, 'a text of some forty characters, the ' || i AS t"
        f" FROM generate_series(1, {rows}) AS i".encode()
    )
    connection.execute("VACUUM ANALYZE item")
    ways = {
        "scan": ("on", "SELECT count(length(t) + id) FROM item"),
        "one by one": ("off", "SELECT count(one(t, id)) FROM item"),
        "in batches": ("on", "SELECT count(one(t, id)) FROM item"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, (batching, query) in ways.items():
            connection.execute(f"SET pg_bridge.batching = {batching}".encode())
            seconds[name].append(timed(connection, query))
    for name, each in seconds.items():
        yield f"{name:<12} {1e6 * median(each) / rows:>8.2f} µs a row"
    above = median(b - a for a, b in zip(seconds["scan"], seconds["in batches"], strict=True))
    yield f"the node: {1e6 * above / rows:.2f} µs a row above the scan"


def with_double(connection: Conn, rows: int, repeats: int) -> Iterator[str]:
    """Measure llm.complete beside llm.map with an engine that answers at once."""
    seconds: dict[str, list[float]] = {"llm.map": [], "llm.complete": []}
    for _ in range(repeats):
        query = f"SELECT count(output) FROM llm.map('SELECT t FROM item LIMIT {rows}', 'Well, {{t}}?')"
        seconds["llm.map"].append(timed(connection, query))
        query = f"SELECT count(llm.complete('Well, {{t}}?', i)) FROM (SELECT t FROM item LIMIT {rows}) AS i"
        seconds["llm.complete"].append(timed(connection, query))
    for name, each in seconds.items():
        yield f"{name:<12} {rows / median(each):>8.0f} rows/s"
    ratio = median(b / a for a, b in zip(seconds["llm.map"], seconds["llm.complete"], strict=True))
    yield f"llm.complete takes {ratio:.2f} times as long as llm.map"


def on_vllm(connection: Conn, endpoint: str, rows: int) -> Iterator[str]:
    """Measure the three queries with batching on and off; on first: what it leaves in the cache helps off."""
    connection.execute(REVIEWS.replace("ROWS", str(rows)).encode())
    yield (f"{'query':<22} {'batching':<9} {'seconds':>8} {'requests':>9} {'prompt tokens':>13} {'cached tokens':>13}")
    for name, query in QUERIES.items():
        costs = {}
        for batching in ("on", "off"):
            connection.execute(f"SET pg_bridge.batching = {batching}".encode())
            before = counters.read(endpoint)
            seconds = timed(connection, query)
            used = counters.read(endpoint).since(before)
            costs[batching] = Cost(seconds, used.prompts, used.prompt_tokens, used.cached_tokens)
            cost = costs[batching]
            yield (
                f"{name:<22} {batching:<9} {cost.seconds:>8.2f} {cost.requests:>9} {cost.prompt_tokens:>13}"
                f" {cost.cached_tokens:>13}"
            )
        yield f"{'':<22} {'off / on':<9} {costs['off'].seconds / costs['on'].seconds:>8.1f}"


def main() -> int:
    """Run the benchmark."""
    parser = parser_of("benchmarks.batching", __doc__)
    parser.add_argument("--rows", type=int, default=2_000, help="on vLLM (default: %(default)s)")
    parser.add_argument("--node-rows", type=int, default=100_000, help="without (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="(default: %(default)s)")
    arguments = parser.parse_args()
    report = Report(arguments)
    report.add(*describe(arguments), "")
    with tempfile.TemporaryDirectory() as folder, Cluster() as cluster:
        double = Double(log_path=Path(folder) / "log", detached=False).start()
        try:
            host = make_hosts(cluster, double.endpoint)[0]
            with psycopg.connect(host.dsn, autocommit=True) as connection:
                report.add(f"The node alone, {arguments.node_rows} rows, two arguments:")
                report.add(*node_alone(connection, arguments.node_rows, arguments.repeats), "")
                report.add(f"An engine double that answers at once, {arguments.node_rows} distinct rows:")
                report.add(*with_double(connection, arguments.node_rows, arguments.repeats), "")
        finally:
            double.stop()
    with Cluster() as cluster, demo_engine() as engine:
        host = make_hosts(cluster, engine.endpoint)[0]
        with psycopg.connect(host.dsn, autocommit=True) as connection:
            report.add(f"vLLM with the model in the box, {arguments.rows} rows (requests: prompts that vLLM answered):")
            report.add(*on_vllm(connection, engine.endpoint, arguments.rows))
    return report.close()


if __name__ == "__main__":
    raise SystemExit(main())
