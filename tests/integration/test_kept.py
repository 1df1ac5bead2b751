"""Columns that are kept answered: by an ordinary role on a server without the extension, and with it."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from psycopg import errors

from pg_bridge.cli.install import jobs_script
from pg_bridge.jobs import answers, keeper, kept, noted
from pg_bridge.testing.cluster import Cluster
from pg_bridge.testing.double import EngineDouble
from tests.keeping import PROMPT, Shop, during, joe, keeping, kind_of, on_rented, opened, schema, shop, until, worker_of

EXTENSION_IS_SLOW = True

__all__ = ["joe", "schema", "shop"]  # fixtures


def test_a_column_stays_answered(shop: Shop) -> None:
    shop.keep_kind()
    assert shop.state("waiting", "answered", "failed", "last", "trouble") == (60, 0, 0, None, None)
    assert shop.work() == 60
    shop.assert_all_right()
    assert shop.state("waiting", "answered", "failed", "trouble") == (0, 60, 0, None)
    assert shop.work() == 0
    shop.conn.execute("UPDATE reviews SET review = 'changed ' || id WHERE id <= 10")
    shop.conn.execute("INSERT INTO reviews VALUES (100, 'new')")
    shop.conn.execute("UPDATE reviews SET id = 200 WHERE id = 20")
    shop.conn.execute("DELETE FROM reviews WHERE id IN (30, 31)")
    assert shop.state("waiting", "answered") == (15, 60)
    assert shop.work() == 12
    shop.assert_all_right()
    assert shop.state("waiting", "answered") == (0, 59)
    assert shop.rows("SELECT id, review, stars, kind FROM reviews_with_kind WHERE id = 100") == [
        (100, "new", None, kind_of("new"))
    ]


def test_what_the_prompt_does_not_use_asks_nothing(shop: Shop) -> None:
    shop.keep_kind()
    shop.work()
    shop.conn.execute("UPDATE reviews SET stars = 5")
    shop.conn.execute("UPDATE reviews SET review = review")
    assert shop.noted() == []
    assert shop.work() == 0


def test_another_prompt_asks_all_again_and_the_same_one_nothing(shop: Shop) -> None:
    first = shop.keep_kind()
    shop.work()
    assert shop.keep_kind() == first
    assert shop.work() == 0
    assert (
        shop.keep("reviews", "id", "kind", "Is {review} really kind?", choices="'{yes,no}'", at_most_every="'0'")
        == first
    )
    assert shop.work() == 60
    shop.assert_all_right(prompt="Is review really kind?")


@on_rented
@pytest.mark.parametrize("rows", [5_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_ten_changed_rows_are_ten_questions(shop: Shop, rows: int) -> None:
    shop.conn.execute("TRUNCATE reviews")
    shop.conn.execute(f"INSERT INTO reviews SELECT i, 'review ' || i % 100, 1 FROM generate_series(1, {rows}) AS i")
    shop.keep_kind()
    assert shop.work() in range(100, 100 * (rows // noted.SLICE_ROWS + 2))  # equal questions are asked once a window
    shop.conn.execute(f"UPDATE reviews SET review = 'changed ' || id WHERE id % {rows // 10} = 0")
    assert len(shop.noted()) == 10
    assert shop.work() == 10
    shop.assert_all_right()


@pytest.mark.slow
@on_rented
def test_many_rows_are_looked_at_in_slices(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noted, "SLICE_ROWS", 7)
    monkeypatch.setattr("pg_bridge.jobs.query.FIRST_PAGE_ROWS", 3)
    monkeypatch.setattr("pg_bridge.jobs.query.MOST_PAGE_ROWS", 3)
    monkeypatch.setattr(noted, "FIRST_PAGE_ROWS", 2)
    shop.keep_kind()
    assert shop.step()
    assert 0 < shop.state("answered")[0] < 20
    shop.conn.execute("UPDATE reviews SET review = 'changed' WHERE id = 60")  # which has its turn before the others
    shop.conn.execute("DELETE FROM reviews WHERE id = 1")
    assert shop.step()
    assert shop.rows("SELECT kind FROM reviews_kind WHERE id IN (1, 60)") == [(kind_of("changed"),)]
    shop.work()
    shop.assert_all_right()
    shop.conn.execute("UPDATE reviews SET review = 'all ' || id")
    assert shop.work() == 59
    shop.assert_all_right()


STATEMENTS = {
    "INSERT INTO reviews VALUES (61, 'new'), (62, 'new')": [61, 62],
    "INSERT INTO reviews VALUES (1, 'new') ON CONFLICT DO NOTHING": [],
    "INSERT INTO reviews VALUES (1, 'new') ON CONFLICT (id) DO UPDATE SET review = excluded.review": [1],
    "INSERT INTO reviews VALUES (1, 'new', 7) ON CONFLICT (id) DO UPDATE SET stars = excluded.stars": [],
    "UPDATE reviews SET review = 'x' WHERE id = 3": [3],
    "UPDATE reviews SET review = NULL WHERE id < 3": [1, 2],
    "UPDATE reviews SET review = 'x' WHERE false": [],
    "UPDATE reviews SET review = 'review ' || id % 50": list(range(50, 61)),  # more rows than a small plan is for
    "UPDATE reviews SET id = id + 100 WHERE id > 58": [59, 60, 159, 160],
    "UPDATE reviews SET id = -id": [*range(-60, 0), *range(1, 61)],
    "DELETE FROM reviews WHERE id > 58": [59, 60],
    "TRUNCATE reviews": [None],
    "WITH gone AS (DELETE FROM reviews WHERE id = 1 RETURNING *) INSERT INTO reviews SELECT 1001, review FROM gone": [
        1,
        1001,
    ],
}


@on_rented
@pytest.mark.parametrize("is_partitioned", [False, True], ids=["plain", "partitioned"])
def test_each_statement_notes_the_rows_that_it_changed(shop: Shop, is_partitioned: bool) -> None:
    if is_partitioned:
        shop.conn.execute("DROP TABLE reviews")
        shop.conn.execute("CREATE TABLE reviews (id int PRIMARY KEY, review text, stars int) PARTITION BY RANGE (id)")
        shop.conn.execute("CREATE TABLE low PARTITION OF reviews FOR VALUES FROM (MINVALUE) TO (50)")
        shop.conn.execute("CREATE TABLE high PARTITION OF reviews DEFAULT")
        shop.conn.execute("INSERT INTO reviews SELECT i, 'review ' || i, 1 FROM generate_series(1, 60) AS i")
    shop.keep_kind()
    shop.work()
    for statement, expected in STATEMENTS.items():
        with shop.conn.transaction(force_rollback=True):
            shop.conn.execute(statement.encode())
            found = sorted({note for note in shop.noted() if note is not None}) or shop.noted()
            assert found == expected, statement


@on_rented
def test_copy_and_merge_note_what_they_change(shop: Shop) -> None:
    shop.keep_kind()
    shop.forget_notes()
    with shop.conn.cursor() as cursor, cursor.copy("COPY reviews FROM STDIN") as rows:
        rows.write_row((70, "copied", 1))
    assert shop.noted() == [70]
    if shop.conn.info.server_version >= 150000:
        shop.conn.execute(
            "MERGE INTO reviews AS r USING (VALUES (1), (2), (80)) AS v (i) ON r.id = v.i "
            "WHEN MATCHED AND i = 1 THEN DELETE "
            "WHEN MATCHED THEN UPDATE SET review = 'merged' WHEN NOT MATCHED THEN INSERT VALUES (i, 'merged')"
        )
        assert sorted(shop.noted()) == [1, 2, 70, 80]


@on_rented
def test_what_a_foreign_key_cascades_is_noted(shop: Shop) -> None:
    shop.conn.execute(
        "CREATE TABLE shops (id int PRIMARY KEY); INSERT INTO shops SELECT generate_series(1, 60);"
        "ALTER TABLE reviews ADD FOREIGN KEY (id) REFERENCES shops ON DELETE CASCADE ON UPDATE CASCADE"
    )
    shop.keep_kind()
    shop.forget_notes()
    shop.conn.execute("DELETE FROM shops WHERE id = 1; UPDATE shops SET id = 100 WHERE id = 2")
    assert sorted(shop.noted()) == [1, 2, 100]


# -- changes while answers are awaited


@on_rented
def test_rows_that_change_while_they_are_asked_about_are_asked_again(shop: Shop) -> None:
    shop.keep_kind()
    shop.work()
    shop.conn.execute("UPDATE reviews SET review = 'first' WHERE id = 1")
    changed: list[None] = []

    def change() -> None:
        if not changed:
            changed.append(None)
            with psycopg.connect(shop.dsn, user="ana", autocommit=True) as other:
                other.execute("UPDATE reviews SET review = 'second' WHERE id = 1")

    shop.engine.behaviour.answer = during(change)
    assert shop.step()
    assert changed
    assert shop.rows("SELECT kind FROM reviews_kind WHERE id = 1") == [(kind_of("first"),)]
    assert shop.noted() == [1]
    assert shop.work() == 1
    shop.assert_all_right()


@on_rented
def test_a_change_that_is_committed_late_is_not_lost(shop: Shop) -> None:
    """Its note has a lower number than one that has been dealt with by then."""
    shop.keep_kind()
    shop.work()
    with psycopg.connect(shop.dsn, user="ana") as slow:
        slow.execute("UPDATE reviews SET review = 'late' WHERE id = 1")
        shop.conn.execute("UPDATE reviews SET review = 'soon' WHERE id = 2")
        assert shop.work() == 1
        slow.commit()
    assert shop.work() == 1
    shop.assert_all_right()


@on_rented
def test_a_change_that_is_committed_while_a_later_one_is_asked_about_is_not_lost(shop: Shop) -> None:
    shop.keep_kind()
    shop.work()
    with psycopg.connect(shop.dsn, user="ana") as slow:
        slow.execute("UPDATE reviews SET review = 'late' WHERE id = 1")
        shop.conn.execute("UPDATE reviews SET review = 'soon' WHERE id = 2")
        shop.engine.behaviour.answer = during(slow.commit)
        assert shop.step()
    assert shop.noted() == [1]
    assert shop.work() == 1
    shop.assert_all_right()


@on_rented
@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_who_writes_meets_no_error_of_ours(shop: Shop, level: str) -> None:
    shop.keep_kind()
    shop.work()
    with psycopg.connect(shop.dsn, user="ana") as writing:
        writing.execute(f"SET TRANSACTION ISOLATION LEVEL {level}".encode())
        writing.execute("UPDATE reviews SET review = 'once' WHERE id = 1")
        shop.conn.execute("UPDATE reviews SET review = 'other' WHERE id = 2")
        assert shop.work() == 1
        writing.execute("UPDATE reviews SET review = 'twice' WHERE id = 1")
        writing.commit()
    assert shop.work() == 1
    shop.assert_all_right()


@on_rented
def test_what_is_rolled_back_is_not_asked(shop: Shop) -> None:
    shop.keep_kind()
    shop.work()
    with shop.conn.transaction(force_rollback=True):
        shop.conn.execute("UPDATE reviews SET review = 'never'")
    assert shop.work() == 0


@on_rented
def test_two_workers_at_one_column_do_not_ask_twice(shop: Shop) -> None:
    shop.keep_kind()
    stepped: list[bool] = []
    with keeping(shop.dsn, shop.schema, shop.engine, shop.said) as other:

        def step_too() -> None:
            if not stepped:
                stepped.append(other.work())

        shop.engine.reset()
        shop.engine.behaviour.answer = during(step_too)
        assert shop.step()
    assert stepped == [False]
    assert len(shop.engine.received.prompts) == 60
    assert shop.state("trouble") == (None,)


# -- what goes wrong


@on_rented
def test_an_engine_that_is_gone_is_told_and_tried_again(shop: Shop) -> None:
    shop.keep_kind()
    shop.work()
    shop.conn.execute("UPDATE reviews SET review = 'changed' WHERE id = 1")
    shop.engine.behaviour.fail_first = 1_000_000
    assert not shop.step()
    assert shop.state("waiting", "answered") == (1, 60)
    assert shop.state("trouble")[0]
    shop.engine.behaviour.fail_first = 0
    shop.work()
    assert shop.state("waiting", "trouble") == (0, None)
    shop.assert_all_right()


@on_rented
def test_rows_without_an_answer_have_an_error_and_are_not_asked_all_day(shop: Shop) -> None:
    shop.engine.behaviour.withhold_marker = "review 5"
    shop.keep_kind()
    assert shop.work() == 60
    assert shop.state("answered", "failed", "waiting", "trouble") == (49, 11, 0, None)
    assert shop.work() == 0
    shop.conn.execute("UPDATE reviews SET review = 'better' WHERE id = 5")
    assert shop.work() == 1
    shop.engine.behaviour.withhold_marker = ""
    shop.keep_kind()
    assert shop.work() == 10
    shop.assert_all_right()


@on_rented
def test_it_asks_at_most_so_often(shop: Shop) -> None:
    shop.keep_kind(at_most_every="'1 hour'")
    shop.work()
    shop.conn.execute("UPDATE reviews SET review = 'changed' WHERE id = 1")
    assert shop.work() == 0
    assert shop.one(f"SELECT next - last FROM {shop.schema}.kept").total_seconds() == 3600
    shop.conn.execute(f"UPDATE {shop.schema}._kept SET next_at = now()".encode())
    assert shop.work() == 1


@pytest.mark.slow
@on_rented
def test_budgets_hold_for_a_step_and_the_next_one_goes_on(shop: Shop) -> None:
    shop.keep_kind(max_requests="2", on_budget="'null'")
    shop.step()
    first = shop.state("answered")[0]
    assert 0 < first < 60
    shop.work()
    shop.assert_all_right()


@on_rented
def test_another_server_than_the_worker_has_is_told(shop: Shop) -> None:
    shop.keep_kind(server="'other'")
    assert not shop.step()
    assert shop.state("trouble") == ('the worker has no engine "other"',)


# -- names, types and what is dropped


@on_rented
def test_what_is_renamed_is_found_and_asks_nothing(shop: Shop) -> None:
    shop.keep_kind()
    shop.work()
    for what in (
        "reviews RENAME review TO stars_",
        "reviews RENAME stars TO review",  # another column has its name now
        "reviews RENAME id TO number",
        "reviews RENAME TO opinions",
        "reviews_kind RENAME TO kinds",
    ):
        shop.conn.execute(f"ALTER TABLE {what}".encode())
    shop.conn.execute("UPDATE opinions SET stars_ = 'changed' WHERE number = 1")
    assert shop.work() == 1
    shop.conn.execute("UPDATE opinions SET stars_ = 'again' WHERE number = 2")
    shop.conn.execute("UPDATE opinions SET review = 8")
    assert shop.noted() == [2]
    assert shop.work() == 1
    assert shop.rows("SELECT k.id FROM kinds AS k JOIN opinions AS o ON o.number = k.id WHERE k.id < 3") == [(1,), (2,)]
    assert shop.rows("SELECT kind FROM kinds WHERE id < 3 ORDER BY id") == [(kind_of("changed"),), (kind_of("again"),)]


@on_rented
def test_notes_that_were_lost_with_their_table_s_name_are_made_up_for(shop: Shop) -> None:
    shop.keep_kind()
    shop.work()
    shop.conn.execute(f"ALTER TABLE llm_keep_{shop.number}_changes RENAME TO notes".encode())
    shop.conn.execute("UPDATE reviews SET review = 'changed' WHERE id = 1")  # which fails in nobody's hands
    assert shop.rows("SELECT * FROM notes") == []
    assert shop.work() == 1
    shop.conn.execute("UPDATE reviews SET review = 'again' WHERE id = 1")
    assert shop.work() == 1
    shop.assert_all_right()


@pytest.mark.some(2)
@on_rented
@pytest.mark.parametrize(
    ("command", "trouble"),
    [
        ("DROP TABLE reviews CASCADE", "the table is gone, or a column that the prompt names, or their triggers"),
        (
            "ALTER TABLE reviews DROP review CASCADE",
            "the table is gone, or a column that the prompt names, or their triggers",
        ),
        ("DROP TABLE reviews_kind CASCADE", "its table of answers is gone"),
        ("DROP TABLE llm_keep_1_changes", "its table of changes is gone"),
        (
            "ALTER TABLE reviews DROP CONSTRAINT reviews_pkey",
            "table public.reviews has no unique key of (id) any more",
        ),
    ],
)
def test_what_is_dropped_is_told_and_fails_nobody_s_statement(shop: Shop, command: str, trouble: str) -> None:
    shop.keep_kind()
    shop.work()
    with psycopg.connect(shop.dsn, user="ana", autocommit=True) as other:
        other.execute("UPDATE reviews SET review = 'a' WHERE id = 1")  # its plans are of before
        shop.conn.execute(command.encode())
        if "TABLE reviews CASCADE" not in command:
            other.execute("INSERT INTO reviews (id) VALUES (1000)")
            other.execute("UPDATE reviews SET stars = 7, id = id + 1000 WHERE id = 2")
            other.execute("DELETE FROM reviews WHERE id = 3")
    assert not shop.step()
    assert shop.one(f"SELECT trouble FROM {shop.schema}._kept") == trouble
    shop.conn.execute(f"SELECT {shop.schema}.unkeep({shop.number})".encode())
    assert shop.one("SELECT count(*) FROM pg_class WHERE relname ~ 'kind|llm_keep'") == 0
    assert shop.one("SELECT count(*) FROM pg_proc WHERE proname ~ '^llm_keep'") == 0
    assert shop.one("SELECT count(*) FROM pg_trigger WHERE tgname ~ '^llm_keep'") == 0


@pytest.mark.some(2)
@on_rented
@pytest.mark.parametrize(
    "key",
    [
        'a "b" text',
        "uuid_ uuid",
        "at timestamptz",
        "day date",
        "amount numeric",
        "part float8",
        "small smallint",
        "mood mood",
        "name citext",
        "bin bytea",
        "span interval",
        "letter text COLLATE nocase",
        "whole whole",
    ],
)
def test_keys_of_many_types(shop: Shop, key: str) -> None:
    shop.admin.execute("CREATE EXTENSION IF NOT EXISTS citext")
    shop.conn.execute("CREATE TYPE mood AS ENUM ('it''s', 'so so')")
    shop.conn.execute("CREATE DOMAIN whole AS int CHECK (value > 0)")
    shop.conn.execute("CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
    name = key.rsplit(" ", 1)[0] if "COLLATE" not in key else "letter"
    values = {
        "uuid_": ["gen_random_uuid()", "gen_random_uuid()"],
        "at": ["'2024-02-01 00:00+05'", "'2024-01-02'"],
        "day": ["'2024-02-01'", "'2024-01-02'"],
        "amount": ["1.00", "2.50"],
        "part": ["0.1::float8 + 0.2", "1e300"],
        "small": ["1", "2"],
        "mood": ["'it''s'", "'so so'"],
        "bin": ["'\\x00ff'", "'\\x'"],
        "span": ["'-1 day 02:00'", "'1 mon'"],
        "whole": ["1", "2"],
    }.get(name, ["'It''s {}% \"x\"'", "'é\\'"])
    column = key.replace('a "b"', '"a ""b"""')
    shop.conn.execute("SET DateStyle = 'SQL, DMY'; SET extra_float_digits = -10; SET IntervalStyle = 'sql_standard'")
    shop.conn.execute(f"CREATE TABLE things ({column} PRIMARY KEY, review text)".encode())
    shop.conn.execute(f"INSERT INTO things VALUES ({values[0]}, 'one')".encode())
    shop.keep("things", name.replace("'", "''"), "kind", PROMPT, choices="'{yes,no}'", at_most_every="'0'")
    assert shop.work() == 1
    shop.conn.execute(f"INSERT INTO things VALUES ({values[1]}, 'two')".encode())
    shop.conn.execute("UPDATE things SET review = review || '!'")
    shop.conn.execute("DELETE FROM things WHERE review = 'one!'")
    assert shop.work() == 1
    assert shop.rows("SELECT review, kind FROM things_with_kind") == [("two!", kind_of("two!"))]
    assert shop.one("SELECT count(*) FROM things_kind") == 1


