"""Engines that embed, and engines that do not: what llm.embed makes of each."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import psycopg
import pytest

from pg_bridge.serving.launch import VllmEngine
from tests.engines import served
from tests.engines.features import Conn
from tests.engines.served import Served

Open = Callable[[Served], AbstractContextManager[Conn]]

LENGTHS = """SELECT number, cardinality(e), round(sqrt(sum(x * x))::numeric, 3)
             FROM (SELECT number, llm.embed(review, cache => 'off') AS e FROM review) AS r, unnest(e) AS x
             GROUP BY 1, 2"""
SAME = """SELECT count(*), count(DISTINCT llm.embed(review, cache => 'off'))
          FROM (SELECT review FROM review, generate_series(1, 50)) AS r"""
ALONE = "SELECT review, llm.embed(review, cache => 'off') FROM review WHERE number = {}"


def compare(db: Conn) -> None:
    """Six embeddings of one length, asked once each, on their rows."""
    found = db.execute(LENGTHS.encode()).fetchall()
    assert sorted(number for number, _, _ in found) == list(range(6))
    assert len({dimensions for _, dimensions, _ in found}) == 1
    assert {length for _, _, length in found} == {1}  # as engines normalize them
    assert db.execute(SAME.encode()).fetchall() == [(300, 6)]
    assert db.execute(b"SELECT unique_prompts FROM llm.last_run()").fetchall() == [(6,)]
    together = dict(db.execute(b"SELECT review, llm.embed(review, cache => 'off') FROM review").fetchall())
    for number in range(6):
        (alone,) = db.execute(ALONE.format(number).encode()).fetchall()
        assert alone[1] == pytest.approx(together[alone[0]], abs=0.02)


def has_none(db: Conn) -> None:
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="makes no embeddings"):
        db.execute(SAME.encode())


def test_llama_cpp_embeds(tmp_path: Path, opened: Open) -> None:
    with served.llama_cpp(tmp_path, "embeddings") as engine, opened(engine) as db:
        compare(db)
        empty = "SELECT x, llm.embed(x, on_error => 'null') IS NULL FROM (VALUES (''), ('a')) AS v (x)"
        assert sorted(db.execute(empty.encode()).fetchall()) == [("", True), ("a", False)]
        with pytest.raises(psycopg.Error, match="dimensions and not 8") as caught:  # which it does not look at
            db.execute(b"SELECT llm.embed('a', dimensions => 8)")
        assert caught.value.sqlstate == "22000"


def test_vllm_embeds(opened: Open) -> None:
    with served.embedding_vllm() as running, opened(Served("", running.endpoint)) as db:
        compare(db)
        with pytest.raises(psycopg.Error, match="refuses every prompt"):
            db.execute(b"SELECT llm.embed('a', dimensions => 8)")


def test_a_llama_cpp_that_answers_does_not_embed(tmp_path: Path, opened: Open) -> None:
    with served.llama_cpp(tmp_path) as engine, opened(engine) as db:
        has_none(db)


def test_a_vllm_that_answers_does_not_embed(vllm: VllmEngine, opened: Open) -> None:
    with opened(Served("", vllm.endpoint)) as db:
        has_none(db)
