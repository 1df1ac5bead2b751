-- llm.estimate: what llm.map would ask and take, without asking.
CREATE SERVER vllm FOREIGN DATA WRAPPER pg_bridge
    OPTIONS (endpoint :'endpoint', price_prompt '2', price_cached '0.5', price_completion '8');
CREATE TABLE review (id int, title text, body text);
INSERT INTO review SELECT i, 'Film ' || i % 5, repeat('Lovely, and so long. ', 1 + i % 4) FROM generate_series(1, 200) AS i;
SELECT rows, unique_prompts, already_answered, requests, prompt_tokens > 1000 AS some, cached_tokens > prompt_tokens / 3 AS cached,
       completion_tokens, seconds, cost > 0 AS costs, counted_by, answers_by
FROM llm.estimate('TABLE review', 'Is what is said of {title} in {body} kind?');
-- nothing was asked
SELECT rows FROM llm.last_run();
-- the options are those of llm.map
SELECT rows, unique_prompts, completion_tokens FROM llm.estimate('TABLE review', '{title}', max_tokens => 5);
SELECT rows, unique_prompts, completion_tokens FROM llm.estimate('TABLE review', '{title}', choices => '{yes,no}');
SELECT rows, unique_prompts FROM llm.estimate('TABLE review', '{title}', dedup => false, window_rows => 7);
SELECT e.unique_prompts FROM unnest('{id,title,body}'::text[]) AS c, LATERAL llm.estimate('TABLE review', '{' || c || '}') AS e;
SELECT (llm.estimate('TABLE review', '{title}')).unique_prompts;
-- it is a query's part like any other
SELECT CASE WHEN e.cost < 1 THEN 'cheap' ELSE 'dear' END FROM llm.estimate('TABLE review', '{body}') AS e;
-- a query without rows, and one of NULLs
SELECT * FROM llm.estimate('SELECT 1 AS a WHERE false', 'What is {a}?');
SELECT rows, unique_prompts FROM llm.estimate('SELECT NULL::text AS a FROM generate_series(1, 3)', 'What is {a}?');
-- without prices there is no cost
ALTER SERVER vllm OPTIONS (DROP price_prompt, DROP price_cached, DROP price_completion);
SELECT unique_prompts, cost FROM llm.estimate('TABLE review', '{title}');
-- errors are those of llm.map
SELECT * FROM llm.estimate('TABLE review', 'Is {boddy} kind?');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT * FROM llm.estimate('TABLE review', NULL);
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT * FROM llm.estimate(NULL, 'x');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT * FROM llm.estimate('DELETE FROM review RETURNING id', '{id}');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT * FROM llm.estimate('SELECT id / (id - 3) AS q FROM review', '{q}');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT * FROM llm.estimate('TABLE review', '{id}', server => 'nowhere');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT * FROM llm.estimate('TABLE review', '{id}', max_tokens => 0);
SELECT * FROM llm.estimate('TABLE review', '{id}', colour => 'red');
SELECT count(*) FROM review;
SELECT rows FROM llm.last_run();
