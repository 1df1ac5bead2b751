"""The same road to a real vLLM: what only it can show. Its own counters are the evidence, not ours."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psycopg
import pytest

from pg_bridge.serving.launch import VllmEngine
from pg_bridge.testing.cluster import Cluster
from pg_bridge.testing.double import EngineDouble
from tests.conftest import EXTENSIONS, Database, create_server
from tests.integration.test_map import ask

MULTICORN_IS_SLOW = True

Conn = psycopg.Connection[Any]

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

REVIEWS = (
    "SELECT 'Review ' || md5(i::text) AS body, "
    "'A film of ' || repeat(chr(65 + i % 5) || ' and more ', 12) AS about, 'Director ' || i % 5 AS director "
    "FROM generate_series(1, 60) AS i ORDER BY md5(i::text)"
)


@pytest.fixture
def conn(db: Conn, vllm: VllmEngine) -> Conn:
    """A connection whose server `vllm` is the real one."""
    create_server(db, vllm.endpoint, model=vllm.model)
    return db


def counters(vllm: VllmEngine) -> dict[str, float]:
    with urlopen(f"{vllm.endpoint}/metrics") as page:  # noqa: S310 - our own engine
        text = page.read().decode()
    pattern = re.compile(
        r"^vllm:(prefix_cache_(?:hits|queries)_total|num_requests_(?:running|waiting))\{.*\} (.+)$", re.M
    )
    return {name: float(value) for name, value in pattern.findall(text)}


def settled(vllm: VllmEngine) -> dict[str, float]:
    """The counters once nothing is running and they stand still."""
    before: dict[str, float] = {}
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        now = counters(vllm)
        if now == before and not now["num_requests_running"] and not now["num_requests_waiting"]:
            break
        before = now
        time.sleep(0.2)
    return before


_wordings = iter(f"Wording {n}" for n in range(10**6))


def test_the_engine_s_counters_prove_the_reuse(conn: Conn, vllm: VllmEngine) -> None:
    hit_rate = {}
    for reorder in ("none", "rows and columns"):
        before = settled(vllm)
        # Another first word, so that no run finds the other's prompts in the cache.
        rows = ask(
            conn, REVIEWS, f"{next(_wordings)}: rate {{body}} {{about}} {{director}}", reorder=reorder, max_tokens=2
        )
        after = settled(vllm)
        assert len(rows) == 60
        run = conn.execute("SELECT prompt_tokens, cached_tokens FROM llm.last_run()").fetchone()
        hits = after["prefix_cache_hits_total"] - before["prefix_cache_hits_total"]
        queries = after["prefix_cache_queries_total"] - before["prefix_cache_queries_total"]
        assert run == (queries, hits)
        hit_rate[reorder] = hits / queries
    assert hit_rate["rows and columns"] > hit_rate["none"] + 0.2


def test_deduplication_spares_the_engine(conn: Conn, vllm: VllmEngine) -> None:
    before = settled(vllm)
    ask(conn, "SELECT i % 3 AS k FROM generate_series(1, 300) AS i", f"{next(_wordings)} {{k}}", max_tokens=2)
    run = conn.execute("SELECT rows, unique_prompts, prompt_tokens FROM llm.last_run()").fetchone()
    assert run is not None
    assert run[:2] == (300, 3)
    assert settled(vllm)["prefix_cache_queries_total"] - before["prefix_cache_queries_total"] == run[2]


@pytest.fixture
def connections(
    cluster: Cluster, make_template: Callable[[str, str], str], vllm: VllmEngine
) -> Iterator[dict[str, Conn]]:
    """A connection on each host, both with the real engine as their server."""
    templates = {each: make_template(each, "public") for each in EXTENSIONS}  # skips the test before anything is open
    opened: dict[str, Conn] = {}
    for each, template in templates.items():
        name = f"both_{each}"
        cluster.psql(f"CREATE DATABASE {name} TEMPLATE {template}")
        opened[each] = psycopg.connect(cluster.dsn_of(name), autocommit=True)
        create_server(opened[each], vllm.endpoint)
    yield opened
    for each, connection in opened.items():
        connection.close()
        cluster.psql(f"DROP DATABASE both_{each} WITH (FORCE)")


@pytest.mark.multicorn
def test_both_hosts_give_the_same_answers(connections: dict[str, Conn]) -> None:
    prompt = "What is the value of {body}?"
    answers = {host: ask(conn, REVIEWS, prompt, max_tokens=8) for host, conn in connections.items()}
    assert len({row[2] for row in answers["plpython"]}) > 20
    assert answers["plpython"] == answers["multicorn"]


def test_choices_are_kept_by_the_engine(conn: Conn) -> None:
    rows = ask(conn, REVIEWS, "Is {body} kind?", choices=["positive", "negative", "mixed"])
    assert {row[2] for row in rows} <= {"positive", "negative", "mixed"}
    assert all(row[3] is None for row in rows)


def test_a_row_too_long_for_the_model_fails_alone(conn: Conn) -> None:
    query = "SELECT i, CASE i WHEN 5 THEN repeat('long ', 20000) ELSE 'short' END AS t FROM generate_series(1, 12) AS i"
    rows = ask(conn, query, "{i} {t}", max_tokens=2, on_error="null")
    assert [row[0] for row in rows if row[2] is None] == [5]
    assert "context length" in rows[4][3]


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_each_interface(conn: Conn, api: str) -> None:
    conn.execute(f"ALTER SERVER vllm OPTIONS (ADD api '{api}')")
    rows = ask(conn, REVIEWS, f"{api}: {{body}}", choices=["yes", "no"])
    assert {row[2] for row in rows} <= {"yes", "no"}
    run = conn.execute(
        "SELECT prompt_tokens > 0, cached_tokens > 0, completion_tokens > 0, "
        "queue_ms >= 0, prefill_ms > 0, decode_ms >= 0, front_ms > 0 FROM llm.last_run()"
    ).fetchone()
    assert run == (True,) * 7


def test_a_timeout_leaves_the_engine_idle(conn: Conn, vllm: VllmEngine) -> None:
    settled(vllm)
    conn.execute("SET statement_timeout = '700ms'")
    started = time.monotonic()
    with pytest.raises(psycopg.errors.QueryCanceled):
        ask(conn, "SELECT i FROM generate_series(1, 5000) AS i", "Tell a long story about {i}", max_tokens=1000)
    assert time.monotonic() - started < 20
    time.sleep(1)
    now = counters(vllm)
    assert (now["num_requests_running"], now["num_requests_waiting"]) == (0, 0)


def test_one_call_tells_its_cached_tokens(conn: Conn) -> None:
    for _ in range(2):
        assert conn.execute(
            "SELECT llm.complete('Say something about ' || repeat('tea ', 100), max_tokens => 2)"
        ).fetchone()
    run = conn.execute(
        "SELECT requests, prompt_tokens > cached_tokens, cached_tokens > 64 FROM llm.last_run()"
    ).fetchone()
    assert run == (1, True, True)


@pytest.mark.slow
@pytest.mark.parametrize("host", ["plpython"], indirect=True)
def test_the_joins_of_the_page(conn: Conn, batching: Database) -> None:
    conn.execute(
        """
        CREATE TABLE reviews (id int, film text, review text, lang text);
        INSERT INTO reviews SELECT i, 'film ' || i % 2, 'Number ' || i || ' was warm and well made.', 'en'
        FROM generate_series(1, 6) AS i;
        CREATE TABLE products (id int, name text, lang text);
        INSERT INTO products VALUES (1, 'the red lamp', 'en'), (2, 'Number 3', 'en'), (3, 'a chair', 'en');
        """
    )
    page = (Path(__file__).parents[2] / "docs/joins.md").read_text()
    compared, listed, sampled, near = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    assert all(a < b for a, b in conn.execute(compared.encode()).fetchall())
    names = {"the red lamp", "Number 3", "a chair"}
    assert {name for _, name in conn.execute(listed.encode()).fetchall()} <= names
    asked = conn.execute("SELECT unique_prompts, rows FROM llm.last_run()").fetchone()
    assert asked is not None
    # A block that the model does not answer in form is asked in six lists, and these pair by pair.
    assert (1 <= asked[0] <= 1 + 2 + 6 + 18, asked[1]) == (True, 18)
    assert conn.execute(sampled.encode()).fetchone()
    with EngineDouble() as embedder:
        create_server(conn, embedder.url, name="e5")
        assert {name for _, name in conn.execute(near.replace("nearest => 5", "nearest => 1").encode())} <= names
    told = conn.execute("SELECT pairs -> 'pruned', pairs -> 'sampled' FROM llm.last_run()").fetchone()
    assert told == (12, 12)


def test_the_ranking_of_the_page(conn: Conn) -> None:
    page = (Path(__file__).parents[2] / "docs/rank.md").read_text()
    example = re.search(r"```sql\n(.*?)```", page, re.DOTALL)
    assert example is not None
    make, fill, rank, estimate = (each.encode() for each in example[1].split(";")[:4])
    conn.execute(make + b";" + fill)
    told = conn.execute(estimate).fetchall()
    ranked = conn.execute(rank).fetchall()
    assert [row[0] for row in ranked] == sorted(row[0] for row in ranked)
    assert {row[1] for row in ranked} < {"Heat", "Alien", "Clue", "Big"}
    assert conn.execute("SELECT rows FROM llm.last_run()").fetchall() == [(told[0][3],)]
    pairs = rank.replace(b", 3)", b", 3, list_rows => 2)")
    assert len(conn.execute(pairs).fetchall()) == 3


def test_the_same_companies_of_the_page(conn: Conn) -> None:
    page = (Path(__file__).parents[2] / "docs/alike.md").read_text()
    example = re.search(r"```sql\n(.*?)```", page, re.DOTALL)
    assert example is not None
    make, fill, resolve = (each.encode() for each in example[1].split(";")[:3])
    conn.execute(make + b";" + fill)
    found = conn.execute(resolve).fetchall()
    assert [row[0] for row in found] == list(range(1, 7))
    assert found[0][2:] == found[3][2:]
    assert found[4][2] is None
    assert all(row[2] <= row[0] and 0 <= row[4] <= 1 for row in found if row[2] is not None)
    pairs = conn.execute("SELECT pairs FROM llm.last_run()").fetchall()[0][0]
    assert pairs["alone"] + pairs["inferred"] == 6


SAMPLED = 150  # the share of an answer among them is within 0.17 of its probability, but for one time in ten thousand


@pytest.mark.slow  # vLLM compiles what it needs to tell log-probabilities
@pytest.mark.parametrize("api", ["chat", "completions"])
@pytest.mark.parametrize("host", ["plpython"], indirect=True)
def test_confidence_is_how_often_the_model_says_so(conn: Conn, batching: Database, api: str) -> None:
    """The model is asked often, at temperature 1, about the row of which it is least sure."""
    conn.execute(f"ALTER SERVER vllm OPTIONS (ADD api '{api}')")
    conn.execute(
        "CREATE TEMP TABLE reviews AS SELECT i AS id, format('The %s is %s%s.', ('{music,story}'::text[])[1 + i % 2],"
        " ('{great,weak}'::text[])[1 + i / 2 % 2], repeat(' and far too long', i / 4)) AS review"
        " FROM generate_series(0, 7) AS i"
    )
    for name, options in {
        "is_true": "",
        "classify": ", '{positive,negative,mixed,not told,not}'",
        "score": ", low => 1, high => 12",
    }.items():
        about = f"('What of {{review}}?', r{options}"
        query = f"SELECT id, llm.{name}{about})::text, llm.{name}_confidence{about}) FROM reviews AS r ORDER BY id"
        rows = conn.execute(query.encode()).fetchall()
        asked = conn.execute("SELECT rows, unique_prompts FROM llm.last_run()").fetchone()
        assert asked is not None
        assert asked == (2 * len(rows), len(rows))
        assert all(0 < row[2] <= 1 for row in rows)
        least, answer, confidence = min(rows, key=lambda row: row[2])
        often = conn.execute(
            f"SELECT count(*) FILTER (WHERE llm.{name}{about}, temperature => 1, dedup => false)::text = %s)"
            f" FROM reviews AS r, generate_series(1, {SAMPLED}) WHERE id = {least}".encode(),
            [answer],
        ).fetchone()
        assert often is not None
        assert often[0] / SAMPLED == pytest.approx(confidence, abs=0.17)
