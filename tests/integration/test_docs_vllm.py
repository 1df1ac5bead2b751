"""The examples of the operators' pages, asked of the model in the box: of what form the answers are, not how wise.

What they print there is an engine double's, which `test_docs_sql.py` compares. And prompts that it has learnt, compared
with one that it has not.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pg_bridge.serving.launch import VllmEngine
from tests.conftest import Database, create_server

Conn = psycopg.Connection[Any]

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(600)]

DOCS = Path(__file__).parents[2] / "docs"
_EXAMPLE = re.compile(r"```sql\n(.*?)```\n\n```text\n", re.DOTALL)
PAGES = ("aggregates.md", "confidence.md", "operators.md")
TOPICS = {"length", "pictures", "fear", "actors"}
FITS: dict[str, Callable[[Any], bool]] = {
    "stars": lambda value: value in range(1, 6),
    "is_true": lambda value: isinstance(value, bool),
    "is_true_confidence": lambda value: 0 < value <= 1,
    "sure": lambda value: 0 < value <= 1,
    "kind": lambda value: isinstance(value, bool) or value in {"praise", "blame", "other", "neither"},
    "topic": lambda value: value in TOPICS,
    "sentiment": lambda value: value in {"positive", "negative", "neutral", "mixed"},
    "said": lambda value: isinstance(value, str) and value != "",
    "summary": lambda value: isinstance(value, str) and value != "",
}
"""What a value is, by its column's name on the pages; NULL is no answer."""


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("host", ["plpython"], indirect=True)
def test_examples_are_answered_by_the_model_in_the_box(
    page: str, db: Conn, batching: Database, vllm: VllmEngine
) -> None:
    create_server(db, vllm.endpoint, model=vllm.model, cache="persistent")
    looked_at = 0
    for code in _EXAMPLE.findall((DOCS / page).read_text()):
        for cursor in db.execute(code.encode()).results():
            if cursor.description is None:
                continue
            rows = cursor.fetchall()
            for number, column in enumerate(cursor.description):
                values = [row[number] for row in rows if row[number] is not None]
                if column.name in FITS:
                    assert all(map(FITS[column.name], values)), (code, values)
                    looked_at += len(values)
    assert looked_at > 0


SAID = """
CREATE TABLE said AS SELECT format(f, a, n) AS review, kind FROM
    (VALUES ('%s acting and a %2$s I would see again.'), ('The %2$s is %1$s.'), ('What a %s %s!')) AS f (f),
    (VALUES ('wonderful', 'positive'), ('superb', 'positive'), ('boring', 'negative'), ('terrible', 'negative'))
        AS a (a, kind),
    (VALUES ('film'), ('story'), ('music'), ('ending'), ('cast')) AS n (n)
"""


@pytest.mark.parametrize("host", ["plpython"], indirect=True)
def test_prompts_are_compared_by_the_model_in_the_box(db: Conn, batching: Database, vllm: VllmEngine) -> None:
    create_server(db, vllm.endpoint, model=vllm.model, cache="persistent")
    db.execute(SAID.encode())
    known = "'TABLE said', truth => 'kind', choices => '{positive,negative}'"
    shares = db.execute(
        f"""SELECT name, accuracy FROM llm.evaluate({known}, candidates => '{{
                "learnt": "Is {{review}} positive or negative?", "odd": "Put {{review}} into a box."}}')""".encode()
    ).fetchall()
    accuracy = dict(shares)
    assert accuracy["learnt"] > accuracy["odd"]  # it was trained with one of the two
    tune = f"llm.tune({known}, prompt => 'Put {{review}} into a box.', rounds => 1, proposals => 1)"
    rows = db.execute(f"SELECT candidate, chosen, system_prompt, error FROM {tune}".encode()).fetchall()
    assert [row[0] for row in rows] == [0, 1, 2]
    assert [row[1] for row in rows].count(True) == 1
    assert "Examples:" in rows[1][2]
    refined = db.execute(
        "SELECT answer, first, fits FROM said, llm.refine('Is {review} positive or negative?', said, 'It is a word.', "
        "on_error => 'null', max_tokens => 8) AS t LIMIT 5"
    ).fetchall()
    assert len(refined) == 5
    assert all(answer for answer, _, _ in refined)
