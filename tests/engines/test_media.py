"""Pictures at a real vLLM: it takes them as parts of a message, and finds the same one in its prefix cache again."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import psycopg
import pytest

from pg_bridge.errors import EngineUnreachable
from pg_bridge.serving.launch import VllmEngine
from tests.engines.features import Conn
from tests.engines.served import Served
from tests.engines.vision_model import PICTURE_TOKENS, vision_engine

SIDE = 64
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
Open = Callable[[Served], AbstractContextManager[Conn]]


def picture(color: tuple[int, int, int]) -> bytes:
    """A PNG of one colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    lines = zlib.compress((b"\0" + bytes(color) * SIDE) * SIDE)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmEngine]:
    try:
        engine = vision_engine(tmp_path_factory.mktemp("vision"))
    except EngineUnreachable as error:
        pytest.skip(error.message)
    with engine as running:
        yield running


@pytest.fixture(scope="module")
def embedding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmEngine]:
    try:
        engine = vision_engine(tmp_path_factory.mktemp("embedding"), embeds=True)
    except EngineUnreachable as error:
        pytest.skip(error.message)
    with engine as running:
        yield running


@pytest.fixture
def conn(seeing: VllmEngine, opened: Open) -> Iterator[Conn]:
    with opened(Served("", seeing.endpoint, options={"cache": "off"})) as connection:
        make_photos(connection)
        yield connection


def make_photos(connection: Conn) -> None:
    """Six rows, three pictures."""
    connection.execute("CREATE TABLE photos (id int, film text, photo bytea)")
    with connection.cursor() as cursor:
        rows = [(i, f"film {i}", picture((RED, BLUE, RED, GREEN, RED, BLUE)[i])) for i in range(6)]
        cursor.executemany("INSERT INTO photos VALUES (%s, %s, %s)", rows)


def test_a_model_sees_a_picture(conn: Conn) -> None:
    answers = conn.execute(
        "SELECT llm.complete('What is on the picture?', llm.media(photo), max_tokens => 8) FROM photos ORDER BY id"
    ).fetchall()
    assert answers[0] == answers[2] == answers[4]
    assert answers[1] == answers[5]
    assert len(set(answers)) == 3  # what is on it, and nothing else, tells them apart
    (run,) = conn.execute("SELECT unique_prompts, requests, prompt_tokens FROM llm.last_run()").fetchall()
    assert run[:2] == (3, 3)
    assert run[2] > 3 * PICTURE_TOKENS


def test_the_same_picture_is_found_in_the_prefix_cache(conn: Conn) -> None:
    conn.execute("ALTER SERVER vllm OPTIONS (ADD max_in_flight '1')")
    query = "SELECT film, llm.media(photo) AS photo FROM photos"
    found = conn.execute(
        "SELECT count(output) FROM llm.map(%s, 'Is {photo} of {film}?', max_tokens => 4)",
        (query,),
    ).fetchone()
    assert found == (6,)
    (run,) = conn.execute("SELECT unique_prompts, cached_tokens FROM llm.last_run()").fetchall()
    assert run[0] == 6
    assert run[1] >= 3 * PICTURE_TOKENS  # three of six: the planner has put equal ones together


def test_a_broken_picture_is_its_rows_error(conn: Conn) -> None:
    conn.execute("UPDATE photos SET photo = substr(photo, 1, 40) WHERE id = 0")
    query = "SELECT id, llm.media(photo) AS photo FROM photos"
    rows = conn.execute(
        "SELECT input ->> 'id', error FROM llm.map(%s, 'What is {photo}?', on_error => 'null', max_tokens => 2) "
        "ORDER BY row_id",
        (query,),
    ).fetchall()
    assert [row[0] for row in rows if row[1] is not None] == ["0"]
    with pytest.raises(psycopg.Error) as caught:
        conn.execute("SELECT llm.complete('What?', llm.media(photo)) FROM photos WHERE id = 0")
    assert "base64" not in str(caught.value)


def test_a_pooling_model_embeds_pictures_and_texts(embedding: VllmEngine, opened: Open) -> None:
    with opened(Served("", embedding.endpoint, options={"cache": "off"})) as conn:
        make_photos(conn)
        found = conn.execute("SELECT llm.embed(llm.media(photo)) FROM photos ORDER BY id").fetchall()
        assert found[0] == found[2] == found[4]
        assert found[1] == found[5]
        lengths = {len(row[0]) for row in [*found, *conn.execute("SELECT llm.embed(film) FROM photos").fetchall()]}
        assert len(lengths) == 1
        assert len(set(map(str, found))) == 3
