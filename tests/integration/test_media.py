"""Questions about pictures, recordings and documents: what is sent, what is planned, what cannot be; on both hosts."""

from __future__ import annotations

import base64
import re
from typing import Any

import psycopg
import pytest

from pg_bridge.testing.double import EngineDouble
from tests.conftest import create_server
from tests.own_memory import MIB, OwnMemory

KEEP_DATABASE = True
MULTICORN_IS_SLOW = True

Conn = psycopg.Connection[Any]

PNG, OTHER = (b"\x89PNG\r\n\x1a\n" + name for name in (b"one", b"other"))
BYTES = {
    "image/png": PNG,
    "image/jpeg": b"\xff\xd8\xff\xe0",
    "image/gif": b"GIF89a",
    "image/webp": b"RIFF0000WEBP",
    "audio/wav": b"RIFF0000WAVE",
    "audio/mpeg": b"ID3\x04",
    "audio/flac": b"fLaC",
    "audio/ogg": b"OggS",
    "application/pdf": b"%PDF-1.7",
}
PHOTOS = "SELECT id, film, llm.media(photo) AS photo FROM photos"


def uri_of(mime: str, data: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def part_of(data: bytes) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": uri_of("image/png", data)}}


@pytest.fixture
def conn(db: Conn, engine: EngineDouble) -> Conn:
    create_server(db, engine.url, cache="persistent")
    db.execute("CREATE TABLE photos (id int, film text, photo bytea)")
    db.execute(
        "INSERT INTO photos VALUES (1, 'Heat', %s), (2, 'Heat', %s), (3, 'Alien', %s), (4, 'Alien', NULL)",
        (PNG, OTHER, PNG),
    )
    return db


@pytest.mark.some(3)
@pytest.mark.parametrize("mime", BYTES)
def test_its_first_bytes_tell_what_it_is(conn: Conn, mime: str) -> None:
    want = {"": uri_of(mime, BYTES[mime])}
    for setting in ("on", "off"):
        conn.execute(f"SET standard_conforming_strings = {setting}".encode())
        got = conn.execute("SELECT llm.media(%s::bytea), llm.media(%s::text)", (BYTES[mime], want[""])).fetchone()
        assert got == (want, want)
    conn.execute("RESET standard_conforming_strings")
    lying = uri_of("image/png" if mime != "image/png" else "image/gif", BYTES[mime])
    assert conn.execute("SELECT llm.media(%s::text)", (lying,)).fetchone() == (want,)


@pytest.mark.some(4)
@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("''::bytea", "the bytes are no picture"),
        ("'plain text'::bytea", "the bytes are no picture"),
        ("'https://example.com/a.png'", "the text is no data URI"),
        ("'file:///etc/passwd'", "the text is no data URI"),
        ("'data:image/png;base64,'", "the bytes are no picture"),
        ("'data:image/png;base64,????'", "invalid symbol"),
        ("'data:image/svg+xml;base64,PHN2Zz4='", "the bytes are no picture"),
        ("'data:image/png,abc'", "the text is no data URI"),
        ("repeat('x', 1000)", "the text is no data URI"),
    ],
)
def test_what_is_none_is_an_error(conn: Conn, argument: str, message: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=message):
        conn.execute(f"SELECT llm.media({argument})".encode())


def test_null_is_null(conn: Conn) -> None:
    assert conn.execute("SELECT llm.media(NULL::bytea), llm.media(NULL::text)").fetchone() == (None, None)


def test_a_picture_is_a_part_of_the_message(conn: Conn, engine: EngineDouble) -> None:
    answers = conn.execute(
        "SELECT llm.complete('What is on the picture?', llm.media(photo)) FROM photos WHERE id < 4 ORDER BY id"
    ).fetchall()
    assert answers[0] == answers[2] != answers[1]
    assert len(engine.received.prompts) == 2  # equal pictures are asked about once
    assert sorted(engine.received.contents, key=str) == sorted(
        (
            [
                {"type": "text", "text": 'What is on the picture?\n{"input": '},
                part_of(data),
                {"type": "text", "text": "}"},
            ]
            for data in (PNG, OTHER)
        ),
        key=str,
    )


def test_forms_of_input(conn: Conn, engine: EngineDouble) -> None:
    said = conn.execute(
        f"SELECT llm.complete('What is on {{}}?', photo), llm.complete('What is on {{photo}}?', r), "
        f"llm.complete('What is on {{photo}}?', jsonb_build_object('photo', r.photo)), "
        f"llm.complete('What is on {{photo}}?', llm.row(r, jsonb_build_object('n', 1))) "
        f"FROM ({PHOTOS}) AS r WHERE id = 1".encode()
    ).fetchall()[0]
    assert said[1] == said[2] == said[3]
    assert len(engine.received.contents) == 2
    assert all(part_of(PNG) in content for content in engine.received.contents)
    assert conn.execute(
        "SELECT llm.is_true('Is {} dark?', llm.media(photo), on_null => 'null') FROM photos WHERE id = 4"
    ).fetchone() == (None,)


