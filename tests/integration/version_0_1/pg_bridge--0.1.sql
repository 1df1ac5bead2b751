-- What both hosts stand on: the schema, the option validator, the error raiser, the query check and the view of
-- servers. `pg-bridge install` joins this file, one host's file and surface.sql into that host's install script.

\echo Use "CREATE EXTENSION pg_bridge" to load this file. \quit

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'pg_bridge_multicorn') THEN
        RAISE EXCEPTION 'extension "pg_bridge" cannot stand beside extension "pg_bridge_multicorn" in one database'
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'They are two hosts of the same functions. DROP EXTENSION pg_bridge_multicorn first, or use another database.';
    END IF;
END $$;

CREATE SCHEMA llm;
GRANT USAGE ON SCHEMA llm TO PUBLIC;
COMMENT ON SCHEMA llm IS 'pg_bridge: LLM calls over whole row sets. USAGE on a server is what a role needs to ask.';

-- The names and patterns come from pg_bridge/options.py at install time.
CREATE FUNCTION llm._validate(options text[], catalog oid) RETURNS void
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
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
        SELECT * INTO known FROM (VALUES ('server', 'endpoint', 'https?://[^\s?#@]+', 'an http:// or https:// URL without a user or a query'), ('server', 'model', '.+', 'the name of a model that the engine serves'), ('server', 'api', 'chat|completions', 'chat or completions'), ('server', 'max_in_flight', '[1-9][0-9]{0,8}', 'a positive number of prompts'), ('server', 'connect_timeout_s', '(?=.*[1-9])[0-9]{1,6}(\.[0-9]{1,6})?', 'a positive number of seconds'), ('server', 'request_timeout_s', '(?=.*[1-9])[0-9]{1,6}(\.[0-9]{1,6})?', 'a positive number of seconds'), ('server', 'max_retries', '[0-9]{1,9}', 'a number of retries, 0 for none'), ('server', 'wrapper', 'pg_bridge\.hosts\.multicorn\.Wrapper', 'pg_bridge.hosts.multicorn.Wrapper (Multicorn only)'), ('user mapping', 'api_key', '.+', 'the engine''s API key'), ('server', 'host', '\S+', 'a host name, an address or a socket''s folder'), ('server', 'port', '[1-9][0-9]{0,8}', 'a port number'), ('user mapping', 'user', '.+', 'the role that reads the rows of foreign tables'), ('user mapping', 'password', '.+', 'that role''s password'), ('user mapping', 'password_required', 'true|false', 'true or false'), ('table', 'source', '.+', 'the name of a table or view'), ('table', 'source_query', '(.|\n)+', 'one SELECT'), ('table', 'key', '.+', 'the name of a column that tells the source''s rows apart'), ('table', 'reorder', 'rows and columns|rows|none', 'one of ''rows and columns'', ''rows'', ''none'''), ('table', 'placement', 'planned|question first|row first', 'one of ''planned'', ''question first'', ''row first'''), ('table', 'dedup', 'true|false', 'true or false'), ('table', 'window_rows', '[1-9][0-9]{0,8}', 'a positive number of rows'), ('column', 'prompt', '(.|\n)+', 'a question; {column} names a column of the row'), ('column', 'labels', '(.|\n)+', 'labels parted by commas, or a JSON array of them'), ('column', 'schema', '\s*\{(.|\n)*', 'a JSON schema, an object'), ('column', 'max_tokens', '[1-9][0-9]{0,8}', 'a positive number of tokens'), ('column', 'temperature', '[0-9]+(\.[0-9]+)?', 'between 0 and 2'), ('column', 'system_prompt', '(.|\n)*', 'an instruction, empty for none'), ('column', 'on_error', 'fail|null', 'one of ''fail'', ''null'''), ('table', 'relation', 'rowset|result|connection|state', 'rowset, result, connection or state')) AS v (place, name, pattern, expects)
        WHERE v.place = catalog_name AND v.name = given.name;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'invalid option "%"', given.name
                USING ERRCODE = 'fdw_invalid_option_name',
                      HINT = coalesce((SELECT 'Valid options of a ' || catalog_name || ' are: ' || string_agg(v.name, ', ') || '.'
                                       FROM (VALUES ('server', 'endpoint', 'https?://[^\s?#@]+', 'an http:// or https:// URL without a user or a query'), ('server', 'model', '.+', 'the name of a model that the engine serves'), ('server', 'api', 'chat|completions', 'chat or completions'), ('server', 'max_in_flight', '[1-9][0-9]{0,8}', 'a positive number of prompts'), ('server', 'connect_timeout_s', '(?=.*[1-9])[0-9]{1,6}(\.[0-9]{1,6})?', 'a positive number of seconds'), ('server', 'request_timeout_s', '(?=.*[1-9])[0-9]{1,6}(\.[0-9]{1,6})?', 'a positive number of seconds'), ('server', 'max_retries', '[0-9]{1,9}', 'a number of retries, 0 for none'), ('server', 'wrapper', 'pg_bridge\.hosts\.multicorn\.Wrapper', 'pg_bridge.hosts.multicorn.Wrapper (Multicorn only)'), ('user mapping', 'api_key', '.+', 'the engine''s API key'), ('server', 'host', '\S+', 'a host name, an address or a socket''s folder'), ('server', 'port', '[1-9][0-9]{0,8}', 'a port number'), ('user mapping', 'user', '.+', 'the role that reads the rows of foreign tables'), ('user mapping', 'password', '.+', 'that role''s password'), ('user mapping', 'password_required', 'true|false', 'true or false'), ('table', 'source', '.+', 'the name of a table or view'), ('table', 'source_query', '(.|\n)+', 'one SELECT'), ('table', 'key', '.+', 'the name of a column that tells the source''s rows apart'), ('table', 'reorder', 'rows and columns|rows|none', 'one of ''rows and columns'', ''rows'', ''none'''), ('table', 'placement', 'planned|question first|row first', 'one of ''planned'', ''question first'', ''row first'''), ('table', 'dedup', 'true|false', 'true or false'), ('table', 'window_rows', '[1-9][0-9]{0,8}', 'a positive number of rows'), ('column', 'prompt', '(.|\n)+', 'a question; {column} names a column of the row'), ('column', 'labels', '(.|\n)+', 'labels parted by commas, or a JSON array of them'), ('column', 'schema', '\s*\{(.|\n)*', 'a JSON schema, an object'), ('column', 'max_tokens', '[1-9][0-9]{0,8}', 'a positive number of tokens'), ('column', 'temperature', '[0-9]+(\.[0-9]+)?', 'between 0 and 2'), ('column', 'system_prompt', '(.|\n)*', 'an instruction, empty for none'), ('column', 'on_error', 'fail|null', 'one of ''fail'', ''null'''), ('table', 'relation', 'rowset|result|connection|state', 'rowset, result, connection or state')) AS v (place, name, pattern, expects)
                                       WHERE v.place = catalog_name AND v.name NOT IN ('relation', 'wrapper')),
                                      'There are no valid options in this context.');
        END IF;
        -- The one leads into the memory of the extension's own Python, past the checks of llm._connect; the other
        -- lets a foreign table be read as a role whose password its user does not know.
        IF (given.name = 'relation' OR given.name = 'password_required' AND given.value = 'false')
           AND NOT (SELECT r.rolsuper FROM pg_roles AS r WHERE r.rolname = current_user) THEN
            RAISE EXCEPTION 'permission denied to set the option "%"', given.name
                USING ERRCODE = 'insufficient_privilege', HINT = 'Only superusers may set it.';
        END IF;
        IF given.value !~ ('^(?:' || known.pattern || ')$') THEN
            RAISE EXCEPTION 'invalid value for option "%"', given.name
                USING ERRCODE = 'fdw_invalid_string_format', HINT = 'It must be ' || known.expects || '.';
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

