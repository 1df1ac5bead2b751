-- All that belongs to the extension, and what it is: by kind and name.
WITH member AS (
    SELECT d.classid, d.objid FROM pg_depend AS d JOIN pg_extension AS e ON e.oid = d.refobjid
    WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname LIKE 'pg_bridge%'
)
SELECT 'function' AS kind, p.oid::regprocedure::text AS name, ARRAY[
           CASE WHEN p.prokind = 'a' THEN (SELECT row(a.aggtransfn, a.aggfinalfn, a.aggtranstype::regtype)::text FROM pg_aggregate AS a WHERE a.aggfnoid = p.oid) ELSE pg_get_functiondef(p.oid) END, p.proowner::regrole::text, p.proacl::text, i.initprivs::text,
           obj_description(p.oid, 'pg_proc')] AS is
FROM member AS m JOIN pg_proc AS p ON p.oid = m.objid AND m.classid = 'pg_proc'::regclass
     LEFT JOIN pg_init_privs AS i ON i.objoid = p.oid AND i.classoid = 'pg_proc'::regclass
UNION ALL
SELECT 'relation', c.oid::regclass::text, ARRAY[
           c.relkind::text, c.relacl::text, c.relrowsecurity::text, c.reloptions::text, obj_description(c.oid, 'pg_class'),
           CASE WHEN c.relkind = 'v' THEN pg_get_viewdef(c.oid) END,
           (SELECT string_agg(concat_ws(' ', a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attacl,
                                        pg_get_expr(v.adbin, v.adrelid), col_description(c.oid, a.attnum)), ', ' ORDER BY a.attnum)
            FROM pg_attribute AS a LEFT JOIN pg_attrdef AS v ON v.adrelid = a.attrelid AND v.adnum = a.attnum
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
           (SELECT string_agg(pg_get_triggerdef(t.oid), ', ' ORDER BY t.tgname) FROM pg_trigger AS t WHERE t.tgrelid = c.oid),
           (SELECT string_agg(pg_get_constraintdef(k.oid), ', ' ORDER BY k.conname) FROM pg_constraint AS k WHERE k.conrelid = c.oid),
           (SELECT string_agg(pg_get_indexdef(x.indexrelid), ', ' ORDER BY pg_get_indexdef(x.indexrelid)) FROM pg_index AS x WHERE x.indrelid = c.oid),
           (SELECT string_agg(concat_ws(' ', o.polname, o.polcmd, pg_get_expr(o.polqual, o.polrelid),
                                        pg_get_expr(o.polwithcheck, o.polrelid)), ', ' ORDER BY o.polname)
            FROM pg_policy AS o WHERE o.polrelid = c.oid),
           (SELECT f.ftoptions::text FROM pg_foreign_table AS f WHERE f.ftrelid = c.oid)]
FROM member AS m JOIN pg_class AS c ON c.oid = m.objid AND m.classid = 'pg_class'::regclass
UNION ALL
SELECT 'wrapper', w.fdwname, ARRAY[w.fdwhandler::regproc::text, w.fdwvalidator::regproc::text, w.fdwoptions::text]
FROM member AS m JOIN pg_foreign_data_wrapper AS w ON w.oid = m.objid AND m.classid = 'pg_foreign_data_wrapper'::regclass
UNION ALL
SELECT 'server', s.srvname, ARRAY[s.srvoptions::text, s.srvacl::text]
FROM member AS m JOIN pg_foreign_server AS s ON s.oid = m.objid AND m.classid = 'pg_foreign_server'::regclass
UNION ALL
SELECT 'type', t.oid::regtype::text, ARRAY[t.typtype::text, t.typinput::regproc::text, t.typoutput::regproc::text,
                                           obj_description(t.oid, 'pg_type')]
FROM member AS m JOIN pg_type AS t ON t.oid = m.objid AND m.classid = 'pg_type'::regclass
UNION ALL
SELECT 'extension', e.extname, ARRAY[e.extversion, e.extcondition::text, (
    SELECT string_agg(c::regclass::text, ', ' ORDER BY n) FROM unnest(e.extconfig) WITH ORDINALITY AS u (c, n))]
FROM pg_extension AS e WHERE e.extname LIKE 'pg_bridge%'
UNION ALL
SELECT 'other', m.classid::regclass::text || count(*), NULL
FROM member AS m
WHERE m.classid NOT IN ('pg_proc'::regclass, 'pg_class'::regclass, 'pg_type'::regclass)
GROUP BY m.classid
