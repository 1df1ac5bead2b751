-- What EXPLAIN shows of foreign tables. Each host has its own golden file: Multicorn has PostgreSQL apply every condition
-- again, the native module those only that the source does not decide.
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
-- the plan; no model is asked for it
EXPLAIN (COSTS OFF) SELECT title, summary FROM review_insight WHERE stars <= 2 AND spoiler ORDER BY review_id LIMIT 20;
EXPLAIN (COSTS OFF, VERBOSE) SELECT title, summary, sentiment FROM review_insight WHERE stars <= 2 AND spoiler ORDER BY review_id LIMIT 20;
EXPLAIN (COSTS OFF) SELECT count(*) FROM review_insight WHERE title LIKE 'U%' AND stars IN (1, 5);
-- what it would take: with the plan's costs, or (Multicorn) with VERBOSE
CREATE FUNCTION estimated(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (VERBOSE) ' || query LOOP
        IF line ~ '(Estimated|Model)' THEN
            RETURN NEXT btrim(line);
        END IF;
    END LOOP;
END $$;
ALTER SERVER vllm OPTIONS (ADD price_prompt '2', ADD price_cached '0.5', ADD price_completion '8');
SELECT estimated('SELECT title, summary FROM review_insight WHERE spoiler');
SELECT estimated('SELECT title FROM review_insight');
SELECT rows, unique_prompts FROM llm.last_run();
