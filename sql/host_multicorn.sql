-- The Multicorn host: two foreign tables for users, three for the extension itself, all in the memory of one backend.

CREATE FOREIGN DATA WRAPPER pg_bridge HANDLER multicorn_handler VALIDATOR llm._validate;
COMMENT ON FOREIGN DATA WRAPPER pg_bridge IS 'servers of LLM engines that speak the OpenAI API';

-- The server of the extension's own tables: this backend's Python. It is no engine and has no endpoint.
CREATE SERVER pg_bridge_session FOREIGN DATA WRAPPER pg_bridge OPTIONS (wrapper '@wrapper@');

CREATE FOREIGN TABLE llm.rowset (
    rowset text NOT NULL,
    row_id bigint,
    input  json
) SERVER pg_bridge_session OPTIONS (relation 'rowset');
COMMENT ON FOREIGN TABLE llm.rowset IS 'rows that this role staged in this transaction, for llm.result; row_id is given by the table';

CREATE FOREIGN TABLE llm.result (
    rowset  text,
    prompt  text,
    options text,
    row_id  bigint,
    input   jsonb,
    output  text,
    error   text
) SERVER pg_bridge_session OPTIONS (relation 'result');
COMMENT ON FOREIGN TABLE llm.result IS
    'the answers to a prompt about each row of a row set: WHERE rowset = … AND prompt = … [AND options = ''{"server": …}'']';

-- The same rows. Into this one llm.map stages all of a query's but the first, for with an INSERT into llm.rowset the
-- servers of the role are looked up.
CREATE FOREIGN TABLE llm._further_rows (
    rowset text NOT NULL,
    row_id bigint,
    input  json
) SERVER pg_bridge_session OPTIONS (relation 'rowset');

CREATE FOREIGN TABLE llm._connection (
    role    oid,
    server  text,
    usable  boolean,
    options text,
    owned   boolean,
    owner   oid
) SERVER pg_bridge_session OPTIONS (relation 'connection');

CREATE FOREIGN TABLE llm._state (
    version  text,
    last_run text
) SERVER pg_bridge_session OPTIONS (relation 'state');

-- Requests to the ledger and their replies, both JSON.
CREATE FOREIGN TABLE llm._desk (
    request text,
    reply   text
) SERVER pg_bridge_session OPTIONS (relation 'desk');

GRANT SELECT, INSERT ON llm.rowset TO PUBLIC;
GRANT INSERT ON llm._further_rows TO PUBLIC;
GRANT SELECT ON llm.result, llm._state TO PUBLIC;
GRANT SELECT ON llm._desk TO PUBLIC;

-- Puts the servers that `role` may use into this backend's Python, secrets included. It returns nothing and Python
-- looks servers up by the role that is current, so calling it for another role gains nothing.
CREATE FUNCTION llm._connect(role name) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO llm._connection (role, server, usable, options, owned, owner)
    SELECT r.oid, NULL, NULL, '@version@', NULL, NULL FROM pg_roles AS r WHERE r.rolname = role  -- forgets what the role had
    UNION ALL
    SELECT r.oid, s.server, s.usable, s.options, s.owned, s.owner
    FROM llm._servers(role) AS s JOIN pg_roles AS r ON r.rolname = role
$$;

CREATE FUNCTION llm._connect_current() RETURNS trigger
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM llm._connect(current_user);
    RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION llm._connect_current FROM PUBLIC;

CREATE TRIGGER connect BEFORE INSERT ON llm.rowset FOR EACH STATEMENT EXECUTE FUNCTION llm._connect_current();

-- Stages the rows of a cursor and returns the new row set's name. Row 0 holds the column names, so that an empty row
-- set has them too; with it the servers are looked up, once. The rows go in by statements of some thousands: Multicorn
-- keeps what it converts until the end of a statement, about five times the rows' size. It runs the caller's query and
-- keeps his path, as llm._fetch does.
CREATE FUNCTION llm._stage(rows refcursor, columns text[]) RETURNS text
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    name pg_catalog.text := pg_catalog.concat('map ', pg_catalog.gen_random_uuid());
    at_once CONSTANT pg_catalog.int4 := 10000;
    staged pg_catalog.int4;
BEGIN
    INSERT INTO llm.rowset (rowset, row_id, input) VALUES (name, 0, pg_catalog.to_json(columns));
    LOOP
        INSERT INTO llm._further_rows (rowset, input) SELECT name, f FROM llm._fetch(rows, at_once) AS f;
        GET DIAGNOSTICS staged = ROW_COUNT;
        EXIT WHEN staged OPERATOR(pg_catalog.<) at_once;
    END LOOP;
    CLOSE rows;
    RETURN name;
END $$;

-- A body that is parsed here and now, because the caller's path must be left as it is for his query. The rows are all staged
-- before the first one is asked about, whether every one is wanted or not. From inside, a row without row_id has a fault
-- for its error.
CREATE FUNCTION llm._map(rows refcursor, columns text[], prompt text, options text, every_row boolean)
RETURNS TABLE (row_id bigint, input jsonb, output text, error text, fault text[])
LANGUAGE sql VOLATILE
BEGIN ATOMIC
    SELECT r.row_id, r.input, r.output, r.error, CASE WHEN r.row_id IS NULL THEN r.error::pg_catalog.text[] END
    FROM llm.result AS r
    WHERE r.rowset = (SELECT llm._stage($1, $2))
      AND r.prompt = $3
      AND r.options = (SELECT pg_catalog.jsonb_set($4::pg_catalog.jsonb, '{internal}', 'true')::pg_catalog.text);
