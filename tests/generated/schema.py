"""The tables, policies, views and functions of the generated statements.

Text that the role `generated_reader` may not see holds HIDDEN_MARK. `leak` and `tell` raise a NOTICE when such a text
reaches them while `generated_reader` asks. The sequence `asked` counts the calls that were made, by one or in batches;
`slowed` those of an expensive function that is not batched.
"""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import Connection

HIDDEN_MARK = "HIDDEN"
SEQUENCES = ("asked", "batches", "slowed", "s1", "s2")


@dataclass(frozen=True)
class Relation:
    """Something that a FROM clause can name.

    Attributes:
        sql: How it is written there.
        columns: Name and type of each.
        kind: `table`, `view` or `function`.
        calls: It makes calls of its own.
    """

    sql: str
    columns: tuple[tuple[str, str], ...]
    kind: str = "table"
    calls: bool = False


def _relation(sql: str, columns: str, kind: str = "table", *, calls: bool = False) -> Relation:
    pairs = (column.split() for column in columns.split(", "))
    return Relation(sql, tuple((name, kind_of) for name, kind_of in pairs), kind, calls)


OPEN: tuple[Relation, ...] = (
    _relation("a", "id int, g int, t text, arr text[], up text, dom text, pr pair"),
    _relation("b", "id int, a_id int, t text, nums int[]"),
    _relation("u", "x int, y text, z int"),
    _relation("names", "n int, name text"),
    _relation("e", "id int, t text"),
    _relation("p", "id int, g int, t text"),
    _relation("i", "id int, g int, t text"),
    _relation("d", "id int, g int, t text, up text"),
    _relation("locked", "id int, g int, t text"),
    _relation("wide", "id int, g int, t text"),
    _relation("v", "id int, g int, t text, w text, ok bool", "view", calls=True),
    _relation("vj", "id int, t text, w text, n int", "view", calls=True),
    _relation("vg", "g int, n int, w text", "view", calls=True),
    _relation("listed({0})", "id int, t text", "function", calls=True),
)

GUARDED: tuple[Relation, ...] = (
    _relation("secret", "id int, g int, t text, kind text"),
    _relation("vault", "id int, g int, t text, kind text", calls=True),
    _relation("psecret", "id int, g int, t text"),
    _relation("titles", "n int, name text"),
    _relation("guarded", "id int, g int, t text", "view"),
    _relation("judged", "id int, g int, t text", "view", calls=True),
    _relation("layered", "id int, g int, t text, w text", "view", calls=True),
    _relation("invoked", "id int, g int, t text, kind text", "view"),
    _relation("srf_secret()", "id int, g int, t text, kind text", "function"),
    _relation("srf_vault()", "id int, g int, t text, kind text", "function", calls=True),
    _relation("srf_above({0})", "id int, g int, t text, kind text", "function", calls=True),
)

ROLE = """
DO $$ BEGIN CREATE ROLE generated_reader; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
"""

