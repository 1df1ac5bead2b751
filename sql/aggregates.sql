-- Aggregates: llm.aggregate and llm.summarize. The PL/Python host only.
--
-- A state is where Python has put a group's values, and how many of them there are. Each aggregate has a twin without a final
-- function, by which the native module asks about all groups at once: native/aggregates.c, docs/decisions/0059.

CREATE TYPE llm.gathered;
CREATE FUNCTION llm._gathered_in(cstring) RETURNS llm.gathered LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'int8in';
CREATE FUNCTION llm._gathered_out(llm.gathered) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'int8out';
CREATE TYPE llm.gathered (INPUT = llm._gathered_in, OUTPUT = llm._gathered_out, LIKE = bigint);
COMMENT ON TYPE llm.gathered IS 'what an aggregate has gathered of a group; of no use outside its statement';
REVOKE ALL ON FUNCTION llm._gathered_in, llm._gathered_out FROM PUBLIC;

-- Keeps a group's next value.
CREATE FUNCTION llm._note(state llm.gathered, instruction text, input text, options text) RETURNS llm.gathered
LANGUAGE plpython3u VOLATILE SET search_path = pg_catalog, pg_temp AS $$
from pg_bridge.plpython import aggregates
return aggregates.note(state, instruction, input, options)
$$;

CREATE FUNCTION llm._gather(state llm.gathered, instruction text, input anyelement, options jsonb) RETURNS llm.gathered
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- A row of NULLs is a row, as it is to count().
    RETURN CASE WHEN input IS NOT DISTINCT FROM NULL THEN state
                ELSE llm._note(state, llm._checked(instruction), to_json(input)::text, options::text) END;
END $$;

CREATE FUNCTION llm._gather(state llm.gathered, instruction text, input anyelement) RETURNS llm.gathered
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN CASE WHEN input IS NOT DISTINCT FROM NULL THEN state
                ELSE llm._note(state, llm._checked(instruction), to_json(input)::text, NULL) END;
END $$;

CREATE FUNCTION llm._gather_text(state llm.gathered, input text, options jsonb) RETURNS llm.gathered
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN CASE WHEN input IS NULL THEN state ELSE llm._note(state, NULL, to_json(input)::text, options::text) END;
END $$;

CREATE FUNCTION llm._gather_text(state llm.gathered, input text) RETURNS llm.gathered
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN CASE WHEN input IS NULL THEN state ELSE llm._note(state, NULL, to_json(input)::text, NULL) END;
END $$;

-- The answers about groups, in their order. Without a statement's number the groups are a statement of their own.
CREATE FUNCTION llm._reduce(statement bigint, node integer, gathered text[]) RETURNS TABLE (answers text[], fault text[])
LANGUAGE plpython3u VOLATILE SET search_path = pg_catalog, pg_temp AS $$
from pg_bridge.plpython import aggregates
return aggregates.reduce_groups(plpy, statement, node, gathered)
$$;

CREATE FUNCTION llm._reduced(statement bigint, node integer, gathered json[]) RETURNS text[]
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN r.fault IS NULL THEN r.answers ELSE ARRAY[llm._raise(r.fault)] END
    FROM llm._reduce($1, $2, ARRAY(SELECT g #>> '{}' FROM unnest($3) WITH ORDINALITY AS u (g, place) ORDER BY place)) AS r
$$;

-- The final functions: one group's answer. Named as their aggregates are, for EXPLAIN.
CREATE FUNCTION llm.aggregate(gathered llm.gathered) RETURNS text
LANGUAGE sql STABLE STRICT COST 100000 SET search_path = pg_catalog, pg_temp AS $$
    SELECT (llm._reduced(NULL, NULL, ARRAY[to_json(gathered)]))[1]
$$;
COMMENT ON FUNCTION llm.aggregate(llm.gathered) IS 'the last step of the aggregate of this name';

CREATE FUNCTION llm.summarize(gathered llm.gathered) RETURNS text
LANGUAGE sql STABLE STRICT COST 100000 SET search_path = pg_catalog, pg_temp AS $$
    SELECT (llm._reduced(NULL, NULL, ARRAY[to_json(gathered)]))[1]
$$;
COMMENT ON FUNCTION llm.summarize(llm.gathered) IS 'the last step of the aggregate of this name';

CREATE FUNCTION llm._aggregate_batch(statement bigint, node integer, gathered json[]) RETURNS text[]
LANGUAGE sql VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS $$ SELECT llm._reduced(statement, node, gathered) $$;

CREATE FUNCTION llm._summarize_batch(statement bigint, node integer, gathered json[]) RETURNS text[]
LANGUAGE sql VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS $$ SELECT llm._reduced(statement, node, gathered) $$;

-- As with llm.complete each has a form for text, which a literal is taken for.
CREATE AGGREGATE llm._aggregate(instruction text, input anyelement) (SFUNC = llm._gather, STYPE = llm.gathered);
CREATE AGGREGATE llm._aggregate(instruction text, input text) (SFUNC = llm._gather, STYPE = llm.gathered);
CREATE AGGREGATE llm._aggregate(instruction text, input anyelement, options jsonb) (SFUNC = llm._gather, STYPE = llm.gathered);
CREATE AGGREGATE llm._aggregate(instruction text, input text, options jsonb) (SFUNC = llm._gather, STYPE = llm.gathered);
CREATE AGGREGATE llm._summarize(input text) (SFUNC = llm._gather_text, STYPE = llm.gathered);
CREATE AGGREGATE llm._summarize(input text, options jsonb) (SFUNC = llm._gather_text, STYPE = llm.gathered);

CREATE AGGREGATE llm.aggregate(instruction text, input anyelement) (
    SFUNC = llm._gather, STYPE = llm.gathered, FINALFUNC = llm.aggregate);
CREATE AGGREGATE llm.aggregate(instruction text, input text) (
    SFUNC = llm._gather, STYPE = llm.gathered, FINALFUNC = llm.aggregate);
CREATE AGGREGATE llm.aggregate(instruction text, input anyelement, options jsonb) (
    SFUNC = llm._gather, STYPE = llm.gathered, FINALFUNC = llm.aggregate);
CREATE AGGREGATE llm.aggregate(instruction text, input text, options jsonb) (
    SFUNC = llm._gather, STYPE = llm.gathered, FINALFUNC = llm.aggregate);
COMMENT ON AGGREGATE llm.aggregate(text, anyelement) IS 'asks a question about all rows of a group';
COMMENT ON AGGREGATE llm.aggregate(text, text) IS 'asks a question about all texts of a group';
COMMENT ON AGGREGATE llm.aggregate(text, anyelement, jsonb) IS 'asks a question about all rows of a group, with options';
COMMENT ON AGGREGATE llm.aggregate(text, text, jsonb) IS 'asks a question about all texts of a group, with options';

CREATE AGGREGATE llm.summarize(input text) (
    SFUNC = llm._gather_text, STYPE = llm.gathered, FINALFUNC = llm.summarize);
CREATE AGGREGATE llm.summarize(input text, options jsonb) (
    SFUNC = llm._gather_text, STYPE = llm.gathered, FINALFUNC = llm.summarize);
COMMENT ON AGGREGATE llm.summarize(text) IS 'sums up all texts of a group';
COMMENT ON AGGREGATE llm.summarize(text, jsonb) IS 'sums up all texts of a group, with options';

