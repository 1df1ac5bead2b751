-- What search is put together of, in plain SQL: how alike two embeddings are, and one rank of several.

CREATE FUNCTION llm.cosine(a real[], b real[]) RETURNS double precision
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF cardinality(a) <> cardinality(b) THEN
        RAISE EXCEPTION 'embeddings of % and of % dimensions cannot be compared', cardinality(a), cardinality(b)
            USING ERRCODE = 'data_exception', HINT = 'Embed both by the same model.';
    END IF;
    RETURN (SELECT sum(x::float8 * y) / nullif(sqrt(sum(x::float8 * x)) * sqrt(sum(y::float8 * y)), 0)
            FROM unnest(a, b) AS u (x, y));
END $$;
COMMENT ON FUNCTION llm.cosine IS 'how alike two embeddings are: from -1 to 1, the more the higher; NULL where one has no direction';

CREATE FUNCTION llm.rrf(ranks bigint[], k double precision DEFAULT 60, weights double precision[] DEFAULT '{}')
RETURNS double precision
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(sum(coalesce(u.weight, 1) / (k + u.rank)), 0) FROM unnest(ranks, weights) AS u (rank, weight)
    WHERE u.rank IS NOT NULL
$$;
COMMENT ON FUNCTION llm.rrf IS 'reciprocal rank fusion: one score of the ranks that several searches give a row, NULL where one has not found it';
