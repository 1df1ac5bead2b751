-- Questions about rows, answered by a real vLLM on this machine. `make demo` runs it with psql against a throw-away
-- cluster; nothing of it stays.
\set QUIET on
\set ON_ERROR_STOP on
\pset footer off
\pset linestyle unicode
\pset border 1
\timing off
\set model `echo "${PG_BRIDGE_MODEL:-unknown}"`

-- Eight films and what their viewers wrote, of which much is written more than once.
CREATE TEMPORARY TABLE film (film, director, year, genre) AS VALUES
    ('The Salt Road', 'Ines Duarte', 1994, 'drama'),
    ('Nine Lanterns', 'Piet Aalders', 2003, 'thriller'),
    ('A Quiet Harbour', 'Maud Lindqvist', 2011, 'romance'),
    ('Clockwork Orchard', 'Tomas Bell', 1987, 'comedy'),
    ('The Glass Tenant', 'Yuki Amano', 2019, 'horror'),
    ('Winter Accounts', 'Carla Rossi', 2008, 'drama'),
    ('Paper Tigers', 'Sam Okoye', 2016, 'comedy'),
    ('Last Train to Varna', 'Elena Petrova', 1979, 'thriller');
CREATE TEMPORARY TABLE opinion (number, opinion) AS VALUES
    (0, 'A wonderful film. The acting is superb.'),
    (1, 'Dull and boring. I want my two hours back.'),
    (2, 'Beautiful pictures, but the story is weak.'),
    (3, 'I loved every minute of it and would watch it again.'),
    (4, 'Boring and far too long.'),
    (5, 'Funny, warm and clever. Highly recommended.'),
    (6, 'The music is great, but the story is weak.'),
    (7, 'A waste of time and money.'),
    (8, 'One of the best films that I have seen in years.'),
    (9, 'Far too long, and the jokes are not funny.'),
    (10, 'Good performances, but a disappointing ending.'),
    (11, 'Excellent. My whole family enjoyed it.');
CREATE TEMPORARY TABLE review AS
SELECT film, director, year, genre, opinion AS review
FROM generate_series(0, 239) AS n
     JOIN (SELECT row_number() OVER () - 1 AS place, * FROM film) AS f ON place = n * 5 % 8
     JOIN opinion ON number = n * n * 7 % 143 % 12
ORDER BY n;

\echo
\echo 'pg_bridge: questions about the rows of a query, answered by a real vLLM.'
\echo 'Model:' :model '(if it is pg-bridge-demo: 7 million parameters, made for this demo and small tests)'
\echo
\echo '1. 240 film reviews, asked about as a loop would: a prompt for every row, in the order of the table.'
\set ECHO queries

CREATE TEMPORARY TABLE in_table_order AS
SELECT * FROM llm.map('SELECT * FROM review', 'Classify the sentiment of review as positive, negative or mixed.',
                      choices => '{positive,negative,mixed}', dedup => false, reorder => 'none');

\set ECHO none
CREATE TEMPORARY TABLE run AS SELECT 'in table order' AS run, r.* FROM llm.last_run() AS r;
\echo '2. As pg_bridge asks by default: equal prompts once, rows and columns in the order that shares most.'
\echo '   (In other words, so that nothing of the first run helps the second.)'
\set ECHO queries

CREATE TEMPORARY TABLE planned AS
SELECT * FROM llm.map('SELECT * FROM review', 'Is the sentiment of review positive, negative or mixed?',
                      choices => '{positive,negative,mixed}');

\set ECHO none
INSERT INTO run SELECT 'planned', r.* FROM llm.last_run() AS r;
\set ECHO queries
SELECT input ->> 'film' AS film, input ->> 'review' AS review, output FROM planned ORDER BY row_id LIMIT 10;

SELECT input ->> 'film' AS film, count(*) FILTER (WHERE output = 'positive') AS positive,
       count(*) FILTER (WHERE output = 'negative') AS negative, count(*) FILTER (WHERE output = 'mixed') AS mixed
FROM planned GROUP BY film ORDER BY film;

\set ECHO none
\echo 'llm.last_run() after each of the two:'
SELECT run, rows, unique_prompts AS prompts, prompt_tokens, cached_tokens, prompt_tokens - cached_tokens AS computed_tokens,
       round((read_s + plan_s)::numeric, 3) AS "read + plan s", round(wait_s::numeric, 2) AS "engine s"
