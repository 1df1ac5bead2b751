"""What applications do with a foreign table: an ORM reflects it, drivers prepare statements, functions keep plans."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from pg_bridge.testing.double import EngineDouble
from tests.conftest import Connect, Database

KEEP_DATABASE = True
MULTICORN_IS_SLOW = True

Conn = psycopg.Connection[Any]

PRODUCTS = """
CREATE TYPE state AS ENUM ('new', 'used');
CREATE TABLE products AS
SELECT i AS id, 'thing ' || i % 20 AS name, (i % 50)::numeric(8,2) AS price, i % 2 = 0 AS sold,
       date '2024-01-01' + i AS made, timestamptz '2024-01-01 00:00+00' + i * interval '1 hour' AS seen,
       md5(i::text)::uuid AS code, (ARRAY['new', 'used'])[1 + i % 2]::state AS state
FROM generate_series(1, 1000) AS i;
ALTER TABLE products ADD PRIMARY KEY (id);
ANALYZE products;
CREATE FOREIGN TABLE catalogue (
    id int, name varchar(40), price numeric(8,2), sold boolean, made date, seen timestamptz, code uuid, state state,
    kind text OPTIONS (prompt 'What kind of thing is {name}?', labels 'tool,toy')
) SERVER vllm OPTIONS (source 'products', key 'id');
"""


@pytest.fixture
def shop(foreign: Conn) -> Conn:
    foreign.execute(PRODUCTS)
    return foreign


@pytest.fixture
def orm(shop: Conn, database: Database) -> Iterator[sa.Engine]:
    info = shop.info
    url = sa.URL.create("postgresql+psycopg", info.user, None, info.host, info.port, database.name)
    made = sa.create_engine(url)
    yield made
    made.dispose()


def test_sqlalchemy_reflects_and_queries(orm: sa.Engine, engine: EngineDouble) -> None:
    catalogue = sa.Table("catalogue", sa.MetaData(), autoload_with=orm)
    assert [column.name for column in catalogue.columns][-1] == "kind"
    assert isinstance(catalogue.c.price.type, sa.Numeric)
    assert isinstance(catalogue.c.kind.type, sa.Text)
    assert sa.inspect(orm).get_table_names() == ["products"]
    with orm.connect() as connection:
        count = connection.scalar(sa.select(sa.func.count()).select_from(catalogue))
        assert count == 1000
        cheap = sa.select(sa.func.count()).where(catalogue.c.price < 10, catalogue.c.sold.is_(False))
        assert connection.scalar(cheap) == 100
        assert engine.received.prompts == []
        page = (
            sa.select(catalogue.c.id, catalogue.c.kind)
            .where(catalogue.c.id.in_([3, 5, 1001]), catalogue.c.made >= datetime.date(2024, 1, 1))
            .order_by(catalogue.c.id.desc())
            .limit(10)
        )
        rows = connection.execute(page).all()
        assert [row.id for row in rows] == [5, 3]
        assert {row.kind for row in rows} <= {"tool", "toy"}
        assert len(engine.received.prompts) == 2
        grouped = sa.select(catalogue.c.kind, sa.func.count()).group_by(catalogue.c.kind)
        assert sum(row[1] for row in connection.execute(grouped)) == 1000
        assert len(engine.received.prompts) == 22  # another statement asks anew: 20 names


def test_counting_the_rows_of_a_page_costs_nothing(shop: Conn, engine: EngineDouble) -> None:
    """What Django's paginator and its admin send."""
    django = (
        'SELECT COUNT(*) AS "__count" FROM "catalogue" WHERE "catalogue"."sold"',
        'SELECT COUNT(*) FROM (SELECT "catalogue"."id" AS "col1" FROM "catalogue" LIMIT 50) subquery',
        'SELECT 1 AS "a" FROM "catalogue" WHERE "catalogue"."price" > 3.5 LIMIT 1',
        'SELECT MIN("catalogue"."made"), MAX("catalogue"."made") FROM "catalogue"',
    )
    for statement in django:
        assert len(shop.execute(statement).fetchall()) == 1
    assert engine.received.prompts == []


def test_prepared_statements_of_a_driver(shop: Conn, connect: Connect, engine: EngineDouble) -> None:
    conn = connect()
    conn.prepare_threshold = 0
    for mode in ("force_generic_plan", "force_custom_plan", "auto"):
        conn.execute(f"SET plan_cache_mode = {mode}")
        for binary in (False, True):
            engine.reset()
            assert_prepared_statements_find_their_rows(conn, binary=binary)
            assert len(engine.received.prompts) == 3, (mode, binary)


