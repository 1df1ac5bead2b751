-- Jobs: llm.map as a row of a table, done by pg-bridge worker beside the database.
--
-- The same text makes them in schema llm of the extension and in llm_jobs of a server that has none (@schema@ below). It
-- asks for no superuser, and nothing here runs with other rights than the caller's: who submits a job is what PostgreSQL
-- itself says of who inserts its row (docs/decisions/0056), and policies say who sees and changes it. A worker is a role
-- like others: it takes the jobs of the roles that it may become.

CREATE TABLE @schema@._job (
    id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    role              name NOT NULL DEFAULT current_user,
    role_oid          oid NOT NULL DEFAULT quote_ident(current_user)::regrole::oid,  -- another role may have the name one day
    query             text NOT NULL,
    prompt            text NOT NULL,
    target            text NOT NULL,
    key               text[] NOT NULL,
    type              text NOT NULL DEFAULT '',
    schema            text NOT NULL DEFAULT '',
    answer_column     text NOT NULL DEFAULT 'answer',
    part              integer NOT NULL DEFAULT 1,
    parts             integer NOT NULL DEFAULT 1,
    part_by           text[] NOT NULL DEFAULT '{}',
    options           jsonb NOT NULL DEFAULT '{}',
    search_path       text NOT NULL,
    submitted_at      timestamptz NOT NULL DEFAULT now(),
    state             text NOT NULL DEFAULT 'waiting'
                      CHECK (state IN ('waiting', 'running', 'done', 'failed', 'cancelled')),
    is_cancelled      boolean NOT NULL DEFAULT false,  -- asked to end, while it runs
    tries             integer NOT NULL DEFAULT 0,
    next_at           timestamptz NOT NULL DEFAULT now(),
    started_at        timestamptz,
    ended_at          timestamptz,
    worker            text,
    pid               integer,  -- of the backend that a running job's heartbeat comes through
    beat_at           timestamptz,
    note              text,
    error             text,
    hint              text,
    expected          bigint,
    read              bigint NOT NULL DEFAULT 0,
    known             bigint NOT NULL DEFAULT 0,
    answered          bigint NOT NULL DEFAULT 0,
    failed            bigint NOT NULL DEFAULT 0,
    not_asked         bigint NOT NULL DEFAULT 0,
    asked             bigint NOT NULL DEFAULT 0,
    prompt_tokens     bigint NOT NULL DEFAULT 0,
    cached_tokens     bigint NOT NULL DEFAULT 0,
    completion_tokens bigint NOT NULL DEFAULT 0,
    cost              double precision
);
COMMENT ON TABLE @schema@._job IS 'jobs; @schema@.jobs shows them';
CREATE INDEX _job_open ON @schema@._job (next_at) WHERE state IN ('waiting', 'running');

-- Nobody submits in another's name, nor changes what was submitted; of the rest, a role may change what is its own.
GRANT SELECT ON @schema@._job TO PUBLIC;
GRANT INSERT (query, prompt, target, key, type, schema, answer_column, part, parts, part_by, options, search_path) ON @schema@._job TO PUBLIC;
GRANT UPDATE (state, is_cancelled, tries, next_at, started_at, ended_at, worker, pid, beat_at, note, error, hint, expected,
              read, known, answered, failed, not_asked, asked, prompt_tokens, cached_tokens, completion_tokens, cost)
    ON @schema@._job TO PUBLIC;
ALTER TABLE @schema@._job ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON @schema@._job FOR SELECT USING (
    EXISTS (SELECT FROM pg_catalog.pg_roles AS r WHERE r.oid = role_oid AND r.rolname = role AND pg_has_role(r.oid, 'MEMBER')));
CREATE POLICY submitted ON @schema@._job FOR INSERT WITH CHECK (role = current_user);
CREATE POLICY changed ON @schema@._job FOR UPDATE USING (
    EXISTS (SELECT FROM pg_catalog.pg_roles AS r WHERE r.oid = role_oid AND r.rolname = role AND pg_has_role(r.oid, 'MEMBER')));

