-- What a new cluster gets; see database.sh. Its two settings come from the environment.
\getenv engine ENGINE
\getenv password ANALYST_PASSWORD
CREATE DATABASE llm;
CREATE ROLE analyst LOGIN;
SELECT :'password' <> '' AS has_password \gset
\if :has_password
SET log_statement = 'none';
SET log_min_error_statement = 'panic';
ALTER ROLE analyst PASSWORD :'password';
\endif

\connect llm
SET client_min_messages = warning;
CREATE EXTENSION pg_bridge CASCADE;
ALTER DATABASE llm SET session_preload_libraries = 'pg_bridge';
CREATE SERVER vllm FOREIGN DATA WRAPPER pg_bridge OPTIONS (endpoint :'engine');
GRANT USAGE ON FOREIGN SERVER vllm TO analyst;
GRANT CREATE ON SCHEMA public TO analyst;