SCHEMA = """
CREATE EXTENSION IF NOT EXISTS pg_bridge CASCADE;
CREATE SEQUENCE asked; CREATE SEQUENCE batches; CREATE SEQUENCE slowed; CREATE SEQUENCE s1; CREATE SEQUENCE s2;
GRANT ALL ON SEQUENCE asked, batches, slowed, s1, s2 TO PUBLIC;
CREATE TYPE pair AS (x int, y text);
CREATE DOMAIN plain_text AS text CHECK (VALUE <> 'never');

CREATE FUNCTION note(calls int) RETURNS void LANGUAGE plpgsql STABLE AS $$
BEGIN
    PERFORM setval('asked', nextval('asked') + calls - 1);
    PERFORM nextval('batches');
END $$;
CREATE FUNCTION reveal(t text) RETURNS void LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF current_user = 'generated_reader' AND strpos(upper(t), 'HIDDEN') > 0 THEN RAISE NOTICE 'revealed %', t; END IF;
END $$;

CREATE FUNCTION word(t text, n int) RETURNS text LANGUAGE plpgsql STABLE COST 10000 AS $$
BEGIN PERFORM nextval('asked'); RETURN lower(t) || '-' || n; END $$;
CREATE FUNCTION word_batch(statement bigint, node int, t json[], n json[]) RETURNS text[] LANGUAGE plpgsql AS $$
BEGIN
    PERFORM note(cardinality(t));
    RETURN ARRAY(SELECT lower(a #>> '{}') || '-' || (b #>> '{}')
                 FROM unnest(t, n) WITH ORDINALITY AS u (a, b, o) ORDER BY o);
END $$;

CREATE FUNCTION passes(r anyelement, n int) RETURNS boolean LANGUAGE plpgsql STABLE COST 20000 AS $$
BEGIN PERFORM nextval('asked'); RETURN ((to_json(r) ->> 'id')::int % n) <> 0; END $$;
CREATE FUNCTION passes_batch(statement bigint, node int, r json[], n json[]) RETURNS boolean[] LANGUAGE plpgsql AS $$
BEGIN
    PERFORM note(cardinality(r));
    RETURN ARRAY(SELECT ((a ->> 'id')::int % (b #>> '{}')::int) <> 0
                 FROM unnest(r, n) WITH ORDINALITY AS u (a, b, o) ORDER BY o);
END $$;

CREATE FUNCTION strictly(t text, n int) RETURNS text LANGUAGE plpgsql STABLE STRICT COST 9000 AS $$
BEGIN PERFORM nextval('asked'); RETURN coalesce(t, 'called with NULL') || '~' || coalesce(n, -1); END $$;
CREATE FUNCTION strictly_batch(statement bigint, node int, t json[], n json[]) RETURNS text[] LANGUAGE plpgsql AS $$
BEGIN
    PERFORM note(cardinality(t));
    RETURN ARRAY(SELECT coalesce(a #>> '{}', 'called with NULL') || '~' || coalesce((b #>> '{}')::int, -1)
                 FROM unnest(t, n) WITH ORDINALITY AS u (a, b, o) ORDER BY o);
END $$;

CREATE FUNCTION measure(t text, n int) RETURNS int LANGUAGE plpgsql STABLE COST 300 AS $$
BEGIN PERFORM nextval('asked'); RETURN length(t) % 7 + n; END $$;
CREATE FUNCTION measure_batch(statement bigint, node int, t json[], n json[]) RETURNS int[] LANGUAGE plpgsql AS $$
BEGIN
    PERFORM note(cardinality(t));
    RETURN ARRAY(SELECT length(a #>> '{}') % 7 + (b #>> '{}')::int
                 FROM unnest(t, n) WITH ORDINALITY AS u (a, b, o) ORDER BY o);
END $$;

CREATE FUNCTION paired(t text, n int) RETURNS pair LANGUAGE plpgsql STABLE COST 5000 AS $$
BEGIN PERFORM nextval('asked'); RETURN ROW(n, upper(t))::pair; END $$;
CREATE FUNCTION paired_batch(statement bigint, node int, t json[], n json[]) RETURNS pair[] LANGUAGE plpgsql AS $$
BEGIN
    PERFORM note(cardinality(t));
    RETURN ARRAY(SELECT ROW((b #>> '{}')::int, upper(a #>> '{}'))::pair
                 FROM unnest(t, n) WITH ORDINALITY AS u (a, b, o) ORDER BY o);
END $$;

CREATE FUNCTION leak(t text, n int) RETURNS text LANGUAGE plpgsql STABLE COST 7000 AS $$
BEGIN PERFORM nextval('asked'); PERFORM reveal(t); RETURN left(t, 20) || '.' || n; END $$;
CREATE FUNCTION leak_batch(statement bigint, node int, t json[], n json[]) RETURNS text[] LANGUAGE plpgsql AS $$
BEGIN
    PERFORM note(cardinality(t));
    PERFORM reveal(a #>> '{}') FROM unnest(t) AS a;
    RETURN ARRAY(SELECT left(a #>> '{}', 20) || '.' || (b #>> '{}')
                 FROM unnest(t, n) WITH ORDINALITY AS u (a, b, o) ORDER BY o);
END $$;

CREATE FUNCTION label(x anyelement, n int) RETURNS text LANGUAGE plpgsql STABLE COST 6000 AS $$
BEGIN PERFORM nextval('asked'); RETURN left(to_json(x)::text, 30) || n; END $$;
CREATE FUNCTION label_batch(statement bigint, node int, x json[], n json[]) RETURNS text[] LANGUAGE plpgsql AS $$
BEGIN
    PERFORM note(cardinality(x));
    RETURN ARRAY(SELECT left(a::text, 30) || (b #>> '{}')
                 FROM unnest(x, n) WITH ORDINALITY AS u (a, b, o) ORDER BY o);
END $$;

CREATE FUNCTION psafe(t text, n int) RETURNS text LANGUAGE plpgsql STABLE PARALLEL SAFE COST 8000 AS $$
BEGIN RETURN upper(t) || n; END $$;
CREATE FUNCTION psafe_batch(statement bigint, node int, t json[], n json[]) RETURNS text[]
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
BEGIN
    RETURN ARRAY(SELECT upper(a #>> '{}') || (b #>> '{}')
                 FROM unnest(t, n) WITH ORDINALITY AS u (a, b, o) ORDER BY o);
END $$;
CREATE FUNCTION prestricted(t text, n int) RETURNS text LANGUAGE plpgsql STABLE PARALLEL RESTRICTED COST 8000 AS $$
BEGIN RETURN initcap(t) || n; END $$;
CREATE FUNCTION prestricted_batch(statement bigint, node int, t json[], n json[]) RETURNS text[]
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED AS $$
BEGIN
    RETURN ARRAY(SELECT initcap(a #>> '{}') || (b #>> '{}')
                 FROM unnest(t, n) WITH ORDINALITY AS u (a, b, o) ORDER BY o);
END $$;

SELECT llm.register_batch(f::regprocedure, replace(f, f_args, '_batch(bigint, int, json[], json[])')::regprocedure)
FROM (VALUES ('word(text, int)', '(text, int)'), ('passes(anyelement, int)', '(anyelement, int)'),
             ('strictly(text, int)', '(text, int)'), ('measure(text, int)', '(text, int)'),
             ('paired(text, int)', '(text, int)'), ('leak(text, int)', '(text, int)'),
             ('label(anyelement, int)', '(anyelement, int)'),
             ('psafe(text, int)', '(text, int)'), ('prestricted(text, int)', '(text, int)')) AS v (f, f_args);

CREATE OPERATOR <~> (FUNCTION = word, LEFTARG = text, RIGHTARG = int);

-- None of these is batched by itself.
CREATE FUNCTION shout(t text) RETURNS text LANGUAGE sql STABLE AS 'SELECT upper(word($1, 2)) || ''!''';
CREATE FUNCTION slow(n int) RETURNS boolean LANGUAGE plpgsql STABLE COST 1000000 AS $$
BEGIN PERFORM nextval('slowed'); RETURN n % 3 <> 0; END $$;
CREATE FUNCTION tell(t text) RETURNS boolean LANGUAGE plpgsql STABLE COST 0.001 AS $$
BEGIN PERFORM reveal(t); RETURN t IS NOT NULL; END $$;
CREATE FUNCTION vol(n int) RETURNS int LANGUAGE plpgsql VOLATILE PARALLEL SAFE AS 'BEGIN RETURN n; END';
CREATE FUNCTION run(q text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE r record;
BEGIN FOR r IN EXECUTE q LOOP RETURN NEXT r::text; END LOOP; END $$;

CREATE TABLE a (id int PRIMARY KEY, g int, t text, arr text[], up text GENERATED ALWAYS AS (upper(t)) STORED,
                dom plain_text, pr pair);
CREATE TABLE b (id int PRIMARY KEY, a_id int, t text, nums int[]);
CREATE TABLE u (x int, y text, z int, UNIQUE (x, y));
CREATE TABLE names (n int, name text UNIQUE);
CREATE TABLE e (id int, t text);
CREATE TABLE p (id int PRIMARY KEY, g int, t text) PARTITION BY RANGE (id);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (8);
CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (8) TO (15) PARTITION BY RANGE (id);
CREATE TABLE p2a PARTITION OF p2 FOR VALUES FROM (8) TO (11);
CREATE TABLE p2b PARTITION OF p2 DEFAULT;
CREATE TABLE p3 PARTITION OF p DEFAULT;
CREATE TABLE i (id int, g int, t text);
CREATE TABLE i1 (more text) INHERITS (i);
CREATE TABLE d (id int PRIMARY KEY, g int, t text, up text GENERATED ALWAYS AS (upper(t)) STORED);
CREATE TABLE locked (id int PRIMARY KEY, g int, t text);
CREATE TABLE wide (id int PRIMARY KEY, g int, t text, filler text);  -- of many pages, for workers
ALTER TABLE wide ALTER filler SET STORAGE PLAIN;
INSERT INTO wide SELECT i, i % 4, 'Wide ' || i % 7, repeat('x', 1500) FROM generate_series(1, 30) AS i;
INSERT INTO a (id, g, t, arr, dom, pr)
    SELECT i, i % 4, CASE WHEN i % 7 = 0 THEN NULL WHEN i % 5 = 0 THEN '' ELSE 'Word ' || i % 9 END,
           CASE WHEN i % 6 = 0 THEN NULL WHEN i % 5 = 0 THEN '{}' ELSE ARRAY['v' || i % 3, NULL, 'long ' || i] END,
           'dom ' || i % 4, CASE WHEN i % 8 = 0 THEN NULL ELSE ROW(i % 3, 'y' || i % 5)::pair END
    FROM generate_series(1, 20) AS i;
INSERT INTO b SELECT i, CASE WHEN i % 6 = 0 THEN NULL ELSE i % 22 END, 'Ünicode "' || i % 8,
                     CASE WHEN i % 4 = 0 THEN NULL ELSE ARRAY[i % 5, i % 3] END
              FROM generate_series(1, 24) AS i;
INSERT INTO u SELECT i / 3, 'v' || i % 3, i % 5 FROM generate_series(0, 17) AS i;
INSERT INTO names SELECT i, CASE WHEN i % 2 = 0 THEN 'word ' || i || '-1' ELSE 'Word ' || i END
                  FROM generate_series(0, 7) AS i;
INSERT INTO p SELECT i, i % 3, 'part ' || i % 5 FROM generate_series(1, 20) AS i;
INSERT INTO i SELECT i, i % 3, 'parent ' || i % 5 FROM generate_series(1, 8) AS i;
INSERT INTO i1 SELECT i, i % 3, 'child ' || i % 5, 'm' FROM generate_series(9, 16) AS i;
INSERT INTO d (id, g, t) SELECT i, i % 3, 'do ' || i % 5 FROM generate_series(1, 12) AS i;
INSERT INTO locked SELECT i, i % 2, 'row ' || i % 5 FROM generate_series(1, 12) AS i;
CREATE INDEX ON b (a_id);
CREATE INDEX ON a (g, id);
CREATE VIEW v AS SELECT a.id, a.g, a.t, word(a.t, a.g) AS w, passes(a, 3) AS ok FROM a;
CREATE VIEW vj AS SELECT a.id, a.t, word(b.t, a.g) AS w, count(*) OVER (PARTITION BY a.g)::int AS n
                  FROM a JOIN b ON b.a_id = a.id;
CREATE VIEW vg AS SELECT g, count(*)::int AS n, max(word(t, g)) AS w FROM a GROUP BY g;
CREATE FUNCTION listed(n int) RETURNS TABLE (id int, t text) LANGUAGE sql STABLE AS
    'SELECT b.id, word(b.t, n) FROM b WHERE b.a_id < n + 8';

-- What `generated_reader` may not see: an odd g in secret and psecret, kind 'shut' in vault, g of 2 or more in depot,
-- some of titles.
CREATE TABLE secret (id int PRIMARY KEY, g int, t text, kind text);
CREATE TABLE vault (id int PRIMARY KEY, g int, t text, kind text);
CREATE TABLE psecret (id int, g int, t text) PARTITION BY LIST (g);
CREATE TABLE psecret0 PARTITION OF psecret FOR VALUES IN (0, 1);
CREATE TABLE psecret1 PARTITION OF psecret DEFAULT;
CREATE TABLE depot (id int PRIMARY KEY, g int, t text, kind text);
CREATE TABLE titles (n int, name text UNIQUE);  -- what word() says of a's texts
INSERT INTO secret SELECT i, i % 4, CASE i % 2 WHEN 0 THEN 'seen ' ELSE 'HIDDEN ' END || i % 7, 'k' || i % 3
                   FROM generate_series(1, 20) AS i;
INSERT INTO vault SELECT i, i % 4, CASE i % 3 WHEN 0 THEN 'HIDDEN ' ELSE 'seen ' END || i % 7,
                         CASE i % 3 WHEN 0 THEN 'Shut' ELSE 'Open' END FROM generate_series(1, 20) AS i;
INSERT INTO psecret SELECT id, g, t FROM secret;
INSERT INTO depot SELECT i, i % 4, CASE WHEN i % 4 >= 2 THEN 'HIDDEN ' ELSE 'seen ' END || i % 7,
                         CASE WHEN i % 4 >= 2 THEN 'Shut' ELSE 'Open' END FROM generate_series(1, 20) AS i;
INSERT INTO titles SELECT i % 4, 'word ' || i % 9 || '-' || i / 9 FROM generate_series(0, 44) AS i;
ALTER TABLE titles ENABLE ROW LEVEL SECURITY;
ALTER TABLE secret ENABLE ROW LEVEL SECURITY;
ALTER TABLE vault ENABLE ROW LEVEL SECURITY;
ALTER TABLE psecret ENABLE ROW LEVEL SECURITY;
CREATE POLICY even ON secret TO generated_reader USING (g % 2 = 0);
CREATE POLICY most ON titles TO generated_reader USING (n < 3 OR name < 'word 4');
CREATE POLICY open ON vault TO generated_reader USING (word(kind, 1) = 'open-1');
CREATE POLICY even ON psecret TO generated_reader USING (g IN (SELECT n FROM names WHERE n % 2 = 0));
CREATE VIEW guarded WITH (security_barrier) AS SELECT id, g, t FROM depot WHERE g < 2;
CREATE VIEW judged WITH (security_barrier) AS SELECT id, g, t FROM depot WHERE word(kind, g) LIKE 'open%';
CREATE VIEW layered WITH (security_barrier) AS SELECT id, g, t, word(t, 4) AS w FROM guarded WHERE passes(guarded, 3);
CREATE VIEW invoked WITH (security_invoker) AS SELECT * FROM secret;
CREATE FUNCTION srf_secret() RETURNS SETOF secret LANGUAGE sql STABLE AS 'SELECT * FROM secret';
CREATE FUNCTION srf_vault() RETURNS SETOF vault LANGUAGE sql STABLE AS 'SELECT * FROM vault';
CREATE FUNCTION srf_above(n int) RETURNS SETOF vault LANGUAGE sql STABLE AS 'SELECT * FROM vault WHERE g >= n';
GRANT ALL ON a, b, u, names, e, p, i, d, locked, wide, v, vj, vg, secret, vault, psecret, titles, guarded, judged,
    layered, invoked TO generated_reader;
ANALYZE;
"""


def make_schema(conn: Connection[object]) -> None:
    """Create all of it, in a database where the extension can be created."""
    conn.execute(ROLE)
    conn.execute(SCHEMA.encode())