CREATE FUNCTION @schema@._submit(
    query text, prompt text, target text, key text, type text, schema jsonb, answer_column text, part integer, parts integer,
    part_by text, options jsonb, path text
) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    keys CONSTANT text[] := regexp_split_to_array(btrim(key), '[[:space:]]*,[[:space:]]*');
    together CONSTANT text[] := coalesce(regexp_split_to_array(btrim(part_by), '[[:space:]]*,[[:space:]]*'), '{}');
    names text[];
    job bigint;
BEGIN
    IF num_nulls(query, prompt, target, key, path) > 0 THEN
        RAISE EXCEPTION 'an argument of @schema@.submit is NULL' USING ERRCODE = 'null_value_not_allowed',
            HINT = 'Pass the query, the prompt, the table for the answers, and what tells rows apart: '
                   '@schema@.submit(''SELECT id, review FROM reviews'', ''Is {review} kind?'', ''review_kind'', ''id'').';
    ELSIF '' = ANY (keys) THEN
        RAISE EXCEPTION 'the key is empty' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Name the columns that tell the rows apart: ''id'', or ''shop, id''.';
    ELSIF schema IS NOT NULL AND (coalesce(type, 'json') <> 'json' OR jsonb_typeof(schema) <> 'object') THEN
        RAISE EXCEPTION 'a schema is a JSON object, for answers of type json' USING ERRCODE = 'invalid_parameter_value';
    ELSIF type NOT IN ('text', 'boolean', 'number', 'integer', 'date', 'timestamp', 'timestamptz', 'json', 'embedding') THEN
        RAISE EXCEPTION 'there is no type "%" of answers', type USING ERRCODE = 'invalid_parameter_value',
            HINT = 'There are: text, boolean, number, integer, date, timestamp, timestamptz, json, embedding.';
    ELSIF (part BETWEEN 1 AND parts AND parts <= 1000) IS NOT TRUE THEN
        RAISE EXCEPTION 'there is no part % of %', coalesce(part::text, 'NULL'), coalesce(parts::text, 'NULL')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Parts are counted from 1, up to 1000: '
                '@schema@.submit(…, part => i, parts => 8) FROM generate_series(1, 8) AS i.';
    ELSIF '' = ANY (together) OR cardinality(together) > 0 AND parts = 1 THEN
        RAISE EXCEPTION 'part_by names no columns, or there are no parts' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Name the columns by which rows are to stay together, and the number of parts: '
                'parts => 8, part_by => ''title''.';
    END IF;
    BEGIN
        names := parse_ident(target);
    EXCEPTION WHEN invalid_parameter_value THEN
        names := '{}';
    END;
    IF cardinality(names) NOT IN (1, 2) OR starts_with(names[1], 'pg_temp') THEN
        RAISE EXCEPTION 'this is no name of a table that outlives a session: %', target USING ERRCODE = 'invalid_name',
            HINT = 'Write it as in SQL: review_kind, public.review_kind, "My Schema"."Kind".';
    END IF;
    INSERT INTO @schema@._job AS j (query, prompt, target, key, type, schema, answer_column, part, parts, part_by, options,
                                    search_path)
    VALUES (query, prompt, target, keys, coalesce(type, ''), coalesce(schema::text, ''), coalesce(answer_column, 'answer'),
            part, parts, together, jsonb_strip_nulls(options), path)
    RETURNING j.id INTO job;
    PERFORM pg_notify('llm_jobs', job::text);
    RETURN job;
END $$;

-- It has no path of its own, for the names in the query are meant as the caller's path has them.
CREATE FUNCTION @schema@.submit(
    query         text,
    prompt        text,
    "into"        text,
    key           text,
    type          text DEFAULT NULL,
    schema        jsonb DEFAULT NULL,
    answer_column text DEFAULT 'answer',
    part          integer DEFAULT 1,
    parts         integer DEFAULT 1,
    part_by       text DEFAULT NULL,
    @map.optional@
) RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN @schema@._submit(query, prompt, "into", key, type, schema, answer_column, part, parts, part_by,
        pg_catalog.jsonb_build_object(@map.values@), pg_catalog.current_setting('search_path'));
END $$;
COMMENT ON FUNCTION @schema@.submit IS 'a job for pg-bridge worker: asks a prompt about each row of a query, answers into a table';