FROM run ORDER BY run;
\pset tuples_only on
SELECT format('>> %s of %s prompts saved; %s %% of the remaining prompt tokens came from the prefix cache; '
              'the engine computed %s tokens instead of %s.',
              planned.rows - planned.unique_prompts, planned.rows, round(100 * planned.prefix_hit_rate),
              planned.prompt_tokens - planned.cached_tokens, plain.prompt_tokens - plain.cached_tokens)
FROM run AS planned, run AS plain WHERE planned.run = 'planned' AND plain.run <> 'planned';
\pset tuples_only off
\echo '3. A plain SELECT. EXPLAIN shows where its calls are gathered, and about which rows they ask.'
\set ECHO queries

EXPLAIN (COSTS OFF)
SELECT film, count(*) AS praised FROM review AS r
WHERE year < 2000 AND llm.classify('What is the sentiment of {review}: positive, negative or mixed?', r,
                                   '{positive,negative,mixed}') = 'positive'
GROUP BY film ORDER BY film;

SELECT film, count(*) AS praised FROM review AS r
WHERE year < 2000 AND llm.classify('What is the sentiment of {review}: positive, negative or mixed?', r,
                                   '{positive,negative,mixed}') = 'positive'
GROUP BY film ORDER BY film;

\set ECHO none
\pset tuples_only on
SELECT format('>> %s calls were %s questions, asked in %s request(s).', rows, unique_prompts, requests)
FROM llm.last_run();
\pset tuples_only off
\echo '   Ten reviews more, which say what others have said: their answers are kept, whatever became of the statement before.'
INSERT INTO review SELECT 'Ten Empty Rooms', 'Ada Brandt', 1998, 'horror', opinion FROM opinion WHERE number < 10;
\set ECHO queries

SELECT film, count(*) AS praised FROM review AS r
WHERE year < 2000 AND llm.classify('What is the sentiment of {review}: positive, negative or mixed?', r,
                                   '{positive,negative,mixed}') = 'positive'
GROUP BY film ORDER BY film;

\set ECHO none
\pset tuples_only on
SELECT format('>> %s question(s) asked, %s answered from the ledger.', unique_prompts, from_cache) FROM llm.last_run();
\pset tuples_only off
\echo '4. One row at a time, for trying a prompt out.'
\set ECHO queries

SELECT llm.complete('Is {review} positive or negative?', r, choices => '{positive,negative}') AS answer, review
FROM (VALUES ('A lovely place, and the staff are very friendly.'), ('Boring and far too long.')) AS r (review);

\set ECHO none
\echo '5. PostgreSQL''s own settings, which the model has never seen: what they are about, and which of them name a word.'
\set ECHO queries

SELECT name, short_desc, llm.classify('What is {short_desc} about: logging, query planner, vacuum or replication?', s,
                                      '{logging,query planner,vacuum,replication}') AS about
FROM pg_settings AS s
WHERE name IN ('autovacuum_naptime', 'vacuum_freeze_min_age', 'enable_hashjoin', 'enable_indexscan', 'log_directory',
               'log_rotation_size', 'max_wal_senders', 'hot_standby_feedback')
ORDER BY name;

SELECT name, short_desc FROM pg_settings AS s
WHERE category LIKE 'Query Tuning%' AND llm.is_true('Does {short_desc} mention the size?', s) ORDER BY name;

\set ECHO none
SELECT fdwhandler <> 0 AS has_tables FROM pg_foreign_data_wrapper WHERE fdwname = 'pg_bridge' \gset
\if :has_tables
\echo '6. A foreign table: for an application it is a table like any other. Two of its columns are answered by the model.'
\set ECHO queries

CREATE FOREIGN TABLE film_insight (
    film       text,
    year       integer,
    review     text,
    sentiment  text    OPTIONS (prompt 'What is the sentiment of {review}?', labels 'positive,negative,mixed'),
    acting     boolean OPTIONS (prompt 'Does {review} mention the acting?')
) SERVER vllm OPTIONS (source 'pg_temp.review', placement 'question first');

EXPLAIN (COSTS OFF)
SELECT DISTINCT film, review, acting FROM film_insight WHERE year < 1980 AND sentiment = 'positive' ORDER BY film, review;

SELECT DISTINCT film, review, acting FROM film_insight WHERE year < 1980 AND sentiment = 'positive' ORDER BY film, review;

\set ECHO none
\pset tuples_only on
SELECT format('>> %s questions: the sentiment of each review of films before 1980, and the acting of those that are left.',
              unique_prompts)
FROM llm.last_run();
DROP FOREIGN TABLE film_insight;
\endif
