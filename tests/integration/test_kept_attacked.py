"""Kept columns in the hands of somebody who means harm: others look at them, and a worker serves others, too."""

from __future__ import annotations

from contextlib import suppress
from threading import Thread
from typing import Any

import psycopg
import pytest
from psycopg import errors

from pg_bridge.options import Server
from tests.hostile import HostileEngine, Request, completion, well
from tests.keeping import PROMPT, Shop, joe, kind_of, on_rented, schema, shop, until
from tests.traps import set_traps

__all__ = ["joe", "schema", "shop"]  # fixtures

BAIT = (
    "CREATE FUNCTION public.bait() RETURNS boolean LANGUAGE plpgsql VOLATILE AS "
    "$$BEGIN RAISE EXCEPTION 'run as %', current_user; END$$;"
)

EXTENSION_IS_SLOW = True


@on_rented
def test_who_looks_compares_no_keys_by_a_cast_of_a_stranger_s(shop: Shop) -> None:
    number = shop.keep_kind()
    shop.work()
    shop.conn.execute(
        f"{BAIT} CREATE TYPE lure AS ENUM ('a');"
        "CREATE FUNCTION as_int(lure) RETURNS int LANGUAGE plpgsql AS $$BEGIN PERFORM public.bait(); RETURN 1; END$$;"
        "CREATE CAST (lure AS int) WITH FUNCTION as_int(lure) AS IMPLICIT;"
        "DROP TABLE reviews_kind CASCADE; CREATE TABLE reviews_kind (id lure, error text);"
        "INSERT INTO reviews_kind VALUES ('a');"
        f"COMMENT ON TABLE reviews_kind IS 'made by llm.keep, {number}: answers';"
        f"INSERT INTO llm_keep_{number}_changes DEFAULT VALUES"
    )
    assert shop.admin.execute(f"SELECT id FROM {shop.schema}.kept".encode()).fetchall() == [(number,)]


@on_rented
def test_who_looks_is_not_made_to_read_what_takes_the_table_s_name_meanwhile(shop: Shop) -> None:
    number = shop.keep_kind()
    shop.work()
    shop.conn.execute(BAIT.encode())
    waits = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    looks = f"SELECT id FROM {shop.schema}.kept"
    with psycopg.connect(shop.dsn, user="ana") as swapping, psycopg.connect(shop.dsn, autocommit=True) as looking:
        swapping.execute(
            "ALTER TABLE reviews_kind RENAME TO hidden;"
            "CREATE VIEW reviews_kind AS SELECT id, CASE WHEN bait() THEN 'a' END AS error FROM hidden"
        )
        found: list[Any] = []
        looker = Thread(target=lambda: found.extend(looking.execute(looks.encode()).fetchall()))
        looker.start()
        waits = f"SELECT cardinality(pg_blocking_pids({looking.info.backend_pid})) > 0"
        until(lambda: not looker.is_alive() or shop.admin.execute(waits.encode()).fetchone() == (True,))
        swapping.commit()
        looker.join()
    assert found == [(number,)]


DEEP = f'{{"choices": {"[" * 3000}{"]" * 3000}}}'
FORGED = {
    "options": ["[]", "5", "null", '{"server": 5}', '{"choices": {}}', '{"max_tokens": "x"}', '{"nosuch": 1}', DEEP,
                '{"max_tokens": 1e5000}'],
    "at_most_every": ["-1 s", "178000000 years", "-178000000 years"],
    "next_at": ["infinity", "-infinity", "4713-01-01 BC", "9999-12-31"],
    "failures": ["2147483647", "-2147483648"],
    "sent_key": ["{}", "{NULL,NULL,x}", "{{a,b},{c,d}}", "{id,id}"],
    "sent": ["{}", "{NULL}", "{a,b,c}", "{{a,b},{c,d}}", "{id}"],
    "prompt": ["", "{", "{nope}"],
    "schema": ["x", "[]", '{"type": 5}'],
    "asked_at": ["infinity", "-infinity"],
}  # fmt: skip


@pytest.mark.some(2)
@on_rented
@pytest.mark.parametrize(
    "column", ["options", *(pytest.param(column, marks=pytest.mark.slow) for column in list(FORGED)[1:])]
)
def test_a_declaration_that_is_forged_stops_no_worker(shop: Shop, column: str) -> None:
    first = shop.keep_kind()
    shop.conn.execute("CREATE TABLE more (id int PRIMARY KEY, review text)")
    shop.keep("more", "id", "kind", PROMPT, choices="'{yes,no}'", at_most_every="'0'")
    for i, value in enumerate(FORGED[column]):
        with suppress(errors.CheckViolation, errors.ArraySubscriptError, errors.FeatureNotSupported):
            shop.conn.execute(f"UPDATE {shop.schema}._kept SET {column} = %s WHERE id = {first}".encode(), [value])
        shop.conn.execute("INSERT INTO more VALUES (%s, %s)", [i, value])
        for _ in range(5):
            shop.keeper.work()
            shop.keeper.due_in_s()
        assert shop.rows(f"SELECT kind FROM more_kind WHERE id = {i}") == [(kind_of(value),)]
        for conn in (shop.conn, shop.admin):
            assert len(conn.execute(f"SELECT * FROM {shop.schema}.kept".encode()).fetchall()) == 2
        shop.keep_kind()