@pytest.mark.some(1)
@on_rented
@pytest.mark.parametrize("domain", ["int NOT NULL", "int DEFAULT 7", "int CHECK (value IS NOT NULL)"])
def test_keys_of_domains(shop: Shop, domain: str) -> None:
    shop.conn.execute(
        f"CREATE DOMAIN whole AS {domain}; CREATE TABLE things (id whole PRIMARY KEY, review text)".encode()
    )
    shop.conn.execute("INSERT INTO things VALUES (1, 'one')")
    shop.keep("things", "id", "kind", PROMPT, choices="'{yes,no}'", at_most_every="'0'")
    assert shop.work() == 1
    shop.conn.execute("INSERT INTO things VALUES (2, 'two')")
    shop.conn.execute("UPDATE things SET id = 3 WHERE id = 2")
    assert shop.work() == 1
    assert shop.rows("SELECT id, kind FROM things_with_kind ORDER BY id") == [(1, kind_of("one")), (3, kind_of("two"))]
    shop.conn.execute("TRUNCATE things")
    shop.work()
    assert shop.rows("SELECT * FROM things_kind") == []


@on_rented
def test_keys_of_several_columns_and_names_of_all_kinds(shop: Shop) -> None:
    table = '"It\'s %s {x}"'
    shop.conn.execute(
        f'CREATE TABLE {table} ("Shop" int, "the id" text, "%I; DROP" text, j json, PRIMARY KEY ("Shop", "the id"))'
    )
    shop.conn.execute(f"INSERT INTO {table} SELECT i % 3, i, 'text ' || i, '{{}}' FROM generate_series(1, 30) AS i")
    prompt = "Is {%I; DROP} with {j} in {Shop} kind?"
    shop.keep(table.replace("'", "''"), "Shop, the id", 'ki"nd', prompt, at_most_every="'0'")
    assert shop.work() == 30
    shop.conn.execute(f"""UPDATE {table} SET "Shop" = 5 WHERE "the id" = '7'""")
    assert shop.work() == 1
    assert shop.state("answered", "waiting") == (30, 0)


