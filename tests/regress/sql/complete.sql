-- llm.complete: one request a call.
CREATE SERVER vllm FOREIGN DATA WRAPPER pg_bridge OPTIONS (endpoint :'endpoint');
SELECT llm.complete('What is PostgreSQL?');
SELECT amname, llm.complete('Is {amname} an index?', a) FROM pg_am AS a WHERE amname IN ('btree', 'heap') ORDER BY amname;
SELECT llm.complete('Is {a} more than {b}?', '{"a": 12.50, "b": null}'::jsonb) = llm.complete('Is {a} more than {b}?', r)
FROM (SELECT NULL AS b, 12.50 AS a) AS r;
SELECT llm.complete('Yes or no?', choices => '{yes,no}') IN ('yes', 'no');
-- a NULL row is a row of nulls
SELECT llm.complete('Is {amname} an index?', NULL::pg_am) = llm.complete('Is {amname} an index?', '{"amname": null}'::jsonb);
-- a value is what {} names, of whatever type; what looks like text is text
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE DOMAIN title AS text;
SELECT llm.complete('What is {}?', 'Heat') = llm.complete('What is {}?', t) AS text,
       llm.complete('What is {}?', 'Heat') = llm.complete('What is {}?', v::varchar) AS varchar,
       llm.complete('What is {}?', 'Heat') = llm.complete('What is {}?', v::title) AS domain,
       llm.complete('What is {}?', 'Heat') = llm.complete('What is {}?', to_jsonb(t)) AS jsonb,
       llm.complete('What is {}?', 'Heat') = llm.complete('What is {input}?', '{"input": "Heat"}'::jsonb) AS object,
       llm.complete('What is {}?', 'Heat', 'vllm') = llm.complete('What is {}?', t, server => 'vllm') AS server
FROM (VALUES ('Heat'::text, 'Heat'::bpchar)) AS f (t, v);
SELECT llm.complete('What is {}?', 'good'::mood) = llm.complete('What is {}?', 'good') AS enum,
       llm.complete('What is {}?', 12.50) = llm.complete('What is {}?', '12.50'::json) AS number,
       llm.complete('What is {}?', ARRAY['a', NULL]) = llm.complete('What is {}?', '["a",null]'::json) AS array,
       llm.complete('What is {}?', date '2026-11-27') = llm.complete('What is {}?', '2026-11-27') AS date,
       llm.complete('What is {}?', NULL) = llm.complete('What is {}?', 'null'::jsonb) AS null,
       llm.complete('What is {}?', NULL::int) = llm.complete('What is {}?', NULL::text) AS typed_null,
       llm.complete('What is it?', NULL::int) = llm.complete('What is it?') AS unnamed_null;
SELECT llm.is_true('Is {} kind?', 'x'), llm.classify('What is {}?', 'x', '{one}'), llm.score('How is {}?', 'x') IS NOT NULL AS scored,
       llm.extract('Who is {}?', 'x', '{"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}') ? 'a' AS extracted;
SELECT llm.is_true('Is {} kind?', 7), llm.classify('What is {}?', 7, '{one}'), llm.score('How is {}?', 7) IS NOT NULL AS scored,
       llm.extract('Who is {}?', 7, '{"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}') ? 'a' AS extracted;
-- several rows are one input; a NULL row has whatever columns are named
CREATE TABLE films (id int, title text);
INSERT INTO films VALUES (1, 'Heat'), (2, 'Alien');
CREATE TABLE reviews (id int, review text);
INSERT INTO reviews VALUES (1, 'Good.'), (2, 'Bad.'), (3, 'Ugly.');
SELECT r.id, llm.complete('Does {review} fit {title}?', llm.row(r, f)) AS answer,
       llm.complete('Does {review} fit {title}?', llm.row(r, f))
       = llm.complete('Does {review} fit {title}?', jsonb_build_object('review', r.review, 'title', f.title)) AS same
FROM reviews AS r LEFT JOIN films AS f ON f.id = r.id ORDER BY r.id;
SELECT llm.row(r, f, '{"n": 1.50}'::jsonb) FROM reviews AS r LEFT JOIN films AS f ON f.id = r.id ORDER BY r.id;
SELECT llm.complete('What is {id}?', llm.row(r, f)) FROM reviews AS r JOIN films AS f ON f.id = r.id;
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT llm.complete('What is this?', llm.row(r, f)) FROM reviews AS r JOIN films AS f ON f.id = r.id;
SELECT llm.complete('Is {titel} good?', llm.row(f)) FROM films AS f;
SELECT llm.complete('Is {} good?', llm.row(f)) FROM films AS f;
SELECT llm.complete('Is {title} good?', llm.row(f, 12)) FROM films AS f;
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT llm.complete('Is {title} good?', llm.row());
-- errors
SELECT llm.complete(NULL);
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT llm.complete('Is {nope} an index?', a) FROM pg_am AS a;
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT llm.complete('Is {a} there?');
SELECT llm.complete('Is {f} good?', f) FROM (VALUES ('film 1')) AS films (f);
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT llm.complete('Is {a} good?', '{"a": 1}');
SELECT llm.complete('Is {} good?', a) FROM pg_am AS a;
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT llm.complete('Is {} good?');
SELECT llm.complete('x', server => 'film 1');
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