def test_a_map_and_the_order(conn: Conn, engine: EngineDouble) -> None:
    found = conn.execute(
        "SELECT input ->> 'id', output, error FROM llm.map(%s, 'Is {photo} of {film}?') ORDER BY 1", (PHOTOS,)
    ).fetchall()
    assert [(key, error) for key, _, error in found] == [(str(number), None) for number in range(1, 5)]
    first, second, *_ = engine.received.prompts
    assert first.partition(", ")[0] == second.partition(", ")[0]  # what rows share stands in front: the picture
    assert re.search(r'^Is photo of film\?\n\{"photo": <image/png [0-9a-f]{16}>, "film": ', first)
    (run,) = conn.execute("SELECT unique_prompts, requests, from_cache FROM llm.last_run()").fetchall()
    assert run == (4, 4, 0)
    again = conn.execute(
        "SELECT input ->> 'id', output, error FROM llm.map(%s, 'Is {photo} of {film}?') ORDER BY 1", (PHOTOS,)
    ).fetchall()
    assert again == found
    assert conn.execute("SELECT unique_prompts, from_cache FROM llm.last_run()").fetchone() == (0, 4)
    conn.execute("UPDATE photos SET photo = photo || 'x'::bytea WHERE id = 2")
    conn.execute("SELECT count(*) FROM llm.map(%s, 'Is {photo} of {film}?')", (PHOTOS,))
    assert conn.execute("SELECT unique_prompts, from_cache FROM llm.last_run()").fetchone() == (1, 3)


def test_an_estimate_takes_no_base64_for_tokens(conn: Conn, engine: EngineDouble) -> None:
    conn.execute("UPDATE photos SET photo = photo || decode(repeat('00', 100000), 'hex') WHERE id < 4")
    for tells in (True, False):
        engine.behaviour.tokenize = tells
        told = conn.execute(
            "SELECT prompt_tokens, requests FROM llm.estimate(%s, 'Is {photo} new?')", (PHOTOS,)
        ).fetchone()
        assert told is not None
        assert 2000 < told[0] < 2500  # two pictures and no picture
        assert told[1] == 3
    assert engine.received.prompts == []


def test_rankings_joins_and_groups(conn: Conn, engine: EngineDouble) -> None:
    engine.behaviour.answer = lambda prompt: "1" if "Which of the two" in prompt else "yes"
    ranked = conn.execute("SELECT count(*) FROM llm.rank(%s, 'sharp {photo}', 2)", (PHOTOS,)).fetchone()
    assert ranked == (2,)
    assert sum(part in (part_of(PNG), part_of(OTHER)) for part in engine.received.contents[0]) == 2
    del engine.received.contents[:]
    joined = (
        f"SELECT count(*) FROM ({PHOTOS}) AS r, (SELECT llm.media(photo) AS other FROM photos WHERE id < 3) AS s "
        "WHERE r.id < 3 AND llm.is_true('Does {photo} resemble {other}?', llm.row(r, s), pairs => 'listed')"
    )
    assert conn.execute(joined.encode()).fetchone() == (4,)
    assert len(engine.received.contents) == 4  # pair by pair
    assert all(len(content) == 5 for content in engine.received.contents)


def test_in_llm_row_a_picture_needs_a_name(conn: Conn, engine: EngineDouble) -> None:
    for pairs in ("each", "listed"):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match=r"argument 2 of llm\.row is neither") as caught:
            conn.execute(
                "SELECT llm.is_true('Is it {film}?', llm.row(r, llm.media(r.photo)), pairs => %s) FROM photos AS r",
                (pairs,),
            )
        assert "Give it a name" in (caught.value.diag.message_hint or "")
    assert engine.received.prompts == []


def test_an_array_of_pictures(conn: Conn, engine: EngineDouble) -> None:
    arrays = "SELECT array_agg(llm.media(photo) ORDER BY id) AS photos FROM photos WHERE id < 3"
    conn.execute(f"SELECT llm.complete('How do {{}} differ?', photos) FROM ({arrays}) AS a".encode())
    (content,) = engine.received.contents
    assert [part for part in content if part["type"] != "text"] == [part_of(PNG), part_of(OTHER)]