@pytest.mark.some(8)
@on_rented
@pytest.mark.parametrize(
    ("words", "state", "hint"),
    [
        (("reviews", "nr", "kind", "Is {review} kind?"), "42703", "key"),
        (("reviews", "id", "kind", "Is {revew} kind?"), "42703", "review"),
        (("reviews", "id", "kind", "Is {review kind?"), "42601", "braces"),
        (("reviews", "stars", "kind", "Is {review} kind?"), "42P16", "SET NOT NULL"),
        (("nullable", "a", "kind", "Is {b} kind?"), "42P16", "ADD PRIMARY KEY"),
        (("reviews", "id", "id", "Is {review} kind?"), "42701", "otherwise"),
        (("reviews", "id", "error", "Is {review} kind?"), "42701", "otherwise"),
        (("reviews", "id", "stars", "Is {review} kind?"), "42701", "view"),
        (("bare", "a", "kind", "Well?"), "42703", "{column}"),
        (("seen", "id", "kind", "Is {review} kind?"), "42809", "partitioned"),
        (("parent", "a", "kind", "Is {b} kind?"), "42809", "inherit"),
        (("pg_class", "oid", "kind", "Is {relname} kind?"), "42809", "ordinary"),
        (("fleeting", "a", "kind", "Is {b} kind?"), "42809", "temporary"),
        (("theirs", "a", "kind", "Is {b} kind?"), "42501", "GRANT SELECT, TRIGGER"),
    ],
)
def test_what_cannot_be_kept_is_refused_and_nothing_is_made(
    shop: Shop, words: tuple[str, ...], state: str, hint: str
) -> None:
    shop.conn.execute(
        "CREATE TABLE nullable (a int NOT NULL, b text); CREATE TABLE bare (a int PRIMARY KEY);"
        "CREATE VIEW seen AS SELECT * FROM reviews; CREATE TABLE parent (a int PRIMARY KEY, b text);"
        "CREATE TABLE child () INHERITS (parent); CREATE TEMPORARY TABLE fleeting (a int PRIMARY KEY, b text)"
    )
    shop.admin.execute("CREATE TABLE theirs (a int PRIMARY KEY, b text); GRANT SELECT ON theirs TO ana")
    count_ = "SELECT count(*) FROM pg_class"
    before = shop.one(count_)
    with pytest.raises(psycopg.Error) as caught:
        shop.keep(*words)
    assert caught.value.sqlstate == state
    assert hint in f"{caught.value.diag.message_primary} {caught.value.diag.message_hint}"
    assert shop.one(count_) == before
    assert shop.rows(f"SELECT * FROM {shop.schema}.kept") == []


