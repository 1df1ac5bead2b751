-- Columns that are kept answered: declared here, watched by triggers, answered by a worker beside the database.
--
-- The same text makes them in schema llm of the extension and in llm_jobs of a server that has none (@schema@ below). It
-- asks for no superuser. What llm.keep makes for a column belongs to the role that calls it: a table of answers, a table of
-- changes, a trigger function, a view. They are found again by their comments and by the columns that a trigger
-- names, which PostgreSQL carries along when something is renamed, dumped, restored or upgraded; an oid it does not.

CREATE TABLE @schema@._kept (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    role          name NOT NULL DEFAULT current_user,
    name          text NOT NULL,
    key           text[] NOT NULL,
    sent_key      text[] NOT NULL,
    sent          text[] NOT NULL,
    prompt        text NOT NULL,
    type          text NOT NULL,
    schema        text NOT NULL DEFAULT '',
    options       jsonb NOT NULL DEFAULT '{}',
    chunks_of     text,
    chunk_chars   integer NOT NULL DEFAULT 1000,
    chunk_overlap integer NOT NULL DEFAULT 100,
    at_most_every interval NOT NULL,
    asked_at      timestamptz,
    next_at       timestamptz NOT NULL DEFAULT now(),
    failures      integer NOT NULL DEFAULT 0,
    trouble       text,
    -- Whoever declares may write here by hand; a worker, and whoever else looks, relies on these shapes.
    CHECK (array_ndims(key) = 1 AND array_position(key, NULL) IS NULL),
    CHECK (array_ndims(sent_key) = 1 AND cardinality(sent_key) = cardinality(key)),
    CHECK (sent = '{}' OR array_ndims(sent) = 1 AND array_position(sent, NULL) IS NULL),
    CHECK (jsonb_typeof(options) = 'object'),
    CHECK (chunks_of IS NULL OR chunks_of = ANY (sent)),
    CHECK (chunk_chars BETWEEN 1 AND 1000000 AND chunk_overlap BETWEEN 0 AND chunk_chars - 1),
    CHECK (at_most_every BETWEEN '0' AND '100 years'),
    CHECK (isfinite(next_at))
);
COMMENT ON TABLE @schema@._kept IS 'columns that are kept answered; llm.kept shows them';
COMMENT ON COLUMN @schema@._kept.sent_key IS 'for each column of the key what the prompt calls it, NULL where it is not sent';
COMMENT ON COLUMN @schema@._kept.sent IS 'what the prompt calls the others that are sent, in the order of the trigger that names them';
COMMENT ON COLUMN @schema@._kept.chunks_of IS 'which of these is cut into chunks, each of which has an answer; NULL for none';
-- Nobody chooses an id, and nobody declares in another's name: whatever is asked for a column is asked as its role.
GRANT SELECT, DELETE ON @schema@._kept TO PUBLIC;
GRANT INSERT (name, key, sent_key, sent, prompt, type, schema, options, chunks_of, chunk_chars, chunk_overlap, at_most_every) ON @schema@._kept TO PUBLIC;
GRANT UPDATE (sent_key, sent, prompt, schema, options, chunks_of, chunk_chars, chunk_overlap, at_most_every, asked_at, next_at, failures, trouble) ON @schema@._kept TO PUBLIC;
ALTER TABLE @schema@._kept ENABLE ROW LEVEL SECURITY;
CREATE POLICY seen ON @schema@._kept FOR SELECT USING (
    pg_has_role((SELECT r.oid FROM pg_catalog.pg_roles AS r WHERE r.rolname = role), 'MEMBER'));
CREATE POLICY made ON @schema@._kept FOR INSERT WITH CHECK (role = current_user);
CREATE POLICY changed ON @schema@._kept FOR UPDATE USING (  -- a worker notes there what it leaves
    pg_has_role((SELECT r.oid FROM pg_catalog.pg_roles AS r WHERE r.rolname = role), 'MEMBER'));
CREATE POLICY ended ON @schema@._kept FOR DELETE USING (role = current_user);

-- What was made for a column, as it is called now; NULL for what is gone.
CREATE FUNCTION @schema@._kept_parts(
    kept bigint, OUT role name, OUT relation oid, OUT columns text[], OUT function oid, OUT answers oid, OUT changes oid,
    OUT view oid
)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    SELECT k.role INTO role FROM @schema@._kept AS k WHERE k.id = kept;
    SELECT max(p.oid) INTO function
    FROM pg_description AS d JOIN pg_proc AS p ON p.oid = d.objoid
    WHERE d.classoid = 'pg_proc'::regclass AND d.description = @schema@._kept_comment(kept, 'trigger')
          AND p.proowner = (SELECT r.oid FROM pg_roles AS r WHERE r.rolname = _kept_parts.role);
    SELECT t.tgrelid, ARRAY(
               SELECT a.attname::text FROM unnest(t.tgattr::int2[]) WITH ORDINALITY AS u (number, place)
               JOIN pg_attribute AS a ON a.attrelid = t.tgrelid AND a.attnum = u.number ORDER BY u.place)
    INTO relation, columns
    FROM pg_trigger AS t WHERE t.tgname = format('llm_keep_%s_columns', kept) AND t.tgparentid = 0 AND t.tgfoid = function
          AND EXISTS (SELECT FROM pg_class AS c WHERE c.oid = t.tgrelid AND c.relkind IN ('r', 'p'));
    SELECT max(c.oid) FILTER (WHERE d.description LIKE '%: answers'), max(c.oid) FILTER (WHERE d.description LIKE '%: changes'),
           max(c.oid) FILTER (WHERE d.description LIKE '%: view')
    INTO answers, changes, view
    FROM pg_description AS d JOIN pg_class AS c ON c.oid = d.objoid
    WHERE d.classoid = 'pg_class'::regclass AND d.objsubid = 0
          AND d.description = ANY (ARRAY(SELECT @schema@._kept_comment(kept, p)
                                         FROM unnest('{answers,changes,view}'::text[]) AS p))
          AND c.relowner = (SELECT r.oid FROM pg_roles AS r WHERE r.rolname = _kept_parts.role)
          AND c.relkind = CASE WHEN d.description LIKE '%: view' THEN 'v' ELSE 'r' END::"char";
END $$;

