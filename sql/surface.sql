-- The functions that people call: the same on both hosts, over the host's own _map, _complete and _session.
--
-- Their options stand in pg_bridge/options, and `pg-bridge install` writes them where a function's name stands between two
-- @: as `arguments` with types and defaults, as `values` for json_build_object, as `types` alone.

CREATE FUNCTION llm._checked(prompt text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
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
    @map.arguments@
) RETURNS TABLE (row_id bigint, input jsonb, output text, error text)
LANGUAGE sql VOLATILE
-- A body that is parsed here and now: its names mean what they mean while the extension is made, and the caller's path
-- is left as it is for his query. The inner call stands in a select list, where PostgreSQL streams its rows. The native
-- module, where it is loaded, shows by pg_bridge.every_row whether PostgreSQL runs this body to its end: it does so for a
-- function in FROM, and not for one in a select list.
BEGIN ATOMIC
    SELECT m.row_id, m.input, m.output, CASE WHEN m.fault IS NULL THEN m.error ELSE llm._raise(m.fault) END
    FROM (SELECT (llm._map(o.rows, o.columns, llm._checked(prompt), pg_catalog.json_build_object(
              @map.values@)::pg_catalog.text,
              pg_catalog.current_setting('pg_bridge.every_row', true) IS NOT DISTINCT FROM 'on')).*
          FROM llm._open(pg_catalog.regexp_replace(map.query, '[;[:space:]]+$', '')) AS o) AS m;
END;
COMMENT ON FUNCTION llm.map(text, text, @map.types@) IS
    'asks a prompt about each row of a query; one row back per row, as answers arrive';

-- Several questions in one pass. Their answers are an object, and so are the reasons of those that have none.
CREATE FUNCTION llm.map(
    query         text,
    prompts       jsonb,
    @map.arguments@
) RETURNS TABLE (row_id bigint, input jsonb, outputs jsonb, errors jsonb)
LANGUAGE sql VOLATILE
BEGIN ATOMIC  -- as in the other
    SELECT m.row_id, m.input, m.output::pg_catalog.jsonb,
           CASE WHEN m.fault IS NULL THEN m.error ELSE llm._raise(m.fault) END::pg_catalog.jsonb
    FROM (SELECT (llm._map(o.rows, o.columns, llm._checked(prompts::pg_catalog.text), pg_catalog.json_build_object(
              'prompts', prompts, @map.values@)::pg_catalog.text,
              pg_catalog.current_setting('pg_bridge.every_row', true) IS NOT DISTINCT FROM 'on')).*
          FROM llm._open(pg_catalog.regexp_replace(map.query, '[;[:space:]]+$', '')) AS o) AS m;
END;
COMMENT ON FUNCTION llm.map(text, jsonb, @map.types@) IS
    'asks several questions about each row of a query, each of a type of its own; one row back per row';

CREATE FUNCTION llm.estimate(
    query         text,
    prompt        text,
    @map.arguments@
) RETURNS TABLE (
    rows bigint, unique_prompts bigint, already_answered bigint, requests bigint, prompt_tokens bigint,
    cached_tokens bigint, completion_tokens bigint, seconds double precision, cost double precision, counted_by text,
    answers_by text
)
LANGUAGE sql VOLATILE
BEGIN ATOMIC  -- as in llm.map
    SELECT r.*
    FROM (SELECT (llm._estimate(o.rows, o.columns, llm._checked(prompt), pg_catalog.json_build_object(
              @map.values@)::pg_catalog.text)).*
          FROM llm._open(pg_catalog.regexp_replace(estimate.query, '[;[:space:]]+$', '')) AS o) AS e,
         pg_catalog.json_to_record(
             CASE WHEN e.fault IS NULL THEN e.found ELSE llm._raise(e.fault) END::pg_catalog.json
         ) AS r (
             rows pg_catalog.int8, unique_prompts pg_catalog.int8, already_answered pg_catalog.int8,
             requests pg_catalog.int8, prompt_tokens pg_catalog.int8, cached_tokens pg_catalog.int8,
             completion_tokens pg_catalog.int8, seconds pg_catalog.float8, cost pg_catalog.float8,
             counted_by pg_catalog.text, answers_by pg_catalog.text);
END;
COMMENT ON FUNCTION llm.estimate(text, text, @map.types@) IS 'what llm.map would ask and take; no model is asked anything';

CREATE FUNCTION llm.estimate(
    query         text,
    prompts       jsonb,
    @map.arguments@
) RETURNS TABLE (
    rows bigint, unique_prompts bigint, already_answered bigint, requests bigint, prompt_tokens bigint,
    cached_tokens bigint, completion_tokens bigint, seconds double precision, cost double precision, counted_by text,
    answers_by text
)
LANGUAGE sql VOLATILE
BEGIN ATOMIC  -- as in llm.map
    SELECT r.*
    FROM (SELECT (llm._estimate(o.rows, o.columns, llm._checked(prompts::pg_catalog.text), pg_catalog.json_build_object(
              'prompts', prompts, @map.values@)::pg_catalog.text)).*
          FROM llm._open(pg_catalog.regexp_replace(estimate.query, '[;[:space:]]+$', '')) AS o) AS e,
         pg_catalog.json_to_record(
             CASE WHEN e.fault IS NULL THEN e.found ELSE llm._raise(e.fault) END::pg_catalog.json
         ) AS r (
             rows pg_catalog.int8, unique_prompts pg_catalog.int8, already_answered pg_catalog.int8,
             requests pg_catalog.int8, prompt_tokens pg_catalog.int8, cached_tokens pg_catalog.int8,
             completion_tokens pg_catalog.int8, seconds pg_catalog.float8, cost pg_catalog.float8,
             counted_by pg_catalog.text, answers_by pg_catalog.text);
END;
COMMENT ON FUNCTION llm.estimate(text, jsonb, @map.types@) IS 'the same of several questions in one pass';

CREATE FUNCTION llm.rank(
    query         text,
    criterion     text,
    k             integer,
    @rank.arguments@
) RETURNS TABLE (rank bigint, row_id bigint, input jsonb, ties bigint, agreement double precision)
LANGUAGE sql VOLATILE
BEGIN ATOMIC  -- as in llm.map
    SELECT r.rank, f.row_id, f.input, r.ties, r.agreement
    FROM (SELECT (llm._rank(o.rows, o.columns, llm._checked(criterion), k, pg_catalog.json_build_object(
              @rank.values@)::pg_catalog.text, false)).*
          FROM llm._open(pg_catalog.regexp_replace(rank.query, '[;[:space:]]+$', '')) AS o) AS f,
         pg_catalog.json_to_record(
             CASE WHEN f.fault IS NULL THEN f.found ELSE llm._raise(f.fault) END::pg_catalog.json
         ) AS r (rank pg_catalog.int8, ties pg_catalog.int8, agreement pg_catalog.float8);
