-- Foreign tables on PL/Python: the functions that the native module calls, and the handler, where the module is.
--
-- Each takes one JSON object and returns its error as its last output, {SQLSTATE, message, detail, hint}. They run as the
-- role that reads the foreign table, and reach its source only through the module, which reads it as the table's owner.
-- The module asks for no EXECUTE, so nobody has it.

CREATE FUNCTION llm._foreign_size(
    request text, OUT rows double precision, OUT width integer, OUT cost double precision, OUT exact boolean[],
    OUT sortable text[], OUT fault text[]
) LANGUAGE plpython3u VOLATILE
SET search_path = pg_catalog, pg_temp AS $$
from pg_bridge.plpython import foreign
return foreign.size(plpy, request)
$$;
REVOKE ALL ON FUNCTION llm._foreign_size FROM PUBLIC;

CREATE FUNCTION llm._foreign_explain(request text, OUT lines text[], OUT fault text[])
LANGUAGE plpython3u VOLATILE
SET search_path = pg_catalog, pg_temp AS $$
from pg_bridge.plpython import foreign
return foreign.explain(plpy, request)
$$;
REVOKE ALL ON FUNCTION llm._foreign_explain FROM PUBLIC;

-- STABLE: what it reads, it reads in the snapshot of the statement that scans.
CREATE FUNCTION llm._foreign_scan(request text) RETURNS TABLE (rows integer, cells text[], fault text[])
LANGUAGE plpython3u STABLE
SET search_path = pg_catalog, pg_temp AS $$
from pg_bridge.plpython import foreign
return foreign.scan(plpy, request)
$$;
REVOKE ALL ON FUNCTION llm._foreign_scan FROM PUBLIC;

-- The commands of IMPORT FOREIGN SCHEMA, which are then read where this session's own search_path says.
CREATE FUNCTION llm._foreign_import(request text, OUT commands text[], OUT fault text[])
LANGUAGE plpython3u VOLATILE AS $$
from pg_bridge.plpython import foreign
return foreign.import_schema(plpy, request)
$$;
REVOKE ALL ON FUNCTION llm._foreign_import FROM PUBLIC;

CREATE FUNCTION llm.enable_foreign_tables() RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET client_min_messages = error AS $$
DECLARE
    made regprocedure;
BEGIN
    CREATE OR REPLACE FUNCTION llm._foreign_handler() RETURNS fdw_handler
    LANGUAGE c STRICT AS 'pg_bridge', 'pg_bridge_foreign_handler';
    -- The role that reads calls these from Python; outside of the scan of a foreign table they refuse to do anything.
    CREATE OR REPLACE FUNCTION llm._source_table(name text) RETURNS text
    LANGUAGE c STABLE AS 'pg_bridge', 'pg_bridge_source_table';
    CREATE OR REPLACE FUNCTION llm._source_columns(query text) RETURNS text[]
    LANGUAGE c STABLE AS 'pg_bridge', 'pg_bridge_source_columns';
    CREATE OR REPLACE FUNCTION llm._source_size(query text, parameters text[]) RETURNS double precision[]
    LANGUAGE c STABLE AS 'pg_bridge', 'pg_bridge_source_size';
    CREATE OR REPLACE FUNCTION llm._source_rows(wanted integer, query text, parameters text[]) RETURNS text[]
    LANGUAGE c STABLE AS 'pg_bridge', 'pg_bridge_source_rows';
    REVOKE ALL ON FUNCTION llm._foreign_handler FROM PUBLIC;
    FOREACH made IN ARRAY ARRAY['llm._foreign_handler()', 'llm._source_table(text)', 'llm._source_columns(text)',
                                'llm._source_size(text, text[])', 'llm._source_rows(integer, text, text[])']::regprocedure[]
    LOOP
        IF NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_proc'::regclass AND objid = made AND deptype = 'e') THEN
            EXECUTE format('ALTER EXTENSION pg_bridge ADD FUNCTION %s', made);
        END IF;
    END LOOP;
    ALTER FOREIGN DATA WRAPPER pg_bridge HANDLER llm._foreign_handler;
    RETURN true;
EXCEPTION WHEN undefined_file OR undefined_function THEN
    RETURN false;
END $$;
COMMENT ON FUNCTION llm.enable_foreign_tables IS
    'lets foreign tables be made, if the server has the native module by now; false if it has not';
REVOKE ALL ON FUNCTION llm.enable_foreign_tables FROM PUBLIC;

SELECT llm.enable_foreign_tables();