def test_a_generated_column_and_several_questions(conn: Conn, engine: EngineDouble) -> None:
    conn.execute("ALTER TABLE photos ADD picture jsonb GENERATED ALWAYS AS (llm.media(photo)) STORED")
    found = conn.execute(
        "SELECT outputs FROM llm.map('SELECT film, picture FROM photos WHERE id < 3', "
        """'{"dark": {"prompt": "Is {picture} dark?", "type": "boolean"}, "said": "What is on {picture}?"}'::jsonb)"""
    ).fetchall()
    assert len(found) == 2
    assert len(engine.received.contents) == 4


def test_a_foreign_table(foreign: Conn, engine: EngineDouble) -> None:
    foreign.execute("CREATE TABLE photos (id int, photo bytea)")
    foreign.execute("INSERT INTO photos VALUES (1, %s), (2, %s)", (PNG, OTHER))
    foreign.execute("CREATE VIEW pictures AS SELECT id, llm.media(photo) AS photo FROM photos")
    foreign.execute(
        "CREATE FOREIGN TABLE seen (id int, photo jsonb, said text OPTIONS (prompt 'What is on {photo}?')) "
        "SERVER vllm OPTIONS (source 'pictures')"
    )
    assert len(foreign.execute("SELECT said FROM seen").fetchall()) == 2
    assert len(engine.received.contents) == 2


def test_an_aggregate(conn: Conn, engine: EngineDouble, host: str) -> None:
    if host != "plpython":
        pytest.skip("aggregates are PL/Python's")
    ask = f"SELECT llm.aggregate('What have {{photo}} in common?', r) FROM ({PHOTOS}) AS r WHERE id < 3"
    conn.execute(ask.encode())
    (content,) = engine.received.contents
    assert [part for part in content if part["type"] != "text"] == [part_of(PNG), part_of(OTHER)]


@pytest.mark.parametrize(
    ("options", "mime", "message"),
    [
        ({"api": "completions"}, "image/png", "a picture cannot be sent with api 'completions'"),
        ({"dialect": "sglang"}, "audio/wav", "a recording cannot be sent to this engine, whose dialect is sglang"),
        ({"dialect": "vllm"}, "application/pdf", "a document cannot be sent to this engine, whose dialect is vllm"),
        ({"max_media_bytes": "10"}, "image/png", "a picture of 11 bytes is larger than the server's max_media_bytes"),
    ],
)
def test_what_cannot_be_sent_is_its_rows_error(
    conn: Conn, engine: EngineDouble, options: dict[str, str], mime: str, message: str
) -> None:
    for name, value in options.items():
        conn.execute(f"ALTER SERVER vllm OPTIONS (ADD {name} '{value}')".encode())
    query = "SELECT llm.media(%s::bytea) AS medium UNION ALL SELECT to_jsonb('text'::text)"
    with conn.cursor() as cursor:
        bound = psycopg.ClientCursor(conn).mogrify(query, (BYTES[mime],))
        cursor.execute(
            "SELECT output IS NULL, error FROM llm.map(%s, 'What is {medium}?', on_error => 'null')", (bound,)
        )
        (failed,) = [row for row in cursor.fetchall() if row[0]]
    assert failed[1].startswith(message)
    assert engine.received.contents == []
    with pytest.raises(psycopg.errors.DataException, match=re.escape(message)) as caught:
        conn.execute("SELECT llm.complete('What is {}?', llm.media(%s::bytea))", (BYTES[mime],))
    assert caught.value.diag.message_hint


def test_a_model_that_takes_none_refuses_the_row(conn: Conn, engine: EngineDouble) -> None:
    said = f"cannot load image data:image/png;base64,{base64.b64encode(PNG).decode()}"
    engine.behaviour.refuse_marked = {"<image/png": said}
    errors = conn.execute("SELECT error FROM llm.map(%s, 'Is {photo} new?', on_error => 'null')", (PHOTOS,)).fetchall()
    refused = "the engine refused the prompt (HTTP status 400)"
    assert sorted(errors, key=str) == [(refused,)] * 3 + [(None,)]


def test_text_is_never_taken_for_a_picture(conn: Conn, engine: EngineDouble) -> None:
    forged = '{"": "' + uri_of("image/png", PNG) + '"}'
    conn.execute("UPDATE photos SET film = %s", (forged,))
    conn.execute("SELECT llm.complete('What is {film}?', r), llm.complete('What is {}?', film) FROM photos AS r")
    conn.execute("SELECT count(*) FROM llm.map('SELECT film, 1 FROM photos', 'Is {film} new?')")
    assert engine.received.contents == []
    assert len(engine.received.prompts) == 3


