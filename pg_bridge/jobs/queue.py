"""The table of jobs, as a worker sees it: taken, held by heartbeats, put back, ended.

In: a database, in a session of who logged in. Out: `Taken` jobs, one at a time. Whose they are is PostgreSQL's own
word, and policies of the table keep a login to the jobs of the roles that it may become. A job is one worker's for as
long as its heartbeats come; whoever writes into a target has its lock besides, so a worker that is taken for dead, and
is not, writes nothing that another one does not know of.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from pg_bridge.errors import BrokenInstallation, OptionError
from pg_bridge.jobs.database import Connection, Database, Session, storable
from pg_bridge.jobs.engines import EXTENSION_SCHEMA, RENTED_SCHEMA
from pg_bridge.jobs.record import JobRecord, Part, options_of
from pg_bridge.jobs.report import Report
from pg_bridge.jobs.trust import refuse_owners
from pg_bridge.ledger.prices import cost_of
from pg_bridge.options import Server

CHANNEL = "llm_jobs"
"""Where a new job, and an end that others wait for, are told."""

APPLICATION = "pg-bridge worker"
SESSION = Session(APPLICATION, search_path="pg_catalog, pg_temp")
"""In which the table is used: with no operator of anybody else's in its path."""

BEAT_EVERY_S = 2.0
DEAD_AFTER_S = 15.0  # without a heartbeat, of a worker whose session is still there
GONE_AFTER_S = 3.0  # the same where it is not: time to connect again
SHORTEST_WAIT_S = 0.1
FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 5.0, 600.0
MOST_TRIES = 20  # two and a half hours
WINDOW_ROWS = 100_000
_DEFAULTS: Mapping[str, object] = {"server": "vllm", "on_error": "null", "window_rows": WINDOW_ROWS}


@dataclass(frozen=True, slots=True)
class Taken:
    """A job that a worker has taken: what PostgreSQL, and not its role, says of it. The rest may be anything.

    Attributes:
        id: Its number.
        role: Who submitted it.
        role_oid: Its oid.
        tries: How often it has been tried in vain.
        is_cancelled: Whether it is to end, and nothing to be asked: its worker died before it was told.
    """

    id: int
    role: str
    role_oid: int
    tries: int
    is_cancelled: bool


@dataclass(frozen=True, slots=True)
class Submitter:
    """A role that has jobs.

    Attributes:
        name: Its name when it submitted.
        oid: Its oid likewise.
    """

    name: str
    oid: int