END;
COMMENT ON FUNCTION llm.rank IS 'the k rows of a query that fit a criterion best, by comparing them in lists';

CREATE FUNCTION llm.rank_estimate(
    query         text,
    criterion     text,
    k             integer,
    @rank.arguments@
) RETURNS TABLE (
    rows bigint, unique_rows bigint, list_size integer, questions bigint, rounds bigint, prompt_tokens bigint
)
LANGUAGE sql VOLATILE
BEGIN ATOMIC  -- as in llm.map
    SELECT r.*
    FROM (SELECT (llm._rank(o.rows, o.columns, llm._checked(criterion), k, pg_catalog.json_build_object(
              @rank.values@)::pg_catalog.text, true)).*
          FROM llm._open(pg_catalog.regexp_replace(rank_estimate.query, '[;[:space:]]+$', '')) AS o) AS f,
         pg_catalog.json_to_record(
             CASE WHEN f.fault IS NULL THEN f.found ELSE llm._raise(f.fault) END::pg_catalog.json
         ) AS r (
             rows pg_catalog.int8, unique_rows pg_catalog.int8, list_size pg_catalog.int4, questions pg_catalog.int8,
             rounds pg_catalog.int8, prompt_tokens pg_catalog.int8);
END;
COMMENT ON FUNCTION llm.rank_estimate IS 'what llm.rank would ask; no model is asked anything';

-- The model may call SQL functions of the caller's before it answers. `tools` go on as numbers: their names would be read again
-- by a path.
CREATE FUNCTION llm.map_with_tools(
    query         text,
    prompt        text,
    tools         regprocedure[],
    @map_with_tools.arguments@
) RETURNS TABLE (row_id bigint, input jsonb, output text, error text, calls jsonb)
LANGUAGE sql VOLATILE
BEGIN ATOMIC  -- as in llm.map
    SELECT m.row_id, m.input, m.output, CASE WHEN m.fault IS NULL THEN m.error ELSE llm._raise(m.fault) END, m.calls
    FROM (SELECT (llm._map_with_tools(o.rows, o.columns, llm._checked(prompt), map_with_tools.tools::pg_catalog.oid[],
              pg_catalog.json_build_object(
              @map_with_tools.values@)::pg_catalog.text,
              pg_catalog.current_setting('pg_bridge.every_row', true) IS NOT DISTINCT FROM 'on')).*
          FROM llm._open(pg_catalog.regexp_replace(map_with_tools.query, '[;[:space:]]+$', '')) AS o) AS m;
END;
COMMENT ON FUNCTION llm.map_with_tools IS
    'asks a prompt about each row of a query; before it answers, the model may have SQL functions called';

-- What is told of the functions that a model may call, and how each is called: by its full name, with all of its arguments, so
-- that no other function can be meant. $1 is a JSON object of arguments (a1, a2, …), $2 the most characters of a result.
-- `refusal` says why one is not called at all.
CREATE FUNCTION llm._tools(tools oid[]) RETURNS TABLE (
    name text, refusal text, comment text, returns text, arguments json, call text
)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(p.proname::text, t.function::text),
           CASE
               WHEN p.oid IS NULL THEN 'there is no such function'
               WHEN NOT has_function_privilege(p.oid, 'EXECUTE') THEN 'permission denied'
               WHEN EXISTS (
                   SELECT FROM pg_depend AS d JOIN pg_extension AS e ON e.oid = d.refobjid
                   WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
                     AND d.refclassid = 'pg_extension'::regclass AND e.extname IN ('pg_bridge', 'pg_bridge_multicorn')
               ) THEN 'it asks a model itself, or serves one that does'
               WHEN p.prokind <> 'f' THEN 'it is no plain function'
               WHEN p.provolatile = 'v' THEN 'it is VOLATILE'
               WHEN result.typtype = 'p' AND (p.prorettype <> 'record'::regtype OR p.proretset AND p.proallargtypes IS NULL)
                   THEN 'it returns ' || format_type(p.prorettype, NULL)
               WHEN a.of_no_type THEN 'one of its arguments is of no single type'
           END,
           coalesce(obj_description(p.oid, 'pg_proc'), ''),
           pg_get_function_result(p.oid),
           coalesce(a.told, '[]'),
           format(
               CASE WHEN p.proretset
                   THEN 'SELECT pg_catalog."left"(coalesce(pg_catalog.json_agg(pg_catalog.to_json(r.v)), ''[]'')::pg_catalog.text, $2) '
                        'FROM (SELECT %s(%s) AS v%s LIMIT $2) AS r'
                   ELSE 'SELECT pg_catalog."left"(pg_catalog.to_json(r.v)::pg_catalog.text, $2) '
                        'FROM (SELECT %s(%s) AS v%s OFFSET 0) AS r'
               END,
               format('%I.%I', coalesce(n.nspname, ''), coalesce(p.proname, '')),
               a.passed,
               ' FROM pg_catalog.json_to_record($1) AS a (' || a.taken || ')')
    FROM unnest(tools) WITH ORDINALITY AS t (function, place)
    LEFT JOIN pg_proc AS p ON p.oid = t.function
    LEFT JOIN pg_namespace AS n ON n.oid = p.pronamespace
    LEFT JOIN pg_type AS result ON result.oid = p.prorettype
    CROSS JOIN LATERAL (
        SELECT bool_or(base.typtype = 'p') AS of_no_type,
               json_agg(json_build_object(
                   'name', coalesce(nullif(i.name, ''), 'argument ' || i.number),
                   'type', format_type(i.type, NULL),
                   'kind', CASE
                       WHEN element.typtype = 'c' OR element.oid IN ('json'::regtype, 'jsonb'::regtype) THEN 'json'
                       WHEN element.oid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype) THEN 'integer'
                       WHEN element.oid IN ('float4'::regtype, 'float8'::regtype, 'numeric'::regtype) THEN 'number'
                       WHEN element.oid = 'bool'::regtype THEN 'boolean'
                       ELSE 'string'
                   END,
                   'is_array', element.oid <> base.oid,
                   'labels', ARRAY(SELECT enumlabel FROM pg_enum WHERE enumtypid = element.oid ORDER BY enumsortorder),
                   'is_optional', i.usual IS NOT NULL) ORDER BY i.number) AS told,
               string_agg(
                   CASE WHEN i.mode = 'v' THEN 'VARIADIC ' ELSE '' END
                   || CASE WHEN i.usual IS NULL THEN 'a.a' || i.number
                      ELSE format('(CASE WHEN $1 OPERATOR(pg_catalog.->) %L IS NULL THEN (%s)::%s ELSE a.a%s END)',
                                  'a' || i.number, i.usual, format_type(i.type, -1), i.number) END,
                   ', ' ORDER BY i.number) AS passed,
               string_agg(format('a%s %s', i.number, format_type(i.type, -1)), ', ' ORDER BY i.number) AS taken
        FROM (
            SELECT row_number() OVER (ORDER BY g.place) AS number, g.type, g.mode, p.proargnames[g.place] AS name,
                   pg_get_function_arg_default(p.oid, g.place::int4) AS usual
            FROM unnest(coalesce(p.proallargtypes, p.proargtypes::oid[]), p.proargmodes::text[])
                 WITH ORDINALITY AS g (type, mode, place)
            WHERE coalesce(g.mode, 'i') IN ('i', 'b', 'v')
        ) AS i
        JOIN pg_type AS own ON own.oid = i.type
        CROSS JOIN LATERAL (  -- what a domain is of
            WITH RECURSIVE below AS (
                SELECT own.oid, own.typtype, own.typbasetype, own.typcategory, own.typelem
                UNION ALL
                SELECT y.oid, y.typtype, y.typbasetype, y.typcategory, y.typelem
                FROM below AS b JOIN pg_type AS y ON b.typtype = 'd' AND y.oid = b.typbasetype
            )
            SELECT * FROM below WHERE typtype <> 'd'
        ) AS base
        JOIN pg_type AS element ON element.oid = CASE WHEN base.typcategory = 'A' THEN base.typelem ELSE base.oid END
    ) AS a
    ORDER BY t.place
