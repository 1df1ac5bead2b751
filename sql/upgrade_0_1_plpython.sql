-- From 0.1, on PL/Python: registrations stood in a table there, and are settings of the functions now.

CREATE TEMPORARY TABLE llm_registered AS
SELECT b.function, b.batch, b.report FROM llm.batch_function AS b WHERE NOT b.is_own;
ALTER EXTENSION pg_bridge DROP TABLE llm.batch_function;  -- DROP TABLE alone leaves it among those that are dumped
DROP TABLE llm.batch_function;

SET LOCAL client_min_messages = error;  -- it warns of what is meant
ALTER FOREIGN DATA WRAPPER pg_bridge NO HANDLER NO VALIDATOR;
SET LOCAL client_min_messages = warning;
