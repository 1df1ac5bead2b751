-- What is built on the five functions, and what they can do besides.
CREATE SERVER vllm FOREIGN DATA WRAPPER pg_bridge OPTIONS (endpoint :'endpoint');
CREATE TABLE reviews (id int PRIMARY KEY, film text, review text);
INSERT INTO reviews VALUES (1, 'Heat', 'A long, cold, beautiful chase.'), (2, 'Heat', 'Too long.'), (3, 'Alien', NULL);
-- whole numbers in a range
SELECT id, llm.score('How good is {review}?', r, low => 1, high => 5) BETWEEN 1 AND 5 AS within FROM reviews AS r ORDER BY id;
SELECT llm.score('How good is {}?', 'x', low => 7, high => 7) AS only, llm.score('How good is {}?', 'x', low => -9, high => -8) < 0 AS below,
       llm.score('How good is {}?', 'x', low => -2147483648, high => 2147483647) IS NOT NULL AS any,
       llm.score('How good is {}?', 'x', low => NULL, high => NULL) = llm.score('How good is {}?', 'x') AS none;
SELECT llm.score('How good is {}?', NULL::text, low => 3, high => 3);
SELECT llm.score('How good is {}?', 'x', low => 5, high => 1);
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT llm.score('How good is {}?', 'x', low => 1);
SELECT llm.score('How good is {}?', 'x', high => 1);
SELECT llm.score('How good is {}?', 'x', low => 1.5, high => 2.5);
SELECT llm.complete('How good is {}?', 'x', low => 1, high => 2);