$$;

-- Makes a call that a model wants, with what llm._tools has given, as the caller. Nothing is written meanwhile, whatever the
-- function says of itself, and what it did to the session (settings, its role, temporary tables, notifications) is rolled back.
-- What goes wrong in it is told to the model: its message alone. But for a cancel, which is none of OTHERS, and what is no fault
-- of the call. It runs a function of the caller's and keeps his path.
CREATE FUNCTION llm._use_tool(call text, arguments json, most integer, OUT result text, OUT problem text)
LANGUAGE plpgsql VOLATILE SET transaction_read_only = on AS $$
DECLARE
    is_over pg_catalog.bool := false;
BEGIN
    EXECUTE call INTO result USING arguments, most;
    is_over := true;
    RAISE EXCEPTION 'what the call did is rolled back, what it returned is kept';
EXCEPTION WHEN assert_failure OR OTHERS THEN
    IF is_over THEN
        RETURN;
    END IF;
    IF SQLSTATE OPERATOR(pg_catalog.~) '^(40|53|57|58030|XX00[12])' THEN
        RAISE;
    END IF;
    problem := pg_catalog.concat('ERROR: ', SQLERRM);
END $$;

-- Prompts and models, compared where the answers are known. What llm.tune gives is a type, for its columns would have the
-- names of arguments.

CREATE FUNCTION llm.evaluate(
    query         text,
    candidates    jsonb,
    truth         text,
    @evaluate.arguments@
) RETURNS TABLE (
    name text, rows bigint, agree bigint, errors bigint, accuracy double precision, low double precision,
    high double precision, "precision" double precision, recall double precision, prompt_tokens double precision,
    completion_tokens double precision, cost double precision, seconds double precision
)
LANGUAGE sql VOLATILE
BEGIN ATOMIC  -- as in llm.map
    SELECT r.*
    FROM (SELECT (llm._try(o.rows, o.columns, llm._checked(candidates::pg_catalog.text), pg_catalog.json_build_object(
              'candidates', candidates, 'truth', truth, @evaluate.values@)::pg_catalog.text)).*
          FROM llm._open(pg_catalog.regexp_replace(evaluate.query, '[;[:space:]]+$', '')) AS o) AS f,
         pg_catalog.json_to_record(
             CASE WHEN f.fault IS NULL THEN f.found ELSE llm._raise(f.fault) END::pg_catalog.json
         ) AS r (
             name pg_catalog.text, rows pg_catalog.int8, agree pg_catalog.int8, errors pg_catalog.int8,
             accuracy pg_catalog.float8, low pg_catalog.float8, high pg_catalog.float8, "precision" pg_catalog.float8,
             recall pg_catalog.float8, prompt_tokens pg_catalog.float8, completion_tokens pg_catalog.float8,
             cost pg_catalog.float8, seconds pg_catalog.float8);
END;
COMMENT ON FUNCTION llm.evaluate IS 'how often each of some prompts, models and options agrees with answers that are known, and what it takes';

CREATE TYPE llm.candidate AS (
    candidate bigint, round bigint, parent bigint, prompt text, system_prompt text, learning_rows bigint,
    learning_accuracy double precision, held_out_rows bigint, accuracy double precision, low double precision,
    high double precision, chance double precision, chosen boolean, error text
);
COMMENT ON TYPE llm.candidate IS 'a prompt that llm.tune has tried, and how it did';

CREATE FUNCTION llm.tune(
    query         text,
    prompt        text,
    truth         text,
    @tune.arguments@
) RETURNS SETOF llm.candidate
LANGUAGE sql VOLATILE
BEGIN ATOMIC  -- as in llm.map
    SELECT r.*
    FROM (SELECT (llm._try(o.rows, o.columns, llm._checked(prompt), pg_catalog.json_build_object(
              'truth', truth, @tune.values@)::pg_catalog.text)).*
          FROM llm._open(pg_catalog.regexp_replace(tune.query, '[;[:space:]]+$', '')) AS o) AS f,
         pg_catalog.json_populate_record(
             NULL::llm.candidate, CASE WHEN f.fault IS NULL THEN f.found ELSE llm._raise(f.fault) END::pg_catalog.json
         ) AS r;
END;
COMMENT ON FUNCTION llm.tune IS 'looks for a prompt that agrees more often with answers that are known, and tells of all that it tried';

CREATE FUNCTION llm.tune_estimate(
    query         text,
    prompt        text,
    truth         text,
    @tune.arguments@
) RETURNS TABLE (
    rows bigint, learning_rows bigint, held_out_rows bigint, questions bigint, lessons bigint, prompt_tokens bigint
)
LANGUAGE sql VOLATILE
BEGIN ATOMIC  -- as in llm.map
    SELECT r.*
    FROM (SELECT (llm._try(o.rows, o.columns, llm._checked(prompt), pg_catalog.json_build_object(
              'truth', truth, 'estimate', true, @tune.values@)::pg_catalog.text)).*
          FROM llm._open(pg_catalog.regexp_replace(tune_estimate.query, '[;[:space:]]+$', '')) AS o) AS f,
         pg_catalog.json_to_record(
             CASE WHEN f.fault IS NULL THEN f.found ELSE llm._raise(f.fault) END::pg_catalog.json
         ) AS r (
             rows pg_catalog.int8, learning_rows pg_catalog.int8, held_out_rows pg_catalog.int8,
             questions pg_catalog.int8, lessons pg_catalog.int8, prompt_tokens pg_catalog.int8);
