-- Foreign tables: rows of a source, with columns that a model answers.
CREATE SERVER vllm FOREIGN DATA WRAPPER pg_bridge OPTIONS (endpoint :'endpoint', cache 'transaction' :wrapper);
CREATE USER MAPPING FOR CURRENT_USER SERVER vllm OPTIONS (user 'postgres');
CREATE TABLE reviews (review_id bigint PRIMARY KEY, title text, stars int, review text, seen date);
INSERT INTO reviews VALUES
    (1, 'Up', 5, 'Lovely.', '2024-01-01'), (2, 'Up', 5, 'Lovely.', '2024-01-02'), (3, NULL, NULL, NULL, NULL),
    (4, '', 1, 'naïve "quotes" \ {braces}', '2024-02-29'), (5, 'Down', 2, 'Dull.', '2024-03-01');
ANALYZE reviews;
CREATE FOREIGN TABLE review_insight (
    review_id  bigint,
    title      text,
    stars      int,
    review     text,
    sentiment  text     OPTIONS (prompt 'What is the sentiment of {review}?', labels 'positive,negative,mixed'),
    spoiler    boolean  OPTIONS (prompt 'Does {review} give away the plot of {title}?'),
    summary    text     OPTIONS (prompt 'Summarise {review} in one sentence.', max_tokens '60')
) SERVER vllm OPTIONS (source 'public.reviews', key 'review_id');
SELECT * FROM review_insight ORDER BY review_id;
SELECT rows, unique_prompts FROM llm.last_run();
-- nothing is asked that nobody reads
SELECT count(*), max(stars) FROM review_insight;
SELECT rows, unique_prompts FROM llm.last_run();
-- conditions on the source, conditions on answers, both
SELECT review_id, sentiment FROM review_insight WHERE stars <= 2 ORDER BY review_id;
SELECT rows, unique_prompts FROM llm.last_run();
SELECT review_id, summary FROM review_insight WHERE NOT spoiler ORDER BY review_id;
SELECT review_id FROM review_insight WHERE sentiment IN ('positive', 'mixed') AND title IS NOT NULL ORDER BY review_id;
SELECT review_id FROM review_insight WHERE sentiment = 'no such label';
SELECT sentiment, count(*) FROM review_insight GROUP BY sentiment ORDER BY sentiment;
-- prepared, with a generic plan
SET plan_cache_mode = force_generic_plan;
PREPARE few (int, text) AS SELECT review_id, sentiment FROM review_insight WHERE stars >= $1 AND title = $2 ORDER BY 1;
EXECUTE few (5, 'Up');
EXECUTE few (NULL, 'Up');
EXECUTE few (1, '');
RESET plan_cache_mode;
-- a view and a join
CREATE VIEW kind AS SELECT review_id, title FROM review_insight WHERE sentiment = 'positive';
SELECT k.review_id, r.seen FROM kind AS k JOIN reviews AS r USING (review_id) ORDER BY 1;
-- source_query, and types that decide what an answer is
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE FOREIGN TABLE typed (
    seen   date,
    grade  int     OPTIONS (prompt 'Grade {seen}.'),
    score  numeric OPTIONS (prompt 'Score {seen}.'),
    mood   mood    OPTIONS (prompt 'What is the mood of {seen}?'),
    facts  jsonb   OPTIONS (prompt 'Facts of {seen}.', schema '{"type": "object", "required": ["who"]}')
) SERVER vllm OPTIONS (source_query 'SELECT seen FROM reviews WHERE seen IS NOT NULL');
SELECT seen, grade BETWEEN 1 AND 5 AS grade, score BETWEEN 1 AND 5 AS score, mood, facts ? 'who' AS facts
FROM typed WHERE seen < '2024-02-01' ORDER BY seen;
-- IMPORT FOREIGN SCHEMA
CREATE SCHEMA ai;
IMPORT FOREIGN SCHEMA public LIMIT TO (reviews) FROM SERVER vllm INTO ai OPTIONS (
    model_columns '[{"name": "kind", "type": "boolean", "prompt": "Is {review} kind?", "on_error": "null"},
                    {"name": "tone", "prompt": "What is the tone of {review}?", "labels": ["dry", "warm"]}]');
