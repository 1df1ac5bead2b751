-- Batches: whose calls the native module gathers, and who answers them. The PL/Python host only.
--
-- A registration is a setting of the function that is called: pg_bridge.batch names its batch function, pg_bridge.report
-- the one that tells EXPLAIN what was done. native/registry.c reads them; what stands here writes and shows them.

-- The type that the batch function of a function returns; NULL if calls of it cannot be answered in batches. What has an oid
-- below 16384 is PostgreSQL's own, and a function has 100 arguments at most.
CREATE FUNCTION llm._batch_result(function oid) RETURNS oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT t.typarray FROM pg_proc AS f JOIN pg_type AS t ON t.oid = f.prorettype
    WHERE f.oid = function AND f.prokind = 'f' AND NOT f.proretset AND f.provariadic = 0 AND f.pronargs <= 98
          AND f.oid >= 16384 AND t.typtype <> 'p' AND t.typarray <> 0
$$;

-- Why a function cannot be another's 'batch' or 'report'; NULL if it can.
CREATE FUNCTION llm._misfit(function oid, answering oid, place text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE
        -- An oidvector counts from 0, so it equals no array as it is.
        WHEN ARRAY(SELECT unnest(a.proargtypes)) <> w.arguments OR a.prorettype <> w.result OR a.proretset OR a.prokind <> 'f'
            THEN format('It must take (%s) and return %s.',
                        (SELECT string_agg(format_type(t, NULL), ', ') FROM unnest(w.arguments) AS t), format_type(w.result, NULL))
        WHEN a.proowner <> f.proowner AND NOT o.rolsuper
            THEN 'It must belong to the owner of the function, or to a superuser.'
        WHEN f.proleakproof AND NOT a.proleakproof
            THEN 'It must be LEAKPROOF, as the function is.'
        WHEN strpos('urs', a.proparallel::text) < strpos('urs', f.proparallel::text)
            THEN format('It must be PARALLEL %s, as the function is.', CASE f.proparallel WHEN 's' THEN 'SAFE' ELSE 'RESTRICTED or SAFE' END)
        END
    FROM pg_proc AS f
         CROSS JOIN pg_proc AS a
         JOIN pg_roles AS o ON o.oid = a.proowner
         CROSS JOIN LATERAL (
             SELECT ARRAY[20, 23]::oid[] || CASE WHEN a.proargtypes[2] = 16 THEN ARRAY[16]::oid[] END
                    || array_fill(199::oid, ARRAY[f.pronargs::integer]), llm._batch_result(f.oid)
             WHERE place = 'batch'
             UNION ALL SELECT ARRAY[20, 23]::oid[], 1009::oid WHERE place = 'report'
         ) AS w (arguments, result)  -- the oids of bigint, integer, boolean, json[] and text[]
    WHERE f.oid = function AND a.oid = answering
$$;

-- The function that a function's setting names, if it can be what it shall be.
CREATE FUNCTION llm._registered(function oid, place text) RETURNS regprocedure
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT a.oid::regprocedure
    FROM (SELECT substr(s, strpos(s, '=') + 1) FROM pg_proc AS f, unnest(f.proconfig) AS s
          WHERE f.oid = function AND lower(split_part(s, '=', 1)) = 'pg_bridge.' || place) AS said (name)
         CROSS JOIN LATERAL (
             -- parse_ident fails where this does not hold
             SELECT CASE WHEN said.name ~ format('^[[:space:]]*%1$s[[:space:]]*[.][[:space:]]*%1$s[[:space:]]*$', '("([^"]|"")+"|[[:alpha:]_][[:alnum:]_$]*)')
                         THEN parse_ident(said.name) END::name[]
         ) AS parsed (parts)
         JOIN pg_namespace AS n ON n.nspname = parsed.parts[1]
         JOIN pg_proc AS a ON a.pronamespace = n.oid AND a.proname = parsed.parts[2]
    WHERE llm._batch_result(function) IS NOT NULL AND llm._misfit(function, a.oid, place) IS NULL
    ORDER BY a.pronargs DESC LIMIT 1  -- one that takes parts goes first
$$;

CREATE VIEW llm.batch_function AS
SELECT f.oid::regprocedure AS function, b.batch,
       CASE WHEN b.batch IS NOT NULL THEN llm._registered(f.oid, 'report') END AS report
FROM pg_catalog.pg_proc AS f
     CROSS JOIN LATERAL (SELECT llm._registered(f.oid, 'batch')) AS b (batch)
WHERE EXISTS (SELECT FROM pg_catalog.unnest(f.proconfig) AS s WHERE pg_catalog.lower(s) LIKE 'pg_bridge.batch=%');
COMMENT ON VIEW llm.batch_function IS
    'functions whose calls are answered in batches, and who answers; NULL if no function fits that has the name';
GRANT SELECT ON llm.batch_function TO PUBLIC;

CREATE FUNCTION llm.register_batch(function regprocedure, batch regprocedure, report regprocedure DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    chosen record;
    misfit text;
BEGIN
    IF llm._batch_result(function) IS NULL THEN
        RAISE EXCEPTION 'calls of % cannot be answered in batches', coalesce(function::text, 'NULL')
            USING ERRCODE = 'invalid_function_definition',
                  HINT = 'It must be a plain function of your own with a fixed number of arguments that returns one value, of a type that has arrays.';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_proc AS p WHERE p.oid = batch) THEN
        RAISE EXCEPTION 'there is no batch function %', coalesce(batch::text, 'NULL') USING ERRCODE = 'undefined_function';
    END IF;
    FOR chosen IN SELECT * FROM (VALUES ('batch', batch), ('report', report)) AS v (place, oid) LOOP
        misfit := llm._misfit(function, chosen.oid, chosen.place);
        IF misfit IS NOT NULL THEN
            RAISE EXCEPTION '% function % does not fit %', chosen.place, chosen.oid, function
                USING ERRCODE = 'invalid_function_definition', HINT = misfit;
        END IF;
    END LOOP;
    IF current_setting('pg_bridge.batching', true) IS NULL
       AND NOT (SELECT r.rolsuper FROM pg_roles AS r WHERE r.rolname = current_user) THEN
        RAISE EXCEPTION 'the module pg_bridge is not loaded, so only a superuser can register a function'
            USING ERRCODE = 'insufficient_privilege', HINT = 'Set session_preload_libraries = ''pg_bridge'' and reconnect.';
    END IF;
    -- The names are qualified: nothing but pg_catalog is in the search_path. ALTER FUNCTION wants the function's owner.
    FOR chosen IN
        SELECT v.place, quote_ident(n.nspname) || '.' || quote_ident(p.proname) AS name
        FROM (VALUES ('batch', batch), ('report', report)) AS v (place, oid)
             LEFT JOIN pg_proc AS p ON p.oid = v.oid
             LEFT JOIN pg_namespace AS n ON n.oid = p.pronamespace
    LOOP
        EXECUTE CASE WHEN chosen.name IS NULL THEN format('ALTER FUNCTION %s RESET pg_bridge.%I', function, chosen.place)
                     ELSE format('ALTER FUNCTION %s SET pg_bridge.%I = %L', function, chosen.place, chosen.name) END;
    END LOOP;
END $$;
COMMENT ON FUNCTION llm.register_batch IS
    'lets a batch function answer many calls of a function at once: (bigint, integer, [boolean,] json[] an argument) returns result[]';

CREATE FUNCTION llm.unregister_batch(function regprocedure) RETURNS boolean
LANGUAGE plpgsql VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_proc AS f, unnest(f.proconfig) AS s
                   WHERE f.oid = function AND lower(s) LIKE 'pg_bridge.batch=%') THEN
        RETURN false;
    END IF;
    EXECUTE format('ALTER FUNCTION %s RESET pg_bridge.batch', function);
    EXECUTE format('ALTER FUNCTION %s RESET pg_bridge.report', function);
    RETURN true;
