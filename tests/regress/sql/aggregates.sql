-- llm.aggregate and llm.summarize, in batches. The engine is a double: its answers are digests.
SET client_min_messages = error;
CREATE SERVER vllm FOREIGN DATA WRAPPER pg_bridge OPTIONS (endpoint :'endpoint');
LOAD 'pg_bridge';
SET client_min_messages = notice;
CREATE TABLE reviews (id int, film text, review text);
INSERT INTO reviews VALUES (1, 'Heat', 'cold'), (2, 'Heat', NULL), (3, 'Alien', 'seat'), (4, 'Alien', 'loud'), (5, 'Clue', NULL);

SELECT film, llm.aggregate('Agreed?', review ORDER BY id), llm.summarize(review ORDER BY id DESC) FROM reviews GROUP BY film ORDER BY film;
SELECT llm.aggregate('Agreed on {review}?', r ORDER BY id) FILTER (WHERE id < 4) FROM reviews AS r;
SELECT llm.summarize(DISTINCT review) FROM reviews WHERE false;
SELECT id, llm.summarize(review) OVER (ORDER BY id) FROM reviews;

EXPLAIN (COSTS OFF) SELECT film, llm.aggregate('Agreed?', r) FROM reviews AS r GROUP BY film HAVING llm.summarize(review) <> '';

-- what is wrong
SELECT llm.aggregate(NULL, review) FROM reviews;
SELECT llm.aggregate(film, review) FROM reviews;
SELECT llm.aggregate('x', review, '{"wat": 1}') FROM reviews;
SELECT llm.aggregate('x', review, '{"context_tokens": 600}') FROM reviews;
SELECT llm.aggregate('1'::llm.gathered);