END;
COMMENT ON FUNCTION llm.tune_estimate IS 'what llm.tune would ask at most; no model is asked anything';

-- Answers for which not every row is asked: by a small model where a large one would say the same, or about a sample.

CREATE FUNCTION llm.cascade(
    query         text,
    prompt        text,
    @cascade.arguments@
) RETURNS TABLE (row_id bigint, input jsonb, output boolean, asked_of text, error text)
LANGUAGE sql VOLATILE
BEGIN ATOMIC  -- as in llm.map
    SELECT f.row_id, f.input, r.output OPERATOR(pg_catalog.=) 'yes', r.asked_of, r.error
    FROM (SELECT (llm._sample(o.rows, o.columns, llm._checked(prompt), 'cascade', pg_catalog.json_build_object(
              @cascade.values@)::pg_catalog.text)).*
          FROM llm._open(pg_catalog.regexp_replace(cascade.query, '[;[:space:]]+$', '')) AS o) AS f,
         pg_catalog.json_to_record(
             CASE WHEN f.fault IS NULL THEN f.found ELSE llm._raise(f.fault) END::pg_catalog.json
         ) AS r (output pg_catalog.text, asked_of pg_catalog.text, error pg_catalog.text);
END;
COMMENT ON FUNCTION llm.cascade IS
    'asks a yes or no about each row of a query, of a large model only where a small one is not right often enough';

CREATE FUNCTION llm.cascade_labels(
    query         text,
    prompt        text,
    labels        text[],
    @cascade_labels.arguments@
) RETURNS TABLE (row_id bigint, input jsonb, output text, asked_of text, error text)
LANGUAGE sql VOLATILE
BEGIN ATOMIC  -- as in llm.map
    SELECT f.row_id, f.input, r.output, r.asked_of, r.error
    FROM (SELECT (llm._sample(o.rows, o.columns, llm._checked(prompt), 'cascade_labels', pg_catalog.json_build_object(
              'choices', labels, @cascade_labels.values@)::pg_catalog.text)).*
          FROM llm._open(pg_catalog.regexp_replace(cascade_labels.query, '[;[:space:]]+$', '')) AS o) AS f,
         pg_catalog.json_to_record(
             CASE WHEN f.fault IS NULL THEN f.found ELSE llm._raise(f.fault) END::pg_catalog.json
         ) AS r (output pg_catalog.text, asked_of pg_catalog.text, error pg_catalog.text);
END;
COMMENT ON FUNCTION llm.cascade_labels IS
    'asks for one of some labels for each row of a query, of a large model only where a small one is not right often enough';

CREATE FUNCTION llm.share(
    query         text,
    prompt        text,
    @share.arguments@
) RETURNS TABLE (rows bigint, asked bigint, estimate double precision, at_least double precision, at_most double precision)
LANGUAGE sql VOLATILE
BEGIN ATOMIC  -- as in llm.map
    SELECT r.*
    FROM (SELECT (llm._sample(o.rows, o.columns, llm._checked(prompt), 'share', pg_catalog.json_build_object(
              @share.values@)::pg_catalog.text)).*
          FROM llm._open(pg_catalog.regexp_replace(share.query, '[;[:space:]]+$', '')) AS o) AS f,
         pg_catalog.json_to_record(
             CASE WHEN f.fault IS NULL THEN f.found ELSE llm._raise(f.fault) END::pg_catalog.json
         ) AS r (rows pg_catalog.int8, asked pg_catalog.int8, estimate pg_catalog.float8,
             at_least pg_catalog.float8, at_most pg_catalog.float8);
END;
COMMENT ON FUNCTION llm.share IS 'the share of a query''s rows for which the answer is yes, from as few of them as it takes';

CREATE FUNCTION llm.mean(
    query         text,
    prompt        text,
    @mean.arguments@
) RETURNS TABLE (rows bigint, asked bigint, estimate double precision, at_least double precision, at_most double precision)
LANGUAGE sql VOLATILE
BEGIN ATOMIC  -- as in llm.map
    SELECT r.*
    FROM (SELECT (llm._sample(o.rows, o.columns, llm._checked(prompt), 'mean', pg_catalog.json_build_object(
              @mean.values@)::pg_catalog.text)).*
          FROM llm._open(pg_catalog.regexp_replace(mean.query, '[;[:space:]]+$', '')) AS o) AS f,
         pg_catalog.json_to_record(
             CASE WHEN f.fault IS NULL THEN f.found ELSE llm._raise(f.fault) END::pg_catalog.json
         ) AS r (rows pg_catalog.int8, asked pg_catalog.int8, estimate pg_catalog.float8,
             at_least pg_catalog.float8, at_most pg_catalog.float8);
END;
COMMENT ON FUNCTION llm.mean IS 'the mean of a score of a query''s rows, from as few of them as it takes';

CREATE FUNCTION llm.last_cascade(
    OUT rows             bigint,
    OUT unique_rows      bigint,
    OUT proxy            text,
    OUT server           text,
    OUT proxy_questions  bigint,
    OUT server_questions bigint,
    OUT drawn            bigint,
    OUT proxy_rows       bigint,
    OUT no_up_to         double precision,
    OUT yes_from         double precision,
    OUT sure_from        double precision
) LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT r.* FROM llm._session() AS s, json_to_record(s.last_run -> 'cascade') AS r (
        rows bigint, unique_rows bigint, proxy text, server text, proxy_questions bigint, server_questions bigint,
        drawn bigint, proxy_rows bigint, no_up_to double precision, yes_from double precision,
        sure_from double precision)
$$;
COMMENT ON FUNCTION llm.last_cascade IS 'how this session''s latest run went, if that was a cascade';

CREATE FUNCTION llm.resolve(
    query         text,
    criterion     text,
    @resolve.arguments@
) RETURNS TABLE (row_id bigint, input jsonb, entity bigint, representative jsonb, agreement double precision)
LANGUAGE sql VOLATILE
BEGIN ATOMIC  -- as in llm.map
    SELECT f.row_id, f.input, r.entity, r.representative, r.agreement
    FROM (SELECT (llm._alike(o.rows, o.columns, llm._checked(criterion), NULL, pg_catalog.json_build_object(
              @resolve.values@)::pg_catalog.text, 'resolve')).*
          FROM llm._open(pg_catalog.regexp_replace(resolve.query, '[;[:space:]]+$', '')) AS o) AS f,
         pg_catalog.json_to_record(
             CASE WHEN f.fault IS NULL THEN f.found ELSE llm._raise(f.fault) END::pg_catalog.json
         ) AS r (entity pg_catalog.int8, representative pg_catalog.jsonb, agreement pg_catalog.float8);