END $$;
COMMENT ON FUNCTION llm.unregister_batch IS 'takes back llm.register_batch; false if there was nothing to take back';

-- Takes calls of a window, questions about rows; the answers, in their order, once no more follow. `names` and `options` are
-- those that differ from call to call.
CREATE FUNCTION llm._batch(
    statement bigint, node integer, more boolean, prompt json[], input json[], fixed json, names text[], options json[]
) RETURNS TABLE (answers text[], fault text[])
LANGUAGE plpython3u VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS $$
from pg_bridge.plpython import functions
return functions.batch(plpy, statement, node, more, prompt, input, fixed, names, options)
$$;

CREATE FUNCTION llm._answers(
    statement bigint, node integer, more boolean, prompt json[], input json[], fixed json, names text[], options json[]
) RETURNS text[]
LANGUAGE sql VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN b.fault IS NULL THEN b.answers ELSE ARRAY[llm._raise(b.fault)] END
    FROM llm._batch($1, $2, $3, $4, $5, $6, $7, $8) AS b
$$;

CREATE FUNCTION llm._report(statement bigint, node integer) RETURNS text[]
LANGUAGE plpython3u VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS $$
from pg_bridge.plpython import functions
return functions.report(statement, node)
$$;

-- What calls would ask and take, in lines `label: value`, for EXPLAIN.
CREATE FUNCTION llm._estimate_calls(request text, OUT lines text[], OUT fault text[])
LANGUAGE plpython3u VOLATILE SET search_path = pg_catalog, pg_temp AS $$
from pg_bridge.plpython import estimates
return estimates.estimate_calls(plpy, request)
$$;
REVOKE ALL ON FUNCTION llm._estimate_calls FROM PUBLIC;

-- Options are written here as in surface.sql: as `arrays`, which are arguments, and as `names` alone. Both forms of a function
-- have one batch function: of whatever type a value is, here it is JSON.

CREATE FUNCTION llm._complete_batch(
    statement bigint, node integer, more boolean, prompt json[], input json[], @complete.arrays@
) RETURNS text[]
LANGUAGE sql VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS $$
    SELECT llm._answers(statement, node, more, prompt, input, '{}',
                        '{@complete.names@}', ARRAY[@complete.names@])
