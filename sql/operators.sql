-- Functions that are no more than a prompt over llm.complete and its kin. PostgreSQL's planner puts their bodies in their
-- places, so that their calls are batched as any other: for this they have no settings, and each argument stands in a body
-- once. EXPLAIN shows what they are.

CREATE FUNCTION llm.translate(
    input         text,
    language      text,
    @translate.arguments@
) RETURNS text
LANGUAGE sql STABLE COST 100000 AS $$
    SELECT llm.complete(
        'Translate {} into ' OPERATOR(pg_catalog.||)
        pg_catalog.replace(pg_catalog.replace(language, '{', '{{'), '}', '}}') OPERATOR(pg_catalog.||)
        '. Reply with the translation alone.', input, @translate.named@)
$$;
COMMENT ON FUNCTION llm.translate IS 'translates a text into a language, which is named as you would to a person';

CREATE FUNCTION llm.sentiment(
    input         text,
    @sentiment.arguments@
) RETURNS text
LANGUAGE sql STABLE COST 100000 AS $$
    SELECT llm.classify('What is the sentiment of {}?', input, descriptions =>
        '{"positive": "it praises, or is glad", "negative": "it blames, or is unhappy", "neutral": "it does neither", '
        '"mixed": "it does both"}', @sentiment.named@)
$$;
COMMENT ON FUNCTION llm.sentiment IS 'whether a text is positive, negative, neutral or mixed';

CREATE FUNCTION llm.redact(
    input         text,
    @redact.arguments@
) RETURNS text
LANGUAGE sql STABLE COST 100000 AS $$
    SELECT llm.complete(
        'Copy {} word for word, but write [REDACTED] in the place of each name of a person, address, e-mail address, phone '
        'number, date of birth, number of a document, an account or a card, and password. Reply with the copy alone.',
        input, @redact.named@)
$$;
COMMENT ON FUNCTION llm.redact IS 'copies a text without what tells who persons are; a model may overlook some';

CREATE FUNCTION llm.fix_grammar(
    input         text,
    @fix_grammar.arguments@
) RETURNS text
LANGUAGE sql STABLE COST 100000 AS $$
    SELECT llm.complete(
        'Correct the spelling, grammar and punctuation of {} in its own language, and change nothing else. Reply with the '
        'corrected text alone.', input, @fix_grammar.named@)
$$;
COMMENT ON FUNCTION llm.fix_grammar IS 'corrects the spelling, grammar and punctuation of a text';

-- What native/compared_labels.c puts in the place of labels that llm.classify was not given: those that its answer is compared with,
-- in an order of their own, and one that equals none of them.
CREATE FUNCTION llm._labels(compared text[]) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    labels CONSTANT text[] := ARRAY(SELECT DISTINCT l COLLATE "C" FROM unnest(compared) AS l WHERE l IS NOT NULL
                                    ORDER BY 1);
BEGIN
    IF cardinality(labels) > 200 THEN
        RAISE EXCEPTION 'llm.classify is compared with more than 200 labels'
            USING ERRCODE = 'program_limit_exceeded',
                  HINT = 'No model chooses well among so many: compare it with fewer, or ask in two steps; labels => … takes any number.';
    END IF;
    RETURN CASE WHEN 'none of these' = ANY (labels) THEN labels ELSE labels || 'none of these'::text END;
END $$;
COMMENT ON FUNCTION llm._labels IS 'the labels of a call of llm.classify that was given none, from what its answer is compared with';

-- In FROM, where PostgreSQL's planner puts its body in its place as well. OFFSET 0 keeps an answer one call: it is named
-- several times, and without the module each would be a request. What is asked last is asked where it is needed.
CREATE FUNCTION llm.refine(
    prompt        text,
    input         anyelement,
    criterion     text,
    judge         text             DEFAULT NULL,
    @refine.arguments@
) RETURNS TABLE (answer text, first text, fits boolean)
LANGUAGE sql STABLE COST 100000 ROWS 1 AS $$
    SELECT CASE WHEN j.fits IS NOT FALSE THEN a.first ELSE llm.complete(
               CASE WHEN pg_catalog.replace(prompt, '{{', '') OPERATOR(pg_catalog.~) '\{' THEN s.second
                   -- A prompt without a column sends all: then no other may stand in braces.
                   ELSE pg_catalog.regexp_replace(s.second, '(\{\{|\}\})|\{([^{}]*)\}', '\1\2', 'g') END,
               llm.row(input, pg_catalog.jsonb_build_object('answer', a.first)), @refine.named@) END,
           a.first, j.fits
    FROM (SELECT llm.complete(prompt, input, @refine.named@) AS first OFFSET 0) AS a,
         LATERAL (
             SELECT CASE WHEN a.first IS NOT NULL THEN llm.is_true(
                 'Does {answer} meet this: ' OPERATOR(pg_catalog.||) criterion,
                 llm.row(input, pg_catalog.jsonb_build_object('answer', a.first)),
                 server => CASE WHEN judge IS NULL THEN server ELSE judge END, @refine.besides@) END AS fits OFFSET 0) AS j,
         LATERAL (
             SELECT prompt OPERATOR(pg_catalog.||) E'\nThe answer {answer} does not meet this: ' OPERATOR(pg_catalog.||) criterion
                 OPERATOR(pg_catalog.||) E'\nGive a better one.' AS second) AS s
$$;
COMMENT ON FUNCTION llm.refine IS 'an answer as of llm.complete, which is judged by a criterion and given once more where it does not meet it';

-- A list of columns in FROM is seen by who plans the statement, and by no function that is written here: native/extract_columns.c
-- puts llm.extract in the place of these, with a schema that it makes of the list. They take what llm.extract takes, but that.

CREATE FUNCTION llm.extract_columns(
    prompt        text,
    input         anyelement,
    @extract.arguments@
) RETURNS record
LANGUAGE plpgsql STABLE COST 100000 SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF current_setting('pg_bridge.batching', true) IS NULL THEN
        RAISE EXCEPTION 'llm.extract_columns needs the native module pg_bridge, which is not loaded'
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Set session_preload_libraries = ''pg_bridge'' and reconnect; or write llm.extract with a schema.';
    END IF;
    RAISE EXCEPTION 'llm.extract_columns has no list of columns that could be seen before the statement is planned'
        USING ERRCODE = 'feature_not_supported',
              HINT = 'Write it in FROM: FROM reviews AS r, llm.extract_columns(''…'', r) AS t (actor text, role text).';
END $$;
COMMENT ON FUNCTION llm.extract_columns(text, anyelement, @extract.types@) IS
    'asks for the columns that are listed behind it in FROM, about one row, object or value';

CREATE FUNCTION llm.extract_columns(
    prompt        text,
    input         text,
    @extract.arguments@
) RETURNS record
LANGUAGE plpgsql STABLE COST 100000 SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF current_setting('pg_bridge.batching', true) IS NULL THEN
        RAISE EXCEPTION 'llm.extract_columns needs the native module pg_bridge, which is not loaded'
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Set session_preload_libraries = ''pg_bridge'' and reconnect; or write llm.extract with a schema.';
    END IF;
    RAISE EXCEPTION 'llm.extract_columns has no list of columns that could be seen before the statement is planned'
        USING ERRCODE = 'feature_not_supported',
              HINT = 'Write it in FROM: FROM reviews AS r, llm.extract_columns(''…'', r) AS t (actor text, role text).';
END $$;
COMMENT ON FUNCTION llm.extract_columns(text, text, @extract.types@) IS
    'asks for the columns that are listed behind it in FROM, about one row, object or value';
