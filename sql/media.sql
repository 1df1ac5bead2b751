-- Pictures, recordings and documents as inputs: JSON that no column of text can be, {"": "data:image/png;base64,…"}, which
-- pg_bridge/rows/media.py knows again wherever it stands in a row. What it is, its first bytes tell.

CREATE FUNCTION llm.media(content bytea) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE COST 1000 SET search_path = pg_catalog, pg_temp
SET standard_conforming_strings = on AS $$
DECLARE
    head CONSTANT bytea := substring(content FOR 16);
    mime CONSTANT text := CASE
        WHEN substring(head FOR 8) = '\x89504e470d0a1a0a' THEN 'image/png'
        WHEN substring(head FOR 3) = '\xffd8ff' THEN 'image/jpeg'
        WHEN substring(head FOR 6) IN ('GIF87a'::bytea, 'GIF89a'::bytea) THEN 'image/gif'
        WHEN substring(head FOR 4) = 'RIFF' AND substring(head FROM 9 FOR 4) = 'WEBP' THEN 'image/webp'
        WHEN substring(head FOR 4) = 'RIFF' AND substring(head FROM 9 FOR 4) = 'WAVE' THEN 'audio/wav'
        WHEN substring(head FOR 3) = 'ID3' OR substring(head FOR 2) IN ('\xfffb', '\xfff3', '\xfff2') THEN 'audio/mpeg'
        WHEN substring(head FOR 4) = 'fLaC' THEN 'audio/flac'
        WHEN substring(head FOR 4) = 'OggS' THEN 'audio/ogg'
        WHEN substring(head FOR 5) = '%PDF-' THEN 'application/pdf'
    END;
BEGIN
    IF mime IS NULL THEN
        RAISE EXCEPTION 'the bytes are no picture, recording or document that is known'
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Known by their first bytes are PNG, JPEG, GIF, WebP, WAV, MP3, FLAC, Ogg and PDF.';
    END IF;
    RETURN jsonb_build_object('', concat('data:', mime, ';base64,', replace(encode(content, 'base64'), chr(10), '')));
END $$;
COMMENT ON FUNCTION llm.media(bytea) IS 'a picture, a recording or a document, to be asked about as what it is';

-- A data URI is taken apart and made anew, so that what it says of itself is true. Nothing is fetched.
CREATE FUNCTION llm.media(uri text) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE COST 1000 SET search_path = pg_catalog, pg_temp
SET standard_conforming_strings = on AS $$
DECLARE
    start CONSTANT integer := strpos(left(uri, 256), ',');
BEGIN
    IF start = 0 OR left(uri, start) !~* '^data:[^,]*;base64,$' THEN
        RAISE EXCEPTION 'the text is no data URI in base64'
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Pass the bytes, a bytea, or a text such as data:image/png;base64,…; no URL is fetched.';
    END IF;
    RETURN llm.media(decode(substr(uri, start + 1), 'base64'));
END $$;
COMMENT ON FUNCTION llm.media(text) IS 'the same of a data URI';

-- The same of what a function has made that takes media only, whoever wrote it; of JSON's null NULL.
CREATE FUNCTION llm._medium(input jsonb) RETURNS json
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE COST 1000 SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF input = 'null' THEN
        RETURN NULL;
    ELSIF jsonb_typeof(input) = 'object' AND jsonb_typeof(input -> '') = 'string' AND input - '' = '{}' THEN
        RETURN llm.media(input ->> '');
    END IF;
    RAISE EXCEPTION 'the JSON is no picture or recording that llm.media has made'
        USING ERRCODE = 'invalid_parameter_value',
              HINT = 'llm.embed(llm.media(photo)) embeds a picture, llm.embed(value::text) the text of a JSON value.';
END $$;
