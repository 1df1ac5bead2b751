-- An upgrade of the extension, its first part: what there was is put out of the way, and noted for the last one.
--
-- `pg-bridge install` makes a script of this file, of what one version needs and its host (upgrade_0_1_….sql), of the
-- install script without what is there, and of upgrade_after.sql. So the functions of an upgraded database are those of a new
-- one, word for word. Options come to functions as arguments, which no function can be given afterwards: all are made anew, and
-- what calls them is bound to the new ones (docs/decisions/0060).

\echo Use "ALTER EXTENSION @extension@ UPDATE" to load this file. \quit

SET LOCAL search_path = pg_catalog, pg_temp;  -- so that all that is shown below names its schema

CREATE TEMPORARY TABLE llm_old AS
SELECT p.oid AS function, p.proname AS name, p.proacl AS rights, p.proacl IS DISTINCT FROM i.initprivs AS has_own_rights
FROM pg_depend AS d
     JOIN pg_extension AS e ON e.oid = d.refobjid AND e.extname = '@extension@'
     JOIN pg_proc AS p ON p.oid = d.objid
     LEFT JOIN pg_init_privs AS i ON i.objoid = p.oid AND i.classoid = d.classid AND i.objsubid = 0
WHERE d.refclassid = 'pg_extension'::regclass AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e';

-- What others have made of them, as statements that make it once more. To read a literal is to run the CHECKs of the domains in
-- its type, and what code of a stranger's queues (a deferred trigger) runs with the rights of whoever commits: so nothing is made
-- once more that has to do with such a domain, unless a superuser owns this.
CREATE TEMPORARY TABLE llm_dependent AS
WITH RECURSIVE calling AS (
    SELECT DISTINCT d.classid, d.objid FROM pg_depend AS d
    WHERE d.refclassid = 'pg_proc'::regclass AND d.refobjid IN (SELECT o.function FROM llm_old AS o) AND d.deptype = 'n'
), typed (classid, objid, type) AS (
    SELECT c.classid, c.objid, d.refobjid
    FROM calling AS c JOIN pg_depend AS d ON d.classid = c.classid AND d.objid = c.objid
    WHERE d.refclassid = 'pg_type'::regclass
    UNION
    SELECT t.classid, t.objid, part.type
    FROM typed AS t JOIN pg_type AS y ON y.oid = t.type CROSS JOIN LATERAL (
        VALUES (y.typbasetype), (y.typelem)
        UNION ALL SELECT a.atttypid FROM pg_attribute AS a WHERE a.attrelid = y.typrelid AND a.attnum > 0
        UNION ALL SELECT r.rngsubtype FROM pg_range AS r WHERE y.oid IN (r.rngtypid, r.rngmultitypid)
    ) AS part (type)
    WHERE part.type <> 0
), dependent AS (
    SELECT c.classid, c.objid FROM calling AS c
    WHERE NOT EXISTS (
        SELECT FROM typed AS t JOIN pg_type AS y ON y.oid = t.type JOIN pg_roles AS o ON o.oid = y.typowner
        WHERE t.classid = c.classid AND t.objid = c.objid AND y.typtype = 'd' AND NOT o.rolsuper
              AND EXISTS (SELECT FROM pg_constraint AS k WHERE k.contypid = y.oid AND k.contype = 'c'))
)
SELECT 'VIEW' AS kind, c.oid::regclass::text AS name, c.relowner AS owner,
       format('CREATE OR REPLACE VIEW %s %s AS %s', c.oid::regclass,
              'WITH (' || array_to_string(c.reloptions, ', ') || ')', pg_get_viewdef(c.oid)) AS statement
FROM dependent AS d JOIN pg_rewrite AS r ON r.oid = d.objid JOIN pg_class AS c ON c.oid = r.ev_class
WHERE d.classid = 'pg_rewrite'::regclass AND r.rulename = '_RETURN' AND c.relkind = 'v'
UNION ALL
SELECT 'ROUTINE', p.oid::regprocedure::text, p.proowner, pg_get_functiondef(p.oid)
FROM dependent AS d JOIN pg_proc AS p ON p.oid = d.objid
WHERE d.classid = 'pg_proc'::regclass AND p.prokind <> 'a' AND p.oid NOT IN (SELECT o.function FROM llm_old AS o)
UNION ALL
SELECT '', format('rule %I on %s', r.rulename, c.oid::regclass), c.relowner,
       regexp_replace(pg_get_ruledef(r.oid), '^CREATE RULE', 'CREATE OR REPLACE RULE')
FROM dependent AS d JOIN pg_rewrite AS r ON r.oid = d.objid JOIN pg_class AS c ON c.oid = r.ev_class
WHERE d.classid = 'pg_rewrite'::regclass AND r.rulename <> '_RETURN'
UNION ALL
SELECT '', format('policy %I on %s', p.polname, c.oid::regclass), c.relowner,
       format('ALTER POLICY %I ON %s%s%s', p.polname, c.oid::regclass,
              ' USING (' || pg_get_expr(p.polqual, p.polrelid) || ')',
              ' WITH CHECK (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')')
FROM dependent AS d JOIN pg_policy AS p ON p.oid = d.objid JOIN pg_class AS c ON c.oid = p.polrelid
WHERE d.classid = 'pg_policy'::regclass
UNION ALL
SELECT '', format('the default of %I in %s', a.attname, c.oid::regclass), c.relowner,
       format('ALTER TABLE %s ALTER %I SET DEFAULT %s', c.oid::regclass, a.attname, pg_get_expr(v.adbin, v.adrelid))
FROM dependent AS d JOIN pg_attrdef AS v ON v.oid = d.objid
     JOIN pg_attribute AS a ON a.attrelid = v.adrelid AND a.attnum = v.adnum
     JOIN pg_class AS c ON c.oid = v.adrelid
WHERE d.classid = 'pg_attrdef'::regclass AND a.attgenerated = '';

DO $$
DECLARE
    old record;
BEGIN
    FOR old IN SELECT o.function::regprocedure AS shown, o.name FROM llm_old AS o LOOP
        EXECUTE format('ALTER ROUTINE %s RENAME TO %I', old.shown, '@old_prefix@' || old.name);
    END LOOP;
END $$;