CREATE FUNCTION @schema@._kept_comment(kept bigint, part text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN format('made by llm.keep, %s: %s', kept, part);
END $$;

-- A relation's name as a statement needs it, whatever the path is; NULL for none.
CREATE FUNCTION @schema@._kept_name(relation oid) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.oid = relation
$$;

-- What a domain, or a domain of a domain, is made of.
CREATE FUNCTION @schema@._kept_base(type oid) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE made AS (
        SELECT t.oid, t.typtype, t.typbasetype FROM pg_type AS t WHERE t.oid = type
        UNION ALL SELECT t.oid, t.typtype, t.typbasetype FROM made AS m JOIN pg_type AS t ON t.oid = m.typbasetype
    )
    SELECT format_type(m.oid, -1) FROM made AS m WHERE m.typtype <> 'd'
$$;

-- Whether its triggers are to fire for each row: transition tables do not hold what reaches a partition, or a child, by
-- its parent's name, nor do a parent's hold what is written into a partition by its own.
CREATE FUNCTION @schema@._kept_by_row(relation oid) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT c.relkind = 'p' OR EXISTS (SELECT FROM pg_inherits AS i WHERE i.inhrelid = c.oid) FROM pg_class AS c
    WHERE c.oid = relation
$$;

-- The key's equality, column by column, in the words of the index that makes it unique: "=" alone would be text's, and not
-- citext's, under the trigger's path.
CREATE FUNCTION @schema@._kept_equal(relation oid, key text[], one text, other text, other_key text[]) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT string_agg(format('%s.%I OPERATOR(%I.%s) %s.%I', one, k.name, n.nspname, o.oprname, other, other_key[k.place]),
                      ' AND ' ORDER BY k.place)
    FROM unnest(key) WITH ORDINALITY AS k (name, place)
    JOIN pg_attribute AS a ON a.attrelid = relation AND a.attname = k.name
    JOIN LATERAL (
        SELECT x.indclass[u.place - 1] AS class
        FROM pg_index AS x, unnest(x.indkey::int2[]) WITH ORDINALITY AS u (number, place)
        WHERE x.indrelid = relation AND x.indisunique AND u.number = a.attnum AND u.place <= x.indnkeyatts
        ORDER BY x.indnkeyatts = cardinality(key) DESC LIMIT 1
    ) AS i ON true
    JOIN pg_opclass AS c ON c.oid = i.class
    JOIN pg_amop AS s ON s.amopfamily = c.opcfamily AND s.amoplefttype = c.opcintype AND s.amoprighttype = c.opcintype
                         AND s.amopstrategy = 3
    JOIN pg_operator AS o ON o.oid = s.amopopr JOIN pg_namespace AS n ON n.oid = o.oprnamespace
$$;

-- The trigger function's text. It runs with the rights of the role that keeps the column, as whoever writes to the table may
-- have none on the table of changes; so nothing in it is anybody's but that role's. It only inserts: it waits for nobody, and
-- collides with nobody. What it would need and is gone, or is called otherwise by now, it does without.
CREATE FUNCTION @schema@._kept_trigger(kept bigint, relation oid, changes oid, columns text[], keys integer) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    by_row CONSTANT boolean := @schema@._kept_by_row(relation);
    into_changes CONSTANT text := format('INSERT INTO %s (%s)', @schema@._kept_name(changes), (
        SELECT string_agg(format('%I', a.attname), ', ' ORDER BY a.attnum) FROM pg_attribute AS a
        WHERE a.attrelid = changes AND a.attnum BETWEEN 1 AND keys));
    key CONSTANT text[] := columns[:keys];
    cells text := '';
    of_new text; of_old text; of_either text; differs text; rows text; updated text;
BEGIN
    SELECT string_agg(format('n.%I', c), ', '), string_agg(format('o.%I', c), ', '),
           string_agg(format('CASE WHEN n.%I IS NULL THEN o.%I ELSE n.%I END', key[1], c, c), ', ')
    INTO of_new, of_old, of_either FROM unnest(key) WITH ORDINALITY AS u (c, place);
    SELECT format('ROW(%s)::record OPERATOR(pg_catalog.*<>) ROW(%s)::record', string_agg(format('o.%I', c), ', '),
                  string_agg(format('n.%I', c), ', '))
    INTO differs FROM unnest(columns) AS c;
    SELECT string_agg(format('(%L::name, %s::oid)', a.attname, a.atttypid), ', ' ORDER BY a.attnum) INTO cells
    FROM pg_attribute AS a WHERE a.attrelid = relation AND a.attname = ANY (columns) AND a.attnum > 0;
    updated := format(E'%s\n    SELECT %s FROM llm_new AS n FULL JOIN llm_old AS o ON %s\n    WHERE n.%I IS NULL OR o.%I IS NULL OR %s',
                      into_changes, of_either, @schema@._kept_equal(relation, key, 'n', 'o', key), key[1], key[1], differs);
    IF by_row THEN
        SELECT format($body$
    ELSIF TG_OP = 'INSERT' THEN
        %1$s VALUES (%2$s);
    ELSIF TG_OP = 'DELETE' THEN
        %1$s VALUES (%3$s);
    ELSIF ROW(%3$s)::record OPERATOR(pg_catalog.*<>) ROW(%2$s)::record THEN
        %1$s VALUES (%3$s), (%2$s);
    ELSE
        %1$s VALUES (%2$s);$body$,
            into_changes, string_agg(format('NEW.%I', c), ', '), string_agg(format('OLD.%I', c), ', '))
        INTO rows FROM unnest(key) AS c;
    ELSE
        -- A plan is kept for as long as the session lasts, and one for a few rows would take days for many.
        rows := format($body$
    ELSIF TG_OP = 'INSERT' THEN
        %1$s SELECT %2$s FROM llm_new AS n;
    ELSIF TG_OP = 'DELETE' THEN
        %1$s SELECT %3$s FROM llm_old AS o;
    ELSIF (SELECT count(*) FROM (SELECT FROM llm_new LIMIT 21) AS few) <= 20 THEN
        %4$s;
    ELSE
        EXECUTE %4$L;$body$, into_changes, of_new, of_old, updated);
    END IF;
    RETURN format($body$
-- Written by llm.keep: notes which rows of a table were changed, for its column %1$s.
#variable_conflict use_column
DECLARE
    llm_noted bigint := 0;
BEGIN
    IF TG_NARGS > 0 THEN
        RETURN NULL;  -- this one names the columns, for llm.keep
    END IF;
    -- Expressions and no queries, as each statement pays for it; one after the other, as the second fails without USAGE.
    IF pg_catalog.has_schema_privilege(pg_catalog.to_regnamespace(%2$L)::oid, 'USAGE') IS NOT TRUE THEN
        RETURN NULL;
    ELSIF pg_catalog.has_table_privilege(pg_catalog.to_regclass(%3$L)::oid, 'INSERT') IS NOT TRUE THEN
        RETURN NULL;
    END IF;
    IF TG_OP = 'TRUNCATE' OR (
        SELECT count(*) FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = TG_RELID AND NOT a.attisdropped AND (a.attname, a.atttypid) IN (%4$s)) <> %5$s
    THEN
        INSERT INTO %6$s DEFAULT VALUES;  -- no key: all rows are to be looked at%7$s
    END IF;
    GET DIAGNOSTICS llm_noted = ROW_COUNT;
    -- Who has sent a notice cannot prepare a transaction.
    IF llm_noted > 0 AND pg_catalog.current_setting('max_prepared_transactions') = '0' THEN
        PERFORM pg_catalog.pg_notify('llm_kept', %8$L);
    END IF;
    RETURN NULL;
END $body$,
        kept, (SELECT quote_ident(n.nspname) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
               WHERE c.oid = changes), @schema@._kept_name(changes), cells, cardinality(columns),
        @schema@._kept_name(changes), rows, kept::text);
END $$;

-- The columns that a prompt sends, by the words of pg_bridge/asking/prompt.py; all but the key where it names none.
CREATE FUNCTION @schema@._kept_sent(relation oid, prompt text, key text[]) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    named text[] := '{}';
    there CONSTANT text[] := ARRAY(SELECT a.attname::text FROM pg_attribute AS a
                                   WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum);
    brace text[];
BEGIN
    FOR brace IN SELECT m FROM regexp_matches(prompt, '([{][{]|[}][}]|[{]([^{}]*)[}]|[{}])', 'g') AS m LOOP
        IF brace[1] IN ('{', '}') THEN
            RAISE EXCEPTION 'unbalanced "%" in the prompt', brace[1] USING ERRCODE = 'syntax_error',
                HINT = 'Write {column} to name a column; write {{ and }} where you mean the braces themselves.';
        ELSIF brace[2] IS NOT NULL AND brace[2] <> ALL (there) THEN
            RAISE EXCEPTION 'column "%" of the prompt does not exist in table %', brace[2], @schema@._kept_name(relation)
                USING ERRCODE = 'undefined_column', HINT = 'There are: ' || array_to_string(there, ', ') || '.';
        ELSIF brace[2] IS NOT NULL AND brace[2] <> ALL (named) THEN
            named := named || brace[2];
        END IF;
    END LOOP;
    IF named = '{}' THEN
        named := ARRAY(SELECT t.name FROM unnest(there) WITH ORDINALITY AS t (name, place) WHERE t.name <> ALL (key)
                       ORDER BY t.place);
    END IF;
    IF named = '{}' THEN
        RAISE EXCEPTION 'table % has no column to send besides its key', @schema@._kept_name(relation)
            USING ERRCODE = 'undefined_column', HINT = 'Name in the prompt what is to be sent, as {column}.';
    END IF;
    RETURN named;
END $$;

-- What speaks against keeping a column of a table, before anything is made.
CREATE FUNCTION @schema@._kept_check(relation oid, key text[], name text, sent text[]) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    shown CONSTANT text := @schema@._kept_name(relation);
    of pg_class;
    wrong text;
BEGIN
    SELECT * INTO of FROM pg_class AS c WHERE c.oid = relation;
    IF of.relkind NOT IN ('r', 'p') OR of.relpersistence = 't' OR of.relnamespace = 'pg_catalog'::regnamespace THEN
        RAISE EXCEPTION 'columns of % cannot be kept', shown USING ERRCODE = 'wrong_object_type',
            HINT = 'It must be an ordinary or a partitioned table, and no temporary one: nothing tells of changes in others.';
    ELSIF (SELECT u.rolsuper AND NOT o.rolsuper FROM pg_roles AS u, pg_roles AS o
           WHERE u.rolname = current_user AND o.oid = of.relowner) THEN
        -- A worker reads it by its name, again and again, and its owner may call a view so any time.
        RAISE EXCEPTION 'a superuser keeps no column of %, which is another role''s', shown
            USING ERRCODE = 'insufficient_privilege', DETAIL = 'The owner could have a worker run code with a superuser''s rights.',
                  HINT = format('SET ROLE %s; before you call it.', of.relowner::regrole);
    ELSIF of.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits AS i WHERE i.inhparent = relation) THEN
        RAISE EXCEPTION 'columns of % cannot be kept: other tables inherit from it', shown
            USING ERRCODE = 'wrong_object_type', HINT = 'Its triggers do not see what is written into those by their own names. '
                'Keep a column of each of them, or make it a partitioned table.';
    END IF;
    SELECT k INTO wrong FROM unnest(key) AS k GROUP BY k HAVING count(*) > 1;
    IF FOUND THEN
        RAISE EXCEPTION 'the key has column "%" twice', wrong USING ERRCODE = 'duplicate_column', HINT = 'Name it once.';
    END IF;
    SELECT k INTO wrong FROM unnest(key) AS k WHERE NOT EXISTS (
        SELECT FROM pg_attribute AS a WHERE a.attrelid = relation AND a.attname = k AND a.attnum > 0 AND NOT a.attisdropped);
    IF FOUND THEN
        RAISE EXCEPTION 'table % has no column "%"', shown, wrong USING ERRCODE = 'undefined_column',
            HINT = 'Name the columns of its key, parted by commas.';
    END IF;
    SELECT a.attname INTO wrong FROM pg_attribute AS a
    WHERE a.attrelid = relation AND a.attname = ANY (key) AND NOT a.attnotnull;
    IF FOUND THEN
        RAISE EXCEPTION 'column "%" of the key may be NULL, and such a row could not be found again', wrong
            USING ERRCODE = 'invalid_table_definition',
                  HINT = format('ALTER TABLE %s ALTER %I SET NOT NULL;', shown, wrong);
    END IF;
    IF NOT EXISTS (
        SELECT FROM pg_index AS x WHERE x.indrelid = relation AND x.indisunique AND x.indisvalid AND x.indimmediate
        AND x.indpred IS NULL AND x.indexprs IS NULL
        AND ARRAY(SELECT a.attname::text FROM pg_attribute AS a WHERE a.attrelid = relation
                  AND a.attnum = ANY ((x.indkey::int2[])[0:x.indnkeyatts - 1]) ORDER BY 1)
            = ARRAY(SELECT k FROM unnest(key) AS k ORDER BY 1)
    ) THEN
        RAISE EXCEPTION 'table % has no unique key of (%)', shown, array_to_string(key, ', ')
            USING ERRCODE = 'invalid_table_definition', HINT = format('ALTER TABLE %s ADD PRIMARY KEY (%s);', shown, (
                SELECT string_agg(format('%I', k), ', ') FROM unnest(key) AS k));
    END IF;
    SELECT u INTO wrong FROM unnest(key || name) AS u WHERE u IN ('model', 'digest', 'answered_at', 'error', 'noted', 'noted_at');
    IF FOUND OR name = ANY (key) THEN
        RAISE EXCEPTION 'a column named "%" stands beside the answers already', coalesce(wrong, name)
            USING ERRCODE = 'duplicate_column', HINT = 'Name the column otherwise.';
    END IF;
    SELECT a.attname INTO wrong FROM pg_attribute AS a
    WHERE a.attrelid = relation AND a.attname = ANY (sent) AND to_jsonb(a) ->> 'attgenerated' = 'v';
    IF FOUND THEN
        RAISE EXCEPTION 'column "%" is generated when it is read, and no trigger sees it change', wrong
            USING ERRCODE = 'invalid_column_reference', HINT = 'Name in the prompt what it is generated from.';
    END IF;
    IF NOT (has_table_privilege(relation, 'TRIGGER') AND (
        SELECT bool_and(has_column_privilege(relation, a.attnum, 'SELECT')) FROM pg_attribute AS a
        WHERE a.attrelid = relation AND a.attname = ANY (key || sent))) THEN
        RAISE EXCEPTION 'permission denied for table %', shown USING ERRCODE = 'insufficient_privilege',
            HINT = format('Ask its owner for: GRANT SELECT, TRIGGER ON %s TO %I;', shown, current_user);
    END IF;
