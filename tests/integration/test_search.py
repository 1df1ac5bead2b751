"""What search is put together of: chunks, how alike embeddings are, one rank of several."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import psycopg
import pytest

Conn = psycopg.Connection[Any]
MULTICORN_IS_SLOW = True

WORDS = ["a", "word", "Überraschung", "日本語。", "…", "e.g.", "\u3000", "🙂🙂", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"]
WORDS += ["said!' ", "? ", ".\n\n", "\n \n", "\t", "\r\n"]


def random_text(rng: np.random.Generator) -> str:
    words = rng.choice(len(WORDS), size=int(rng.integers(0, 60)))
    return "".join(WORDS[i] + (" " if rng.random() < 0.7 else "") for i in words)


def chunked(conn: Conn, texts: list[str], chars: int, overlap: int) -> list[list[tuple[int, int, str]]]:
    found: list[list[tuple[int, int, str]]] = [[] for _ in texts]
    rows = conn.execute(
        "SELECT t.place, c.* FROM unnest(%s::text[]) WITH ORDINALITY AS t (text, place), llm.chunks(t.text, %s, %s) c",
        [texts, chars, overlap],
    )
    for place, *chunk in rows:
        found[place - 1].append(tuple(chunk))
    return found


@pytest.mark.parametrize("seed", [1, *(pytest.param(i, marks=pytest.mark.slow) for i in range(2, 20))])
def test_chunks_are_the_whole_text_and_nothing_else(used_conn: Conn, seed: int) -> None:
    rng = np.random.default_rng(seed)
    texts = [random_text(rng) for _ in range(60)]
    for chars, overlap in ((1, 0), (2, 1), (7, 0), (20, 5), (33, 32), (50, 10), (1000, 100)):
        for text, chunks in zip(texts, chunked(used_conn, texts, chars, overlap), strict=True):
            assert [no for no, _, _ in chunks] == list(range(1, len(chunks) + 1))
            assert all(text[start - 1 : start - 1 + len(chunk)] == chunk for _, start, chunk in chunks)
            assert all(0 < len(chunk) <= chars for _, _, chunk in chunks)
            ends = [start + len(chunk) for _, start, chunk in chunks]
            assert all(a - overlap <= start <= a for a, (_, start, _) in zip([1, *ends], chunks, strict=False))
            assert sorted(ends) == ends
            assert len(set(ends)) == len(ends)
            assert (ends or [1])[-1] == len(text) + 1
            if not overlap:
                assert "".join(chunk for _, _, chunk in chunks) == text


def test_chunks_end_where_the_text_does(used_conn: Conn) -> None:
    def of(text: str, chars: int, overlap: int = 0) -> list[str]:
        return [chunk for _, _, chunk in chunked(used_conn, [text], chars, overlap)[0]]

    assert of("A first one.\n\nThen. And more.", 25) == ["A first one.\n\n", "Then. And more."]
    assert of("One thing. Another (thing). Last", 28) == ["One thing. Another (thing). ", "Last"]
    assert of("これは文。次の文。最後", 7) == ["これは文。", "次の文。最後"]
    assert of("more words than fit", 12) == ["more words ", "than fit"]
    assert of("abcdefghij", 4, 2) == ["abcd", "cdef", "efgh", "ghij"]
    assert of("one two three four", 10, 5) == ["one two ", "two three ", "four"]
    assert of("short", 100) == ["short"]
    assert of("", 100) == []
    assert used_conn.execute("SELECT count(*) FROM llm.chunks(NULL)").fetchone() == (0,)
    for chars, overlap in ((0, 0), (-1, 0), (10, 10), (10, -1), (1_000_001, 0)):
        with pytest.raises(psycopg.errors.InvalidParameterValue), used_conn.transaction():
            used_conn.execute("SELECT llm.chunks('', %s, %s)", [chars, overlap])


def test_chunks_of_a_long_text_take_no_longer_each(used_conn: Conn) -> None:
    text = "SELECT count(*), sum(length(chunk)) FROM llm.chunks(repeat('ä b. ', %s), 500, 0)"
    assert used_conn.execute(text, [60_000]).fetchone() == (600, 300_000)


def test_cosine(used_conn: Conn) -> None:
    def of(a: str, b: str) -> Any:
        return used_conn.execute("SELECT llm.cosine(%s::real[], %s::real[])", [a, b]).fetchall()[0][0]

    assert of("{1,2,3}", "{2,4,6}") == pytest.approx(1)
    assert of("{1,0}", "{0,1}") == 0
    assert of("{3e38,3e38}", "{-3e38,-3e38}") == pytest.approx(-1)
    assert of("{1e-40,0}", "{1,1}") == pytest.approx(math.sqrt(0.5))
    assert of("{0,0}", "{1,1}") is None
    assert of("{}", "{}") is None
    assert math.isnan(of("{NaN,1}", "{1,1}"))
    assert used_conn.execute("SELECT llm.cosine(NULL, '{1}')").fetchone() == (None,)
    with pytest.raises(psycopg.errors.DataException, match="2 and of 3 dimensions"), used_conn.transaction():
        of("{1,2}", "{1,2,3}")


def test_rrf(used_conn: Conn) -> None:
    def of(arguments: str) -> Any:
        return used_conn.execute(f"SELECT llm.rrf({arguments})".encode()).fetchall()[0][0]

    assert of("ARRAY[1, 2]") == pytest.approx(1 / 61 + 1 / 62)
    assert of("ARRAY[NULL, 3]") == pytest.approx(1 / 63)
    assert of("ARRAY[1, 3], k => 0") == pytest.approx(4 / 3)
    assert of("ARRAY[1, 1], weights => ARRAY[0.5, 2]") == pytest.approx(2.5 / 61)
    assert of("ARRAY[1, 1], weights => ARRAY[3]") == pytest.approx(4 / 61)
    assert of("'{}'") == 0
    assert of("ARRAY[NULL]::bigint[]") == 0
    assert of("NULL") is None
