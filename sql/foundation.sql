-- What both hosts stand on: the schema, the option validator, the error raiser, the query check and the view of
-- servers. `pg-bridge install` joins this file, one host's file and surface.sql into that host's install script.

\echo Use "CREATE EXTENSION @extension@" to load this file. \quit

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = '@other_extension@') THEN
        RAISE EXCEPTION 'extension "@extension@" cannot stand beside extension "@other_extension@" in one database'
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'They are two hosts of the same functions. DROP EXTENSION @other_extension@ first, or use another database.';
    END IF;
END $$;

CREATE SCHEMA llm;
GRANT USAGE ON SCHEMA llm TO PUBLIC;
COMMENT ON SCHEMA llm IS 'pg_bridge: LLM calls over whole row sets. USAGE on a server is what a role needs to ask.';

-- The names and patterns come from pg_bridge/options at install time.
CREATE FUNCTION llm._validate(options text[], catalog oid) RETURNS void
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
DECLARE
    catalog_name text := CASE catalog WHEN 'pg_foreign_data_wrapper'::regclass THEN 'wrapper'
                               WHEN 'pg_foreign_server'::regclass THEN 'server'
                               WHEN 'pg_user_mapping'::regclass THEN 'user mapping'
                               WHEN 'pg_attribute'::regclass THEN 'column'
                               ELSE 'table' END;
    given record;
    known record;
BEGIN
    FOR given IN SELECT split_part(o, '=', 1) AS name, substr(o, strpos(o, '=') + 1) AS value FROM unnest(options) AS o
    LOOP
        SELECT * INTO known FROM (VALUES @options@) AS v (place, name, pattern, expects, is_own, needs, harmless)
        WHERE v.place = catalog_name AND v.name = given.name;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'invalid option "%"', given.name
                USING ERRCODE = 'fdw_invalid_option_name',
                      HINT = coalesce((SELECT 'Valid options of a ' || catalog_name || ' are: ' || string_agg(v.name, ', ') || '.'
                                       FROM (VALUES @options@) AS v (place, name, pattern, expects, is_own, needs, harmless)
                                       WHERE v.place = catalog_name AND NOT v.is_own),
                                      'There are no valid options in this context.');
        END IF;
        -- What reaches past the rights of whoever sets it. Each change of an object brings all of its options again, so
        -- nobody else leads a server elsewhere that has such a one.
        IF given.value IS DISTINCT FROM known.harmless AND known.needs IS NOT NULL
           AND NOT (CASE known.needs WHEN 'superuser'
                                     THEN (SELECT r.rolsuper FROM pg_roles AS r WHERE r.rolname = current_user)
                                     ELSE pg_has_role(known.needs::name, 'USAGE') END) THEN
            RAISE EXCEPTION 'permission denied to set the option "%"', given.name
                USING ERRCODE = 'insufficient_privilege',
                      HINT = CASE known.needs WHEN 'superuser' THEN 'Only superusers may set it.'
                                              ELSE 'Only superusers and members of ' || known.needs || ' may set it.' END;
        END IF;
        IF given.value !~ ('^(?:' || known.pattern || ')$') THEN
            RAISE EXCEPTION 'invalid value for option "%"', given.name
                USING ERRCODE = 'fdw_invalid_string_format', HINT = 'It must be ' || known.expects || '.';
        END IF;
        IF given.name = 'endpoint'
           AND EXISTS (SELECT FROM regexp_split_to_table(given.value, '[, ]+') AS url,
                           lower(substring(url, '^https?://[^/]*')) AS host
                       GROUP BY regexp_replace(host, '(?<=^http:.*):80$|(?<=^https:.*):443$', ''),
                           regexp_replace(substr(url, length(host) + 1), '/*(/v1)?/*$', '')
                       HAVING count(*) > 1) THEN
            RAISE EXCEPTION 'invalid value for option "endpoint"'
                USING ERRCODE = 'fdw_invalid_string_format', DETAIL = 'An engine is there twice.',
                      HINT = 'Name each engine once.';
        END IF;
        -- Who may use a server may change and drop his own mapping for it: he may not allow himself more than he has. Of
        -- which server it is nobody says here, so it is none where he would have more. What stands in his mapping
        -- comes again with every change, and passes; what he has without it is the server's own.
        IF catalog_name = 'user mapping' AND given.name LIKE 'daily\_%' AND EXISTS (
            SELECT FROM pg_foreign_server AS s
            JOIN pg_foreign_data_wrapper AS w ON w.oid = s.srvfdw AND w.fdwname = 'pg_bridge'
            CROSS JOIN LATERAL (
                SELECT coalesce((SELECT o.option_value::numeric FROM pg_options_to_table(s.srvoptions) AS o
                                 WHERE o.option_name = given.name), 'infinity') AS of_server,
                       (SELECT max(o.option_value::numeric)
                        FROM pg_user_mappings AS m, pg_options_to_table(m.umoptions) AS o
                        WHERE m.srvid = s.oid AND m.usename = current_user AND o.option_name = given.name) AS of_mapping
            ) AS has
            WHERE has_server_privilege(s.oid, 'USAGE') AND NOT pg_has_role(s.srvowner, 'USAGE')
                  AND given.value::numeric > greatest(has.of_server, has.of_mapping)
        ) THEN
            RAISE EXCEPTION 'permission denied to raise the option "%"', given.name
                USING ERRCODE = 'insufficient_privilege',
                      HINT = 'You may use a server that allows you less. Its owner, or a superuser, may set it.';
        END IF;
    END LOOP;
    IF catalog_name = 'column' AND options <> '{}' AND NOT EXISTS (SELECT FROM unnest(options) AS o WHERE o LIKE 'prompt=%') THEN
        RAISE EXCEPTION 'a column that a model answers needs the option "prompt"'
            USING ERRCODE = 'fdw_option_name_not_found',
                  HINT = 'For example: OPTIONS (prompt ''Is {review} kind?''). A column of the source has no options.';
    END IF;
    IF catalog_name = 'table' AND NOT EXISTS (SELECT FROM pg_foreign_data_wrapper AS w
                                              WHERE w.fdwname = 'pg_bridge' AND w.fdwhandler <> 0) THEN
        RAISE EXCEPTION 'foreign tables need the native module of pg_bridge, which this server has not'
            USING ERRCODE = 'feature_not_supported',
                  HINT = 'Run pg-bridge install on the server and see what it says of the module; then a superuser calls SELECT llm.enable_foreign_tables().';
    END IF;
    IF catalog_name = 'table' AND (SELECT count(*) FROM unnest(options) AS o
                                   WHERE split_part(o, '=', 1) IN ('source', 'source_query', 'relation')) <> 1 THEN
        RAISE EXCEPTION 'a foreign table needs one of the options "source" and "source_query"'
            USING ERRCODE = 'fdw_option_name_not_found',
                  HINT = 'For example: OPTIONS (source ''public.reviews'').';
    END IF;
    IF catalog_name = 'server' AND NOT EXISTS (SELECT FROM unnest(options) AS o
                                        WHERE split_part(o, '=', 1) IN ('endpoint', 'wrapper')) THEN
        RAISE EXCEPTION 'a server needs the option "endpoint"'
            USING ERRCODE = 'fdw_option_name_not_found',
                  HINT = 'For example: OPTIONS (endpoint ''http://localhost:8000'').';
    END IF;
