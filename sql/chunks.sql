-- Texts cut into chunks, for embeddings. The same in schema llm of the extension and in llm_jobs of a server that has none.

CREATE FUNCTION @schema@.chunks(
    text text, chars integer DEFAULT 1000, overlap integer DEFAULT 100,
    OUT chunk_no integer, OUT chunk_start integer, OUT chunk text
) RETURNS SETOF record
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    -- Of each kind of end the last one in a piece, the best kind first. "C": the same characters in every database.
    ends CONSTANT text[] := ARRAY[
        E'^.*\n[ \t\r]*\n[[:space:]]*',
        E'^.*(?:[.!?\\u2026]["'')\\]\\u00BB\\u2019\\u201D]*[[:space:]]+|[\\u3002\\uFF01\\uFF1F]["'')\\]\\u300D\\u300F\\u2019\\u201D]*)',
        E'^.*[[:space:]\\u3000]'];
    left_chars integer := length(text);
    -- What is not cut yet, and what of it comes next: each step copies that. right() with a negative number counts only what
    -- it leaves out; substr() counts all that is there.
    rest text := text;
    held text := '';
    before text := '';  -- what the next chunk repeats
    piece text; found text; cut integer; ending text;
BEGIN
    IF chars NOT BETWEEN 1 AND 1000000 OR overlap NOT BETWEEN 0 AND chars - 1 THEN
        RAISE EXCEPTION 'a chunk has 1 to 1,000,000 characters, and repeats fewer of the last one' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'chars says how many it has at most, overlap how many of them may be repeated: chunks(text, 1000, 100).';
    END IF;
    chunk_no := 0;
    chunk_start := 1;
    WHILE left_chars > 0 LOOP
        IF length(held) < chars AND rest <> '' THEN
            held := held || left(rest, 20 * chars);
            rest := right(rest, -20 * chars);
        END IF;
        piece := left(held, chars - length(before));
        cut := length(piece);
        IF cut < left_chars THEN
            FOREACH ending IN ARRAY ends LOOP
                found := substring(piece COLLATE "C" FROM ending COLLATE "C");
                -- Not much less than there is room for, but for a word.
                EXIT WHEN length(found) > 0 AND (2 * length(found) >= cut OR ending = ends[3]);
                found := NULL;
            END LOOP;
            cut := coalesce(length(found), cut);
            piece := left(piece, cut);
        END IF;
        chunk_no := chunk_no + 1;
        chunk := before || piece;
        RETURN NEXT;
        chunk_start := chunk_start + length(chunk);
        before := '';
        IF overlap > 0 THEN
            before := right(chunk, overlap);
            IF length(before) < length(chunk) THEN  -- from a word's beginning on
                before := regexp_replace(before COLLATE "C", E'^[^[:space:]\\u3000]*[[:space:]\\u3000]+', '');
            ELSE
                before := '';
            END IF;
        END IF;
        chunk_start := chunk_start - length(before);
        held := right(held, -cut);
        left_chars := left_chars - cut;
    END LOOP;
END $$;
COMMENT ON FUNCTION @schema@.chunks IS 'cuts a text at the ends of paragraphs, sentences or words; each chunk with its number and where it begins';