@pytest.mark.some(8)
@on_rented
@pytest.mark.parametrize(
    "named",
    [
        {"type": "'money'"},
        {"schema": "'[]'"},
        {"schema": "'{}'", "type": "'text'"},
        {"at_most_every": "'-1 s'"},
        {"at_most_every": "NULL"},
        {"options": "'[]'"},
        {"options": "'{\"tempreature\": 1}'"},
        {"options": '\'{"choices": ["a"]}\''},
        {"prompt": "NULL"},
        {"answers": "'a.b.c'"},
        {"answers": "'reviews'"},
        {"view": "'reviews'"},
    ],
)
def test_arguments_that_are_not_valid(shop: Shop, named: dict[str, str]) -> None:
    given = {'"table"': "'reviews'", "key": "'id'", '"column"': "'kind'", "prompt": "'Is {review} kind?'"} | named
    listed = ", ".join(f"{name} => {value}" for name, value in given.items())
    with pytest.raises(psycopg.Error) as caught:
        shop.conn.execute(f"SELECT {shop.schema}.keep({listed})".encode())
    assert caught.value.sqlstate in ("22023", "22004", "42602", "42P07", "42601", "42883")
    assert shop.rows(f"SELECT * FROM {shop.schema}.kept") == []


def test_types_are_those_of_jobs() -> None:
    script = jobs_script()
    for name, type_ in answers.TYPES.items():
        assert f"WHEN '{name}' THEN '{type_.name}'" in " ".join(script.split())


