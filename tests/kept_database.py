"""A database that tests use one after the other, each as if it were new: what one has made is dropped behind it.

A session's first call costs a quarter of a second, for its Python imports numpy and aiohttp. Here it is paid once for
all tests of a module, for the session stays, too.
"""

from __future__ import annotations

from typing import Any

import psycopg

EXTENSIONS_SCHEMA = "extensions"  # not `public`, which is dropped with all that stands in it and made anew

# Sessions that a test left open wait for an engine that is gone, and hold locks.
_DROP_ALL = rf"""
DO $$
DECLARE
    found name;
BEGIN
    PERFORM pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
      AND application_name NOT LIKE 'pg_bridge source%';
    FOR found IN
        SELECT srvname FROM pg_foreign_server AS s
        WHERE NOT EXISTS (SELECT FROM pg_depend WHERE (classid, objid, deptype) = (s.tableoid, s.oid, 'e'))
    LOOP
        EXECUTE format('DROP SERVER %I CASCADE', found);
    END LOOP;
    FOR found IN
        SELECT nspname FROM pg_namespace
        WHERE nspname NOT LIKE 'pg\_%' AND nspname NOT IN ('information_schema', 'llm', '{EXTENSIONS_SCHEMA}')
    LOOP
        EXECUTE format('DROP SCHEMA %I CASCADE', found);
    END LOOP;
    FOR found IN SELECT rolname FROM pg_roles WHERE oid >= 16384 LOOP
        EXECUTE format('DROP OWNED BY %I CASCADE; DROP ROLE %I', found, found);
    END LOOP;
    CREATE SCHEMA public AUTHORIZATION pg_database_owner;
    GRANT USAGE ON SCHEMA public TO PUBLIC;
    EXECUTE format('ALTER DATABASE %I RESET ALL', current_database());
END $$
"""

# What of the extension a test could have changed, with rights as they are, granted or from the start.
_EXTENSION = """
SELECT array_agg(line ORDER BY line) FROM (
    SELECT (oid, proname, proowner, proconfig, prosrc, coalesce(proacl, acldefault('f', proowner)))::text AS line
    FROM pg_proc WHERE pronamespace = 'llm'::regnamespace
    UNION ALL
    SELECT (oid, relname, relowner, reloptions, coalesce(relacl, acldefault('r', relowner)))::text
    FROM pg_class WHERE relnamespace = 'llm'::regnamespace
    UNION ALL
    SELECT (oid, nspname, coalesce(nspacl, acldefault('n', nspowner)))::text
    FROM pg_namespace WHERE nspname = 'llm'
    UNION ALL
    SELECT (oid, fdwname, fdwhandler, fdwoptions, coalesce(fdwacl, acldefault('F', fdwowner)))::text
    FROM pg_foreign_data_wrapper
    UNION ALL
    SELECT (oid, extname, extversion)::text FROM pg_extension
    UNION ALL
    SELECT (oid, datname, coalesce(datacl, acldefault('d', datdba)))::text
    FROM pg_database WHERE datname = current_database()
) AS lines
"""


class KeptSession:
    """The session that the tests of a module use, one after the other, in a database of their own.

    Args:
        dsn: The database, where extensions stand in `EXTENSIONS_SCHEMA`. Nobody else may use its cluster meanwhile,
            for all roles but PostgreSQL's own are dropped.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection = self._open()
        self._extension = self._describe_extension()

    def borrow(self) -> psycopg.Connection[Any]:
        """Return the session; another one, if a test has ended it."""
        if self._connection.closed:
            self._connection = self._open()
        return self._connection

    def reset(self) -> None:
        """Drop what a test has made, settings, roles and servers included.

        Raises:
            AssertionError: The test has changed the extension itself, which is not undone here.
        """
        connection = self.borrow()
        connection.rollback()
        connection.autocommit = True
        connection.execute("DISCARD ALL")
        connection.execute("SET client_min_messages = 'error'")
        connection.execute(_DROP_ALL)
        connection.execute("RESET client_min_messages")
        changed = set(self._describe_extension()) ^ set(self._extension)
        assert not changed, (
            f"mark the first test that says this new_database: it has changed the extension: {sorted(changed)}"
        )

    def close(self) -> None:
        """End the session."""
        self._connection.close()

    def _describe_extension(self) -> list[str]:
        row = self._connection.execute(_EXTENSION).fetchone()
        assert row
        return list(row[0])

    def _open(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self._dsn, autocommit=True, prepare_threshold=None)