END $$;
REVOKE ALL ON FUNCTION llm._validate FROM PUBLIC;

-- Errors travel from Python as data, {SQLSTATE, message, detail, hint}, and are raised here, so that all four are the same
-- on both hosts and no Python traceback stands in front of them. What is empty is not shown.
CREATE FUNCTION llm._raise(fault text[]) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    state CONSTANT text := fault[1];
    said CONSTANT text := fault[2];
    detail CONSTANT text := coalesce(fault[3], '');
    hint CONSTANT text := coalesce(fault[4], '');
BEGIN
    -- RAISE shows an empty detail or hint, so each case is spelt out.
    IF detail = '' AND hint = '' THEN
        RAISE EXCEPTION USING ERRCODE = state, MESSAGE = said;
    ELSIF detail = '' THEN
        RAISE EXCEPTION USING ERRCODE = state, MESSAGE = said, HINT = hint;
    ELSIF hint = '' THEN
        RAISE EXCEPTION USING ERRCODE = state, MESSAGE = said, DETAIL = detail;
    ELSE
        RAISE EXCEPTION USING ERRCODE = state, MESSAGE = said, DETAIL = detail, HINT = hint;
    END IF;
END $$;

-- The next ones, and what else runs a caller's query, have no path of their own: the query's names are looked up where the
-- caller's say. So all that stands in such a body names its schema, operators and types too: a "=" of somebody's in a
-- schema that comes before pg_catalog would run as the caller. tests/integration/test_security_catalog.py lists them.

-- Says of what is not one query that only reads what is wrong with it. Nothing of it is executed.
CREATE FUNCTION llm._check_query(query text) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    probe pg_catalog.refcursor;
    hint CONSTANT pg_catalog.text := 'Pass one SELECT, VALUES, TABLE or WITH query that reads only.';
