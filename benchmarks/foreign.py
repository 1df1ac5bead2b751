"""A foreign table with model columns against llm.map over all rows: what a query needs, and what it pays.

One query, the README's: two filters that a model answers, one column more, the top 20 in the order of the key. Asked of
a foreign table on a real vLLM with the model in the box; and as llm.map would have it, a run over all rows for each of
the three questions, then plain SQL over the answers. Also the same query without its LIMIT, and a count, which asks
nothing. Then 100,000 rows through a foreign table with an engine double that answers at once, beside llm.map of the
same rows: what the scan itself costs.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import psycopg

from benchmarks import counters
from benchmarks.counters import Counters
from benchmarks.hosts import Host, make_hosts, peak_bytes
from benchmarks.machine import describe
from benchmarks.report import Report, parser_of
from models.recipe.reviews import Sentiment, review
from models.recipe.tables import value_of
from pg_bridge.dev.devdb import Double
from pg_bridge.serving.demo import demo_engine
from pg_bridge.testing.cluster import Cluster

Conn = psycopg.Connection[Any]

FELT: tuple[Sentiment, ...] = ("positive", "negative", "mixed")
SENTIMENT = "What is the sentiment of {review}?"
SPOILER = "Does {review} give away the plot of {title}?"
SUMMARY = "Summarise {review} in one sentence."
LABELS = "positive,negative,mixed"

INSIGHT = f"""
CREATE FOREIGN TABLE review_insight (
    review_id bigint, title text, stars int, review text,
    sentiment text    OPTIONS (prompt '{SENTIMENT}', labels '{LABELS}'),
    spoiler   boolean OPTIONS (prompt '{SPOILER}'),
    summary   text    OPTIONS (prompt '{SUMMARY}', max_tokens '16')
) SERVER vllm OPTIONS (source 'reviews', key 'review_id');
"""

TOP = """
SELECT title, summary FROM review_insight
WHERE stars <= 2 AND spoiler AND sentiment = 'negative' ORDER BY review_id LIMIT 20"""

QUERIES = {
    "top 20": TOP,
    "without LIMIT": TOP.replace(" LIMIT 20", ""),
    "count(*)": "SELECT count(*) FROM review_insight",
}

MAPPED = f"""
WITH a AS MATERIALIZED (SELECT * FROM llm.map('TABLE reviews', '{SENTIMENT}', choices => '{{{LABELS}}}')),
     b AS MATERIALIZED (SELECT * FROM llm.map('TABLE reviews', '{SPOILER}', choices => '{{yes,no}}')),
     c AS MATERIALIZED (SELECT * FROM llm.map('TABLE reviews', '{SUMMARY}', max_tokens => 16))