-- Errors travel from Python as data and are raised here, so that message, detail, hint and SQLSTATE are the same
-- on both hosts and no Python traceback stands in front of them.
CREATE FUNCTION llm._raise(fault text) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    f json := fault::json;
BEGIN
    -- RAISE takes no NULL for an option and shows an empty one, so each case is spelt out.
    IF coalesce(f ->> 'detail', '') = '' AND coalesce(f ->> 'hint', '') = '' THEN
        RAISE EXCEPTION USING ERRCODE = f ->> 'sqlstate', MESSAGE = f ->> 'message';
    ELSIF coalesce(f ->> 'detail', '') = '' THEN
        RAISE EXCEPTION USING ERRCODE = f ->> 'sqlstate', MESSAGE = f ->> 'message', HINT = f ->> 'hint';
    ELSIF coalesce(f ->> 'hint', '') = '' THEN
        RAISE EXCEPTION USING ERRCODE = f ->> 'sqlstate', MESSAGE = f ->> 'message', DETAIL = f ->> 'detail';
    ELSE
        RAISE EXCEPTION USING ERRCODE = f ->> 'sqlstate', MESSAGE = f ->> 'message',
                              DETAIL = f ->> 'detail', HINT = f ->> 'hint';
    END IF;
END $$;

-- The column names of a query, after checking that it is one query that only reads. Nothing of it is executed.
CREATE FUNCTION llm._columns(query text) RETURNS text[]
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    probe refcursor;
    shape record;
    columns text[];
    hint text := 'Pass one SELECT, VALUES, TABLE or WITH query that reads only.';
    repeated text;
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
        EXECUTE pg_catalog.format(E'SELECT pg_bridge_row.* FROM (%s\n) AS pg_bridge_row LIMIT 0', query) INTO shape;
    EXCEPTION WHEN syntax_error THEN  -- it parsed alone, so it is INSERT … RETURNING, EXPLAIN, SHOW or the like
        RAISE EXCEPTION 'the query is not a SELECT, VALUES, TABLE or WITH query'
            USING ERRCODE = 'syntax_error', HINT = hint;
    END;
    columns := ARRAY(SELECT pg_catalog.json_object_keys(pg_catalog.row_to_json(shape)));
    IF 'pg_bridge_row' = ANY (columns) THEN  -- it would hide the row that row_to_json is to see
        RAISE EXCEPTION 'a column of the query is named "pg_bridge_row"'
            USING ERRCODE = 'reserved_name', HINT = 'Give it another name with AS.';
    END IF;
    SELECT c INTO repeated FROM pg_catalog.unnest(columns) AS c GROUP BY c HAVING pg_catalog.count(*) > 1 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'the query returns more than one column named "%"', repeated
            USING ERRCODE = 'duplicate_column', HINT = 'Give each column a name of its own with AS.';
    END IF;
    RETURN columns;