class Queue:
    """A table of jobs.

    Args:
        database: Where it is.
        schema: In which schema.
        worker: What this worker calls itself; no other does.
    """

    def __init__(self, database: Database, schema: str, worker: str) -> None:
        self._database = database
        self._table = sql.Identifier(schema, "_job")
        self._worker = worker

    def submitters(self) -> list[Submitter]:
        """The roles that have jobs to be done and that who logged in may become."""
        statement = sql.SQL(
            "SELECT DISTINCT j.role::text, j.role_oid FROM {} AS j WHERE j.state IN ('waiting', 'running') "
            "AND pg_catalog.pg_has_role(j.role_oid, 'MEMBER')"
        ).format(self._table)
        rows = self._database.run(lambda connection: connection.execute(statement).fetchall())
        return [Submitter(*row) for row in rows]

    def refuse(self, submitter: Submitter, why: str) -> None:
        """Tell a role why its jobs wait."""
        self._do(
            "UPDATE {} SET note = $1 WHERE role_oid = $2::oid AND role = $3::name AND state = 'waiting' "
            "AND note IS DISTINCT FROM $1",
            [why, submitter.oid, submitter.name],
        )

    def take(self, served: Sequence[Submitter]) -> Taken | None:
        """Take the job that has waited longest, or one whose worker is dead; None if there is none.

        A job whose worker has died before it had answered anything may be what it died of: that is a try in vain, and
        from the second on others go first.

        Args:
            served: The roles whose jobs are done.
        """
        statement = sql.SQL("""
            UPDATE {table} AS t
            SET state = 'running', worker = $3, pid = pg_catalog.pg_backend_pid(),
                beat_at = pg_catalog.clock_timestamp(),
                started_at = coalesce(t.started_at, pg_catalog.now()), note = NULL,
                tries = least(t.tries, {most}) + (t.state = 'running' AND t.answered + t.failed = 0)::int
            WHERE t.id = (
                SELECT j.id FROM {table} AS j
                WHERE (j.role, j.role_oid) IN (
                    SELECT * FROM ROWS FROM (pg_catalog.unnest($1::name[]), pg_catalog.unnest($2::oid[])))
                AND {due} AND NOT EXISTS (
                    SELECT FROM {table} AS o WHERE o.id <> j.id AND o.role_oid = j.role_oid AND o.state = 'running'
                    AND o.target = j.target AND o.search_path = j.search_path
                    AND NOT (o.parts = j.parts AND o.part_by = j.part_by AND o.part <> j.part))
                ORDER BY j.state = 'running' AND j.tries > 0, j.next_at, j.id LIMIT 1 FOR UPDATE SKIP LOCKED)
            RETURNING t.id, t.role::text, t.role_oid, t.tries, t.is_cancelled
        """).format(table=self._table, due=_due(), most=sql.Literal(MOST_TRIES))
        values = [[each.name for each in served], [each.oid for each in served], self._worker]
        row = self._database.run(lambda connection: connection.execute(statement, values).fetchone())
        if row is None:
            return None
        number, role, oid, tries, is_cancelled = row
        return Taken(number, role, oid, min(max(tries, 0), MOST_TRIES), is_cancelled)  # its role may write tries

    def read(self, job: Taken) -> tuple[JobRecord, str]:
        """What is to be done, and the path by which its names are meant.

        Raises:
            OptionError: It is nothing that `submit` writes.
            JobError: It has characters that no connection can carry; the table of jobs takes them.
        """
        statement = sql.SQL(
            "SELECT query, prompt, target, key, type, schema, answer_column, options::text, part, parts, part_by, "
            "search_path FROM {} WHERE id = $1"
        ).format(self._table)
        row = self._database.run(lambda connection: connection.execute(statement, [job.id]).fetchone())
        if row is None:
            raise OptionError("the job is gone")
        query, prompt, target, key, type_, schema, answer_column, options, part, parts, by, path = row
        record = JobRecord(
            source=query,
            prompt=prompt,
            target=target,
            key=tuple(str(name) for name in key),
            type=type_,
            schema=schema,
            answer_column=answer_column,
            options={**_DEFAULTS, **options_of(options)},
            part=Part(part, parts, tuple(str(name) for name in by)),
        )
        return record, path

    def due_in_s(self) -> float | None:
        """Seconds until a job's time comes, or a worker may be found dead; None for no time.

        A job whose time has come and that was not taken waits for another's end, or for another worker.
        """
        statement = sql.SQL("""
            SELECT extract(epoch FROM pg_catalog.min(
                CASE j.state WHEN 'running' THEN pg_catalog.clock_timestamp() + {gone} * interval '1 second'
                ELSE j.next_at END) - pg_catalog.clock_timestamp())
            FROM {table} AS j
            WHERE (j.state = 'running' OR j.state = 'waiting' AND pg_catalog.isfinite(j.next_at)
                   AND j.next_at > pg_catalog.clock_timestamp() - interval '1 second')
                  AND pg_catalog.pg_has_role(j.role_oid, 'MEMBER')
        """).format(table=self._table, gone=sql.Literal(GONE_AFTER_S))
        row = self._database.run(lambda connection: connection.execute(statement).fetchone())
        return None if row is None or row[0] is None else max(SHORTEST_WAIT_S, float(row[0]))

    def beat(self, job: Taken, figures: Mapping[str, Any]) -> bool | None:
        """Say that the job is held, and how far it is; whether it has been cancelled, None where it is lost.

        Args:
            job: The job.
            figures: As `figures_of` makes them.
        """
        set_ = sql.SQL(", ").join(
            sql.SQL("{} = {}").format(sql.Identifier(name), sql.SQL(f"${i}")) for i, name in enumerate(figures, 3)
        )
        statement = sql.SQL(
            "UPDATE {} SET beat_at = pg_catalog.clock_timestamp(), pid = pg_catalog.pg_backend_pid(){} {} "
            "WHERE id = $1 AND worker = $2 AND state = 'running' RETURNING is_cancelled"
        ).format(self._table, sql.SQL("," if figures else ""), set_)
        values = [job.id, self._worker, *figures.values()]
        row = self._database.run(lambda connection: connection.execute(statement, values).fetchone())
        return None if row is None else bool(row[0])

    def end(self, job: Taken, state: str, error: str = "", hint: str = "") -> None:
        """End a job, and wake those who wait for its target."""
        self._close_with(
            job,
            "state = $3, ended_at = pg_catalog.now(), error = nullif($4, ''), hint = nullif($5, '')",
            [state, *self._database.run(lambda connection: [storable(connection, each) for each in (error, hint)])],
        )

    def put_back(self, job: Taken, *, after_s: float = 0.0, note: str = "", tries: int = 0) -> None:
        """Let a job wait, for another worker or another time.

        Args:
            job: The job.
            after_s: For how long at least.
            note: Why.
            tries: How often it has been tried in vain by now.
        """
        self._close_with(
            job,
            "state = 'waiting', note = nullif($3, ''), tries = $4, "
            "next_at = pg_catalog.now() + $5 * interval '1 second'",
            [self._database.run(lambda connection: storable(connection, note)), tries, after_s],
        )

    def _close_with(self, job: Taken, set_: str, values: Sequence[Any]) -> None:
        self._do(
            f"UPDATE {{}} SET {set_} WHERE id = $1 AND worker = $2 AND state = 'running'",
            [job.id, self._worker, *values],
        )
        self._database.run(lambda connection: connection.execute(f"NOTIFY {CHANNEL}".encode()))

    def _do(self, statement: str, values: Sequence[Any]) -> None:
        composed = sql.SQL(statement).format(self._table)
        self._database.run(lambda connection: connection.execute(composed, list(values)))