END;
COMMENT ON FUNCTION llm.resolve IS 'which rows of a query mean the same by a criterion, by yes or no about pairs of them';

CREATE FUNCTION llm.clusters(
    query         text,
    criterion     text,
    k             integer,
    @clusters.arguments@
) RETURNS TABLE (row_id bigint, input jsonb, cluster integer, name text, distance double precision)
LANGUAGE sql VOLATILE
BEGIN ATOMIC  -- as in llm.map
    SELECT f.row_id, f.input, r.cluster, r.name, r.distance
    FROM (SELECT (llm._alike(o.rows, o.columns, llm._checked(criterion), k, pg_catalog.json_build_object(
              @clusters.values@)::pg_catalog.text, 'clusters')).*
          FROM llm._open(pg_catalog.regexp_replace(clusters.query, '[;[:space:]]+$', '')) AS o) AS f,
         pg_catalog.json_to_record(
             CASE WHEN f.fault IS NULL THEN f.found ELSE llm._raise(f.fault) END::pg_catalog.json
         ) AS r (cluster pg_catalog.int4, name pg_catalog.text, distance pg_catalog.float8);
END;
COMMENT ON FUNCTION llm.clusters IS 'puts the rows of a query into k clusters by their embeddings, and names each';

-- Several rows as one input. What takes arguments of any types must be C, and PostgreSQL's own is there on every host: it puts
-- what it is given side by side. The type says that this is not just any array (docs/decisions/0042).

CREATE TYPE llm.parts;
CREATE FUNCTION llm._parts_in(cstring) RETURNS llm.parts LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'json_in';
CREATE FUNCTION llm._parts_out(llm.parts) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'json_out';
CREATE FUNCTION llm._parts_receive(internal) RETURNS llm.parts LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'json_recv';
CREATE FUNCTION llm._parts_send(llm.parts) RETURNS bytea LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'json_send';
CREATE TYPE llm.parts (
    INPUT = llm._parts_in, OUTPUT = llm._parts_out, RECEIVE = llm._parts_receive, SEND = llm._parts_send, LIKE = json
);
COMMENT ON TYPE llm.parts IS 'rows and JSON objects side by side, as llm.row puts them';
-- Reading and writing a value asks for no right.
REVOKE ALL ON FUNCTION llm._parts_in, llm._parts_out, llm._parts_receive, llm._parts_send FROM PUBLIC;

CREATE FUNCTION llm.row(VARIADIC "any") RETURNS llm.parts LANGUAGE internal STABLE PARALLEL SAFE AS 'json_build_array';
COMMENT ON FUNCTION llm.row IS 'makes one input of rows and JSON objects: the columns of all of them';

-- Called for each row, by to_json: so it makes as little of them as can be told from other inputs, and leaves the rest to
-- pg_bridge/rows/cutting.py. It names the schema of what it calls, for a path would take longer than all of it.
CREATE FUNCTION llm._under_no_name(parts llm.parts) RETURNS json
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    RETURN pg_catalog.concat('{"":', parts, '}');
END $$;
CREATE CAST (llm.parts AS json) WITH FUNCTION llm._under_no_name AS ASSIGNMENT;

-- One question about one input; `options` are those of pg_bridge.options.Call.
CREATE FUNCTION llm._ask(prompt text, input json, options json) RETURNS text
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN c.fault IS NULL THEN c.output ELSE llm._raise(c.fault) END
    FROM llm._complete(llm._checked(prompt), input::text, options::text) AS c
    WHERE input IS NOT NULL OR options ->> 'on_null' IS DISTINCT FROM 'null'  -- else there is no row, and the function is NULL
$$;

-- STABLE: they change nothing, and within a statement the same question about the same row has one answer. So views are
-- pulled up, columns that nobody reads are not asked for, and quals go where they meet few rows. COST: some 250 times
-- that of a page from disk, so that all else comes first.
--
-- Each has two forms: a literal has no type yet, and is none that anyelement could stand for. PostgreSQL takes it for text,
-- as it does all that is text or nearly so (docs/decisions/0042).

CREATE FUNCTION llm.complete(
    prompt        text,
    input         anyelement DEFAULT '{}'::jsonb,
    @complete.arguments@
) RETURNS text
LANGUAGE sql STABLE COST 100000 SET search_path = pg_catalog, pg_temp AS $$
    SELECT llm._ask(prompt, pg_catalog.to_json(input), pg_catalog.json_build_object(
        @complete.values@))
$$;
COMMENT ON FUNCTION llm.complete(text, anyelement, @complete.types@) IS
    'asks a prompt about one row, object or value, or about none';

CREATE FUNCTION llm.complete(
    prompt        text,
    input         text,
    @complete.arguments@
) RETURNS text
LANGUAGE sql STABLE COST 100000 SET search_path = pg_catalog, pg_temp AS $$
    SELECT llm._ask(prompt, pg_catalog.to_json(input), pg_catalog.json_build_object(
        @complete.values@))
$$;
COMMENT ON FUNCTION llm.complete(text, text, @complete.types@) IS
    'asks a prompt about one row, object or value, or about none';

CREATE FUNCTION llm.is_true(
    prompt        text,
    input         anyelement,
    @is_true.arguments@
) RETURNS boolean
LANGUAGE sql STABLE COST 100000 SET search_path = pg_catalog, pg_temp AS $$
    SELECT llm._ask(prompt, pg_catalog.to_json(input), pg_catalog.json_build_object(
        'kind', 'boolean', @is_true.values@))::boolean
$$;
COMMENT ON FUNCTION llm.is_true(text, anyelement, @is_true.types@) IS
    'asks a yes/no question about one row, object or value';

CREATE FUNCTION llm.is_true(
    prompt        text,
    input         text,
    @is_true.arguments@
) RETURNS boolean
LANGUAGE sql STABLE COST 100000 SET search_path = pg_catalog, pg_temp AS $$
    SELECT llm._ask(prompt, pg_catalog.to_json(input), pg_catalog.json_build_object(
        'kind', 'boolean', @is_true.values@))::boolean
$$;
COMMENT ON FUNCTION llm.is_true(text, text, @is_true.types@) IS
    'asks a yes/no question about one row, object or value';

CREATE FUNCTION llm.classify(
    prompt        text,
    input         anyelement,
    labels        text[] DEFAULT NULL,
    @classify.arguments@
) RETURNS text
LANGUAGE sql STABLE COST 100000 SET search_path = pg_catalog, pg_temp AS $$
    SELECT llm._ask(prompt, pg_catalog.to_json(input), pg_catalog.json_build_object(
        'kind', 'label', 'choices', labels, @classify.values@))