END $$;

-- What speaks against keeping a column of chunks, besides.
CREATE FUNCTION @schema@._kept_chunk_check(relation oid, key text[], sent text[], name text, chunks_of text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wrong text;
BEGIN
    SELECT u INTO wrong FROM unnest(key || name) AS u WHERE u IN ('chunk_no', 'chunk_start', 'chunk')
    UNION ALL SELECT u FROM unnest(key || sent) AS u WHERE u IN ('llm_chunk_no', 'llm_chunk_start', 'llm_chunk') LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'a column named "%" stands beside the answers already', wrong
            USING ERRCODE = 'duplicate_column', HINT = 'Name the column otherwise.';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
                   WHERE a.attrelid = relation AND a.attname = chunks_of AND t.typcategory = 'S') THEN
        RAISE EXCEPTION 'column "%" is no text, of which chunks could be made', chunks_of USING ERRCODE = 'datatype_mismatch',
            HINT = 'Cut the text of another type into chunks by @schema@.chunks, in a table of its own.';
    END IF;
END $$;

-- The trigger function and its triggers, made anew.
CREATE FUNCTION @schema@._kept_watch(kept bigint, relation oid, changes oid, columns text[], keys integer, named oid)
RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET client_min_messages = warning AS $$
DECLARE
    shown CONSTANT text := @schema@._kept_name(relation);
    body CONSTANT text := @schema@._kept_trigger(kept, relation, changes, columns, keys);
    listed text; differs text; function text;
    of record;