@on_rented
@pytest.mark.parametrize("sent_key", ["{}", "{NULL}", "{id}"])
def test_a_declaration_that_nothing_was_made_for_stops_no_worker(shop: Shop, sent_key: str) -> None:
    with suppress(errors.CheckViolation):
        shop.conn.execute(
            f"INSERT INTO {shop.schema}._kept (name, key, sent_key, sent, prompt, type, at_most_every) "
            f"VALUES ('kind', '{{id}}', '{sent_key}', '{{review}}', 'Well?', 'text', '0')".encode()
        )
    shop.keep_kind()
    assert shop.work() == 60
    shop.rows(f"SELECT * FROM {shop.schema}.kept")


@on_rented
def test_default_privileges_hand_out_no_notes(shop: Shop, joe: psycopg.Connection[Any]) -> None:
    shop.conn.execute("ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO joe")
    number = shop.keep_kind()
    shop.work()
    shop.conn.execute("UPDATE reviews SET review = 'changed' WHERE id = 1")
    assert joe.execute(f"SELECT * FROM llm_keep_{number}_changes".encode()).fetchall() == []
    for statement in (
        f"INSERT INTO llm_keep_{number}_changes DEFAULT VALUES",
        "INSERT INTO reviews_kind (id) VALUES (77)",
    ):
        with pytest.raises(errors.InsufficientPrivilege):
            joe.execute(statement.encode())
    assert joe.execute("UPDATE reviews_kind SET kind = 'forged'").rowcount == 0
    assert joe.execute("DELETE FROM reviews_kind").rowcount == 0
    assert shop.noted() == [1]


@on_rented
@pytest.mark.parametrize("named", [("answers", "pg_temp.a"), ("view", "pg_temp.a"), ("answers", "")])
def test_nothing_is_made_that_ends_with_the_session(shop: Shop, named: tuple[str, str]) -> None:
    with pytest.raises(errors.InvalidName):
        shop.keep_kind(**{named[0]: f"'{named[1]}'"})


@on_rented
def test_operators_that_others_made_are_not_a_column_s(shop: Shop, joe: psycopg.Connection[Any]) -> None:
    shop.admin.execute("GRANT CREATE ON SCHEMA public TO joe")
    set_traps(joe)
    shop.conn.execute("CREATE TABLE named (name varchar PRIMARY KEY, review text)")
    shop.conn.execute("INSERT INTO named SELECT i, 'review ' || i FROM generate_series(1, 60) AS i")
    shop.keep("named", "name", "kind", PROMPT, at_most_every="'0'")
    assert shop.work() == 60, shop.state("trouble")
    shop.conn.execute("UPDATE named SET review = 'other' WHERE review IN ('review 1', 'review 2')")
    shop.conn.execute("DELETE FROM named WHERE review = 'review 3'")
    assert shop.work() == 2 - 1, shop.state("trouble")  # the same question twice
    assert shop.one("SELECT count(*) FROM named_kind WHERE error IS NULL") == 59


@on_rented
def test_an_engine_that_lies_about_its_name_stops_no_worker(shop: Shop) -> None:
    def reply(request: Request) -> list[bytes]:
        return [well({"data": [{"id": "a\ud800"}]}) if request.path.endswith("/models") else completion(request)]

    shop.keep_kind(server="'lies'")
    shop.conn.execute("CREATE TABLE more AS TABLE reviews; ALTER TABLE more ADD PRIMARY KEY (id)")
    shop.keep("more", "id", "kind", PROMPT, choices="'{yes,no}'")
    with HostileEngine(reply, everything=True) as engine:
        shop.keeper._engines.own["lies"] = Server("lies", engine.url)  # type: ignore[index]
        assert shop.work() == 60
    assert shop.one(f"SELECT count(trouble) FROM {shop.schema}.kept") == 1


@on_rented
def test_notices_of_nothing_take_no_memory(shop: Shop, joe: psycopg.Connection[Any]) -> None:
    number = shop.keep_kind()
    shop.work()
    joe.execute("SELECT pg_notify('llm_kept', repeat('x', 7000) || i) FROM generate_series(1, 100) AS i")
    joe.execute(f"SELECT pg_notify('llm_kept', '{number}'), pg_notify('llm_kept', '{number + 1}')".encode())
    shop.keeper._database.run(lambda connection: connection.execute("SELECT"))
    assert shop.keeper._told <= {str(number)}
    shop.conn.execute("UPDATE reviews SET review = 'changed' WHERE id = 1")
    assert shop.work() == 1


@on_rented
def test_a_superuser_keeps_no_column_of_a_stranger_s_table(shop: Shop) -> None:
    """Its owner can call a view as the table was called, whenever a worker reads it as a superuser."""
    keep = f"SELECT {shop.schema}.keep('reviews', 'id', 'kind', '{PROMPT}')".encode()
    with pytest.raises(errors.InsufficientPrivilege, match="a superuser keeps no column of "):
        shop.admin.execute(keep)
    with shop.admin.transaction():
        shop.admin.execute("SET LOCAL ROLE ana")
        shop.admin.execute(keep)
    assert shop.one(f"SELECT role FROM {shop.schema}.kept") == "ana"


@on_rented
def test_answers_are_not_dropped_by_a_null(shop: Shop) -> None:
    number = shop.keep_kind()
    with pytest.raises(errors.NullValueNotAllowed):
        shop.rows(f"SELECT {shop.schema}.unkeep({number}, keep_answers => NULL)")
    assert shop.rows("SELECT count(*) FROM reviews_kind") == [(0,)]