def _due() -> sql.Composed:
    """The condition for a job that waits and whose time has come, or whose worker is dead."""
    return sql.SQL(
        "(j.state = 'waiting' AND j.next_at <= pg_catalog.clock_timestamp() OR j.state = 'running' AND ("
        "j.beat_at < pg_catalog.clock_timestamp() - {dead} * interval '1 second' "
        "OR j.beat_at < pg_catalog.clock_timestamp() - {gone} * interval '1 second' AND NOT EXISTS ("
        "SELECT FROM pg_catalog.pg_stat_activity AS a WHERE a.pid = j.pid)))"
    ).format(dead=sql.Literal(DEAD_AFTER_S), gone=sql.Literal(GONE_AFTER_S))


def find_schema(connection: Connection, trusted: Collection[str] = ()) -> str:
    """The schema that the jobs are in: the extension's, if it is there.

    Args:
        connection: In a session of who logged in.
        trusted: Roles that may own it, whatever the login could do.

    Raises:
        BrokenInstallation: There is none.
        NotPermitted: Its owner is nobody to be believed.
    """
    if has_extension(connection):
        return EXTENSION_SCHEMA
    found = connection.execute("SELECT pg_catalog.to_regclass($1) IS NOT NULL", [f"{RENTED_SCHEMA}._job"]).fetchone()
    if found == (True,):
        refuse_owners(connection, RENTED_SCHEMA, trusted)
        return RENTED_SCHEMA
    raise BrokenInstallation(
        "this database has no table of jobs",
        hint=f"pg-bridge worker --install makes schema {RENTED_SCHEMA} in it, where the extension is not at hand.",
    )


def has_extension(connection: Connection) -> bool:
    """Whether the extension has a table of jobs; a table of that name may be anybody's."""
    statement = """
        SELECT EXISTS (
            SELECT FROM pg_catalog.pg_class AS c
            JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
            JOIN pg_catalog.pg_depend AS d ON d.objid = c.oid AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
            JOIN pg_catalog.pg_extension AS e ON e.oid = d.refobjid
            WHERE n.nspname = $1::name AND c.relname = '_job' AND e.extname IN ('pg_bridge', 'pg_bridge_multicorn')
                  AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.deptype = 'e')
    """
    return connection.execute(statement, [EXTENSION_SCHEMA]).fetchone() == (True,)


def figures_of(report: Report, server: Server) -> dict[str, Any]:
    """What a heartbeat tells of a job."""
    figures = report.figures
    usage = figures.usage
    return {
        "expected": report.read if report.all_read else report.expected,
        "read": report.read,
        "known": report.known,
        "answered": report.answered,
        "failed": report.failed,
        "not_asked": report.not_asked,
        "asked": figures.unique_prompts,
        "prompt_tokens": usage.prompt_tokens or 0,
        "cached_tokens": usage.cached_tokens or 0,
        "completion_tokens": usage.completion_tokens or 0,
        "cost": cost_of(usage, server),
    }


def backoff_s(tries: int) -> float:
    """How long a job waits that has been tried so often in vain."""
    return float(min(FIRST_BACKOFF_S * 2 ** (tries - 1), LONGEST_BACKOFF_S))