def assert_prepared_statements_find_their_rows(conn: Conn, *, binary: bool) -> None:
    query = (
        "SELECT id, kind FROM catalogue WHERE id = ANY(%s) AND price >= %s AND made < %s AND seen > %s "
        "AND code = %s AND name LIKE %s ORDER BY id"
    )
    for i in (7, 8, 9):
        code = conn.execute("SELECT code FROM products WHERE id = %s", [i]).fetchone()
        assert code is not None
        parameters = [
            [i, i + 1],
            i - 0.5,
            datetime.date(2024, 1, 2) + datetime.timedelta(days=i),
            datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
            uuid.UUID(str(code[0])),
            "thing%",
        ]
        rows = conn.execute(query, parameters, prepare=True, binary=binary).fetchall()
        assert [row[0] for row in rows] == [i]


def test_functions_keep_plans(shop: Conn, engine: EngineDouble) -> None:
    shop.execute("SET plan_cache_mode = force_generic_plan")
    shop.execute(
        "CREATE FUNCTION kinds(lo int, hi int, word text) RETURNS SETOF text LANGUAGE plpgsql AS $$ BEGIN "
        "RETURN QUERY SELECT c.id || ' ' || c.kind FROM catalogue AS c "
        "WHERE c.id BETWEEN lo AND hi AND c.name <> word AND c.state = 'new' ORDER BY c.id; END $$"
    )
    for least in (2, 10, 998):
        rows = shop.execute("SELECT kinds(%s, %s, 'thing 4')", [least, least + 4]).fetchall()
        expected = [i for i in range(least, min(least + 5, 1001)) if i % 2 == 0 and i % 20 != 4]
        assert [int(str(row[0]).split()[0]) for row in rows] == expected
    assert len(engine.received.prompts) == 7


def test_views_ctes_and_subqueries(shop: Conn, engine: EngineDouble) -> None:
    shop.execute("CREATE VIEW toys AS SELECT id, name, price FROM catalogue WHERE kind = 'toy'")
    kinds = dict(shop.execute("SELECT id, kind FROM catalogue").fetchall())
    engine.received.prompts.clear()
    toys = [i for i, kind in kinds.items() if kind == "toy" and i <= 50]
    query = "SELECT id FROM toys WHERE id <= 50 ORDER BY id"
    assert [row[0] for row in shop.execute(query)] == toys
    assert len(engine.received.prompts) <= 20
    query = (
        "WITH cheap AS MATERIALIZED (SELECT id FROM products WHERE id <= 50) "
        "SELECT id FROM toys WHERE id IN (SELECT id FROM cheap) ORDER BY id"
    )
    assert [row[0] for row in shop.execute(query)] == toys
    query = (
        "SELECT id FROM products AS p WHERE id <= 50 AND EXISTS (SELECT FROM toys AS t WHERE t.id = p.id) ORDER BY id"
    )
    assert [row[0] for row in shop.execute(query)] == toys
    query = "SELECT (SELECT kind FROM catalogue AS c WHERE c.id = p.id) FROM products AS p WHERE id <= 9 ORDER BY id"
    assert [row[0] for row in shop.execute(query)] == [kinds[i] for i in range(1, 10)]


def test_cursors_copy_and_create_table_as(shop: Conn, engine: EngineDouble) -> None:
    with shop.transaction(), shop.cursor("c") as cursor:
        cursor.execute("SELECT id, kind FROM catalogue ORDER BY id")
        assert [row[0] for row in cursor.fetchmany(5)] == [1, 2, 3, 4, 5]
    assert len(engine.received.prompts) <= 32
    shop.execute("CREATE TABLE kept AS SELECT id, kind FROM catalogue")
    assert shop.execute("SELECT count(*), count(kind) FROM kept").fetchone() == (1000, 1000)
    with shop.cursor().copy("COPY (SELECT id, kind FROM catalogue WHERE id < 4) TO STDOUT") as copied:
        assert len(list(copied.rows())) == 3
    shop.execute("INSERT INTO kept SELECT id, kind FROM catalogue WHERE id = 5")
    assert shop.execute("SELECT count(*) FROM kept WHERE id = 5").fetchone() == (2,)