$$;
COMMENT ON FUNCTION llm.classify(text, anyelement, text[], @classify.types@) IS
    'asks for one of some labels for one row, object or value';

CREATE FUNCTION llm.classify(
    prompt        text,
    input         text,
    labels        text[] DEFAULT NULL,
    @classify.arguments@
) RETURNS text
LANGUAGE sql STABLE COST 100000 SET search_path = pg_catalog, pg_temp AS $$
    SELECT llm._ask(prompt, pg_catalog.to_json(input), pg_catalog.json_build_object(
        'kind', 'label', 'choices', labels, @classify.values@))
$$;
COMMENT ON FUNCTION llm.classify(text, text, text[], @classify.types@) IS
    'asks for one of some labels for one row, object or value';

-- Several labels. An array type has no arrays, so that no batch function could return its values: the function that is
-- batched gives a text, and the one that is called is put into its place by PostgreSQL's planner. For this it may have no
-- settings, and each of its arguments stands in its body once.

CREATE FUNCTION llm._classify_many(
    prompt        text,
    input         anyelement,
    labels        text[],
    @classify_many.arguments@
) RETURNS text
LANGUAGE sql STABLE COST 100000 SET search_path = pg_catalog, pg_temp AS $$
    SELECT llm._ask(prompt, pg_catalog.to_json(input), pg_catalog.json_build_object(
        'kind', 'labels', 'choices', labels, @classify_many.values@))
$$;

CREATE FUNCTION llm._classify_many(
    prompt        text,
    input         text,
    labels        text[],
    @classify_many.arguments@
) RETURNS text
LANGUAGE sql STABLE COST 100000 SET search_path = pg_catalog, pg_temp AS $$
    SELECT llm._ask(prompt, pg_catalog.to_json(input), pg_catalog.json_build_object(
        'kind', 'labels', 'choices', labels, @classify_many.values@))
$$;

-- Each label once, in the order of their characters, whatever order a model gives them: equal sets are equal arrays.
CREATE FUNCTION llm._label_array(answer text) RETURNS text[]
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    SELECT ARRAY(SELECT DISTINCT l COLLATE "C" FROM jsonb_array_elements_text(answer::jsonb) AS l ORDER BY 1)
$$;

CREATE FUNCTION llm.classify_many(
    prompt        text,
    input         anyelement,
    labels        text[] DEFAULT NULL,
    @classify_many.arguments@
) RETURNS text[]
LANGUAGE sql STABLE COST 100000 AS $$
    SELECT llm._label_array(llm._classify_many(prompt, input, labels, @classify_many.named@))
$$;
COMMENT ON FUNCTION llm.classify_many(text, anyelement, text[], @classify_many.types@) IS
    'asks which of some labels fit one row, object or value';

CREATE FUNCTION llm.classify_many(
    prompt        text,
    input         text,
    labels        text[] DEFAULT NULL,
    @classify_many.arguments@
) RETURNS text[]
LANGUAGE sql STABLE COST 100000 AS $$
    SELECT llm._label_array(llm._classify_many(prompt, input, labels, @classify_many.named@))
$$;
COMMENT ON FUNCTION llm.classify_many(text, text, text[], @classify_many.types@) IS
    'asks which of some labels fit one row, object or value';

-- Embeddings: as llm.classify_many, for the same reason. There is no question, so one form does; nothing stands for a NULL.

CREATE FUNCTION llm._embed(
    input         text,
    @embed.arguments@
) RETURNS text
LANGUAGE sql STABLE COST 100000 SET search_path = pg_catalog, pg_temp AS $$
    SELECT llm._ask('{}', pg_catalog.to_json(input), pg_catalog.json_build_object(
        'kind', 'embedding', 'on_null', 'null', @embed.values@))
$$;

CREATE FUNCTION llm.embed(
    input         text,
    @embed.arguments@
) RETURNS real[]
LANGUAGE sql STABLE COST 100000 AS $$
    SELECT llm._embed(input, @embed.named@)::pg_catalog.float4[]
$$;
COMMENT ON FUNCTION llm.embed(text, @embed.types@) IS
    'the embedding of a text, by the model of a server; pgvector takes it for a vector';

CREATE FUNCTION llm._embed(
    input         json,
    @embed.arguments@
) RETURNS text
LANGUAGE sql STABLE COST 100000 SET search_path = pg_catalog, pg_temp AS $$
    SELECT llm._ask('{}', input, pg_catalog.json_build_object('kind', 'embedding', 'on_null', 'null', @embed.values@))
$$;

CREATE FUNCTION llm.embed(
    input         jsonb,
    @embed.arguments@
) RETURNS real[]
LANGUAGE sql STABLE COST 100000 AS $$
    SELECT llm._embed(llm._medium(input), @embed.named@)::pg_catalog.float4[]
$$;
COMMENT ON FUNCTION llm.embed(jsonb, @embed.types@) IS 'the same of a picture or a recording, as llm.media makes it';

-- As embeddings. The object is one that EXPLAIN can see through.

CREATE FUNCTION llm._relevance_of(
    input         json,
    @relevance.arguments@
) RETURNS double precision
LANGUAGE sql STABLE COST 100000 SET search_path = pg_catalog, pg_temp AS $$
    SELECT llm._ask('{}', CASE WHEN input ->> 'query' IS NOT NULL AND input ->> 'document' IS NOT NULL THEN input END,
                    pg_catalog.json_build_object('kind', 'relevance', 'on_null', 'null', @relevance.values@))::double precision
$$;

CREATE FUNCTION llm.relevance(
    query         text,
    document      text,
    @relevance.arguments@
) RETURNS double precision
LANGUAGE sql STABLE COST 100000 AS $$
    SELECT llm._relevance_of(pg_catalog.json_build_object('query', query, 'document', document), @relevance.named@)
$$;
COMMENT ON FUNCTION llm.relevance IS 'how relevant a document is to a query, by the reranking model of a server: the more the higher';

CREATE FUNCTION llm.score(
    prompt        text,
    input         anyelement,
    @score.arguments@
) RETURNS double precision
LANGUAGE sql STABLE COST 100000 SET search_path = pg_catalog, pg_temp AS $$
    SELECT llm._ask(prompt, pg_catalog.to_json(input), pg_catalog.json_build_object(
        'kind', 'number', @score.values@))::double precision
$$;
COMMENT ON FUNCTION llm.score(text, anyelement, @score.types@) IS
    'asks for a number about one row, object or value';

