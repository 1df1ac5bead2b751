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