# -- rights


def test_who_may_only_insert_or_update_makes_notes_all_the_same(shop: Shop, joe: psycopg.Connection[Any]) -> None:
    shop.keep_kind()
    shop.work()
    shop.conn.execute("GRANT INSERT ON reviews TO joe; GRANT UPDATE (review) ON reviews TO joe")
    joe.execute("SET search_path = pg_temp")
    joe.execute("CREATE FUNCTION pg_temp.pg_notify(text, text) RETURNS void LANGUAGE sql AS 'SELECT 1/0'")
    joe.execute("INSERT INTO public.reviews VALUES (1001, 'by joe')")
    joe.execute("UPDATE public.reviews SET review = 'all the same'")
    assert shop.work() == 1
    shop.assert_all_right()


@on_rented
def test_a_column_is_asked_as_who_declared_it(shop: Shop, joe: psycopg.Connection[Any]) -> None:
    shop.keep_kind()
    shop.work()
    shop.admin.execute("ALTER TABLE reviews OWNER TO boss; GRANT SELECT ON reviews TO ana")
    shop.conn.execute("DELETE FROM reviews_kind WHERE id = 1")
    shop.admin.execute("UPDATE reviews SET review = 'changed' WHERE id = 1")
    assert shop.work() == 1
    shop.admin.execute("REVOKE SELECT ON reviews FROM ana")
    shop.admin.execute("UPDATE reviews SET review = 'once more' WHERE id = 1")
    assert shop.work() == 0
    assert shop.state("trouble") == ("permission denied for table reviews",)
    shop.admin.execute("GRANT SELECT ON reviews TO ana")
    assert shop.work() == 1