BEGIN
    IF named IS NOT NULL THEN
        EXECUTE format('DROP FUNCTION %s CASCADE', named::regprocedure);  -- on which nothing depends but its triggers
    END IF;
    SELECT format('%I.%I', n.nspname, format('llm_keep_%s', kept)) INTO function
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = changes;
    EXECUTE format('CREATE FUNCTION %s() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS %L',
                   function, body);
    EXECUTE format('REVOKE ALL ON FUNCTION %s() FROM PUBLIC', function);
    EXECUTE format('COMMENT ON FUNCTION %s() IS %L', function, @schema@._kept_comment(kept, 'trigger'));
    SELECT string_agg(format('%I', c), ', '),
           format('ROW(%s)::record OPERATOR(pg_catalog.*<>) ROW(%s)::record', string_agg(format('OLD.%I', c), ', '),
                  string_agg(format('NEW.%I', c), ', '))
    INTO listed, differs FROM unnest(columns) AS c;
    FOR of IN SELECT * FROM (VALUES
        ('columns', true, 'UPDATE OF ' || listed, 'FOR EACH STATEMENT', '''names the columns'''),
        ('columns', false, 'UPDATE OF ' || listed, 'FOR EACH STATEMENT', '''names the columns'''),
        ('truncate', true, 'TRUNCATE', 'FOR EACH STATEMENT', ''),
        ('truncate', false, 'TRUNCATE', 'FOR EACH STATEMENT', ''),
        ('insert', true, 'INSERT', 'FOR EACH ROW', ''),
        ('insert', false, 'INSERT', 'REFERENCING NEW TABLE AS llm_new FOR EACH STATEMENT', ''),
        ('update', true, 'UPDATE', format('FOR EACH ROW WHEN (%s)', differs), ''),
        ('update', false, 'UPDATE', 'REFERENCING OLD TABLE AS llm_old NEW TABLE AS llm_new FOR EACH STATEMENT', ''),
        ('delete', true, 'DELETE', 'FOR EACH ROW', ''),
        ('delete', false, 'DELETE', 'REFERENCING OLD TABLE AS llm_old FOR EACH STATEMENT', '')
    ) AS v (name, by_row, event, how, argument) WHERE v.by_row = @schema@._kept_by_row(relation) LOOP
        EXECUTE format('CREATE TRIGGER %I AFTER %s ON %s %s EXECUTE FUNCTION %s(%s)', format('llm_keep_%s_%s', kept, of.name),
                       CASE of.event WHEN 'UPDATE' THEN 'UPDATE' ELSE of.event END, shown, of.how, function, of.argument);
    END LOOP;
END $$;

-- Each note is a row of its own, and whoever has dealt with it deletes just that one: a number up to which all were seen would
-- lose those that were committed late.
CREATE FUNCTION @schema@._kept_note_all(changes oid) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('INSERT INTO %s DEFAULT VALUES', @schema@._kept_name(changes));
END $$;