SELECT f.ftoptions, a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod) AS type, a.attfdwoptions
FROM pg_foreign_table AS f JOIN pg_attribute AS a ON a.attrelid = f.ftrelid AND a.attnum > 0
WHERE f.ftrelid = 'ai.reviews'::regclass ORDER BY a.attnum;
SELECT review_id, kind, tone FROM ai.reviews WHERE stars = 5 ORDER BY review_id;
IMPORT FOREIGN SCHEMA public LIMIT TO (reviews) FROM SERVER vllm INTO ai OPTIONS (model_columns '{"name": "kind"}');
IMPORT FOREIGN SCHEMA public LIMIT TO (reviews) FROM SERVER vllm INTO ai OPTIONS (model_columns '[{"name": "kind", "prompt": "Is {reviw} kind?"}]');
IMPORT FOREIGN SCHEMA public LIMIT TO (reviews) FROM SERVER vllm INTO ai OPTIONS (model_columns '[{"name": "kind", "type": "point", "prompt": "Is {review} kind?"}]');
IMPORT FOREIGN SCHEMA nowhere FROM SERVER vllm INTO ai;
IMPORT FOREIGN SCHEMA public FROM SERVER vllm INTO ai OPTIONS (colour 'red');
-- what PostgreSQL refuses when a table is made
CREATE FOREIGN TABLE bad (a int) SERVER vllm;
\echo SQLSTATE :LAST_ERROR_SQLSTATE
CREATE FOREIGN TABLE bad (a int) SERVER vllm OPTIONS (source 'reviews', source_query 'SELECT 1 AS a');
CREATE FOREIGN TABLE bad (a int) SERVER vllm OPTIONS (source 'reviews', colour 'red');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
CREATE FOREIGN TABLE bad (a int OPTIONS (labels 'x,y')) SERVER vllm OPTIONS (source 'reviews');
CREATE FOREIGN TABLE bad (a int OPTIONS (prompt 'x', colour 'red')) SERVER vllm OPTIONS (source 'reviews');
CREATE FOREIGN TABLE bad (a int OPTIONS (prompt 'x', max_tokens 'many')) SERVER vllm OPTIONS (source 'reviews');
CREATE FOREIGN TABLE bad (a int) SERVER vllm OPTIONS (source 'reviews', window_rows '0');
ALTER FOREIGN TABLE review_insight OPTIONS (DROP source);
ALTER FOREIGN TABLE review_insight ALTER summary OPTIONS (DROP prompt);
-- what is refused at the first use, for PostgreSQL shows a definition as a whole only then
CREATE FOREIGN TABLE bad (reviw text, a text OPTIONS (prompt 'Is {review} kind?')) SERVER vllm OPTIONS (source 'reviews');
SELECT * FROM bad;
DROP FOREIGN TABLE bad;
CREATE FOREIGN TABLE bad (reviw text, a text OPTIONS (prompt 'Is {reviw} kind?')) SERVER vllm OPTIONS (source 'reviews');
SELECT * FROM bad;
DROP FOREIGN TABLE bad;
CREATE FOREIGN TABLE bad (review text, a point OPTIONS (prompt 'Where is {review}?')) SERVER vllm OPTIONS (source 'reviews');
SELECT * FROM bad;
DROP FOREIGN TABLE bad;
CREATE FOREIGN TABLE bad (review text, a int OPTIONS (prompt 'Is {review}?', labels 'x,y')) SERVER vllm OPTIONS (source 'reviews');
SELECT * FROM bad;
DROP FOREIGN TABLE bad;
CREATE FOREIGN TABLE bad (review text, a mood OPTIONS (prompt 'Is {review}?', labels 'sad,glad')) SERVER vllm OPTIONS (source 'reviews');
SELECT * FROM bad;
DROP FOREIGN TABLE bad;
CREATE FOREIGN TABLE bad (review text, a text OPTIONS (prompt 'Is {review?')) SERVER vllm OPTIONS (source 'reviews');
SELECT * FROM bad;
DROP FOREIGN TABLE bad;
CREATE FOREIGN TABLE bad (review text) SERVER vllm OPTIONS (source 'reviews', key 'id');
SELECT * FROM bad;
DROP FOREIGN TABLE bad;
CREATE FOREIGN TABLE bad (a int) SERVER vllm OPTIONS (source_query 'SELECT 1 AS a; DROP TABLE reviews');
SELECT * FROM bad;
DROP FOREIGN TABLE bad;
-- a row that fails on its own merits
INSERT INTO reviews VALUES (6, 'Up', 3, 'reject me', NULL);
SELECT review_id, summary IS NULL AS failed FROM review_insight ORDER BY review_id;
ALTER FOREIGN TABLE review_insight ALTER summary OPTIONS (ADD on_error 'null');
SELECT review_id, summary IS NULL AS failed FROM review_insight ORDER BY review_id;
