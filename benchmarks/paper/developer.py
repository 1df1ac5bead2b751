"""What an application developer would write today, beside the same question in SQL: lines, seconds, tokens.

In: a database with the table `questioned`, an engine. Out: two lines. The loop is as one finds it in tutorials: read
the rows with psycopg, ask about each with the openai client, keep the answers.
"""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
from openai import OpenAI
from psycopg.rows import dict_row

from benchmarks.paper.runs import settled

QUESTION = "In a few words, what does the review say of the film?"


def loop(dsn: str, endpoint: str, system: str) -> list[str]:
    """Ask about each row, one after the other."""
    client = OpenAI(base_url=f"{endpoint}/v1", api_key="none")
    model = client.models.list().data[0].id
    answers = []
    with psycopg.connect(dsn, row_factory=dict_row) as connection:
        for row in connection.execute("SELECT * FROM questioned"):
            response = client.chat.completions.create(
                model=model,
                messages=[
                    {"role": "system", "content": system},
                    {"role": "user", "content": f"{QUESTION}\n{json.dumps(row, default=str)}"},
                ],
                temperature=0,
                max_tokens=16,
            )
            answers.append(response.choices[0].message.content or "")
    return answers


def in_sql(dsn: str, endpoint: str, system: str) -> list[str]:
    """Ask about all rows in one query."""
    with psycopg.connect(dsn) as connection:
        query = "SELECT llm.complete(%s, q, system_prompt => %s, max_tokens => 16) FROM questioned AS q"
        return [row[0] for row in connection.execute(query, [QUESTION, system])]


def lines(dsn: str, endpoint: str, rows: int) -> Iterator[str]:
    """Compare the two; each with a system prompt of its own, so that neither helps the other."""
    yield f"The same question about {rows} rows, as a developer would ask it today and in SQL:"
    ways: dict[str, Callable[[str, str, str], list[str]]] = {"psycopg and openai, a loop": loop, "llm.complete": in_sql}
    for number, (name, way) in enumerate(ways.items()):
        before = settled(endpoint)
        started = time.perf_counter()
        answered = way(dsn, endpoint, f"Way {number}. Answer the question about the row.")
        seconds = time.perf_counter() - started
        used = settled(endpoint).since(before)
        yield (
            f"{name:<28} {_lines_of(way):>3} lines {seconds:>8.1f} s  prompt tokens {used.prompt_tokens:>8}, computed "
            f"{used.prompt_tokens - used.cached_tokens:>8}, answers {used.completion_tokens:>6}  ({len(answered)} rows)"
        )


def _lines_of(function: Callable[..., Any]) -> int:
    """Lines of code, without the first, the docstring and empty ones."""
    return len([line for line in inspect.getsource(function).splitlines()[2:] if line.strip()])