CREATE FUNCTION @schema@.keep(
    "table"       regclass,
    key           text,
    "column"      text,
    prompt        text,
    type          text     DEFAULT NULL,
    schema        jsonb    DEFAULT NULL,
    at_most_every interval DEFAULT '10 seconds',
    answers       text     DEFAULT NULL,
    view          text     DEFAULT NULL,
    chunks_of     text     DEFAULT NULL,
    chunk_chars   integer  DEFAULT 1000,
    chunk_overlap integer  DEFAULT 100,
    dimensions    integer  DEFAULT NULL,
    @map.optional@
) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    relation CONSTANT oid := keep."table";
    is_column CONSTANT boolean := EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = relation AND a.attname = keep.key);
    keys CONSTANT text[] := CASE WHEN is_column THEN ARRAY[keep.key] ELSE regexp_split_to_array(btrim(keep.key), '[[:space:]]*,[[:space:]]*') END;
    kind CONSTANT text := coalesce(type, CASE WHEN schema IS NULL THEN 'text' ELSE 'json' END);
    sql_type CONSTANT text := CASE kind
        WHEN 'text' THEN 'text' WHEN 'boolean' THEN 'boolean' WHEN 'number' THEN 'double precision' WHEN 'integer' THEN 'bigint'
        WHEN 'date' THEN 'date' WHEN 'timestamp' THEN 'timestamp without time zone'
        WHEN 'timestamptz' THEN 'timestamp with time zone' WHEN 'json' THEN 'jsonb' WHEN 'embedding' THEN 'real[]' END;
    options CONSTANT jsonb := jsonb_strip_nulls(jsonb_build_object('dimensions', dimensions, @map.values@));
    sent_key text[]; sent text[];
    base name; schema_name name;
    had record;
    kept bigint;
    answers_name text; changes_name text; view_name text;
