-- llm.health: how an engine is, and what it can be held to.
CREATE SERVER vllm FOREIGN DATA WRAPPER pg_bridge OPTIONS (endpoint :'endpoint');
SELECT endpoint ~ '^http://127.0.0.1:[0-9]+$' AS here, item, state, regexp_replace(detail, '[0-9]+ ms', 'N ms') AS detail FROM llm.health();
SELECT count(*) = (SELECT count(*) FROM llm.health('vllm')) AS same FROM llm.health(NULL);
-- it is a query's part like any other
SELECT item FROM llm.health() WHERE state = 'held' ORDER BY item;
-- as the server's options have it
ALTER SERVER vllm OPTIONS (ADD dialect 'transformers', ADD api 'completions');
SELECT item, state, detail FROM llm.health() WHERE item IN ('dialect', 'choices', 'patterns', 'schemas', 'batches', 'reasoning');
ALTER SERVER vllm OPTIONS (SET dialect 'openai-compatible', SET api 'chat', ADD model 'nope');
SELECT item, state, regexp_replace(detail, '[0-9]+ ms', 'N ms') AS detail FROM llm.health();
-- nobody is there
CREATE SERVER nobody FOREIGN DATA WRAPPER pg_bridge OPTIONS (endpoint 'http://127.0.0.1:1', connect_timeout_s '0.2');
SELECT item, state, left(detail, 17) FROM llm.health('nobody');
-- no such server, and one that the role may not use
SELECT * FROM llm.health('nope');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT * FROM llm.health('');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
CREATE ROLE regress_onlooker;
SET ROLE regress_onlooker;
SELECT * FROM llm.health('vllm');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
-- nor by what stands behind it
SELECT llm._ledger('{"do": "health", "server": ["vllm"]}');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT llm._ledger('{"do": "health", "server": {"a": 1}, "role": 10}');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
RESET ROLE;
DROP ROLE regress_onlooker;
