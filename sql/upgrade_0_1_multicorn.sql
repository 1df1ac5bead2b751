-- From 0.1, on Multicorn: what the extension's own tables have got since.

ALTER FOREIGN DATA WRAPPER pg_bridge NO VALIDATOR;
DO $$
DECLARE
    server record;
BEGIN
    FOR server IN
        SELECT s.srvname FROM pg_foreign_server AS s JOIN pg_foreign_data_wrapper AS w ON w.oid = s.srvfdw
        WHERE w.fdwname = 'pg_bridge' AND 'wrapper=pg_bridge.hosts.multicorn.Wrapper' = ANY (s.srvoptions)
    LOOP
        EXECUTE format('ALTER SERVER %I OPTIONS (SET wrapper %L)', server.srvname, '@wrapper@');
    END LOOP;
END $$;
ALTER FOREIGN TABLE llm._connection ADD owned boolean, ADD owner oid;
DROP TRIGGER connect ON llm.rowset;
