"""What an engine can do for pg_bridge, told by what comes of statements: a function for a column of docs/engines.md.

In: a session in a database whose server is the engine. Out: a word or two. An engine *keeps* to a form if it does so
where the model would rather say something else; where answers that the model gives by itself pass the check and no
others, they are *checked*.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg

Conn = psycopg.Connection[Any]
Feature = Callable[[Conn], str]

KEPT, CHECKED, NO, YES = "kept", "checked", "no", "yes"

FILMS = """
CREATE TABLE film (number int, film text, director text, year int, genre text);
INSERT INTO film VALUES
    (0, 'The Salt Road', 'Ines Duarte', 1994, 'drama'), (1, 'Nine Lanterns', 'Jonas Weber', 2003, 'thriller'),
    (2, 'A Quiet Harbour', 'Maud Lindqvist', 2011, 'romance'), (3, 'Clockwork Orchard', 'Tomas Bell', 1987, 'comedy'),
    (4, 'The Glass Tenant', 'Yuki Amano', 2019, 'horror'), (5, 'Winter Accounts', 'Carla Rossi', 2008, 'drama');
CREATE TABLE review (number int, review text);
INSERT INTO review VALUES
    (0, 'A wonderful film. The acting is superb.'), (1, 'Dull and boring. I want my two hours back.'),
    (2, 'Beautiful pictures, but the story is weak.'), (3, 'I loved every minute of it and would watch it again.'),
    (4, 'Boring and far too long.'), (5, 'Funny, warm and clever. Highly recommended.');
"""

SENTIMENT = "What is the sentiment of {review}: positive, negative or mixed?"
SCHEMA = '{"type": "object", "properties": {"kind": {"enum": ["apple", "pear"]}}, "required": ["kind"]}'


def free_text(db: Conn) -> str:
    told = column(db, "SELECT llm.complete('What is the value of {director}?', f, max_tokens => 12) FROM film AS f")
    return YES if told == column(db, "SELECT director FROM film") else NO


def labels(db: Conn) -> str:
    return _form(
        db,
        "choices",
        f"llm.classify('{SENTIMENT}', r, '{{positive,negative,mixed}}', on_error => 'null')",
        f"llm.classify('{SENTIMENT}', r, '{{apple,pear}}', on_error => 'null')",
        "review",
    )


def numbers(db: Conn) -> str:
    return _form(
        db,
        "patterns",
        "llm.score('What is the value of {year}?', r, on_error => 'null')",
        "llm.score('What is the value of {director}?', r, on_error => 'null')",
        "film",
    )


def yes_or_no(db: Conn) -> str:
    return _form(
        db,
        "choices",
        "llm.is_true('Does {review} mention the acting?', r, on_error => 'null')",
        f"llm.is_true('{SENTIMENT}', r, on_error => 'null')",
        "review",
    )


def json(db: Conn) -> str:
    """So small a model writes no JSON by itself: it is kept to the schema, or there is none."""
    asked = f"llm.extract('{SENTIMENT}', r, '{SCHEMA}', max_tokens => 64, on_error => 'null')"
    told = column(db, f"SELECT {asked} FROM review AS r")
    return KEPT if all(value and value["kind"] in {"apple", "pear"} for value in told) else NO


def in_one_request(db: Conn) -> str:
    column(db, "SELECT llm.complete('What is the value of {film}?', f, max_tokens => 12) FROM film AS f")
    asked, requests = row(db, "SELECT unique_prompts, requests FROM llm.last_run()")
    return "many" if requests < asked else "one"


def usage(db: Conn) -> str:
    column(db, "SELECT llm.complete('What is the value of {genre}?', f, max_tokens => 12) FROM film AS f")
    prompt, completion = row(db, "SELECT prompt_tokens, completion_tokens FROM llm.last_run()")
    return YES if prompt and completion else NO


def cached_tokens(db: Conn) -> str:
    """The second of two questions with a long shared beginning; it is in the cache once the first is answered."""
    for last in "ab":
        asked = f"llm.complete('Is ' || repeat('this or that ', 40) || '{last} good?', max_tokens => 1)"
        column(db, f"SELECT {asked}")
    (cached,) = row(db, "SELECT cached_tokens FROM llm.last_run()")
    return NO if cached is None else YES if cached else "none"


def stages(db: Conn) -> str:
    column(db, "SELECT llm.complete('Is {film} long?', f, max_tokens => 2) FROM film AS f")
    (queue_ms,) = row(db, "SELECT queue_ms FROM llm.last_run()")
    return NO if queue_ms is None else YES


def tokens_counted(db: Conn) -> str:
    (counted_by,) = row(db, "SELECT counted_by FROM llm.estimate('SELECT review FROM review', 'Is {review} kind?')")
    return YES if counted_by == "by_tokenizer" else NO


def priorities(db: Conn) -> str:
    try:
        column(db, "SELECT llm.complete('Is {genre} good?', f, max_tokens => 2, priority => 5) FROM film AS f")
    except psycopg.Error:
        return NO
    return "taken"


def taken_for(db: Conn) -> str:
    (dialect,) = row(db, "SELECT state FROM llm.health() WHERE item = 'dialect'")
    return f"`{dialect}`"


FEATURES: dict[str, Feature] = {
    "taken for": taken_for,
    "free text": free_text,
    "labels": labels,
    "numbers": numbers,
    "yes or no": yes_or_no,
    "JSON of a schema": json,
    "prompts a request": in_one_request,
    "usage": usage,
    "cached tokens": cached_tokens,
    "stages": stages,
    "tokens before asking": tokens_counted,
    "priority": priorities,
}


def _form(db: Conn, item: str, likely: str, unlikely: str, table: str) -> str:
    """How a form is kept to, by a question whose answers are of it by themselves and one whose answers are not.

    What llm.health says must not differ.
    """
    is_held = column(db, f"SELECT state FROM llm.health() WHERE item = '{item}'") == ["held"]
    # First what the model says by itself: who answers out of form is told the form in words from then on, and so small
    # a model, which knows its own questions only, makes nothing of them.
    is_checked = None not in column(db, f"SELECT {likely} FROM {table} AS r")
    is_kept = None not in column(db, f"SELECT {unlikely} FROM {table} AS r")
    assert is_kept or not is_held, "llm.health says that answers are held, and they are not"
    if is_kept and is_held:
        return KEPT
    return CHECKED if is_checked else NO


def column(db: Conn, statement: str) -> list[Any]:
    return [value for (value,) in db.execute(statement.encode())]


def row(db: Conn, statement: str) -> tuple[Any, ...]:
    (found,) = db.execute(statement.encode()).fetchall()
    return tuple(found)