-- A job of another role is as one that is not there.
CREATE FUNCTION @schema@._state_of(job bigint) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found text;
BEGIN
    SELECT j.state INTO found FROM @schema@._job AS j WHERE j.id = job;
    IF found IS NULL THEN
        RAISE EXCEPTION 'there is no job %', job USING ERRCODE = 'undefined_object',
            HINT = 'SELECT id, state FROM @schema@.jobs shows those of your roles.';
    END IF;
    RETURN found;
END $$;

CREATE FUNCTION @schema@.cancel(job bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM @schema@._state_of(job);
    UPDATE @schema@._job AS j
    SET is_cancelled = true, state = CASE j.state WHEN 'waiting' THEN 'cancelled' ELSE j.state END,
        ended_at = CASE j.state WHEN 'waiting' THEN now() END
    WHERE j.id = job AND j.state IN ('waiting', 'running');
    RETURN FOUND;
END $$;
COMMENT ON FUNCTION @schema@.cancel IS 'ends a job; whether it had not ended before. What was answered is kept';

CREATE FUNCTION @schema@.wait(job bigint, timeout interval DEFAULT NULL) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    until CONSTANT timestamptz := clock_timestamp() + timeout;
    pause double precision := 0.02;
    state text := @schema@._state_of(job);
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION '@schema@.wait sees nothing new in a transaction of level %', current_setting('transaction_isolation')
            USING ERRCODE = 'invalid_transaction_state', HINT = 'Call it in one of level READ COMMITTED.';
    ELSIF (SELECT j.xmin::text::bigint = pg_current_xact_id_if_assigned()::text::numeric % 4294967296
           FROM @schema@._job AS j WHERE j.id = job) AND state = 'waiting' THEN
        RAISE EXCEPTION 'job % was submitted in this transaction, and no worker sees it before that is committed', job
            USING ERRCODE = 'invalid_transaction_state', HINT = 'COMMIT, and then wait.';
    END IF;
    WHILE state IN ('waiting', 'running') AND (until IS NULL OR clock_timestamp() < until) LOOP
        PERFORM pg_sleep(least(pause, extract(epoch FROM until - clock_timestamp())));
        pause := least(pause * 1.5, 1);
        state := (SELECT j.state FROM @schema@._job AS j WHERE j.id = job);
    END LOOP;
    RETURN state;
END $$;
COMMENT ON FUNCTION @schema@.wait IS 'waits for the end of a job; its state';

-- Figures alone are for those to whom the owner grants all_jobs; what was asked stays its role's.
CREATE VIEW @schema@.all_jobs WITH (security_barrier) AS
SELECT j.id, j.role, CASE WHEN j.is_cancelled AND j.state = 'running' THEN 'ending' ELSE j.state END AS state,
       greatest(j.expected, j.read) AS rows, j.known, j.answered, j.failed, j.not_asked, j.asked,
       greatest(0, j.answered + j.failed - j.asked) AS saved, j.prompt_tokens, j.cached_tokens, j.completion_tokens, j.cost,
       j.tries, CASE WHEN j.state = 'waiting' THEN j.next_at END AS next_try, j.submitted_at, j.started_at, j.ended_at,
       j.worker, j.beat_at AS heartbeat
FROM @schema@._job AS j;
COMMENT ON VIEW @schema@.all_jobs IS 'the jobs of all roles, without what was asked; granted to nobody';

CREATE VIEW @schema@.jobs WITH (security_barrier) AS
SELECT a.*, j.target AS "into", j.query, j.prompt, j.key, j.part, j.parts, j.options, j.error, j.hint,
       coalesce(j.note, CASE WHEN j.state = 'waiting' AND NOT EXISTS (
           SELECT FROM pg_catalog.pg_stat_activity AS s
           WHERE s.application_name = 'pg-bridge worker' AND s.datname = current_database()
                 AND pg_has_role(s.usesysid, j.role_oid, 'MEMBER')
       ) THEN format('no worker that runs here may become %I', j.role) END) AS note
FROM @schema@._job AS j JOIN @schema@.all_jobs AS a USING (id)
WHERE EXISTS (SELECT FROM pg_catalog.pg_roles AS r
              WHERE r.oid = j.role_oid AND r.rolname = j.role AND pg_has_role(r.oid, 'MEMBER'));
GRANT SELECT ON @schema@.jobs TO PUBLIC;
COMMENT ON VIEW @schema@.jobs IS 'the jobs of your roles, how far each is, and what went wrong';