END $$;

-- Every pg_bridge server as one role sees it. `options` holds the role's secrets too: only the extension's owner may
-- read it, and only to hand it to the Python of the same backend.
CREATE FUNCTION llm._servers(role name) RETURNS TABLE (server name, usable boolean, options json)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT s.srvname,
           has_server_privilege(role, s.oid, 'USAGE'),
           (SELECT json_object_agg(option_name, option_value)
            FROM pg_options_to_table(s.srvoptions || coalesce(own.umoptions, public.umoptions, '{}')))
    FROM pg_foreign_server AS s
    JOIN pg_foreign_data_wrapper AS w ON w.oid = s.srvfdw AND w.fdwname = 'pg_bridge'
    LEFT JOIN pg_user_mapping AS own ON own.umserver = s.oid AND own.umuser = (SELECT r.oid FROM pg_roles AS r WHERE r.rolname = role)
    LEFT JOIN pg_user_mapping AS public ON public.umserver = s.oid AND public.umuser = 0
    WHERE NOT EXISTS (SELECT FROM unnest(s.srvoptions) AS o WHERE o LIKE 'wrapper=%')
       OR EXISTS (SELECT FROM unnest(s.srvoptions) AS o WHERE o LIKE 'endpoint=%')
$$;
REVOKE ALL ON FUNCTION llm._servers FROM PUBLIC;

-- The PL/Python host. Each body is one call into pg_bridge.hosts.plpython.

CREATE FOREIGN DATA WRAPPER pg_bridge NO HANDLER VALIDATOR llm._validate;
COMMENT ON FOREIGN DATA WRAPPER pg_bridge IS 'servers of LLM engines that speak the OpenAI API';

-- Puts the servers that `role` may use into this backend's Python, secrets included. It returns nothing and Python
-- looks servers up by the role that is current, so calling it for another role gains nothing.
CREATE FUNCTION llm._connect(role name) RETURNS void
LANGUAGE plpython3u VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
from pg_bridge.hosts import plpython
plpython.connect(plpy, role)
$$;

CREATE FUNCTION llm._map(query text, columns text[], prompt text, options text)
RETURNS TABLE (row_id bigint, input jsonb, output text, error text)
LANGUAGE plpython3u VOLATILE AS $$
from pg_bridge.hosts import plpython
return plpython.map_rows(plpy, query, columns, prompt, options)
$$;

CREATE FUNCTION llm._complete(prompt text, input text, options text) RETURNS TABLE (output text, error text, fault text)
LANGUAGE plpython3u VOLATILE AS $$
from pg_bridge.hosts import plpython
return plpython.complete(plpy, prompt, input, options)
$$;

CREATE FUNCTION llm._session() RETURNS TABLE (version text, last_run json)
LANGUAGE plpython3u VOLATILE AS $$
from pg_bridge.hosts import plpython
return plpython.session_state()
$$;

-- The functions that people call: the same on both hosts, over the host's own _map, _complete and _session.

CREATE FUNCTION llm._checked(prompt text) RETURNS text
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF prompt IS NULL THEN
        RAISE EXCEPTION 'the prompt is NULL'
            USING ERRCODE = 'null_value_not_allowed',
                  HINT = 'Pass the question as text; {column} names a column of the rows.';
    END IF;
    RETURN prompt;
