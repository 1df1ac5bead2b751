-- llm.complete: one request a call.
CREATE SERVER vllm FOREIGN DATA WRAPPER pg_bridge OPTIONS (endpoint :'endpoint');
SELECT llm.complete('What is PostgreSQL?');
SELECT amname, llm.complete('Is {amname} an index?', a) FROM pg_am AS a WHERE amname IN ('btree', 'heap') ORDER BY amname;
SELECT llm.complete('Is {a} more than {b}?', '{"a": 12.50, "b": null}'::jsonb) = llm.complete('Is {a} more than {b}?', r)
FROM (SELECT NULL AS b, 12.50 AS a) AS r;
SELECT llm.complete('Yes or no?', choices => '{yes,no}') IN ('yes', 'no');
-- a NULL row is a row of nulls
SELECT llm.complete('Is {amname} an index?', NULL::pg_am) = llm.complete('Is {amname} an index?', '{"amname": null}'::jsonb);
-- errors
SELECT llm.complete(NULL);
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT llm.complete('Is {nope} an index?', a) FROM pg_am AS a;
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT llm.complete('Is {a} there?');
SELECT llm.complete('x', 12);
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT llm.complete('x', '[1]'::jsonb);
SELECT llm.complete('x', max_tokens => -1);
SELECT llm.complete('reject me');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT llm.complete('reject me', on_error => 'null') IS NULL;
SELECT rows, unique_prompts, requests FROM llm.last_run();
-- the extension can be dropped with all that is its own, but not under a server
DROP EXTENSION :extension;
DROP SERVER vllm;
DROP EXTENSION :extension;
SELECT count(*) FROM pg_namespace WHERE nspname = 'llm';