@on_rented
def test_a_worker_takes_the_columns_of_those_that_it_may_become(shop: Shop, joe: psycopg.Connection[Any]) -> None:
    shop.admin.execute("GRANT CREATE ON SCHEMA public TO joe")
    joe.execute("CREATE TABLE others (id int PRIMARY KEY, b text); INSERT INTO others VALUES (1, 'a')")
    joe.execute(f"SELECT {shop.schema}.keep('others', 'id', 'kind', 'Is {{b}} kind?')".encode())
    assert shop.work() == 0
    trouble = f"SELECT trouble FROM {shop.schema}.kept"
    assert joe.execute(trouble.encode()).fetchone() == ('no worker that runs here may become "joe"',)
    shop.keep_kind()
    shop.admin.execute(
        "GRANT joe TO keeper"
    )  # who could do with ana's columns what joe alone may, and the other way round
    try:
        assert shop.work() == 0
        assert joe.execute(trouble.encode()).fetchone() == (
            'left: "keeper" may become "ana", too, which a job of "joe" could use',
        )
        assert shop.one(trouble) == 'left: "keeper" may become "joe", too, which a job of "ana" could use'
    finally:
        shop.admin.execute("REVOKE joe FROM keeper")


@on_rented
def test_nobody_learns_of_another_s_columns_or_declares_in_their_name(shop: Shop, joe: psycopg.Connection[Any]) -> None:
    number = shop.keep_kind()
    table = f"{shop.schema}._kept"
    assert joe.execute(f"SELECT * FROM {table}".encode()).fetchall() == []
    assert joe.execute(f"SELECT * FROM {shop.schema}.kept".encode()).fetchall() == []
    assert joe.execute(f"UPDATE {table} SET prompt = 'What is your key?'".encode()).rowcount == 0
    assert joe.execute(f"DELETE FROM {table}".encode()).rowcount == 0
    columns = "name, key, sent_key, sent, prompt, type, at_most_every"
    values = "'kind', '{id}', '{NULL}', '{review}', 'Well?', 'text', '0'"
    for statement in (
        f"INSERT INTO {table} (role, {columns}) VALUES ('ana', {values})",
        f"INSERT INTO {table} (id, {columns}) OVERRIDING SYSTEM VALUE VALUES (77, {values})",
        f"UPDATE {table} SET role = 'ana'",
        f"TRUNCATE {table}",
        "SELECT * FROM reviews_kind",
        "SELECT * FROM reviews_with_kind",
        f"SELECT * FROM llm_keep_{number}_changes",
        f"CREATE TRIGGER mine AFTER INSERT ON mine EXECUTE FUNCTION llm_keep_{number}()",
    ):
        joe.execute("CREATE TEMPORARY TABLE IF NOT EXISTS mine (a int)")
        with pytest.raises(errors.InsufficientPrivilege):
            joe.execute(statement.encode())
    with pytest.raises(errors.UndefinedObject):
        joe.execute(f"SELECT {shop.schema}.unkeep({number})".encode())


@on_rented
def test_what_looks_like_ours_and_is_another_s_is_not_taken(shop: Shop, joe: psycopg.Connection[Any]) -> None:
    number = shop.keep_kind()
    shop.admin.execute("GRANT CREATE ON SCHEMA public TO joe")
    joe.execute("CREATE TABLE lure (id int, review text)")
    for part in ("answers", "changes"):
        joe.execute(
            f"CREATE TABLE lure_{part} (); COMMENT ON TABLE lure_{part} IS 'made by llm.keep, {number}: {part}'"
        )
    joe.execute(
        "CREATE FUNCTION lure() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        f"COMMENT ON FUNCTION lure() IS 'made by llm.keep, {number}: trigger';"
        f"CREATE TRIGGER llm_keep_{number}_columns AFTER UPDATE OF id, review ON lure EXECUTE FUNCTION lure()"
    )
    assert shop.state("table", "answers") == ("public.reviews", "public.reviews_kind")
    shop.work()
    shop.assert_all_right()
    shop.conn.execute(f"SELECT {shop.schema}.unkeep({number})".encode())
    assert joe.execute("SELECT count(*) FROM pg_class WHERE relname LIKE 'lure%' AND relkind = 'r'").fetchone() == (3,)


