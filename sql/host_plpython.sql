-- The PL/Python host. Each body is one call into pg_bridge.plpython.functions.

CREATE FOREIGN DATA WRAPPER pg_bridge NO HANDLER VALIDATOR llm._validate;
COMMENT ON FOREIGN DATA WRAPPER pg_bridge IS 'servers of LLM engines that speak the OpenAI API';

-- Puts the servers that `role` may use into this backend's Python, secrets included. It returns nothing and Python
-- looks servers up by the role that is current, so calling it for another role gains nothing.
CREATE FUNCTION llm._connect(role name) RETURNS void
LANGUAGE plpython3u VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
from pg_bridge.plpython import functions
functions.connect(plpy, role, '@version@')
$$;

-- It runs the caller's query, so it keeps the caller's path.
-- every_row: the statement that calls it takes every row.
CREATE FUNCTION llm._map(rows refcursor, columns text[], prompt text, options text, every_row boolean)
RETURNS TABLE (row_id bigint, input jsonb, output text, error text, fault text[])
LANGUAGE plpython3u VOLATILE AS $$
from pg_bridge.plpython import functions
return functions.map_rows(plpy, rows, columns, prompt, options, every_row)
$$;

CREATE FUNCTION llm._estimate(rows refcursor, columns text[], prompt text, options text)
RETURNS TABLE (found text, fault text[])
LANGUAGE plpython3u VOLATILE AS $$
from pg_bridge.plpython import functions
return functions.estimate_rows(plpy, rows, columns, prompt, options)
$$;

CREATE FUNCTION llm._rank(
    rows refcursor, columns text[], criterion text, k integer, options text, is_estimate boolean
) RETURNS TABLE (row_id bigint, input jsonb, found text, fault text[])
LANGUAGE plpython3u VOLATILE AS $$
from pg_bridge.plpython import ranking
return ranking.rank(plpy, rows, columns, criterion, k, options, is_estimate)
$$;

-- It runs the caller's query and functions, so it keeps the caller's path.
CREATE FUNCTION llm._map_with_tools(
    rows refcursor, columns text[], prompt text, tools oid[], options text, every_row boolean
) RETURNS TABLE (row_id bigint, input jsonb, output text, error text, calls jsonb, fault text[])
LANGUAGE plpython3u VOLATILE AS $$
from pg_bridge.plpython import tooling
return tooling.map_with_tools(plpy, rows, columns, prompt, tools, options, every_row)
$$;

CREATE FUNCTION llm._try(rows refcursor, columns text[], asked text, options text)
RETURNS TABLE (found text, fault text[])
LANGUAGE plpython3u VOLATILE AS $$
from pg_bridge.plpython import tuning
return tuning.try_prompts(plpy, rows, columns, asked, options)
$$;

CREATE FUNCTION llm._sample(rows refcursor, columns text[], prompt text, function text, options text)
RETURNS TABLE (row_id bigint, input jsonb, found text, fault text[])
LANGUAGE plpython3u VOLATILE AS $$
from pg_bridge.plpython import sampling
return sampling.sample(plpy, rows, columns, prompt, function, options)
$$;

CREATE FUNCTION llm._alike(
    rows refcursor, columns text[], criterion text, k integer, options text, task text
) RETURNS TABLE (row_id bigint, input jsonb, found text, fault text[])
LANGUAGE plpython3u VOLATILE AS $$
from pg_bridge.plpython import alike
return alike.find(plpy, rows, columns, criterion, k, options, task)
$$;

CREATE FUNCTION llm._complete(prompt text, input text, options text) RETURNS TABLE (output text, error text, fault text[])
LANGUAGE plpython3u VOLATILE SET search_path = pg_catalog, pg_temp AS $$
from pg_bridge.plpython import functions
return functions.complete(plpy, prompt, input, options)
$$;

CREATE FUNCTION llm._session() RETURNS TABLE (version text, last_run json)
LANGUAGE plpython3u VOLATILE SET search_path = pg_catalog, pg_temp AS $$
from pg_bridge.plpython import functions
return functions.session_state()
$$;

-- A request to the ledger and its reply, both JSON; llm._ledger calls it.
CREATE FUNCTION llm._reply(request text) RETURNS text
LANGUAGE plpython3u VOLATILE SET search_path = pg_catalog, pg_temp AS $$
from pg_bridge.plpython import functions
return functions.reply(plpy, request)
$$;
