-- An upgrade of the extension, its last part: what others have made is bound to the new functions, rights that were given or
-- taken hold for these, and the old ones go. One that something cannot do without stays, by another name and no part of the
-- extension any more, so that a dump has it; it calls the new one.

-- No text of a function is read: that could run somebody's code, as in upgrade_before.sql.
SET LOCAL check_function_bodies = off;

CREATE FUNCTION llm._rebind(statement text) RETURNS void LANGUAGE sql AS '';  -- of this script, as what is dropped at its end must be

DO $$
DECLARE
    made record;
    changed record;
    granted record;
    had aclitem[];
BEGIN
    FOR made IN SELECT * FROM llm_dependent LOOP
        BEGIN
            -- An extension's script replaces nothing but the extension's own.
            IF made.kind <> '' THEN
                EXECUTE format('ALTER EXTENSION @extension@ ADD %s %s', made.kind, made.name);
            END IF;
            -- What is read is read as whose it is, where no SET ROLE leads back. Each time it is made anew: an owner may alter it.
            CREATE OR REPLACE FUNCTION llm._rebind(statement text) RETURNS void
            LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
                'BEGIN EXECUTE statement; END';
            EXECUTE format('ALTER FUNCTION llm._rebind(text) OWNER TO %s', made.owner::regrole);
            PERFORM llm._rebind(made.statement);
            IF made.kind <> '' THEN
                EXECUTE format('ALTER EXTENSION @extension@ DROP %s %s', made.kind, made.name);
            END IF;
        EXCEPTION WHEN OTHERS THEN
            RAISE WARNING '% still calls pg_bridge as version @old@ was', made.name USING DETAIL = SQLERRM;
        END;
    END LOOP;

    -- A right on one form of a function was one on all that it could be asked. What is granted here is the database's own
    -- doing and belongs into its dumps, so it is not to be taken for what the extension brings.
    FOR changed IN
        SELECT p.oid AS function, p.oid::regprocedure AS shown, p.proowner AS owner,
               (SELECT o.rights FROM llm_old AS o WHERE o.name = p.proname AND o.has_own_rights ORDER BY o.function LIMIT 1) AS rights
        FROM pg_proc AS p
        WHERE p.pronamespace = 'llm'::regnamespace
              AND p.proname IN (SELECT o.name FROM llm_old AS o WHERE o.has_own_rights)
              AND EXISTS (SELECT FROM pg_depend AS d JOIN pg_extension AS e ON e.oid = d.refobjid
                          WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
                                AND d.refclassid = 'pg_extension'::regclass AND e.extname = '@extension@')
    LOOP
        had := (SELECT i.initprivs FROM pg_init_privs AS i
                WHERE i.objoid = changed.function AND i.classoid = 'pg_proc'::regclass AND i.objsubid = 0);
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', changed.shown);
        FOR granted IN
            SELECT a.grantee, a.is_grantable
            FROM aclexplode(coalesce(changed.rights, acldefault('f', changed.owner))) AS a WHERE a.grantee <> changed.owner
        LOOP
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s %s', changed.shown,
                           CASE granted.grantee WHEN 0 THEN 'PUBLIC' ELSE granted.grantee::regrole::text END,
                           CASE WHEN granted.is_grantable THEN 'WITH GRANT OPTION' END);
        END LOOP;
        DELETE FROM pg_init_privs AS i
        WHERE i.objoid = changed.function AND i.classoid = 'pg_proc'::regclass AND i.objsubid = 0 AND had IS NULL;
        DELETE FROM pg_shdepend AS d  -- from PostgreSQL 17 on it says, too, whom what an extension brings knows
        WHERE d.dbid = (SELECT b.oid FROM pg_database AS b WHERE b.datname = current_database())
              AND d.classid = 'pg_proc'::regclass AND d.objid = changed.function AND d.deptype = 'i'
              AND d.refobjid <> changed.owner;
        UPDATE pg_init_privs AS i SET initprivs = had
        WHERE i.objoid = changed.function AND i.classoid = 'pg_proc'::regclass AND i.objsubid = 0 AND had IS NOT NULL;
    END LOOP;
END $$;

DO $$
DECLARE
    old record;
    arguments text;
BEGIN
    FOR old IN
        SELECT p.oid AS function, p.oid::regprocedure AS shown, o.name, p.proargnames AS names
        FROM llm_old AS o JOIN pg_proc AS p ON p.oid = o.function
        ORDER BY p.oid DESC  -- what calls another one was made after it
    LOOP
        BEGIN
            EXECUTE format('DROP FUNCTION %s', old.shown);
            CONTINUE;
        EXCEPTION WHEN dependent_objects_still_exist THEN
            NULL;
        END;
        SELECT string_agg(format('%I => $%s', n.name, n.place), ', ' ORDER BY n.place) INTO arguments
        FROM unnest(old.names) WITH ORDINALITY AS n (name, place)
        WHERE n.name IN (SELECT unnest(p.proargnames) FROM pg_proc AS p
                         WHERE p.pronamespace = 'llm'::regnamespace AND p.proname = old.name);
        BEGIN
            EXECUTE format('CREATE OR REPLACE FUNCTION llm.%I(%s) RETURNS %s LANGUAGE sql STABLE COST 100000 '
                           'SET search_path = pg_catalog, pg_temp AS %L',
                           '@old_prefix@' || old.name, pg_get_function_arguments(old.function), pg_get_function_result(old.function),
                           format('SELECT llm.%I(%s)', old.name, arguments));
        EXCEPTION WHEN OTHERS THEN
            RAISE WARNING 'llm.% of version @old@ is needed, and cannot be made of what there is now', old.name
                USING DETAIL = SQLERRM;
        END;
        EXECUTE format('ALTER EXTENSION @extension@ DROP FUNCTION %s', old.shown);
        RAISE WARNING '% stays, for something was made of it that cannot be changed', old.shown
            USING DETAIL = (SELECT string_agg(DISTINCT pg_describe_object(
                                CASE d.classid WHEN 'pg_rewrite'::regclass THEN 'pg_class'::regclass ELSE d.classid END,
                                coalesce((SELECT r.ev_class FROM pg_rewrite AS r
                                          WHERE d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid), d.objid), 0), ', ')
                            FROM pg_depend AS d
                            WHERE d.refclassid = 'pg_proc'::regclass AND d.refobjid = old.function AND d.deptype = 'n'),
                  HINT = format('Make it anew when it suits you, and then DROP FUNCTION %s.', old.shown);
    END LOOP;
END $$;

DROP FUNCTION llm._rebind(text);
DROP TABLE llm_old, llm_dependent;
