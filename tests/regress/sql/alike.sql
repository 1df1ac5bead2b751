-- llm.resolve and llm.clusters: rows that mean the same, and rows that belong together. The engine is a double: its answers and its embeddings are digests.
CREATE SERVER vllm FOREIGN DATA WRAPPER pg_bridge OPTIONS (endpoint :'endpoint');
CREATE TABLE firm (id int, name text, city text);
INSERT INTO firm VALUES (1, 'Acme', 'Ulm'), (2, 'ACME', 'Ulm'), (3, 'Bolt', 'Bonn'), (4, 'Bolt', 'Bonn'), (5, NULL, NULL), (6, 'Cask', 'Kiel');
SELECT row_id, entity, representative ->> 'name' AS stands, agreement FROM llm.resolve('SELECT * FROM firm ORDER BY id;', 'the same firm: {name}');
SELECT rows, unique_prompts, pairs FROM llm.last_run();
SELECT row_id, entity, agreement FROM llm.resolve('SELECT * FROM firm ORDER BY id', 'the same firm: {name}', embedder => 'vllm', candidates => 1, dimensions => 4);
SELECT row_id, entity, agreement FROM llm.resolve('SELECT * FROM firm ORDER BY id', 'the same firm: {name}', min_similarity => 0.9);
SELECT row_id, cluster, name, distance IS NULL AS is_none FROM llm.clusters('SELECT * FROM firm ORDER BY id', 'the trade of {name}', 2, embedder => 'vllm') AS c;
-- nothing to ask
SELECT * FROM llm.resolve('SELECT 1 AS a WHERE false', 'same');
SELECT * FROM llm.resolve('SELECT 1 AS a UNION ALL SELECT 1', 'same');
SELECT * FROM llm.resolve('SELECT NULL AS a', 'same');
SELECT * FROM llm.clusters('SELECT NULL AS a', 'kind', 3, embedder => 'vllm');
-- what is wrong
SELECT * FROM llm.resolve('TABLE firm', NULL);
SELECT * FROM llm.resolve('TABLE firm', 'same {nam}');
SELECT * FROM llm.resolve('TABLE firm', 'same', candidates => 101);
SELECT * FROM llm.resolve('TABLE firm', 'same', min_similarity => 2);
SELECT * FROM llm.resolve('TABLE firm', 'same', embedder => 'none');
SELECT * FROM llm.resolve('SELECT i FROM generate_series(1, 201) AS i', 'same');
SELECT * FROM llm.resolve('SELECT i FROM generate_series(1, 100001) AS i', 'same', candidates => 1);
SELECT * FROM llm.resolve('SELECT ''reject me'' || i AS a FROM generate_series(1, 2) AS i', 'same');
SELECT row_id, entity, agreement FROM llm.resolve('SELECT ''reject me'' || i AS a FROM generate_series(1, 2) AS i', 'same', on_error => 'null');
SELECT * FROM llm.clusters('TABLE firm', 'kind', 2);
SELECT * FROM llm.clusters('TABLE firm', 'kind', 0, embedder => 'vllm');
SELECT * FROM llm.clusters('SELECT ''reject me'' AS a', 'kind', 1, embedder => 'vllm');
SELECT * FROM llm.clusters('SELECT ''reject me'' AS a', 'kind', 1, embedder => 'vllm', on_error => 'null');
