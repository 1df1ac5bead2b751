-- Where calls are gathered into batches: the plan of each kind of query.
CREATE SERVER vllm FOREIGN DATA WRAPPER pg_bridge OPTIONS (endpoint :'endpoint', cache 'transaction');
\set QUIET on
CREATE TABLE products (product_id int PRIMARY KEY, name text, sold boolean);
CREATE TABLE reviews (id int PRIMARY KEY, product_id int, stars int, review text, created date);
INSERT INTO products SELECT i, 'product ' || i, i <= 2 FROM generate_series(1, 20) AS i;
INSERT INTO reviews SELECT i, 1 + i % 20, 1 + i % 5, 'text ' || i % 90, date '2026-01-01' + i
FROM generate_series(1, 600) AS i;
ANALYZE products, reviews;
CREATE VIEW insight AS SELECT r.*, llm.classify('What is {review}?', r, '{good,bad}') AS sentiment FROM reviews AS r;
-- What EXPLAIN ANALYZE says, without what differs from run to run.
CREATE FUNCTION analyzed(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (ANALYZE, BUFFERS OFF, COSTS OFF, TIMING OFF, SUMMARY OFF) ' || query LOOP
        RETURN NEXT regexp_replace(line, '[0-9.]+ ms.*|[0-9]+kB|(?<=Flight: )[0-9.]+', '…');
    END LOOP;
END $$;
-- What EXPLAIN expects of the calls.
CREATE FUNCTION estimated(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN ' || query LOOP
        IF line ~ '(Estimated|Calls)' THEN
            RETURN NEXT btrim(line);
        END IF;
    END LOOP;
END $$;
\set QUIET off
\pset format unaligned
\pset tuples_only on

-- target list, WHERE, LIMIT
EXPLAIN (COSTS OFF) SELECT llm.complete('Sum up {review}', r) FROM reviews AS r;
EXPLAIN (VERBOSE, COSTS OFF) SELECT llm.complete('Sum up {review}', r) FROM reviews AS r WHERE stars = 1;
EXPLAIN (COSTS OFF) SELECT id FROM reviews AS r WHERE llm.is_true('Is {review} kind?', r) AND stars = 1 LIMIT 3;
EXPLAIN (COSTS OFF) SELECT llm.complete('Sum up {review}', r) FROM reviews AS r ORDER BY created LIMIT 20;
-- aggregates, GROUP BY, HAVING, ORDER BY, windows
EXPLAIN (COSTS OFF) SELECT avg(llm.score('How good is {review}?', r)) FROM reviews AS r;
EXPLAIN (COSTS OFF) SELECT sentiment, count(*) FROM insight WHERE stars <= 2 GROUP BY 1;
EXPLAIN (COSTS OFF) SELECT product_id FROM reviews GROUP BY product_id
HAVING llm.is_true('Is {what} kind?', jsonb_build_object('what', product_id));
EXPLAIN (COSTS OFF) SELECT id FROM reviews AS r ORDER BY llm.score('How good is {review}?', r);
EXPLAIN (COSTS OFF) SELECT sum(llm.score('How good is {review}?', r)) OVER (ORDER BY id) FROM reviews AS r;
-- CASE: the call is made for the rows that reach it
EXPLAIN (COSTS OFF) SELECT CASE WHEN stars = 1 THEN llm.complete('Sum up {review}', r) END FROM reviews AS r;
-- a view's column that nobody reads
EXPLAIN (COSTS OFF) SELECT count(*) FROM insight;
-- joins: a qual goes above the join that leaves fewer rows; a call of both sides; a call as join key
EXPLAIN (COSTS OFF) SELECT p.name FROM reviews AS r JOIN products AS p USING (product_id)
WHERE p.name = 'product 3' AND llm.is_true('Is {review} kind?', r);
EXPLAIN (COSTS OFF) SELECT p.name FROM reviews AS r JOIN products AS p USING (product_id)
WHERE llm.is_true('Is {t} of {n} kind?', jsonb_build_object('t', r.stars, 'n', p.sold));
EXPLAIN (COSTS OFF) SELECT count(*) FROM reviews AS r JOIN (SELECT DISTINCT name FROM products) AS l
ON l.name = llm.complete('What is {review}?', r);
-- subqueries, CTEs, set operations
EXPLAIN (COSTS OFF) SELECT name FROM products WHERE product_id IN
(SELECT product_id FROM reviews AS r WHERE stars = 1 AND llm.is_true('Is {review} kind?', r));
EXPLAIN (COSTS OFF) WITH c AS MATERIALIZED (SELECT id, llm.complete('Sum up {review}', r) AS x FROM reviews AS r)
SELECT count(*) FROM c AS one JOIN c AS two USING (id);
EXPLAIN (COSTS OFF) SELECT llm.complete('Sum up {review}', r) FROM reviews AS r WHERE stars = 1
UNION ALL SELECT llm.complete('Sum up {review}', r) FROM reviews AS r WHERE stars = 2;
-- a call that depends on no row is made once
EXPLAIN (COSTS OFF) SELECT id FROM reviews WHERE review = llm.complete('Which text?');
-- statements that write
EXPLAIN (COSTS OFF) UPDATE reviews AS r SET review = llm.complete('Sum up {review}', r) WHERE stars = 1;
EXPLAIN (COSTS OFF) INSERT INTO reviews (id, review) SELECT -id, llm.complete('Sum up {review}', r) FROM reviews AS r;
-- what it would take, by the planner's figures; at a price, where there is one
SELECT estimated($$SELECT llm.complete('Sum up {review}', r) FROM reviews AS r$$);
ALTER SERVER vllm OPTIONS (ADD price_prompt '2', ADD price_cached '0.5', ADD price_completion '8');
SELECT estimated($$SELECT llm.complete('Sum up {review}', r) FROM reviews AS r WHERE llm.is_true('Is {review} kind?', r)$$);
SELECT estimated($$SELECT llm.classify('Which?', jsonb_build_object('s', stars), '{a,b}') FROM reviews$$);
SELECT estimated($$SELECT llm.complete('Sum up {review}', r, server => 'nowhere') FROM reviews AS r$$);
SELECT estimated($$SELECT llm.complete(review, r, server => review) FROM reviews AS r$$);
SELECT estimated($$SELECT llm.complete('{', r) FROM reviews AS r$$);
ALTER SERVER vllm OPTIONS (DROP price_prompt, DROP price_cached, DROP price_completion);
-- nothing was asked so far
SELECT rows IS NULL FROM llm.last_run();
-- what a run says of itself
SELECT analyzed($$SELECT llm.complete('Sum up {review}', r) FROM reviews AS r WHERE llm.is_true('Is {review} kind?', r)$$);
SELECT rows, unique_prompts FROM llm.last_run();
-- off
SET pg_bridge.batching = off;
EXPLAIN (COSTS OFF) SELECT llm.complete('Sum up {review}', r) FROM reviews AS r;
RESET pg_bridge.batching;
-- registration
SELECT llm.register_batch('lower(text)', 'upper(text)');
SELECT function, batch FROM llm.batch_function ORDER BY function::text;