CREATE FUNCTION llm.score(
    prompt        text,
    input         text,
    @score.arguments@
) RETURNS double precision
LANGUAGE sql STABLE COST 100000 SET search_path = pg_catalog, pg_temp AS $$
    SELECT llm._ask(prompt, pg_catalog.to_json(input), pg_catalog.json_build_object(
        'kind', 'number', @score.values@))::double precision
$$;
COMMENT ON FUNCTION llm.score(text, text, @score.types@) IS
    'asks for a number about one row, object or value';

-- How sure the model is of the answer that a function gives: called as that function is. One question gives both, where the
-- other call has confidence => true, which the native module says where it finds both in a statement.

CREATE FUNCTION llm.is_true_confidence(
    prompt        text,
    input         anyelement,
    @is_true_confidence.arguments@
) RETURNS double precision
LANGUAGE sql STABLE COST 100000 SET search_path = pg_catalog, pg_temp AS $$
    SELECT llm._ask(prompt, pg_catalog.to_json(input), pg_catalog.json_build_object(
        'kind', 'boolean', 'gives', 'confidence', @is_true_confidence.values@))::double precision
$$;
COMMENT ON FUNCTION llm.is_true_confidence(text, anyelement, @is_true_confidence.types@) IS
    'how sure the model is of the answer that llm.is_true gives, 0 to 1; NULL where the engine does not tell';

CREATE FUNCTION llm.is_true_confidence(
    prompt        text,
    input         text,
    @is_true_confidence.arguments@
) RETURNS double precision
LANGUAGE sql STABLE COST 100000 SET search_path = pg_catalog, pg_temp AS $$
    SELECT llm._ask(prompt, pg_catalog.to_json(input), pg_catalog.json_build_object(
        'kind', 'boolean', 'gives', 'confidence', @is_true_confidence.values@))::double precision
$$;
COMMENT ON FUNCTION llm.is_true_confidence(text, text, @is_true_confidence.types@) IS
    'how sure the model is of the answer that llm.is_true gives, 0 to 1; NULL where the engine does not tell';

CREATE FUNCTION llm.classify_confidence(
    prompt        text,
    input         anyelement,
    labels        text[] DEFAULT NULL,
    @classify_confidence.arguments@
) RETURNS double precision
LANGUAGE sql STABLE COST 100000 SET search_path = pg_catalog, pg_temp AS $$
    SELECT llm._ask(prompt, pg_catalog.to_json(input), pg_catalog.json_build_object(
        'kind', 'label', 'gives', 'confidence', 'choices', labels, @classify_confidence.values@))::double precision
$$;
COMMENT ON FUNCTION llm.classify_confidence(text, anyelement, text[], @classify_confidence.types@) IS
    'how sure the model is of the answer that llm.classify gives, 0 to 1; NULL where the engine does not tell';

CREATE FUNCTION llm.classify_confidence(
    prompt        text,
    input         text,
    labels        text[] DEFAULT NULL,
    @classify_confidence.arguments@
) RETURNS double precision
LANGUAGE sql STABLE COST 100000 SET search_path = pg_catalog, pg_temp AS $$
    SELECT llm._ask(prompt, pg_catalog.to_json(input), pg_catalog.json_build_object(
        'kind', 'label', 'gives', 'confidence', 'choices', labels, @classify_confidence.values@))::double precision
$$;
COMMENT ON FUNCTION llm.classify_confidence(text, text, text[], @classify_confidence.types@) IS
    'how sure the model is of the answer that llm.classify gives, 0 to 1; NULL where the engine does not tell';

CREATE FUNCTION llm.score_confidence(
    prompt        text,
    input         anyelement,
    @score_confidence.arguments@
) RETURNS double precision
LANGUAGE sql STABLE COST 100000 SET search_path = pg_catalog, pg_temp AS $$
    SELECT llm._ask(prompt, pg_catalog.to_json(input), pg_catalog.json_build_object(
        'kind', 'number', 'gives', 'confidence', @score_confidence.values@))::double precision
$$;
COMMENT ON FUNCTION llm.score_confidence(text, anyelement, @score_confidence.types@) IS
    'how sure the model is of the answer that llm.score gives, 0 to 1; NULL where the engine does not tell';

CREATE FUNCTION llm.score_confidence(
    prompt        text,
    input         text,
    @score_confidence.arguments@
) RETURNS double precision
LANGUAGE sql STABLE COST 100000 SET search_path = pg_catalog, pg_temp AS $$
    SELECT llm._ask(prompt, pg_catalog.to_json(input), pg_catalog.json_build_object(
        'kind', 'number', 'gives', 'confidence', @score_confidence.values@))::double precision
$$;
COMMENT ON FUNCTION llm.score_confidence(text, text, @score_confidence.types@) IS
    'how sure the model is of the answer that llm.score gives, 0 to 1; NULL where the engine does not tell';

CREATE FUNCTION llm.extract(
    prompt        text,
    input         anyelement,
    schema        jsonb,
    @extract.arguments@
) RETURNS jsonb
LANGUAGE sql STABLE COST 100000 SET search_path = pg_catalog, pg_temp AS $$
    SELECT llm._ask(prompt, pg_catalog.to_json(input), pg_catalog.json_build_object(
        'kind', 'json', 'schema', schema, @extract.values@))::jsonb
$$;
COMMENT ON FUNCTION llm.extract(text, anyelement, jsonb, @extract.types@) IS
    'asks for JSON of a schema about one row, object or value';

CREATE FUNCTION llm.extract(
    prompt        text,
    input         text,
    schema        jsonb,
    @extract.arguments@
) RETURNS jsonb
LANGUAGE sql STABLE COST 100000 SET search_path = pg_catalog, pg_temp AS $$
    SELECT llm._ask(prompt, pg_catalog.to_json(input), pg_catalog.json_build_object(
        'kind', 'json', 'schema', schema, @extract.values@))::jsonb
$$;
COMMENT ON FUNCTION llm.extract(text, text, jsonb, @extract.types@) IS
    'asks for JSON of a schema about one row, object or value';