BEGIN
    IF query IS NULL THEN
        RAISE EXCEPTION 'the query is NULL' USING ERRCODE = 'null_value_not_allowed', HINT = hint;
    END IF;
    BEGIN
        OPEN probe FOR EXECUTE query;
        CLOSE probe;
    EXCEPTION WHEN invalid_cursor_definition THEN
        RAISE EXCEPTION 'the query is not a single query that returns rows'
            USING ERRCODE = 'syntax_error', HINT = hint;
    END;
    BEGIN
        EXECUTE pg_catalog.format(E'SELECT pg_bridge_row.* FROM (%s\n) AS pg_bridge_row LIMIT 0', query);
    EXCEPTION WHEN syntax_error THEN  -- it parsed alone, so it is INSERT … RETURNING, EXPLAIN, SHOW or the like
        RAISE EXCEPTION 'the query is not a SELECT, VALUES, TABLE or WITH query'
            USING ERRCODE = 'syntax_error', HINT = hint;
    END;
END $$;

-- Opens a cursor over the rows of a query, and tells the names of its columns. The query is planned once, and nothing of
-- it is executed before the first row is fetched.
CREATE FUNCTION llm._open(query text, OUT rows refcursor, OUT columns text[])
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    probe pg_catalog.refcursor;
    -- The line end closes a trailing comment.
    selected CONSTANT pg_catalog.text := pg_catalog.format(E'SELECT pg_bridge_row.* FROM (%s\n) AS pg_bridge_row', query);
    shape pg_catalog.record;
BEGIN
    BEGIN
        -- An EXPLAIN that is not fetched from is parsed and no more. What is one statement behind EXPLAIN and a query
        -- between parentheses is one query: it cannot close the parenthesis that it stands in.
        OPEN probe FOR EXECUTE pg_catalog.concat('EXPLAIN ', query);
        CLOSE probe;
        OPEN rows NO SCROLL FOR EXECUTE selected;
    EXCEPTION WHEN OTHERS THEN
        PERFORM llm._check_query(query);
        OPEN rows NO SCROLL FOR EXECUTE selected;
    END;
    FETCH RELATIVE 0 FROM rows INTO shape;  -- a row of NULLs
    columns := llm._names(pg_catalog.row_to_json(shape));
END $$;

-- At most so many more rows of such a cursor.
CREATE FUNCTION llm._fetch(rows refcursor, wanted integer) RETURNS SETOF json
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    one pg_catalog.record;
BEGIN
    FOR one IN EXECUTE pg_catalog.format('FETCH %s FROM %I', wanted, rows) LOOP
        RETURN NEXT pg_catalog.row_to_json(one);
    END LOOP;
END $$;

-- The names of a row's columns, after checking that each can be told from the others.
CREATE FUNCTION llm._names(shape json) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    columns text[] := ARRAY(SELECT json_object_keys(shape));
    repeated text;
BEGIN
    IF 'pg_bridge_row' = ANY (columns) THEN  -- what stands around the query calls the query so
        RAISE EXCEPTION 'a column of the query is named "pg_bridge_row"'
            USING ERRCODE = 'reserved_name', HINT = 'Give it another name with AS.';
    END IF;
    SELECT c INTO repeated FROM unnest(columns) AS c GROUP BY c HAVING count(*) > 1 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'the query returns more than one column named "%"', repeated
            USING ERRCODE = 'duplicate_column', HINT = 'Give each column a name of its own with AS.';
    END IF;
    RETURN columns;
END $$;

-- Every pg_bridge server as one role sees it. `options` holds the role's secrets too: only the extension's owner may
-- read it, and only to hand it to the Python of the same backend.
CREATE FUNCTION llm._servers(role name) RETURNS TABLE (server name, usable boolean, options json, owned boolean, owner oid)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT s.srvname,
           has_server_privilege(role, s.oid, 'USAGE'),
           (SELECT json_object_agg(option_name, option_value)
            FROM pg_options_to_table(s.srvoptions || coalesce(own.umoptions, public.umoptions, '{}'))),
           pg_has_role(role, s.srvowner, 'USAGE'),
           s.srvowner
    FROM pg_foreign_server AS s
    JOIN pg_foreign_data_wrapper AS w ON w.oid = s.srvfdw AND w.fdwname = 'pg_bridge'
    LEFT JOIN pg_user_mapping AS own ON own.umserver = s.oid AND own.umuser = (SELECT r.oid FROM pg_roles AS r WHERE r.rolname = role)
    LEFT JOIN pg_user_mapping AS public ON public.umserver = s.oid AND public.umuser = 0
    WHERE NOT EXISTS (SELECT FROM unnest(s.srvoptions) AS o WHERE o LIKE 'wrapper=%')
       OR EXISTS (SELECT FROM unnest(s.srvoptions) AS o WHERE o LIKE 'endpoint=%')
$$;
REVOKE ALL ON FUNCTION llm._servers FROM PUBLIC;