BEGIN
    IF num_nulls(relation, keep.key, "column", prompt, at_most_every, chunk_chars, chunk_overlap) > 0 THEN
        RAISE EXCEPTION 'an argument of llm.keep is NULL' USING ERRCODE = 'null_value_not_allowed',
            HINT = 'Pass the table, its key, a name for the column and the prompt: llm.keep(''reviews'', ''id'', ''kind'', ''Is {review} kind?'').';
    ELSIF sql_type IS NULL THEN
        RAISE EXCEPTION 'there is no type "%" of answers', kind USING ERRCODE = 'invalid_parameter_value',
            HINT = 'There are: text, boolean, number, integer, date, timestamp, timestamptz, json, embedding.';
    ELSIF kind = 'embedding' AND replace(replace(prompt, '{{', ''), '}}', '') !~ '[{][^{}]+[}]' THEN
        RAISE EXCEPTION 'the text to embed names no column' USING ERRCODE = 'undefined_column',
            HINT = 'It is no question: each {column} stands for what the row has there, as in ''{title}: {review}''.';
    ELSIF kind <> 'embedding' AND dimensions IS NOT NULL THEN
        RAISE EXCEPTION 'dimensions are of answers of type embedding' USING ERRCODE = 'invalid_parameter_value';
    ELSIF chunk_chars NOT BETWEEN 1 AND 1000000 OR chunk_overlap NOT BETWEEN 0 AND chunk_chars - 1 THEN
        RAISE EXCEPTION 'a chunk has 1 to 1,000,000 characters, and repeats fewer of the last one' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'chunk_chars says how many it has at most, chunk_overlap how many of them may be repeated.';
    ELSIF schema IS NOT NULL AND (kind <> 'json' OR jsonb_typeof(schema) <> 'object') THEN
        RAISE EXCEPTION 'a schema is a JSON object, for answers of type json' USING ERRCODE = 'invalid_parameter_value';
    ELSIF at_most_every NOT BETWEEN '0' AND '100 years' THEN
        RAISE EXCEPTION 'at_most_every is less than nothing, or more than 100 years' USING ERRCODE = 'invalid_parameter_value';
    ELSIF answers = '' THEN
        RAISE EXCEPTION 'the table of answers needs a name' USING ERRCODE = 'invalid_name',
            HINT = 'Leave it out for the name of the table and the column. Only of the view there may be none.';
    ELSIF octet_length("column") NOT BETWEEN 1 AND 63 THEN
        RAISE EXCEPTION 'the name of the column must have 1 to 63 bytes' USING ERRCODE = 'invalid_name';
    END IF;
    sent := @schema@._kept_sent(relation, prompt, keys);
    PERFORM @schema@._kept_check(relation, keys, "column", sent);
    sent_key := ARRAY(SELECT CASE WHEN k.name = ANY (sent) THEN k.name END FROM unnest(keys) WITH ORDINALITY AS k (name, place)
                      ORDER BY k.place);
    sent := ARRAY(SELECT s.name FROM unnest(sent) WITH ORDINALITY AS s (name, place) WHERE s.name <> ALL (keys) ORDER BY s.place);
    IF chunks_of <> ALL (sent) THEN
        RAISE EXCEPTION 'column "%", of which chunks are to be made, is not sent', chunks_of USING ERRCODE = 'undefined_column',
            HINT = 'Name it in the prompt, where it stands for a chunk; and no column of the key.';
    ELSIF chunks_of IS NOT NULL THEN
        PERFORM @schema@._kept_chunk_check(relation, keys, sent, "column", chunks_of);
    END IF;
    SELECT c.relname, n.nspname INTO base, schema_name
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = relation;

    SELECT k.id, k.key, k.type, k.sent, k.chunks_of, p.* INTO had
    FROM @schema@._kept AS k CROSS JOIN LATERAL @schema@._kept_parts(k.id) AS p
    WHERE k.role = current_user AND k.name = "column" AND p.relation = keep."table";
    IF FOUND THEN
        IF had.type <> kind OR had.columns[:cardinality(had.key)] <> keys OR sent && had.key
           OR (had.chunks_of IS NULL) <> (chunks_of IS NULL) THEN
            RAISE EXCEPTION 'column "%" of % is kept already, with another key or type, or of chunks or not', "column", @schema@._kept_name(relation)
                USING ERRCODE = 'duplicate_object', HINT = format('SELECT @schema@.unkeep(%s); first.', had.id);
        ELSIF had.answers IS NULL OR had.changes IS NULL THEN
            RAISE EXCEPTION 'a table that llm.keep made for column "%" is gone', "column"
                USING ERRCODE = 'object_not_in_prerequisite_state', HINT = format('SELECT @schema@.unkeep(%s); first.', had.id);
        END IF;
        UPDATE @schema@._kept AS k
        SET prompt = prompt, sent_key = sent_key, sent = sent, schema = coalesce(schema::text, ''), options = options,
            chunks_of = chunks_of, chunk_chars = chunk_chars, chunk_overlap = chunk_overlap, at_most_every = at_most_every,
            next_at = now(), failures = 0, trouble = NULL
        WHERE k.id = had.id;
        IF had.columns <> keys || sent THEN
            PERFORM @schema@._kept_watch(had.id, relation, had.changes, keys || sent, cardinality(keys), had.function);
        END IF;
        view_name := @schema@._kept_new_name(schema_name, coalesce(view, format('%I', (base || '_with_' || "column")::name)));
        IF had.view IS NULL AND view_name IS NOT NULL THEN
            PERFORM @schema@._kept_view(had.id, relation, keys, had.key, "column", @schema@._kept_name(had.answers), view_name,
                                        chunks_of IS NOT NULL);
        END IF;
        PERFORM @schema@._kept_note_all(had.changes);
        PERFORM pg_notify('llm_kept', had.id::text);
        RETURN had.id;
    END IF;

    INSERT INTO @schema@._kept (name, key, sent_key, sent, prompt, type, schema, options, chunks_of, chunk_chars, chunk_overlap, at_most_every)
    VALUES ("column", keys, sent_key, sent, prompt, kind, coalesce(schema::text, ''), options, chunks_of, chunk_chars, chunk_overlap, at_most_every)
    RETURNING id INTO kept;
    answers_name := @schema@._kept_new_name(schema_name, coalesce(answers, format('%I', (base || '_' || "column")::name)));
    changes_name := format('%I.%I', schema_name, format('llm_keep_%s_changes', kept));
    view_name := @schema@._kept_new_name(schema_name, coalesce(view, format('%I', (base || '_with_' || "column")::name)));

    EXECUTE format('CREATE TABLE %s AS SELECT %s FROM %s WITH NO DATA', answers_name,
                   (SELECT string_agg(format('%I', k), ', ') FROM unnest(keys) AS k), @schema@._kept_name(relation));
    EXECUTE format('ALTER TABLE %s %s ADD PRIMARY KEY (%s), ADD %I %s, ADD model text, ADD digest text, ADD answered_at timestamptz, ADD error text',
                   answers_name,
                   CASE WHEN chunks_of IS NOT NULL THEN 'ADD chunk_no integer, ADD chunk_start integer, ADD chunk text,' ELSE '' END,
                   (SELECT string_agg(format('%I', k), ', ')
                    FROM unnest(keys || CASE WHEN chunks_of IS NOT NULL THEN '{chunk_no}'::text[] END) AS k),
                   "column", sql_type);
    EXECUTE format('COMMENT ON TABLE %s IS %L', answers_name, @schema@._kept_comment(kept, 'answers'));
    -- Who is granted to read it sees the answers about rows that he may see.
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', answers_name);
    EXECUTE format('CREATE POLICY of_rows_that_are_seen ON %s FOR SELECT USING (EXISTS (SELECT FROM %s AS llm_row WHERE %s))',
                   answers_name, @schema@._kept_name(relation), @schema@._kept_equal(
                       relation, keys, 'llm_row', answers_name, keys));
    -- A note of no key has NULL there, whatever a domain says of it.
    EXECUTE format('CREATE TABLE %s AS SELECT %s FROM %s WITH NO DATA', changes_name, (
        SELECT string_agg(CASE WHEN t.typtype = 'd' THEN format('%I::%s AS %1$I', k.name, @schema@._kept_base(t.oid))
                          ELSE format('%I', k.name) END, ', ' ORDER BY k.place)
        FROM unnest(keys) WITH ORDINALITY AS k (name, place)
        JOIN pg_attribute AS a ON a.attrelid = relation AND a.attname = k.name JOIN pg_type AS t ON t.oid = a.atttypid),
        @schema@._kept_name(relation));
    EXECUTE format('ALTER TABLE %s ADD noted bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, ADD noted_at timestamptz NOT NULL DEFAULT now()',
                   changes_name);
    EXECUTE format('COMMENT ON TABLE %s IS %L', changes_name, @schema@._kept_comment(kept, 'changes'));
    -- Without a policy it is its owner's alone, whatever default privileges have granted.
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', changes_name);
    PERFORM @schema@._kept_watch(kept, relation, to_regclass(changes_name), keys || sent, cardinality(keys), NULL);
    IF view_name IS NOT NULL THEN
        PERFORM @schema@._kept_view(kept, relation, keys, keys, "column", answers_name, view_name, chunks_of IS NOT NULL);
    END IF;
    PERFORM @schema@._kept_note_all(to_regclass(changes_name));
    PERFORM pg_notify('llm_kept', kept::text);
    RETURN kept;
END $$;
COMMENT ON FUNCTION @schema@.keep IS 'declares a column that a worker keeps answered as the rows of a table change';