CREATE FUNCTION llm.last_run(
    OUT rows              bigint,
    OUT unique_prompts    bigint,
    OUT from_cache        bigint,
    OUT requests          bigint,
    OUT retries           bigint,
    OUT prompt_tokens     bigint,
    OUT cached_tokens     bigint,
    OUT completion_tokens bigint,
    OUT reasoning_tokens  bigint,
    OUT prefix_hit_rate   double precision,
    OUT read_s            double precision,
    OUT plan_s            double precision,
    OUT http_s            double precision,
    OUT wait_s            double precision,
    OUT return_s          double precision,
    OUT in_flight         double precision,
    OUT flight_ms         double precision,
    OUT unread_ms         double precision,
    OUT front_ms          double precision,
    OUT queue_ms          double precision,
    OUT prefill_ms        double precision,
    OUT decode_ms         double precision,
    OUT engines           jsonb,
    OUT pairs             jsonb,
    OUT tools             jsonb,
    OUT together          jsonb
) LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT r.* FROM llm._session() AS s,
         pg_catalog.json_to_record(s.last_run) AS r (
             rows bigint, unique_prompts bigint, from_cache bigint, requests bigint, retries bigint, prompt_tokens bigint,
             cached_tokens bigint, completion_tokens bigint, reasoning_tokens bigint, prefix_hit_rate double precision,
             read_s double precision, plan_s double precision, http_s double precision, wait_s double precision,
             return_s double precision, in_flight double precision, flight_ms double precision,
             unread_ms double precision, front_ms double precision, queue_ms double precision,
             prefill_ms double precision, decode_ms double precision, engines jsonb, pairs jsonb,
             tools jsonb, together jsonb)
$$;
COMMENT ON FUNCTION llm.last_run IS 'what this session''s latest run as the current role did; token counts are the engine''s own, NULL where it gives none';

CREATE FUNCTION llm.version() RETURNS text
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$ SELECT s.version FROM llm._session() AS s $$;
COMMENT ON FUNCTION llm.version IS 'the version of the Python package that this backend imported';

-- The one door to the ledger: JSON in, JSON out. What a role may see or do is decided behind it, by the role that is
-- current, so anybody may call it with anything.
CREATE FUNCTION llm._ledger(request json) RETURNS json
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    reply CONSTANT json := llm._reply(coalesce(request, 'null')::text);
BEGIN
    IF reply -> 'fault' IS NOT NULL THEN
        PERFORM llm._raise(ARRAY(SELECT json_array_elements_text(reply -> 'fault')));
    END IF;
    RETURN reply -> 'answer';
END $$;

CREATE FUNCTION llm.cache_stats()
RETURNS TABLE (server text, answers bigint, bytes bigint, oldest timestamptz, latest timestamptz)
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT r.server, r.answers, r.bytes, to_timestamp(r.oldest), to_timestamp(r.latest)
    FROM json_to_recordset(llm._ledger('{"do": "cache_stats"}')) AS r (
        server text, answers bigint, bytes bigint, oldest double precision, latest double precision)
$$;
COMMENT ON FUNCTION llm.cache_stats IS 'how many answers are kept of each server that you may use';

CREATE FUNCTION llm.cache_clear(server text DEFAULT NULL, older_than interval DEFAULT NULL) RETURNS bigint
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT llm._ledger(json_build_object(
        'do', 'cache_clear', 'server', server, 'older_than_s', extract(epoch FROM older_than)))::text::bigint
$$;
COMMENT ON FUNCTION llm.cache_clear IS 'forgets answers of a server that you own, or of all of them; returns how many';

CREATE FUNCTION llm.usage()
RETURNS TABLE (
    day date, role name, server text, model text, statements bigint, rows bigint, questions bigint, from_cache bigint,
    requests bigint, retries bigint, failures bigint, prompt_tokens bigint, cached_tokens bigint,
    completion_tokens bigint, seconds double precision, cost double precision, engines jsonb
)
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT r.day, pg_get_userbyid(r.role), r.server, r.model, r.statements, r.rows, r.questions, r.from_cache,
           r.requests, r.retries, r.failures, r.prompt_tokens, r.cached_tokens, r.completion_tokens, r.seconds, r.cost,
           r.engines
    FROM json_to_recordset(llm._ledger('{"do": "usage"}')) AS r (
        day date, role oid, server text, model text, statements bigint, rows bigint, questions bigint,
        from_cache bigint, requests bigint, retries bigint, failures bigint, prompt_tokens bigint,
        cached_tokens bigint, completion_tokens bigint, seconds double precision, cost double precision,
        engines jsonb)
$$;
COMMENT ON FUNCTION llm.usage IS 'what you have asked in this database, by day, server and model; all of it for members of pg_read_all_stats';

-- Daily budgets count by usage, so it is not for everybody to reset. It runs as the extension's owner.
CREATE FUNCTION llm.usage_reset() RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT llm._ledger('{"do": "usage_reset"}')::text::bigint
$$;
REVOKE ALL ON FUNCTION llm.usage_reset FROM PUBLIC;
COMMENT ON FUNCTION llm.usage_reset IS 'forgets the usage of this database';

CREATE FUNCTION llm.progress()
RETURNS TABLE (
    pid integer, role name, database name, server text, started timestamptz, rows_read bigint, asked bigint,
    answered bigint, from_cache bigint, in_flight bigint, prompt_tokens bigint, cached_tokens bigint,
    completion_tokens bigint, prefix_hit_rate double precision, cost double precision, expected_end timestamptz,
    engines jsonb
)
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT r.pid, r.role_name, r.database, r.server, to_timestamp(r.started), r.rows_read, r.asked, r.answered,
           r.from_cache, r.in_flight, r.prompt_tokens, r.cached_tokens, r.completion_tokens,
           r.cached_tokens::double precision / nullif(r.prompt_tokens, 0), r.cost, to_timestamp(r.expected_end),
           r.engines
    FROM json_to_recordset(llm._ledger('{"do": "progress"}')) AS r (
        pid integer, role_name name, database name, server text, started double precision, rows_read bigint,
        asked bigint, answered bigint, from_cache bigint, in_flight bigint, prompt_tokens bigint,
        cached_tokens bigint, completion_tokens bigint, cost double precision, expected_end double precision,
        engines jsonb)
$$;
COMMENT ON FUNCTION llm.progress IS
    'how far your running statements are; those of all roles and databases for members of pg_read_all_stats';

CREATE FUNCTION llm.health(server text DEFAULT 'vllm')
RETURNS TABLE (endpoint text, item text, state text, detail text)
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT r.endpoint, r.item, r.state, r.detail
    FROM json_to_recordset(llm._ledger(json_build_object('do', 'health', 'server', server))) AS r (
        endpoint text, item text, state text, detail text)
$$;
COMMENT ON FUNCTION llm.health IS 'how the engine of a server is and what it can be held to; asks it a few short questions';

CREATE FUNCTION llm.last_errors()
RETURNS TABLE (at timestamptz, server text, question text, row_id bigint, key text, reason text)
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT to_timestamp(r.at), r.server, r.question, r.row_id, r.key, r.reason
    FROM json_to_recordset(llm._ledger('{"do": "last_errors"}')) AS r (
        at double precision, server text, question text, row_id bigint, key text, reason text)
$$;
COMMENT ON FUNCTION llm.last_errors IS
    'why questions of this session as the current role have no answer: the latest 1,000, the latest first';
