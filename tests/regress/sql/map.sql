-- llm.map: a row back for every row, the answer beside its input.
CREATE SERVER vllm FOREIGN DATA WRAPPER pg_bridge OPTIONS (endpoint :'endpoint');
CREATE TABLE review (id int, title text, stars numeric(2,1), body text);
INSERT INTO review VALUES (1, 'Up', 4.5, 'Lovely.'), (2, 'Up', 4.5, 'Lovely.'), (3, NULL, NULL, NULL), (4, '', 0.0, 'naïve "quotes" \ {braces}');
SELECT * FROM llm.map('SELECT * FROM review ORDER BY id', 'Is {body} kind?') ORDER BY row_id;
SELECT rows, unique_prompts, completion_tokens > 0 AS answered FROM llm.last_run();
-- choices, and a count over them
SELECT input ->> 'id' AS id, output FROM llm.map('TABLE review', 'Is {body} kind?', choices => '{yes,no}') ORDER BY row_id;
-- the same answer whatever is moved
SELECT count(DISTINCT m.output) FROM unnest('{rows and columns,rows,none}'::text[]) AS r,
       LATERAL llm.map('SELECT title, stars, body FROM review WHERE id = 1', '{title} {stars} {body}', reorder => r) AS m;
-- every row its own prompt
SELECT count(*) FROM llm.map('TABLE review', 'Is {body} kind?', dedup => false, window_rows => 1);
SELECT rows, unique_prompts FROM llm.last_run();
-- zero rows back for zero rows
SELECT * FROM llm.map('SELECT 1 AS a WHERE false', 'What is {a}?');
-- braces
SELECT output IS NOT NULL FROM llm.map('SELECT 1 AS a', 'Answer {{like this}} about {a}');
SELECT * FROM llm.map('SELECT 1 AS a', 'What is {a?');
SELECT * FROM llm.map('SELECT 1 AS a', 'What is {}?');
-- an unknown column is an error before anything is sent, also where there are no rows
SELECT * FROM llm.map('TABLE review', 'Is {boddy} kind?');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT * FROM llm.map('SELECT 1 AS a WHERE false', 'What is {b}?');
-- NULL arguments
SELECT * FROM llm.map('TABLE review', NULL);
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT * FROM llm.map(NULL, 'x');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
-- NULL options are the defaults
SELECT count(*) FROM llm.map('TABLE review', '{body}', max_tokens => NULL, reorder => NULL, dedup => NULL, on_error => NULL);
-- options out of range
SELECT * FROM llm.map('TABLE review', '{body}', max_tokens => 0);
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT * FROM llm.map('TABLE review', '{body}', temperature => 3);
SELECT * FROM llm.map('TABLE review', '{body}', temperature => 'NaN');
SELECT * FROM llm.map('TABLE review', '{body}', reorder => 'sideways');
SELECT * FROM llm.map('TABLE review', '{body}', on_error => 'ignore');
SELECT * FROM llm.map('TABLE review', '{body}', window_rows => 0);
SELECT * FROM llm.map('TABLE review', '{body}', choices => '{yes,yes}');
SELECT * FROM llm.map('TABLE review', '{body}', choices => '{yes,NULL}');
SELECT * FROM llm.map('TABLE review', '{body}', colour => 'red');
-- what is not one query that reads
SELECT * FROM llm.map('DELETE FROM review RETURNING id', '{id}');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT * FROM llm.map('SELECT 1 AS a; DROP TABLE review', '{a}');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT * FROM llm.map('EXPLAIN SELECT 1', 'x');
SELECT * FROM llm.map('SELECT 1 AS a) AS x, (SELECT 2', 'x');
SELECT * FROM llm.map('WITH d AS (DELETE FROM review RETURNING id) SELECT * FROM d', '{id}');
SELECT * FROM llm.map('', 'x');
SELECT * FROM llm.map('SELECT 1 AS a, 2 AS a', 'x');
SELECT * FROM llm.map('SELECT nope FROM review', 'x');
SELECT * FROM llm.map('SELECT id / (id - 3) AS q FROM review', '{q}');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT count(*) FROM review;
-- a row that fails on its own merits
SELECT * FROM llm.map('SELECT i, CASE i WHEN 2 THEN ''reject me'' ELSE ''fine'' END AS t FROM generate_series(1, 3) AS i', '{t}');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT row_id, output, error FROM llm.map('SELECT i, CASE i WHEN 2 THEN ''reject me'' ELSE ''fine'' END AS t FROM generate_series(1, 3) AS i', '{t}', on_error => 'null') ORDER BY row_id;
-- several questions in one pass
SELECT m.row_id, m.input, m.outputs ->> 'what' LIKE 'answer %' AS what, m.outputs -> 'kind' IN ('true', 'false') AS kind,
       (m.outputs -> 'stars')::int BETWEEN 1 AND 5 AS stars, m.errors
FROM llm.map('SELECT i FROM generate_series(1, 3) AS i', prompts =>
             '{"what": "What is {i}?", "kind": {"prompt": "Is {i}?", "type": "boolean"}, "stars": {"prompt": "{i}?", "low": 1, "high": 5}}') AS m
ORDER BY row_id;
SELECT outputs, errors FROM llm.map('SELECT ''reject me'' AS a', '{"a": "{a}?", "b": "{a}!"}'::jsonb, on_error => 'null');
SELECT outputs FROM llm.map('SELECT 1 AS a UNION ALL SELECT 2', prompts => '{"a": "{a}?", "b": "{c}!"}');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT outputs FROM llm.map('SELECT 1 AS a', prompts => '{"a": {"prompt": "{a}?", "colour": "red"}}');
SELECT outputs FROM llm.map('SELECT 1 AS a', prompts => '["{a}?"]');
SELECT outputs FROM llm.map('SELECT 1 AS a', prompts => NULL);
SELECT rows, unique_prompts, already_answered FROM llm.estimate('SELECT 1 AS a', prompts => '{"a": "{a}?", "b": "{a}!"}');