-- A name as a user writes it, with its schema; NULL for an empty one.
CREATE FUNCTION @schema@._kept_new_name(of_table name, given text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    parts CONSTANT text[] := CASE WHEN given <> '' THEN parse_ident(given) END;
BEGIN
    IF parts IS NULL THEN
        RETURN NULL;
    ELSIF cardinality(parts) > 2 OR cardinality(parts) = 2 AND starts_with(parts[1], 'pg_temp') THEN
        RAISE EXCEPTION 'this is no name of a table that outlives a session: %', given USING ERRCODE = 'invalid_name';
    END IF;
    RETURN format('%I.%I', CASE cardinality(parts) WHEN 2 THEN parts[1] ELSE of_table END, parts[cardinality(parts)]);
END $$;

-- The table and its column. Whoever reads it does so with his own rights, where PostgreSQL can do that; before 15 he would with
-- those of the view's owner, so there is none of a table with policies.
CREATE FUNCTION @schema@._kept_view(
    kept bigint, relation oid, keys text[], names text[], name text, answers text, view text, in_chunks boolean
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    as_invoker CONSTANT boolean := current_setting('server_version_num')::int >= 150000;
    added CONSTANT text[] := CASE WHEN in_chunks THEN '{chunk_no,chunk_start,chunk}'::text[] ELSE '{}' END || name;
    wrong name;
BEGIN
    SELECT a.attname INTO wrong FROM pg_attribute AS a
    WHERE a.attrelid = relation AND a.attname = ANY (added) AND NOT a.attisdropped ORDER BY a.attnum LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'table % has a column "%" already', @schema@._kept_name(relation), wrong USING ERRCODE = 'duplicate_column',
            HINT = CASE WHEN wrong = name THEN 'Name the column otherwise, or pass view => '''' for none.'
                        ELSE 'In chunks the view would have another. Rename it in the table, or pass view => '''' for none.' END;
    ELSIF NOT as_invoker AND (SELECT c.relrowsecurity FROM pg_class AS c WHERE c.oid = relation) THEN
        RAISE NOTICE 'no view was made: table % has policies, which a view would not heed before PostgreSQL 15', @schema@._kept_name(relation);
        RETURN;
    END IF;
    EXECUTE format('CREATE VIEW %s %s AS SELECT t.*, %s a.%I FROM %s AS t LEFT JOIN %s AS a ON %s', view,
                   CASE WHEN as_invoker THEN 'WITH (security_invoker = true)' ELSE '' END,
                   CASE WHEN in_chunks THEN 'a.chunk_no, a.chunk_start, a.chunk,' ELSE '' END, name, @schema@._kept_name(relation),
                   answers, @schema@._kept_equal(relation, keys, 't', 'a', names));
    EXECUTE format('COMMENT ON VIEW %s IS %L', view, @schema@._kept_comment(kept, 'view'));
END $$;

CREATE FUNCTION @schema@.unkeep(kept bigint, keep_answers boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET client_min_messages = warning AS $$
DECLARE
    was record;
BEGIN
    IF keep_answers IS NULL THEN
        RAISE EXCEPTION 'keep_answers is NULL' USING ERRCODE = 'null_value_not_allowed',
            HINT = 'Pass true to leave the table of answers, false to drop it.';
    END IF;
    SELECT * INTO was FROM @schema@._kept_parts(kept);
    DELETE FROM @schema@._kept AS k WHERE k.id = kept;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no kept column %', kept USING ERRCODE = 'undefined_object',
            HINT = 'SELECT * FROM @schema@.kept; shows yours.';
    END IF;
    -- No CASCADE but for the function's triggers: what somebody has built on them is his, and stands in the way.
    IF was.view IS NOT NULL THEN
        EXECUTE format('DROP VIEW %s', @schema@._kept_name(was.view));
    END IF;
    IF was.function IS NOT NULL THEN
        EXECUTE format('DROP FUNCTION %s CASCADE', was.function::regprocedure);
    END IF;
    IF was.changes IS NOT NULL THEN
        EXECUTE format('DROP TABLE %s', @schema@._kept_name(was.changes));
    END IF;
    IF was.answers IS NOT NULL AND keep_answers THEN
        EXECUTE format('COMMENT ON TABLE %s IS %L', @schema@._kept_name(was.answers), 'answers that llm.unkeep left');
    ELSIF was.answers IS NOT NULL THEN
        EXECUTE format('DROP TABLE %s', @schema@._kept_name(was.answers));
    END IF;
END $$;
COMMENT ON FUNCTION @schema@.unkeep(bigint, boolean) IS 'keeps a column no longer, and drops what llm.keep made for it';

CREATE FUNCTION @schema@.unkeep("table" regclass, "column" text, keep_answers boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    of bigint;
BEGIN
    SELECT k.id INTO of FROM @schema@._kept AS k CROSS JOIN LATERAL @schema@._kept_parts(k.id) AS p
    WHERE k.name = "column" AND p.relation = unkeep."table" ORDER BY k.role = current_user DESC LIMIT 1;
    IF of IS NULL THEN
        RAISE EXCEPTION 'no column "%" of % is kept', "column", "table" USING ERRCODE = 'undefined_object',
            HINT = 'SELECT * FROM @schema@.kept; shows yours.';
    END IF;
    PERFORM @schema@.unkeep(of, keep_answers);
END $$;
COMMENT ON FUNCTION @schema@.unkeep(regclass, text, boolean) IS 'keeps a column no longer, and drops what llm.keep made for it';

-- What a worker has to do for a column, as its role: who is called what by now. It sees to it that the trigger function is
-- written in today's names, and has all rows looked at if it was not.
CREATE FUNCTION @schema@._kept_work(
    kept bigint, OUT relation text, OUT key text[], OUT key_columns text[], OUT sent text[], OUT sent_columns text[],
    OUT answers text, OUT changes text, OUT equal text, OUT rows text, OUT in_chunks boolean, OUT trouble text
)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    parts record;
    declared record;
    sent_key text[];
    body text;
    cut text;
BEGIN
    SELECT k.* INTO declared FROM @schema@._kept AS k WHERE k.id = kept;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    key := declared.key;
    sent_key := declared.sent_key;
    sent := declared.sent;
    in_chunks := declared.chunks_of IS NOT NULL;
    SELECT * INTO parts FROM @schema@._kept_parts(kept);
    trouble := CASE
        WHEN parts.relation IS NULL THEN 'the table is gone, or a column that the prompt names, or their triggers'
        WHEN parts.answers IS NULL THEN 'its table of answers is gone'
        WHEN parts.changes IS NULL THEN 'its table of changes is gone' END;
    IF trouble IS NOT NULL THEN
        RETURN;
    END IF;
    key_columns := parts.columns[:cardinality(key)];
    sent_columns := ARRAY(SELECT key_columns[s.place] FROM unnest(sent_key) WITH ORDINALITY AS s (name, place)
                          WHERE s.name IS NOT NULL ORDER BY s.place) || parts.columns[cardinality(key) + 1:];
    sent := array_remove(sent_key, NULL) || sent;
    answers := @schema@._kept_name(parts.answers);
    changes := @schema@._kept_name(parts.changes);
    relation := @schema@._kept_name(parts.relation);
    IF cardinality(parts.columns) - cardinality(key) <> cardinality(sent) - cardinality(array_remove(sent_key, NULL)) THEN
        trouble := 'its triggers do not name the columns that were declared';
        RETURN;
    END IF;
    IF (SELECT c.relkind FROM pg_class AS c WHERE c.oid = parts.relation) = 'r' THEN
        relation := 'ONLY ' || relation;  -- what inherits from it by now is watched by nothing
    END IF;
    equal := @schema@._kept_equal(parts.relation, key_columns, 'llm_row', 'llm_key', key);
    IF equal IS NULL OR NOT EXISTS (
        SELECT FROM pg_index AS x WHERE x.indrelid = parts.relation AND x.indisunique AND x.indisvalid AND x.indpred IS NULL
        AND ARRAY(SELECT a.attname::text FROM pg_attribute AS a WHERE a.attrelid = parts.relation
                  AND a.attnum = ANY ((x.indkey::int2[])[0:x.indnkeyatts - 1]) ORDER BY 1)
            = ARRAY(SELECT k FROM unnest(key_columns) AS k ORDER BY 1)
    ) THEN
        trouble := format('table %s has no unique key of (%s) any more', @schema@._kept_name(parts.relation),
                          array_to_string(key_columns, ', '));
        RETURN;
    END IF;
    body := @schema@._kept_trigger(kept, parts.relation, parts.changes, parts.columns, cardinality(key));
    IF body <> (SELECT p.prosrc FROM pg_proc AS p WHERE p.oid = parts.function) THEN
        EXECUTE format('CREATE OR REPLACE FUNCTION %s RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS %L',
                       parts.function::regprocedure, body);
        PERFORM @schema@._kept_note_all(parts.changes);
    END IF;
    -- Rows with nothing to embed have no embedding, and rows in chunks one for each: as if the table were so.
    rows := relation;
    IF in_chunks THEN
        cut := sent_columns[array_position(sent, declared.chunks_of)];
        relation := format('(SELECT %s, c.chunk_no AS llm_chunk_no, c.chunk_start AS llm_chunk_start, c.chunk AS llm_chunk FROM %s AS r '
                           'CROSS JOIN LATERAL @schema@.chunks(r.%I::pg_catalog.text, %s, %s) AS c)',
                           (SELECT string_agg(format('r.%I', c), ', ') FROM unnest(parts.columns) AS c), relation, cut,
                           declared.chunk_chars, declared.chunk_overlap);
        sent_columns[array_position(sent, declared.chunks_of)] := 'llm_chunk';
    ELSIF declared.type = 'embedding' THEN
        relation := format('(SELECT %s FROM %s AS r WHERE pg_catalog.num_nonnulls(%s) OPERATOR(pg_catalog.>) 0)',
                           (SELECT string_agg(format('r.%I', c), ', ') FROM unnest(parts.columns) AS c), relation,
                           (SELECT string_agg(format('r.%I', c), ', ') FROM unnest(sent_columns) AS c));
    END IF;
END $$;

-- What llm.kept shows, read with the rights of whoever looks at it. A superuser may look at what strangers have declared, and
-- nothing of theirs is to be executed with his rights. A table that is theirs can be a view the moment it is read, whose
-- functions would be, and a key can have a cast of theirs. So rows are counted for the role itself alone, and what others see
-- is what PostgreSQL's statistics say of the tables, by their oids.
CREATE FUNCTION @schema@._kept_state() RETURNS TABLE (
    id bigint, role name, "table" text, "column" text, prompt text, answers text, view text, waiting bigint, answered bigint,
    failed bigint, last timestamptz, next timestamptz, trouble text
)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    kept record;
    parts record;
    key text; matches text; changes text; rows text;
BEGIN
    FOR kept IN SELECT k.* FROM @schema@._kept AS k ORDER BY k.id LOOP
        SELECT * INTO parts FROM @schema@._kept_parts(kept.id);
        id := kept.id; role := kept.role; "column" := kept.name; prompt := kept.prompt; trouble := kept.trouble;
        "table" := @schema@._kept_name(parts.relation);
        answers := @schema@._kept_name(parts.answers);
        view := @schema@._kept_name(parts.view);
        changes := @schema@._kept_name(parts.changes);
        last := kept.asked_at; next := kept.next_at;
        waiting := NULL; answered := NULL; failed := NULL;
        IF NOT EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname = kept.role) THEN
            trouble := format('role "%s" is gone', kept.role);
        ELSIF "table" IS NULL THEN
            trouble := 'the table is gone, or a column that the prompt names, or their triggers';
        ELSIF answers IS NULL OR changes IS NULL THEN
            trouble := 'a table that llm.keep made is gone';
        ELSIF kept.role <> current_user THEN
            waiting := pg_stat_get_live_tuples(parts.changes);
            answered := pg_stat_get_live_tuples(parts.answers);
        ELSE
            EXECUTE format('SELECT count(*) FILTER (WHERE error IS NULL), count(*) FILTER (WHERE error IS NOT NULL) FROM ONLY %s',
                           answers)
            INTO answered, failed;
            SELECT string_agg(format('%I', k), ', ') INTO key FROM unnest(kept.key) AS k;
            EXECUTE format('SELECT count(*) FROM (SELECT DISTINCT %s FROM ONLY %s WHERE %I IS NOT NULL) AS d',
                           key, changes, kept.key[1])
            INTO waiting;
            matches := @schema@._kept_equal(parts.relation, parts.columns[:cardinality(kept.key)], 'r', 'a', kept.key);
            SELECT CASE WHEN c.relkind = 'r' THEN 'ONLY ' || "table" ELSE "table" END INTO rows
            FROM pg_class AS c WHERE c.oid = parts.relation;
            IF matches IS NOT NULL AND has_table_privilege(parts.relation, 'SELECT') THEN
                -- New rows that no note names, since all rows are to be looked at.
                EXECUTE format('SELECT $1 + CASE WHEN EXISTS (SELECT FROM ONLY %1$s WHERE %2$I IS NULL) THEN (
                                    SELECT count(*) FROM %3$s AS r WHERE NOT EXISTS (SELECT FROM ONLY %4$s AS a WHERE %5$s)
                                    AND NOT EXISTS (SELECT FROM ONLY %1$s AS a WHERE %5$s)) ELSE 0 END',
                               changes, kept.key[1], rows, answers, matches)
                INTO waiting USING waiting;
            END IF;
        END IF;
        IF trouble IS NULL AND NOT EXISTS (
            SELECT FROM pg_stat_activity AS s WHERE s.application_name = 'pg-bridge worker' AND s.datname = current_database()
            AND pg_has_role(s.usesysid, kept.role, 'MEMBER')
        ) THEN
            trouble := format('no worker that runs here may become "%s"', kept.role);
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;

CREATE VIEW @schema@.kept AS SELECT * FROM @schema@._kept_state();
COMMENT ON VIEW @schema@.kept IS 'the columns that are kept answered, and how far behind each is';
GRANT SELECT ON @schema@.kept TO PUBLIC;