SELECT a.input ->> 'title', c.output FROM a JOIN b USING (row_id) JOIN c USING (row_id)
WHERE (a.input ->> 'stars')::int <= 2 AND b.output = 'yes' AND a.output = 'negative'
ORDER BY (a.input ->> 'review_id')::bigint LIMIT 20"""


def fill(connection: Conn, rows: int, texts: int, seed: int) -> None:
    """Make reviews: so many different texts of some 400 films."""
    rng = random.Random(seed)
    written = [review(rng, rng.choice(FELT)) for _ in range(texts)]
    films = [str(value_of(rng, "title")) for _ in range(400)]
    connection.execute("CREATE TABLE reviews (review_id bigint PRIMARY KEY, title text, stars int, review text)")
    with connection.cursor().copy("COPY reviews FROM STDIN") as copy:
        for i in range(rows):
            copy.write_row((i, rng.choice(films), rng.randint(1, 5), rng.choice(written)))
    connection.execute("ANALYZE reviews")


def on_vllm(connection: Conn, endpoint: str) -> Iterator[str]:
    """Measure the queries, then llm.map; in this order what one leaves in the cache helps llm.map."""
    yield f"{'query':<24} {'seconds':>8} {'questions':>10} {'prompt tokens':>14} {'cached tokens':>14} {'rows':>6}"
    connection.execute(INSIGHT.encode())
    figures: dict[str, tuple[float, list[Any], Counters]] = {}
    for name, query in (*QUERIES.items(), ("llm.map of all rows", MAPPED)):
        before = counters.read(endpoint)
        started = time.perf_counter()
        rows = connection.execute(query.encode()).fetchall()
        seconds = time.perf_counter() - started
        used = counters.read(endpoint).since(before)
        figures[name] = (seconds, rows, used)
        yield (
            f"{name:<24} {seconds:>8.2f} {used.prompts:>10} {used.prompt_tokens:>14} {used.cached_tokens:>14} "
            f"{len(rows):>6}"
        )
    top, mapped = figures["top 20"], figures["llm.map of all rows"]
    questions, tokens = mapped[2].prompts / top[2].prompts, mapped[2].prompt_tokens / top[2].prompt_tokens
    yield (
        f"llm.map / top 20: {mapped[0] / top[0]:.1f} times the seconds, {questions:.1f} times the questions, "
        f"{tokens:.1f} times the prompt tokens"
    )
    same = sum(row in mapped[1] for row in top[1])
    yield (
        f"rows of the top 20 that both gave: {same}. This model's answer to a question about two columns depends on "
        "their order, which is planned for each window."
    )


def with_double(connections: dict[str, Conn], rows: int, repeats: int) -> Iterator[str]:
    """Measure the scan with an engine that answers at once, in turns."""
    seconds: dict[str, list[float]] = {}
    for connection in connections.values():
        connection.execute(
            "CREATE TABLE items AS SELECT i AS id, 'a text of some forty characters, the ' || i AS t"
            f" FROM generate_series(1, {rows}) AS i; ANALYZE items;"
            "CREATE FOREIGN TABLE item_insight (id int, t text, said text OPTIONS (prompt 'Well, {t}?')) SERVER vllm "
            "OPTIONS (source 'items', key 'id');"
            "CREATE FOREIGN TABLE item_insight_too (id int, t text, kind int, "
            "said text OPTIONS (prompt 'Well, {kind}?')) SERVER vllm "
            "OPTIONS (source_query 'SELECT *, id % 100 AS kind FROM items', key 'id')".encode()
        )
    for _ in range(repeats):
        for name, connection in connections.items():
            for way, query in {
                "llm.map": "SELECT count(output) FROM llm.map('SELECT t FROM items', 'Well, {t}?')",
                "foreign table": "SELECT count(said) FROM item_insight",
                "few questions": "SELECT count(said), max(t) FROM item_insight_too",
                "no question": "SELECT max(id), max(t) FROM item_insight",
            }.items():
                started = time.perf_counter()
                connection.execute(query.encode()).fetchall()
                seconds.setdefault(f"{name}, {way}", []).append(time.perf_counter() - started)
    for name, each in seconds.items():
        yield f"{name:<28} {rows / median(each):>8.0f} rows/s"
    ways = ("foreign table", "few questions", "no question")
    if len(connections) == 2:
        first, second = connections
        for way in ways:
            pairs = zip(seconds[f"{first}, {way}"], seconds[f"{second}, {way}"], strict=True)
            yield f"{first} / {second}, {way}: {median(a / b for a, b in pairs):.2f} times the time"
    for name, connection in connections.items():
        yield f"{name}: peak of the backend {peak_bytes(connection) / 2**20:.0f} MiB"
    for name in connections:
        pairs = zip(seconds[f"{name}, llm.map"], seconds[f"{name}, foreign table"], strict=True)
        yield f"{name}: a foreign table takes {median(b / a for a, b in pairs):.2f} times as long as llm.map"


def main() -> int:
    """Run the benchmark."""
    parser = parser_of("benchmarks.foreign", __doc__)
    parser.add_argument("--rows", type=int, default=20_000, help="on vLLM (default: %(default)s)")
    parser.add_argument("--texts", type=int, default=2_500, help="different reviews (default: %(default)s)")
    parser.add_argument("--double-rows", type=int, default=100_000, help="without (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="without (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the reviews (default: %(default)s)")
    arguments = parser.parse_args()
    report = Report(arguments)
    report.add(*describe(arguments), "")
    with tempfile.TemporaryDirectory() as folder, Cluster() as cluster:
        double = Double(log_path=Path(folder) / "log", detached=False).start()
        try:
            hosts = [host for host in make_hosts(cluster, double.endpoint) if not host.skipped and has_tables(host)]
            report.add(f"An engine double that answers at once, {arguments.double_rows} distinct rows:")
            connections = {host.name: psycopg.connect(host.dsn, autocommit=True) for host in hosts}
            report.add(*with_double(connections, arguments.double_rows, arguments.repeats), "")
        finally:
            double.stop()
    with Cluster() as cluster, demo_engine() as engine:
        hosts = [host for host in make_hosts(cluster, engine.endpoint) if not host.skipped and has_tables(host)]
        if not hosts:
            report.add("vLLM: skipped, no host here has foreign tables")
            return report.close()
        host = hosts[0]
        connection = psycopg.connect(host.dsn, autocommit=True)
        fill(connection, arguments.rows, arguments.texts, arguments.seed)
        report.add(
            f"vLLM with the model in the box, {arguments.rows} reviews of {arguments.texts} texts, {host.name} "
            "(questions: prompts that vLLM answered):"
        )
        report.add(*on_vllm(connection, engine.endpoint))
    return report.close()


def has_tables(host: Host) -> bool:
    """Whether foreign tables can be made on a host."""
    with psycopg.connect(host.dsn) as connection:
        handler = "SELECT fdwhandler <> 0 FROM pg_foreign_data_wrapper WHERE fdwname = 'pg_bridge'"
        return connection.execute(handler).fetchone() == (True,)


if __name__ == "__main__":
    raise SystemExit(main())