END;

CREATE FUNCTION llm._estimate(rows refcursor, columns text[], prompt text, options text)
RETURNS TABLE (found text, fault text[])
LANGUAGE sql VOLATILE
BEGIN ATOMIC
    SELECT r.output, CASE WHEN r.row_id IS NULL THEN r.error::pg_catalog.text[] END
    FROM llm.result AS r
    WHERE r.rowset = (SELECT llm._stage($1, $2))
      AND r.prompt = $3
      AND r.options = (SELECT pg_catalog.jsonb_set(
              pg_catalog.jsonb_set($4::pg_catalog.jsonb, '{internal}', 'true'), '{estimate}', 'true')::pg_catalog.text);
END;

CREATE FUNCTION llm._rank(
    rows refcursor, columns text[], criterion text, k integer, options text, is_estimate boolean
) RETURNS TABLE (row_id bigint, input jsonb, found text, fault text[])
LANGUAGE sql VOLATILE
BEGIN ATOMIC
    SELECT r.row_id, r.input, r.output, CASE WHEN r.error IS NOT NULL THEN r.error::pg_catalog.text[] END
    FROM llm.result AS r
    WHERE r.rowset = (SELECT llm._stage($1, $2))
      AND r.prompt = $3
      AND r.options = (SELECT (pg_catalog.jsonb_build_object(
              'internal', true, 'estimate', $6, 'rank', true, 'k', $4)
              OPERATOR(pg_catalog.||) $5::pg_catalog.jsonb)::pg_catalog.text);
END;

-- A foreign table's Python cannot run SQL in the transaction that reads it, and over a connection of its own a function would
-- be another role's, in another transaction.
CREATE FUNCTION llm._map_with_tools(
    rows refcursor, columns text[], prompt text, tools oid[], options text, every_row boolean
) RETURNS TABLE (row_id bigint, input jsonb, output text, error text, calls jsonb, fault text[])
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT NULL::bigint, NULL::jsonb, NULL, NULL, NULL::jsonb, ARRAY[
        '0A000', 'llm.map_with_tools cannot call functions on the Multicorn host', '',
        'Take the PL/Python host, or compute what may be needed in the query of llm.map.']
$$;

CREATE FUNCTION llm._try(rows refcursor, columns text[], asked text, options text)
RETURNS TABLE (found text, fault text[])
LANGUAGE sql VOLATILE
BEGIN ATOMIC
    SELECT r.output, CASE WHEN r.error IS NOT NULL THEN r.error::pg_catalog.text[] END
    FROM llm.result AS r
    WHERE r.rowset = (SELECT llm._stage($1, $2))
      AND r.prompt = $3
      AND r.options = (SELECT ('{"internal": true, "try": true}'::pg_catalog.jsonb
              OPERATOR(pg_catalog.||) $4::pg_catalog.jsonb)::pg_catalog.text);
END;

CREATE FUNCTION llm._sample(rows refcursor, columns text[], prompt text, function text, options text)
RETURNS TABLE (row_id bigint, input jsonb, found text, fault text[])
LANGUAGE sql VOLATILE
BEGIN ATOMIC
    SELECT r.row_id, r.input, r.output, CASE WHEN r.error IS NOT NULL THEN r.error::pg_catalog.text[] END
    FROM llm.result AS r
    WHERE r.rowset = (SELECT llm._stage($1, $2))
      AND r.prompt = $3
      AND r.options = (SELECT (pg_catalog.jsonb_build_object('internal', true, 'sample', $4)
              OPERATOR(pg_catalog.||) $5::pg_catalog.jsonb)::pg_catalog.text);
END;

CREATE FUNCTION llm._alike(
    rows refcursor, columns text[], criterion text, k integer, options text, task text
) RETURNS TABLE (row_id bigint, input jsonb, found text, fault text[])
LANGUAGE sql VOLATILE
BEGIN ATOMIC
    SELECT r.row_id, r.input, r.output, CASE WHEN r.error IS NOT NULL THEN r.error::pg_catalog.text[] END
    FROM llm.result AS r
    WHERE r.rowset = (SELECT llm._stage($1, $2))
      AND r.prompt = $3
      AND r.options = (SELECT (pg_catalog.jsonb_build_object(
              'internal', true, 'task', COALESCE($6, ''), 'k', $4)
              OPERATOR(pg_catalog.||) COALESCE($5, 'null')::pg_catalog.jsonb)::pg_catalog.text);
END;

CREATE FUNCTION llm._complete(prompt text, input text, options text) RETURNS TABLE (output text, error text, fault text[])
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    name text := 'complete ' || gen_random_uuid();
    internal text := jsonb_set($3::jsonb, '{internal}', 'true');
BEGIN
    INSERT INTO llm.rowset (rowset, input) VALUES (name, $2::json);
    RETURN QUERY
        SELECT r.output, r.error, CASE WHEN r.row_id IS NULL THEN r.error::text[] END
        FROM llm.result AS r WHERE r.rowset = name AND r.prompt = $1 AND r.options = internal;
END $$;

CREATE FUNCTION llm._session() RETURNS TABLE (version text, last_run json)
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT s.version, s.last_run::json FROM llm._state AS s
$$;

CREATE FUNCTION llm._reply(request text) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM llm._connect(current_user);
    RETURN (SELECT d.reply FROM llm._desk AS d WHERE d.request = $1);
END $$;