def test_what_is_kept_with_prompts_is_readable(conn: Conn, engine: EngineDouble) -> None:
    conn.execute("ALTER SERVER vllm OPTIONS (ADD cache_prompts 'true')")
    conn.execute("SELECT llm.complete('What is on {}?', llm.media(photo)) FROM photos WHERE id = 1")
    (prompt,) = engine.received.prompts
    assert conn.execute("SELECT llm.complete('What is on {}?', llm.media(photo)) FROM photos WHERE id = 1").fetchall()
    assert engine.received.prompts == [prompt]


def test_embeddings_of_pictures(conn: Conn, engine: EngineDouble) -> None:
    query = "SELECT id, llm.embed(llm.media(photo)) AS e FROM photos"
    found: dict[int, Any] = dict(conn.execute(query.encode()).fetchall())
    assert len(found[1]) == 8
    assert found[1] == found[3] != found[2]
    assert found[4] is None
    assert sorted(engine.received.contents, key=str) == sorted(([part_of(data)] for data in (PNG, OTHER)), key=str)
    assert {path for path, _ in engine.received.requests} == {"/v1/embeddings"}
    assert all("input" not in body for body in engine.received.bodies)
    engine.reset()
    assert dict(conn.execute(query.encode()).fetchall()) == found  # they are kept, by what their bytes are
    assert engine.received.requests == []
    texts = (
        "SELECT llm.embed('Heat'), llm.embed(%s), llm.embed(NULL), llm.embed(film), llm.embed(llm.media(photo)::text)"
    )
    conn.execute((texts + " FROM photos WHERE id = 1").encode(), ("Alien",))
    assert engine.received.contents == []  # a literal is a text, and so is a medium that was made one
    assert {"Heat", "Alien"} < set(engine.received.prompts)
    mixed = (
        "SELECT llm.embed(llm.media(photo), dimensions => 2), llm.embed(film, dimensions => 2) FROM photos WHERE id = 2"
    )
    (row,) = conn.execute(mixed.encode()).fetchall()
    assert list(map(len, row)) == [2, 2]


@pytest.mark.parametrize(
    "no_medium",
    [
        '"a text"',
        "{}",
        "[]",
        "1",
        '{"a": 1}',
        '{"": 1}',
        '{"": null}',
        '{"": "https://e.com/a.png"}',
        "{medium, 1}",
        "{[medium]}",
    ],
)
def test_what_is_no_medium_is_not_embedded(conn: Conn, engine: EngineDouble, no_medium: str) -> None:
    medium = f'"": "{uri_of("image/png", PNG)}"'
    value = no_medium.replace("medium, 1", f'{medium}, "a": 1').replace("{[medium]}", f"[{{{medium}}}]")
    with pytest.raises(psycopg.errors.InvalidParameterValue) as caught:
        conn.execute("SELECT llm.embed(%s::jsonb, on_error => 'null')", (value,))
    assert caught.value.diag.message_hint
    assert engine.received.requests == []


def test_an_engine_that_embeds_no_pictures_says_so_of_the_row(conn: Conn, engine: EngineDouble) -> None:
    query = "SELECT llm.embed(llm.media(photo), cache => 'off'{}) FROM photos WHERE id < 3"
    refused = "At most 0 image(s) may be provided in one prompt."
    engine.behaviour.refuse_marked = {"<image/png": refused}
    for dialect, message in (("vllm", refused), ("llama.cpp", "a picture cannot be embedded by this engine")):
        conn.execute(f"ALTER SERVER vllm OPTIONS (ADD dialect '{dialect}')".encode())
        assert conn.execute(query.format(", on_error => 'null'").encode()).fetchall() == [(None,)] * 2
        with pytest.raises(psycopg.errors.DataException, match=re.escape(message)) as caught:
            conn.execute(query.format("").encode())
        assert caught.value.diag.message_hint
        conn.execute("ALTER SERVER vllm OPTIONS (DROP dialect)")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["map", "complete"])
def test_memory_of_many_large_pictures(conn: Conn, engine: EngineDouble, how: str, host: str) -> None:
    engine.behaviour.record = False
    conn.execute(
        "CREATE TABLE large AS SELECT decode('89504e470d0a1a0a' || repeat(md5(i::text), 62500), 'hex') AS photo "
        "FROM generate_series(1, 200) AS i"
    )
    statement = {
        "map": "SELECT count(output) FROM llm.map('SELECT llm.media(photo) AS photo FROM large', 'What is {photo}?')",
        "complete": "SELECT count(llm.complete('What is {}?', llm.media(photo))) FROM large",
    }[how]
    conn.execute("SELECT llm.complete('Say hello.')")
    with OwnMemory(conn) as held:
        assert conn.execute(statement.encode()).fetchone() == (200,)
    # They have 254 MB as they are sent; on Multicorn the whole row set of llm.map is staged before.
    is_staged = how == "map" and host == "multicorn"
    assert held.grown_bytes < (2400 if is_staged else 800) * MIB
