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