def test_a_superuser_who_looks_runs_nothing_of_a_stranger_s(shop: Shop) -> None:
    number = shop.keep_kind()
    shop.conn.execute(
        "CREATE FUNCTION bait() RETURNS boolean LANGUAGE plpgsql VOLATILE AS "
        "$$BEGIN RAISE EXCEPTION 'run as %', current_user; END$$;"
        "ALTER TABLE reviews ENABLE ROW LEVEL SECURITY; CREATE POLICY bait ON reviews USING (bait());"
        "CREATE POLICY bait ON reviews_kind USING (bait());"
        "CREATE VIEW bait AS SELECT 1 AS id, 'a' AS error, bait() AS kind"
    )
    for part in ("answers", "changes"):
        shop.conn.execute(f"COMMENT ON VIEW bait IS 'made by llm.keep, {number}: {part}'".encode())
        assert shop.admin.execute(f"SELECT answered FROM {shop.schema}.kept".encode()).fetchall() == [(0,)]
    shop.conn.execute("DROP TABLE reviews_kind CASCADE")
    assert shop.admin.execute(f"SELECT answered FROM {shop.schema}.kept".encode()).fetchall() == [(None,)]


@on_rented
def test_policies_of_the_table_hold_for_its_answers(shop: Shop, joe: psycopg.Connection[Any]) -> None:
    if shop.conn.info.server_version < 150000:
        pytest.skip("no view of a table with policies is made before PostgreSQL 15")
    shop.conn.execute("ALTER TABLE reviews ENABLE ROW LEVEL SECURITY; CREATE POLICY few ON reviews USING (id < 4)")
    shop.keep_kind()
    shop.work()
    assert shop.state("answered") == (60,)  # its owner sees them all
    shop.conn.execute("GRANT SELECT ON reviews, reviews_kind, reviews_with_kind TO joe")
    assert joe.execute("SELECT count(kind) FROM reviews_with_kind").fetchone() == (3,)
    assert joe.execute("SELECT count(*) FROM reviews_kind").fetchone() == (3,)
    shop.conn.execute("REVOKE SELECT ON reviews FROM joe")
    with pytest.raises(errors.InsufficientPrivilege):
        joe.execute("SELECT * FROM reviews_with_kind")
    with pytest.raises(errors.InsufficientPrivilege):
        joe.execute("SELECT * FROM reviews_kind")


@on_rented
def test_a_role_keeps_answers_about_the_rows_that_it_sees(shop: Shop) -> None:
    shop.admin.execute(
        "ALTER TABLE reviews OWNER TO boss; GRANT SELECT, TRIGGER, INSERT, UPDATE ON reviews TO ana;"
        "ALTER TABLE reviews ENABLE ROW LEVEL SECURITY; CREATE POLICY few ON reviews USING (id < 4)"
    )
    shop.keep_kind()
    assert shop.work() == 3
    shop.admin.execute("UPDATE reviews SET id = 100 WHERE id = 1")
    shop.admin.execute("UPDATE reviews SET id = 1 WHERE id = 50")
    assert shop.work() == 1
    assert shop.rows("SELECT id FROM reviews_kind ORDER BY id") == [(1,), (2,), (3,)]
    shop.conn.execute(f"SELECT {shop.schema}.unkeep('reviews', 'kind')".encode())  # which is no owner's right
    assert shop.admin.execute("SELECT count(*) FROM pg_trigger WHERE tgname ~ '^llm_keep'").fetchone() == (0,)


# -- undoing, dumps


def test_unkeep_drops_what_keep_made_and_no_more(shop: Shop) -> None:
    everything = (
        "SELECT 'c', relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace UNION ALL "
        "SELECT 'f', proname::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace UNION ALL "
        "SELECT 't', tgname::text FROM pg_trigger UNION ALL SELECT 'p', polname::text FROM pg_policy ORDER BY 1, 2"
    )
    before = shop.rows(everything)
    shop.keep_kind()
    shop.work()
    shop.conn.execute("CREATE VIEW mine AS SELECT * FROM reviews_with_kind")
    with pytest.raises(errors.DependentObjectsStillExist):
        shop.conn.execute(f"SELECT {shop.schema}.unkeep('reviews', 'kind')".encode())
    shop.conn.execute("DROP VIEW mine")
    shop.conn.execute(f"SELECT {shop.schema}.unkeep('reviews', 'kind')".encode())
    assert shop.rows(everything) == before
    assert shop.rows(f"SELECT * FROM {shop.schema}.kept") == []
    shop.keep_kind(view="''", answers="'my_answers'")
    shop.work()
    shop.conn.execute(f"SELECT {shop.schema}.unkeep({shop.number}, keep_answers => true)".encode())
    assert shop.one("SELECT count(kind) FROM my_answers") == 60
    with pytest.raises(errors.UndefinedObject):
        shop.conn.execute(f"SELECT {shop.schema}.unkeep('reviews', 'kind')".encode())


