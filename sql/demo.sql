-- The main job over rows that every PostgreSQL server holds. `make demo` runs it with psql against a throw-away
-- cluster and a real vLLM on this machine.
\set QUIET on
\set ON_ERROR_STOP on
\pset footer off
\pset linestyle unicode
\pset border 1
\timing off
\set model `echo "${PG_BRIDGE_MODEL:-unknown}"`

\echo
\echo 'pg_bridge: one question about each row of pg_settings, answered by a real vLLM.'
\echo 'Model:' :model
\echo 'Until a trained model is bundled it has RANDOM WEIGHTS: its answers mean nothing, the counters are real.'
\echo
\echo '1. As a loop over the rows would ask: a prompt for every row, in the order of the table.'
\set ECHO queries

CREATE TEMPORARY TABLE in_table_order AS
SELECT m.*
FROM llm.map('SELECT name, category, vartype, context FROM pg_settings ORDER BY name',
             'Would a change of a {vartype} setting in {category} with context {context} need care?',
             choices => '{yes,no}', dedup => false, reorder => 'none') AS m;

\set ECHO none
CREATE TEMPORARY TABLE runs AS SELECT 'in table order' AS run, r.* FROM llm.last_run() AS r;
\echo '2. As pg_bridge asks by default: equal prompts once, rows and columns in the order that shares most.'
\echo '   (Other words, so that nothing of the first run helps the second.)'
\set ECHO queries

CREATE TEMPORARY TABLE planned AS
SELECT m.*
FROM llm.map('SELECT name, category, vartype, context FROM pg_settings ORDER BY name',
             'Does changing a {vartype} setting in {category} with context {context} call for care?',
             choices => '{yes,no}') AS m;

\set ECHO none
INSERT INTO runs SELECT 'planned', r.* FROM llm.last_run() AS r;
\set ECHO queries
SELECT input ->> 'name' AS setting, input ->> 'vartype' AS vartype, input ->> 'context' AS context, output
FROM planned ORDER BY row_id LIMIT 8;

\set ECHO none
\echo 'llm.last_run() after each of the two:'
SELECT run, rows, unique_prompts AS prompts, prompt_tokens, cached_tokens, prompt_tokens - cached_tokens AS computed_tokens,
       round((read_s + plan_s)::numeric, 3) AS "read + plan s", round(wait_s::numeric, 2) AS "engine s"
FROM runs ORDER BY run;
\pset tuples_only on
SELECT format('>> %s of %s prompts saved; %s %% of the remaining prompt tokens came from the prefix cache; '
              'the engine computed %s tokens instead of %s.',
              planned.rows - planned.unique_prompts, planned.rows, round(100 * planned.prefix_hit_rate),
              planned.prompt_tokens - planned.cached_tokens, plain.prompt_tokens - plain.cached_tokens)
FROM runs AS planned, runs AS plain WHERE planned.run = 'planned' AND plain.run <> 'planned';
\pset tuples_only off
\echo '3. One row at a time, for trying a prompt out.'
\set ECHO queries

SELECT name, llm.complete('Is {short_desc} about memory?', s, choices => '{yes,no}') AS answer
FROM pg_settings AS s WHERE name IN ('work_mem', 'port', 'shared_buffers') ORDER BY name;

