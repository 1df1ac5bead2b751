-- llm.rank: the best rows of a query by comparing them, and how many questions that is. The engine is a double: its answers are digests.
CREATE SERVER vllm FOREIGN DATA WRAPPER pg_bridge OPTIONS (endpoint :'endpoint');
CREATE TABLE film (id int, title text, plot text);
INSERT INTO film VALUES (1, 'Heat', 'cold'), (2, 'Alien', 'dark'), (3, 'Clue', 'odd'), (4, 'Clue', 'odd'), (5, 'Solaris', NULL), (6, 'Big', 'glad');
SELECT * FROM llm.rank('SELECT * FROM film ORDER BY id', 'scary by its {plot}', 3) ORDER BY rank, row_id;
SELECT rank, row_id, ties, agreement FROM llm.rank('SELECT title, plot FROM film ORDER BY id;', 'scary', NULL) ORDER BY rank, row_id;
SELECT rows, unique_prompts FROM llm.last_run();
-- pair by pair
SELECT rank, row_id, ties, agreement FROM llm.rank('SELECT * FROM film ORDER BY id', 'scary by its {plot}', NULL, list_rows => 2) ORDER BY rank, row_id;
-- how many questions
SELECT rows, unique_rows, list_size, questions, rounds FROM llm.rank_estimate('SELECT * FROM film', 'scary by its {plot}', 3, list_rows => 2);
SELECT k, n, questions, rounds FROM (VALUES (1), (10), (NULL)) AS k (k), (VALUES (10), (100), (1000)) AS n (n),
       LATERAL llm.rank_estimate('SELECT i FROM generate_series(1, ' || n || ') AS i', 'large', k) AS e ORDER BY k, n;
-- nothing to ask
SELECT * FROM llm.rank('TABLE film', 'scary', 0);
SELECT * FROM llm.rank('SELECT 1 AS a WHERE false', 'large', 3);
SELECT * FROM llm.rank('SELECT 1 AS a UNION ALL SELECT 1', 'large', 3);
SELECT * FROM llm.rank('SELECT NULL AS a', 'large', 3);
SELECT * FROM llm.rank_estimate('SELECT 1 AS a', 'large', 3);
-- what is wrong
SELECT * FROM llm.rank('TABLE film', 'scary', -1);
SELECT * FROM llm.rank('TABLE film', NULL, 1);
SELECT * FROM llm.rank('TABLE film', 'scary {plott}', 1);
SELECT * FROM llm.rank('TABLE film', 'scary', 1, list_rows => 1);
SELECT * FROM llm.rank('TABLE film', 'scary', 1, server => 'none');
SELECT * FROM llm.rank('SELECT repeat(i::text, 9000) AS a FROM generate_series(1, 2) AS i', 'large', 1);
SELECT * FROM llm.rank('SELECT i FROM generate_series(1, 100000) AS i', 'large', NULL);
SELECT * FROM llm.rank('SELECT ''reject me'' || i AS a FROM generate_series(1, 2) AS i', 'large', 1);
SELECT * FROM llm.rank('SELECT ''reject me'' || i AS a FROM generate_series(1, 2) AS i', 'large', 1, on_error => 'null');