@on_rented
def test_a_view_that_was_dropped_comes_again(shop: Shop) -> None:
    shop.keep_kind()
    shop.work()
    shop.conn.execute("DROP VIEW reviews_with_kind; ALTER TABLE reviews ALTER stars TYPE numeric, ADD added int")
    shop.keep_kind()
    assert shop.work() == 0
    assert shop.rows("SELECT stars, added, kind FROM reviews_with_kind WHERE id = 1") == [
        (1, None, kind_of("review 1"))
    ]


def test_what_is_dumped_and_restored_goes_on(shop: Shop, cluster: Cluster, administer: Callable[[str], None]) -> None:
    shop.conn.execute("ALTER TABLE reviews DROP stars, ADD first int; ALTER TABLE reviews DROP review, ADD review text")
    shop.conn.execute("UPDATE reviews SET review = 'review ' || id")  # numbers of columns are others in a dump
    number = shop.keep_kind()
    shop.work()
    shop.conn.execute("UPDATE reviews SET review = 'noted' WHERE id = 7")
    name = f"{shop.conn.info.dbname}_restored"
    administer(f"CREATE DATABASE {name}")
    dump = subprocess.run([cluster.binaries / "pg_dump", shop.dsn], check=True, capture_output=True, text=True).stdout
    cluster.psql(dump, database=name, arguments=("-qAt", "-v", "ON_ERROR_STOP=1"))
    dsn = cluster.dsn_of(name)
    with psycopg.connect(dsn, user="ana", autocommit=True) as conn, ExitStack() as stack:
        keeper_ = stack.enter_context(keeping(dsn, shop.schema, shop.engine, shop.said))
        restored = replace(shop, conn=conn, dsn=dsn, keeper=keeper_)
        assert restored.work() == 1
        restored.assert_all_right()
        conn.execute("UPDATE reviews SET review = 'later' WHERE id = 8")
        conn.execute("INSERT INTO reviews (id, review) VALUES (9000, 'new')")
        assert restored.noted() == [8, 9000]
        assert restored.work() == 2
        restored.assert_all_right()
        conn.execute("CREATE TABLE more (id int PRIMARY KEY, review text)")
        assert restored.keep("more", "id", "kind", PROMPT) == number + 1
    administer(f"DROP DATABASE {name} WITH (FORCE)")


# -- notices


def test_a_notice_goes_with_each_change_that_counts(shop: Shop) -> None:
    shop.keep_kind()
    shop.work()
    with psycopg.connect(shop.dsn, user="keeper", autocommit=True) as listening:
        listening.execute(f"LISTEN {kept.CHANNEL}".encode())
        shop.conn.execute("UPDATE reviews SET stars = 9")
        shop.conn.execute("UPDATE reviews SET review = review || '!'")
        (notice,) = listening.notifies(timeout=60, stop_after=1)
        assert notice.payload == str(shop.number)
        assert list(listening.notifies(timeout=0)) == []


@on_rented
def test_a_column_that_has_nothing_to_do_is_looked_at_when_it_is_told_of(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "LOOK_EVERY_S", 1e9)
    shop.keep_kind()
    shop.work()
    shop.conn.execute("ALTER TABLE reviews DISABLE TRIGGER USER; UPDATE reviews SET review = 'unseen' WHERE id = 2")
    shop.conn.execute(f"ALTER TABLE reviews ENABLE TRIGGER USER; INSERT INTO llm_keep_{shop.number}_changes VALUES (2)")
    assert shop.work() == 0
    shop.conn.execute("UPDATE reviews SET review = 'seen' WHERE id = 1")
    until(shop.step)
    shop.assert_all_right()


def test_a_worker_keeps_columns_answered_with_no_one_looking(shop: Shop) -> None:
    shop.keep_kind()
    with worker_of(shop, "--once") as once:
        _, said = once.communicate(timeout=60)
    assert once.returncode == 0, said
    shop.assert_all_right()
    with worker_of(shop) as worker:
        until(lambda: shop.state("trouble") == (None,))  # it is there
        for i in range(3):
            shop.conn.execute(f"UPDATE reviews SET review = 'round {i}' WHERE id < 10")
            shop.conn.execute(f"DELETE FROM reviews WHERE id = {60 - i}")
            until(lambda: shop.state("waiting") == (0,))
            shop.assert_all_right()
        worker.send_signal(signal.SIGTERM)
        _, said = worker.communicate(timeout=60)
    assert worker.returncode == 0, said


@pytest.mark.slow
def test_a_transaction_that_changes_rows_can_be_prepared(engine: EngineDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "LOOK_EVERY_S", 0.0)  # nothing tells of it
    with Cluster(settings={"max_prepared_transactions": "2"}) as cluster:

        def administer(statement: str) -> None:
            cluster.psql(statement)

        with opened(cluster, administer, engine, "llm_jobs") as shop:
            shop.keep_kind()
            shop.work()
            with psycopg.connect(shop.dsn, user="ana", autocommit=True) as conn:
                conn.execute("BEGIN; UPDATE reviews SET review = 'prepared' WHERE id = 1; PREPARE TRANSACTION 'one'")
                assert shop.work() == 0
                conn.execute("COMMIT PREPARED 'one'")
            assert shop.work() == 1
            shop.assert_all_right()