END $$;

CREATE FUNCTION llm.map(
    query         text,
    prompt        text,
    server        text             DEFAULT 'vllm',
    max_tokens    integer          DEFAULT 128,
    temperature   double precision DEFAULT 0,
    system_prompt text             DEFAULT NULL,
    choices       text[]           DEFAULT NULL,
    reorder       text             DEFAULT 'rows and columns',
    dedup         boolean          DEFAULT true,
    on_error      text             DEFAULT 'fail',
    window_rows   integer          DEFAULT NULL
) RETURNS TABLE (row_id bigint, input jsonb, output text, error text)
LANGUAGE sql VOLATILE AS $$
    -- The inner call stands in a select list, where PostgreSQL streams its rows. A row without row_id is a fault.
    SELECT m.row_id, m.input, m.output, CASE WHEN m.row_id IS NULL THEN llm._raise(m.error) ELSE m.error END
    FROM (SELECT (llm._map(q.query, llm._columns(q.query), llm._checked(prompt), pg_catalog.json_build_object(
              'server', server, 'max_tokens', max_tokens, 'temperature', temperature::text, 'system_prompt', system_prompt,
              'choices', choices, 'reorder', reorder, 'dedup', dedup, 'on_error', on_error,
              'window_rows', window_rows)::text)).*
          FROM (SELECT pg_catalog.regexp_replace($1, '[;\s]+$', '')) AS q (query)) AS m
$$;
COMMENT ON FUNCTION llm.map IS 'asks a prompt about each row of a query; one row back per row, as answers arrive';

CREATE FUNCTION llm._row(input json) RETURNS text
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF pg_catalog.json_typeof(input) <> 'object' THEN
        RAISE EXCEPTION 'the input is neither a row nor a JSON object'
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Pass a whole row (the table''s alias) or jsonb_build_object(''column'', value, …).';
    END IF;
    RETURN input;
END $$;

-- One question about one row; `options` are those of pg_bridge.options.Call.
CREATE FUNCTION llm._ask(prompt text, input json, options json) RETURNS text
LANGUAGE sql VOLATILE AS $$
    SELECT CASE WHEN c.fault IS NULL THEN c.output ELSE llm._raise(c.fault) END
    FROM llm._complete(llm._checked(prompt), llm._row(input), options::text) AS c
$$;

-- STABLE: they change nothing, and within a statement the same question about the same row has one answer. So views are
-- pulled up, columns that nobody reads are not asked for, and quals go where they meet few rows. COST: some 250 times
-- that of a page from disk, so that all else comes first.

CREATE FUNCTION llm.complete(
    prompt        text,
    input         anyelement,
    server        text             DEFAULT 'vllm',
    max_tokens    integer          DEFAULT 128,
    temperature   double precision DEFAULT 0,
    system_prompt text             DEFAULT NULL,
    choices       text[]           DEFAULT NULL,
    on_error      text             DEFAULT 'fail',
    reorder       text             DEFAULT 'rows and columns',
    dedup         boolean          DEFAULT true,
    window_rows   integer          DEFAULT NULL
) RETURNS text
LANGUAGE sql STABLE COST 100000 AS $$
    SELECT llm._ask(prompt, pg_catalog.to_json(input), pg_catalog.json_build_object(
        'server', server, 'max_tokens', max_tokens, 'temperature', temperature::text, 'system_prompt', system_prompt,
        'choices', choices, 'on_error', on_error,
        'reorder', reorder, 'dedup', dedup, 'window_rows', window_rows))
$$;
COMMENT ON FUNCTION llm.complete(text, anyelement, text, integer, double precision, text, text[], text, text, boolean, integer) IS
    'asks a prompt about one row or jsonb object';

CREATE FUNCTION llm.complete(
    prompt        text,
    server        text             DEFAULT 'vllm',
    max_tokens    integer          DEFAULT 128,
    temperature   double precision DEFAULT 0,
    system_prompt text             DEFAULT NULL,
    choices       text[]           DEFAULT NULL,
    on_error      text             DEFAULT 'fail'
) RETURNS text
LANGUAGE sql STABLE COST 100000 AS $$
    SELECT llm._ask(prompt, '{}', pg_catalog.json_build_object(
        'server', server, 'max_tokens', max_tokens, 'temperature', temperature::text, 'system_prompt', system_prompt,
        'choices', choices, 'on_error', on_error))
$$;
COMMENT ON FUNCTION llm.complete(text, text, integer, double precision, text, text[], text) IS
    'asks a prompt that needs no row';

