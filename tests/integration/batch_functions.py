"""Two batchable functions that need no engine, for tests of the executor node: they count how they were called."""

from __future__ import annotations

from typing import Any

import psycopg

Conn = psycopg.Connection[Any]

FUNCTIONS = """
CREATE TABLE called (function text, calls int);
CREATE FUNCTION note(function text, calls int) RETURNS void LANGUAGE sql VOLATILE AS
    'INSERT INTO called VALUES (function, calls)';

-- Lower case and a number: NULL for NULL, an error for 'bad'.
CREATE FUNCTION word(t text, n int) RETURNS text LANGUAGE plpgsql STABLE COST 10000 AS $$
BEGIN
    IF t = 'bad' THEN RAISE EXCEPTION 'bad word' USING ERRCODE = 'data_exception'; END IF;
    RETURN lower(t) || '-' || n;
END $$;
CREATE FUNCTION word_batch(statement bigint, node int, t json[], n json[]) RETURNS text[]
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM note('word', cardinality(t));
    RETURN ARRAY(SELECT word(a #>> '{}', (b #>> '{}')::int)
                 FROM unnest(t, n) WITH ORDINALITY AS u (a, b, o) ORDER BY o);
END $$;

-- Whether a row's id is not a multiple of n.
CREATE FUNCTION passes(r anyelement, n int) RETURNS boolean LANGUAGE plpgsql STABLE COST 20000 AS $$
BEGIN
    RETURN ((to_json(r) ->> 'id')::int % n) <> 0;
END $$;
CREATE FUNCTION passes_batch(statement bigint, node int, r json[], n json[]) RETURNS boolean[]
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM note('passes', cardinality(r));
    RETURN ARRAY(SELECT ((a ->> 'id')::int % (b #>> '{}')::int) <> 0
                 FROM unnest(r, n) WITH ORDINALITY AS u (a, b, o) ORDER BY o);
END $$;
SELECT llm.register_batch('word(text, int)', 'word_batch(bigint, int, json[], json[])');
SELECT llm.register_batch('passes(anyelement, int)', 'passes_batch(bigint, int, json[], json[])');
"""

TABLES = """
CREATE TABLE a (id int PRIMARY KEY, g int, t text, d date);
CREATE TABLE b (id int PRIMARY KEY, a_id int, t text, n numeric);
CREATE TABLE e (id int, t text);
CREATE TABLE p (id int, t text) PARTITION BY RANGE (id);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (20);
CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (20) TO (1000);
INSERT INTO a SELECT i, i % 4, CASE WHEN i % 7 = 0 THEN NULL WHEN i % 5 = 0 THEN '' ELSE 'Word ' || i % 9 END,
                     date '2026-01-01' + i FROM generate_series(1, 60) AS i;
INSERT INTO b SELECT i, CASE WHEN i % 6 = 0 THEN NULL ELSE i % 70 END, 'Ünicode "' || i % 8, i * 1.50
              FROM generate_series(1, 90) AS i;
INSERT INTO p SELECT i, 'part ' || i % 5 FROM generate_series(1, 40) AS i;
CREATE INDEX ON b (a_id);
CREATE VIEW v AS SELECT a.*, word(a.t, a.g) AS w, passes(a, 3) AS ok FROM a;
ANALYZE;
"""


def make_functions(conn: Conn) -> None:
    """Create and register the functions `word` and `passes`."""
    conn.execute(FUNCTIONS)


def make_tables(conn: Conn) -> None:
    """Create the tables a, b, e (empty), p (partitioned) and the view v."""
    conn.execute(TABLES)


def calls(conn: Conn) -> dict[str, tuple[int, int]]:
    """What came in batches since the last look: function → (batches, calls)."""
    rows = conn.execute("SELECT function, count(*), sum(calls) FROM called GROUP BY 1").fetchall()
    conn.execute("TRUNCATE called")
    return {function: (batches, int(total)) for function, batches, total in rows}
