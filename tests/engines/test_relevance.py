"""Engines that rerank, and engines that do not: what llm.relevance makes of each."""

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

PAIRS = """SELECT number, query, llm.relevance(query, review, cache => 'off')
           FROM review, (VALUES ('a chase'), ('who hid?')) AS q (query), generate_series(1, 20)"""
ALONE = "SELECT llm.relevance('{}', review, cache => 'off') FROM review WHERE number = {}"


def test_vllm_reranks(tmp_path: Path, opened: Open) -> None:
    with served.reranking_vllm(tmp_path) as running, opened(Served("", running.endpoint)) as db:
        found = set(db.execute(PAIRS.encode()).fetchall())
        assert len(found) == 12  # the same score for the same pair
        assert len({score for _, _, score in found}) == 12
        assert db.execute(b"SELECT unique_prompts FROM llm.last_run()").fetchall() == [(12,)]
        for number, query, score in found:
            assert db.execute(ALONE.format(query, number).encode()).fetchall() == [(pytest.approx(score, abs=0.01),)]
        long = "SELECT llm.relevance('a', repeat('word ', 9000){})"
        with pytest.raises(psycopg.Error, match="maximum context length") as caught:
            db.execute(long.format("").encode())
        assert caught.value.sqlstate == "54000"
        cut = """, request_options => '{"truncate_prompt_tokens": -1}'"""
        assert db.execute(long.format(cut).encode()).fetchall() != [(None,)]
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="makes no embeddings"):
            db.execute(b"SELECT llm.embed('a')")


def has_none(db: Conn) -> None:
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="makes no relevance scores"):
        db.execute(PAIRS.encode())


def test_a_vllm_that_answers_does_not_rerank(vllm: VllmEngine, opened: Open) -> None:
    with opened(Served("", vllm.endpoint)) as db:
        has_none(db)


def test_a_llama_cpp_that_answers_does_not_rerank(tmp_path: Path, opened: Open) -> None:
    with served.llama_cpp(tmp_path) as engine, opened(engine) as db:
        has_none(db)