CREATE FUNCTION llm.is_true(
    prompt        text,
    input         anyelement,
    server        text             DEFAULT 'vllm',
    max_tokens    integer          DEFAULT 128,
    temperature   double precision DEFAULT 0,
    system_prompt text             DEFAULT NULL,
    on_error      text             DEFAULT 'fail',
    reorder       text             DEFAULT 'rows and columns',
    dedup         boolean          DEFAULT true,
    window_rows   integer          DEFAULT NULL
) RETURNS boolean
LANGUAGE sql STABLE COST 100000 AS $$
    SELECT llm._ask(prompt, pg_catalog.to_json(input), pg_catalog.json_build_object(
        'kind', 'boolean', 'server', server, 'max_tokens', max_tokens, 'temperature', temperature::text,
        'system_prompt', system_prompt, 'on_error', on_error,
        'reorder', reorder, 'dedup', dedup, 'window_rows', window_rows))::boolean
$$;
COMMENT ON FUNCTION llm.is_true IS 'asks a yes/no question about one row or jsonb object';

CREATE FUNCTION llm.classify(
    prompt        text,
    input         anyelement,
    labels        text[],
    server        text             DEFAULT 'vllm',
    max_tokens    integer          DEFAULT 128,
    temperature   double precision DEFAULT 0,
    system_prompt text             DEFAULT NULL,
    on_error      text             DEFAULT 'fail',
    reorder       text             DEFAULT 'rows and columns',
    dedup         boolean          DEFAULT true,
    window_rows   integer          DEFAULT NULL
) RETURNS text
LANGUAGE sql STABLE COST 100000 AS $$
    SELECT llm._ask(prompt, pg_catalog.to_json(input), pg_catalog.json_build_object(
        'kind', 'label', 'choices', labels, 'server', server, 'max_tokens', max_tokens,
        'temperature', temperature::text, 'system_prompt', system_prompt, 'on_error', on_error,
        'reorder', reorder, 'dedup', dedup, 'window_rows', window_rows))
$$;
COMMENT ON FUNCTION llm.classify IS 'asks for one of some labels for one row or jsonb object';

CREATE FUNCTION llm.score(
    prompt        text,
    input         anyelement,
    server        text             DEFAULT 'vllm',
    max_tokens    integer          DEFAULT 128,
    temperature   double precision DEFAULT 0,
    system_prompt text             DEFAULT NULL,
    on_error      text             DEFAULT 'fail',
    reorder       text             DEFAULT 'rows and columns',
    dedup         boolean          DEFAULT true,
    window_rows   integer          DEFAULT NULL
) RETURNS double precision
LANGUAGE sql STABLE COST 100000 AS $$
    SELECT llm._ask(prompt, pg_catalog.to_json(input), pg_catalog.json_build_object(
        'kind', 'number', 'server', server, 'max_tokens', max_tokens, 'temperature', temperature::text,
        'system_prompt', system_prompt, 'on_error', on_error,
        'reorder', reorder, 'dedup', dedup, 'window_rows', window_rows))::double precision
$$;
COMMENT ON FUNCTION llm.score IS 'asks for a number about one row or jsonb object';

CREATE FUNCTION llm.extract(
    prompt        text,
    input         anyelement,
    schema        jsonb,
    server        text             DEFAULT 'vllm',
    max_tokens    integer          DEFAULT 1024,
    temperature   double precision DEFAULT 0,
    system_prompt text             DEFAULT NULL,
    on_error      text             DEFAULT 'fail',
    reorder       text             DEFAULT 'rows and columns',
    dedup         boolean          DEFAULT true,
    window_rows   integer          DEFAULT NULL
) RETURNS jsonb
LANGUAGE sql STABLE COST 100000 AS $$
    SELECT llm._ask(prompt, pg_catalog.to_json(input), pg_catalog.json_build_object(
        'kind', 'json', 'schema', schema, 'server', server, 'max_tokens', max_tokens,
        'temperature', temperature::text, 'system_prompt', system_prompt, 'on_error', on_error,
        'reorder', reorder, 'dedup', dedup, 'window_rows', window_rows))::jsonb
$$;
COMMENT ON FUNCTION llm.extract IS 'asks for JSON of a schema about one row or jsonb object';

CREATE FUNCTION llm.last_run(
    OUT rows              bigint,
    OUT unique_prompts    bigint,
    OUT requests          bigint,
    OUT retries           bigint,
    OUT prompt_tokens     bigint,
    OUT cached_tokens     bigint,
    OUT completion_tokens bigint,
    OUT prefix_hit_rate   double precision,
    OUT read_s            double precision,
    OUT plan_s            double precision,
    OUT wait_s            double precision,
    OUT return_s          double precision
) LANGUAGE sql VOLATILE AS $$
    SELECT r.* FROM llm._session() AS s,
         pg_catalog.json_to_record(s.last_run) AS r (
             rows bigint, unique_prompts bigint, requests bigint, retries bigint, prompt_tokens bigint,
             cached_tokens bigint, completion_tokens bigint, prefix_hit_rate double precision,
             read_s double precision, plan_s double precision, wait_s double precision, return_s double precision)