$$;

CREATE FUNCTION llm._is_true_batch(
    statement bigint, node integer, more boolean, prompt json[], input json[], @is_true.arrays@
) RETURNS boolean[]
LANGUAGE sql VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS $$
    SELECT llm._answers(statement, node, more, prompt, input, '{"kind": "boolean"}',
                        '{@is_true.names@}', ARRAY[@is_true.names@])::boolean[]
$$;

CREATE FUNCTION llm._classify_batch(
    statement bigint, node integer, more boolean, prompt json[], input json[], labels json[], @classify.arrays@
) RETURNS text[]
LANGUAGE sql VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS $$
    SELECT llm._answers(statement, node, more, prompt, input, '{"kind": "label"}',
                        '{choices,@classify.names@}', ARRAY[labels, @classify.names@])
$$;

CREATE FUNCTION llm._classify_many_batch(
    statement bigint, node integer, more boolean, prompt json[], input json[], labels json[], @classify_many.arrays@
) RETURNS text[]
LANGUAGE sql VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS $$
    SELECT llm._answers(statement, node, more, prompt, input, '{"kind": "labels"}',
                        '{choices,@classify_many.names@}', ARRAY[labels, @classify_many.names@])
$$;

CREATE FUNCTION llm._embed_batch(
    statement bigint, node integer, more boolean, input json[], @embed.arrays@
) RETURNS text[]
LANGUAGE sql VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS $$
    SELECT llm._answers(statement, node, more, array_fill('"{}"'::json, ARRAY[cardinality(input)]), input,
                        '{"kind": "embedding", "on_null": "null"}', '{@embed.names@}', ARRAY[@embed.names@])
$$;

CREATE FUNCTION llm._relevance_of_batch(
    statement bigint, node integer, more boolean, input json[], @relevance.arrays@
) RETURNS double precision[]
LANGUAGE sql VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS $$
    SELECT llm._answers(statement, node, more, array_fill('"{}"'::json, ARRAY[cardinality(input)]), input,
                        '{"kind": "relevance", "on_null": "null"}', '{@relevance.names@}',
                        ARRAY[@relevance.names@])::double precision[]
$$;

CREATE FUNCTION llm._score_batch(
    statement bigint, node integer, more boolean, prompt json[], input json[], @score.arrays@
) RETURNS double precision[]
LANGUAGE sql VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS $$
    SELECT llm._answers(statement, node, more, prompt, input, '{"kind": "number"}',
                        '{@score.names@}', ARRAY[@score.names@])::double precision[]
$$;

CREATE FUNCTION llm._is_true_confidence_batch(
    statement bigint, node integer, more boolean, prompt json[], input json[], @is_true_confidence.arrays@
) RETURNS double precision[]
LANGUAGE sql VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS $$
    SELECT llm._answers(statement, node, more, prompt, input, '{"kind": "boolean", "gives": "confidence"}',
                        '{@is_true_confidence.names@}', ARRAY[@is_true_confidence.names@])::double precision[]
$$;

CREATE FUNCTION llm._classify_confidence_batch(
    statement bigint, node integer, more boolean, prompt json[], input json[], labels json[], @classify_confidence.arrays@
) RETURNS double precision[]
LANGUAGE sql VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS $$
    SELECT llm._answers(statement, node, more, prompt, input, '{"kind": "label", "gives": "confidence"}',
                        '{choices,@classify_confidence.names@}', ARRAY[labels, @classify_confidence.names@])::double precision[]
$$;

CREATE FUNCTION llm._score_confidence_batch(
    statement bigint, node integer, more boolean, prompt json[], input json[], @score_confidence.arrays@
) RETURNS double precision[]
LANGUAGE sql VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS $$
    SELECT llm._answers(statement, node, more, prompt, input, '{"kind": "number", "gives": "confidence"}',
                        '{@score_confidence.names@}', ARRAY[@score_confidence.names@])::double precision[]
$$;

CREATE FUNCTION llm._extract_batch(
    statement bigint, node integer, more boolean, prompt json[], input json[], schema json[], @extract.arrays@
) RETURNS jsonb[]
LANGUAGE sql VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS $$
    SELECT llm._answers(statement, node, more, prompt, input, '{"kind": "json"}',
                        '{schema,@extract.names@}', ARRAY[schema, @extract.names@])::jsonb[]
$$;

DO $$
DECLARE
    own record;
BEGIN
    FOR own IN
        SELECT f.oid::regprocedure AS function, b.oid::regprocedure AS batch
        FROM pg_catalog.pg_proc AS f
             JOIN pg_catalog.pg_proc AS b ON b.pronamespace = f.pronamespace AND b.proname = '_' || ltrim(f.proname, '_') || '_batch'
                                             AND b.pronargs IN (f.pronargs + 2, f.pronargs + 3)
        WHERE f.pronamespace = 'llm'::regnamespace AND llm._batch_result(f.oid) = b.prorettype
    LOOP
        PERFORM llm.register_batch(own.function, own.batch, 'llm._report(bigint, integer)');
    END LOOP;
END $$;
