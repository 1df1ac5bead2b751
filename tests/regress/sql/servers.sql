-- Servers and user mappings are PostgreSQL's own objects; options are checked when they are set.
CREATE SERVER vllm FOREIGN DATA WRAPPER pg_bridge OPTIONS (endpoint :'endpoint');
-- an unknown option, in each place
CREATE SERVER bad FOREIGN DATA WRAPPER pg_bridge OPTIONS (endpoint 'http://h:1', colour 'red');
CREATE USER MAPPING FOR CURRENT_USER SERVER vllm OPTIONS (pass_word 'hush');
ALTER FOREIGN DATA WRAPPER pg_bridge OPTIONS (ADD colour 'red');
-- a secret does not belong on the server
ALTER SERVER vllm OPTIONS (ADD api_key 'hush');
-- values
CREATE SERVER bad FOREIGN DATA WRAPPER pg_bridge;
CREATE SERVER bad FOREIGN DATA WRAPPER pg_bridge OPTIONS (endpoint 'not a url');
CREATE SERVER bad FOREIGN DATA WRAPPER pg_bridge OPTIONS (endpoint 'http://user:hush@host');
ALTER SERVER vllm OPTIONS (ADD api 'smoke signals');
ALTER SERVER vllm OPTIONS (ADD max_in_flight '0');
ALTER SERVER vllm OPTIONS (ADD connect_timeout_s 'soon');
ALTER SERVER vllm OPTIONS (ADD wrapper 'os.system');
ALTER SERVER vllm OPTIONS (ADD connect_timeout_s '2.5', ADD max_in_flight '32', ADD api 'completions', ADD max_retries '0');
SELECT output FROM llm.map('SELECT 1 AS a', 'What is {a}?');
-- changes take effect at once
ALTER SERVER vllm OPTIONS (SET api 'chat', ADD model 'nope');
SELECT output FROM llm.map('SELECT 1 AS a', 'What is {a}?');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
ALTER SERVER vllm OPTIONS (DROP model);
-- no such server, and a server of something else
SELECT * FROM llm.map('SELECT 1 AS a', '{a}', server => 'nope');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT llm.complete('x', server => 'nope');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
-- USAGE is what a role needs, and all that it needs
CREATE ROLE regress_analyst;
SET ROLE regress_analyst;
SELECT output FROM llm.map('SELECT 1 AS a', 'What is {a}?');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT llm.complete('x');
\echo SQLSTATE :LAST_ERROR_SQLSTATE
RESET ROLE;
GRANT USAGE ON FOREIGN SERVER vllm TO regress_analyst;
SET ROLE regress_analyst;
SELECT output FROM llm.map('SELECT 1 AS a', 'What is {a}?');
-- the inner functions that touch secrets are closed
SELECT * FROM llm._servers('postgres');
RESET ROLE;
REVOKE USAGE ON FOREIGN SERVER vllm FROM regress_analyst;
SET ROLE regress_analyst;
SELECT output FROM llm.map('SELECT 1 AS a', 'What is {a}?');
RESET ROLE;
DROP ROLE regress_analyst;