$$;
COMMENT ON FUNCTION llm.last_run IS 'what this session''s latest run did; token counts are the engine''s own, NULL where it gives none';

CREATE FUNCTION llm.version() RETURNS text
LANGUAGE sql VOLATILE AS $$ SELECT s.version FROM llm._session() AS s $$;
COMMENT ON FUNCTION llm.version IS 'the version of the Python package that this backend imported';

-- Batches: which functions the native module gathers calls of, and who answers them. The PL/Python host only.

CREATE TABLE llm.batch_function (
    function regprocedure PRIMARY KEY,
    batch    regprocedure NOT NULL,
    report   regprocedure,
    is_own   boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE llm.batch_function IS 'functions whose calls are answered in batches; see llm.register_batch';
GRANT SELECT ON llm.batch_function TO PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('llm.batch_function', 'WHERE NOT is_own');

CREATE FUNCTION llm.register_batch(function regprocedure, batch regprocedure, report regprocedure DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    called pg_proc := (SELECT p FROM pg_proc AS p WHERE p.oid = function);
    answering pg_proc := (SELECT p FROM pg_proc AS p WHERE p.oid = batch);
    reporting pg_proc := (SELECT p FROM pg_proc AS p WHERE p.oid = report);
    wanted oid[] := ARRAY['bigint'::regtype::oid, 'integer'::regtype::oid]
                    || array_fill('json[]'::regtype::oid, ARRAY[called.pronargs::integer]);
    returned oid := (SELECT t.typarray FROM pg_type AS t WHERE t.oid = called.prorettype);
BEGIN
    IF called.proretset OR called.prokind <> 'f' OR called.provariadic <> 0 OR returned = 0 THEN
        RAISE EXCEPTION 'calls of % cannot be answered in batches', function
            USING ERRCODE = 'invalid_function_definition',
                  HINT = 'It must be a plain function with a fixed number of arguments that returns one value, of a type that has arrays.';
    END IF;
    -- An oidvector counts from 0, so it equals no array as it is.
    IF ARRAY(SELECT unnest(answering.proargtypes)) <> wanted OR answering.prorettype <> returned OR answering.proretset THEN
        RAISE EXCEPTION 'batch function % does not fit %', batch, function
            USING ERRCODE = 'invalid_function_definition',
                  HINT = format('It must take (%s) and return %s.',
                                (SELECT string_agg(format_type(w, NULL), ', ') FROM unnest(wanted) AS w),
                                format_type(returned, NULL));
    END IF;
    IF report IS NOT NULL AND ARRAY(SELECT unnest(reporting.proargtypes)) <> wanted[1:2] OR reporting.prorettype <> 'text[]'::regtype THEN
        RAISE EXCEPTION 'report function % is not one', report
            USING ERRCODE = 'invalid_function_definition', HINT = 'It must take (bigint, integer) and return text[].';
    END IF;
    INSERT INTO llm.batch_function AS f VALUES (function, batch, report)
    ON CONFLICT ON CONSTRAINT batch_function_pkey DO UPDATE SET batch = excluded.batch, report = excluded.report;
END $$;
COMMENT ON FUNCTION llm.register_batch IS
    'lets a batch function answer many calls of a function at once: (bigint, integer, json[] an argument) returns result[]';
REVOKE ALL ON FUNCTION llm.register_batch FROM PUBLIC;

CREATE FUNCTION llm.unregister_batch(function regprocedure) RETURNS boolean
LANGUAGE sql VOLATILE AS $$
    WITH gone AS (DELETE FROM llm.batch_function AS f WHERE f.function = $1 RETURNING 1) SELECT EXISTS (SELECT FROM gone)
$$;
COMMENT ON FUNCTION llm.unregister_batch IS 'takes back llm.register_batch; false if there was nothing to take back';
REVOKE ALL ON FUNCTION llm.unregister_batch FROM PUBLIC;

-- The answers to questions about rows, in their order; `names` and `options` are those that differ from call to call.
CREATE FUNCTION llm._batch(
    statement bigint, node integer, prompt json[], input json[], fixed json, names text[], options json[]
) RETURNS TABLE (answers text[], fault text)
LANGUAGE plpython3u VOLATILE AS $$
from pg_bridge.hosts import plpython
return plpython.batch(plpy, statement, node, prompt, input, fixed, names, options)
$$;

CREATE FUNCTION llm._answers(
    statement bigint, node integer, prompt json[], input json[], fixed json, names text[], options json[]
) RETURNS text[]
LANGUAGE sql VOLATILE AS $$
    SELECT CASE WHEN b.fault IS NULL THEN b.answers ELSE ARRAY[llm._raise(b.fault)] END
    FROM llm._batch($1, $2, $3, $4, $5, $6, $7) AS b
$$;

CREATE FUNCTION llm._report(statement bigint, node integer) RETURNS text[]
LANGUAGE plpython3u VOLATILE AS $$
from pg_bridge.hosts import plpython
return plpython.report(statement, node)
$$;

CREATE FUNCTION llm._complete_batch(
    statement bigint, node integer, prompt json[], input json[], server json[], max_tokens json[], temperature json[],
    system_prompt json[], choices json[], on_error json[],
    reorder json[], dedup json[], window_rows json[]
) RETURNS text[]
LANGUAGE sql VOLATILE AS $$
    SELECT llm._answers(statement, node, prompt, input, '{}',
                        '{server,max_tokens,temperature,system_prompt,choices,on_error,reorder,dedup,window_rows}',
                        ARRAY[server, max_tokens, temperature, system_prompt, choices, on_error,
                              reorder, dedup, window_rows])
$$;

CREATE FUNCTION llm._complete_batch(
    statement bigint, node integer, prompt json[], server json[], max_tokens json[], temperature json[],
    system_prompt json[], choices json[], on_error json[]
) RETURNS text[]
LANGUAGE sql VOLATILE AS $$
    SELECT llm._answers(statement, node, prompt,
                        pg_catalog.array_fill('{}'::json, ARRAY[pg_catalog.cardinality(prompt)]), '{}',
                        '{server,max_tokens,temperature,system_prompt,choices,on_error}',
                        ARRAY[server, max_tokens, temperature, system_prompt, choices, on_error])
$$;

CREATE FUNCTION llm._is_true_batch(
    statement bigint, node integer, prompt json[], input json[], server json[], max_tokens json[], temperature json[],
    system_prompt json[], on_error json[],
    reorder json[], dedup json[], window_rows json[]
) RETURNS boolean[]
LANGUAGE sql VOLATILE AS $$
    SELECT llm._answers(statement, node, prompt, input, '{"kind": "boolean"}',
                        '{server,max_tokens,temperature,system_prompt,on_error,reorder,dedup,window_rows}',
                        ARRAY[server, max_tokens, temperature, system_prompt, on_error,
                              reorder, dedup, window_rows])::boolean[]
$$;

CREATE FUNCTION llm._classify_batch(
    statement bigint, node integer, prompt json[], input json[], labels json[], server json[], max_tokens json[],
    temperature json[], system_prompt json[], on_error json[],
    reorder json[], dedup json[], window_rows json[]
) RETURNS text[]
LANGUAGE sql VOLATILE AS $$
    SELECT llm._answers(statement, node, prompt, input, '{"kind": "label"}',
                        '{choices,server,max_tokens,temperature,system_prompt,on_error,reorder,dedup,window_rows}',
                        ARRAY[labels, server, max_tokens, temperature, system_prompt, on_error,
                              reorder, dedup, window_rows])
$$;

CREATE FUNCTION llm._score_batch(
    statement bigint, node integer, prompt json[], input json[], server json[], max_tokens json[], temperature json[],
    system_prompt json[], on_error json[],
    reorder json[], dedup json[], window_rows json[]
) RETURNS double precision[]
LANGUAGE sql VOLATILE AS $$
    SELECT llm._answers(statement, node, prompt, input, '{"kind": "number"}',
                        '{server,max_tokens,temperature,system_prompt,on_error,reorder,dedup,window_rows}',
                        ARRAY[server, max_tokens, temperature, system_prompt, on_error,
                              reorder, dedup, window_rows])::double precision[]
$$;

CREATE FUNCTION llm._extract_batch(
    statement bigint, node integer, prompt json[], input json[], schema json[], server json[], max_tokens json[],
    temperature json[], system_prompt json[], on_error json[],
    reorder json[], dedup json[], window_rows json[]
) RETURNS jsonb[]
LANGUAGE sql VOLATILE AS $$
    SELECT llm._answers(statement, node, prompt, input, '{"kind": "json"}',
                        '{schema,server,max_tokens,temperature,system_prompt,on_error,reorder,dedup,window_rows}',
                        ARRAY[schema, server, max_tokens, temperature, system_prompt, on_error,
                              reorder, dedup, window_rows])::jsonb[]
$$;

DO $$
DECLARE
    own record;
BEGIN
    FOR own IN
        SELECT f.oid::regprocedure AS function, b.oid::regprocedure AS batch
        FROM pg_catalog.pg_proc AS f
             JOIN pg_catalog.pg_proc AS b ON b.pronamespace = f.pronamespace AND b.proname = '_' || f.proname || '_batch'
                                             AND b.pronargs = f.pronargs + 2
        WHERE f.pronamespace = 'llm'::regnamespace
    LOOP
        PERFORM llm.register_batch(own.function, own.batch, 'llm._report(bigint, integer)');
    END LOOP;
    UPDATE llm.batch_function SET is_own = true;
END $$;

-- Foreign tables on PL/Python: the functions that the native module calls, and the handler, where the module is.
--
-- Each takes one JSON object and returns its error as its last output, {SQLSTATE, message, detail, hint}. They run as the
-- reader of the source, whoever started the statement, so names are not looked up where that one says; and texts are
-- printed in one way, whatever his settings.

CREATE FUNCTION llm._foreign_size(
    request text, OUT rows double precision, OUT width integer, OUT cost double precision, OUT exact boolean[],
    OUT sortable text[], OUT fault text[]
) LANGUAGE plpython3u VOLATILE
SET search_path = pg_catalog, "$user", public, pg_temp
SET datestyle = iso SET intervalstyle = iso_8601 SET extra_float_digits = 1 SET bytea_output = hex AS $$
from pg_bridge.hosts import plpython_foreign
return plpython_foreign.size(plpy, request)
$$;

CREATE FUNCTION llm._foreign_explain(request text, OUT lines text[], OUT fault text[])
LANGUAGE plpython3u VOLATILE
SET search_path = pg_catalog, "$user", public, pg_temp
SET datestyle = iso SET intervalstyle = iso_8601 SET extra_float_digits = 1 SET bytea_output = hex AS $$
from pg_bridge.hosts import plpython_foreign
return plpython_foreign.explain(plpy, request)
$$;

-- STABLE: what it reads, it reads in the snapshot of the statement that scans.
CREATE FUNCTION llm._foreign_scan(request text) RETURNS TABLE (rows integer, cells text[], fault text[])
LANGUAGE plpython3u STABLE
SET search_path = pg_catalog, "$user", public, pg_temp
SET datestyle = iso SET intervalstyle = iso_8601 SET extra_float_digits = 1 SET bytea_output = hex AS $$
from pg_bridge.hosts import plpython_foreign
return plpython_foreign.scan(plpy, request)
$$;

-- The commands of IMPORT FOREIGN SCHEMA, which are then read where this session's own search_path says.
CREATE FUNCTION llm._foreign_import(request text, OUT commands text[], OUT fault text[])
LANGUAGE plpython3u VOLATILE AS $$
from pg_bridge.hosts import plpython_foreign
return plpython_foreign.import_schema(plpy, request)
$$;

CREATE FUNCTION llm.enable_foreign_tables() RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET client_min_messages = error AS $$
DECLARE
    made regprocedure;
BEGIN
    CREATE OR REPLACE FUNCTION llm._foreign_handler() RETURNS fdw_handler
    LANGUAGE c STRICT AS 'pg_bridge', 'pg_bridge_foreign_handler';
    CREATE OR REPLACE FUNCTION llm._source_columns(query text) RETURNS text[]
    LANGUAGE c STABLE STRICT AS 'pg_bridge', 'pg_bridge_source_columns';
    CREATE OR REPLACE FUNCTION llm._source_rows(cursor text, wanted integer, query text, parameters text[]) RETURNS text[]
    LANGUAGE c STABLE AS 'pg_bridge', 'pg_bridge_source_rows';
    FOREACH made IN ARRAY ARRAY['llm._foreign_handler()', 'llm._source_columns(text)',
                                'llm._source_rows(text, integer, text, text[])']::regprocedure[]
    LOOP
        IF NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_proc'::regclass AND objid = made AND deptype = 'e') THEN
            EXECUTE format('ALTER EXTENSION pg_bridge ADD FUNCTION %s', made);
        END IF;
    END LOOP;
    ALTER FOREIGN DATA WRAPPER pg_bridge HANDLER llm._foreign_handler;
    RETURN true;
EXCEPTION WHEN undefined_file OR undefined_function THEN
    RETURN false;
END $$;
COMMENT ON FUNCTION llm.enable_foreign_tables IS
    'lets foreign tables be made, if the server has the native module by now; false if it has not';
REVOKE ALL ON FUNCTION llm.enable_foreign_tables FROM PUBLIC;

SELECT llm.enable_foreign_tables();
