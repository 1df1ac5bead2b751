"""Is this database ready to ask an engine?

In: a DSN and the name of a foreign server. Out: checks, one after another, until one fails that the next ones
need; and the server with its options, for the engine's checks. It only reads, in a transaction that is rolled
back.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import sql

from pg_bridge import EXTENSION_VERSION, __version__
from pg_bridge.cli.checks import Check
from pg_bridge.errors import OptionError, is_older
from pg_bridge.options import Server, beyond_rights

CONNECT_TIMEOUT_S = 5
HOST_OF = {"pg_bridge": "plpython3u", "pg_bridge_multicorn": "multicorn"}

# Multicorn's servers of the extension's own tables have a wrapper and no endpoint: they are no engines.
# A user mapping's options are shown to those who may see them only; umoptions is NULL for others.
_SERVERS = """
SELECT s.srvname, s.srvoptions, has_server_privilege(s.oid, 'USAGE'),
       EXISTS (SELECT FROM pg_user_mappings AS m
               WHERE m.srvid = s.oid AND m.umuser IN (0, current_user::regrole)),
       (SELECT m.umoptions FROM pg_user_mappings AS m
        WHERE m.srvid = s.oid AND m.umuser IN (0, current_user::regrole) ORDER BY m.umuser DESC LIMIT 1),
       pg_has_role(s.srvowner, 'pg_read_server_files', 'USAGE'),
       (SELECT r.rolsuper FROM pg_roles AS r WHERE r.oid = s.srvowner)
FROM pg_foreign_server AS s JOIN pg_foreign_data_wrapper AS w ON w.oid = s.srvfdw
WHERE w.fdwname = 'pg_bridge'
  AND (NOT EXISTS (SELECT FROM unnest(s.srvoptions) AS o WHERE o LIKE 'wrapper=%')
       OR EXISTS (SELECT FROM unnest(s.srvoptions) AS o WHERE o LIKE 'endpoint=%'))
ORDER BY s.srvname
"""


_NO_CONNECTION = "check --dsn (or PGHOST, PGDATABASE, PGUSER) and that the server runs"
_NO_SESSION = {  # what a preloaded module keeps from beginning
    # Where the data directory has a folder of this name, the ledger's, PostgreSQL takes that for the module.
    r'could not (access file|load library) "pg_bridge"': (
        "run pg-bridge install on that server's machine; or, where pg_bridge was removed, reset "
        "session_preload_libraries: a superuser comes in with PGOPTIONS='-c session_preload_libraries='"
    ),
    r"(could not load|incompatible) library .*pg_bridge": (
        "run pg-bridge install --pg-config of that server on its machine: its module pg_bridge is not for it"
    ),
}


class Database:
    """One database, seen as the user of the DSN.

    Args:
        dsn: The connection string; empty for libpq's defaults.
        server_name: The foreign server to look for.

    Attributes:
        server: The foreign server with its options, once `checks` has found it.
    """

    def __init__(self, dsn: str, server_name: str) -> None:
        self.server: Server | None = None
        self._dsn = dsn
        self._server_name = server_name

    def checks(self) -> Iterator[Check]:
        """Check from the outside in."""
        try:
            connection = psycopg.connect(self._dsn, connect_timeout=CONNECT_TIMEOUT_S, autocommit=True)
        except psycopg.ProgrammingError:  # its text may repeat the DSN, and with it a password
            yield Check("FAIL", "the DSN cannot be read", "write it as for psql: 'host=… dbname=… user=…'")
            return
        except psycopg.Error as error:
            reason = reason_of(error)
            mend = next((mend for sign, mend in _NO_SESSION.items() if re.search(sign, reason)), _NO_CONNECTION)
            yield Check("FAIL", f"no connection to PostgreSQL: {reason}", mend)
            return
        with connection:
            info = connection.info
            version = info.parameter_status("server_version") or "?"
            yield Check("ok", f'PostgreSQL {version}, database "{info.dbname}", user "{info.user}"')
            for part in (self._extension, self._python, self._servers):
                failed = False
                for check in part(connection):
                    failed |= check.verdict == "FAIL"
                    yield check
                if failed:
                    return

    def _extension(self, connection: psycopg.Connection[Any]) -> Iterator[Check]:
        names = list(HOST_OF)
        query = "SELECT extname, extversion FROM pg_extension WHERE extname = ANY (%s)"
        installed = connection.execute(query, [names]).fetchone()
        if installed is not None and installed[1] == EXTENSION_VERSION:
            yield Check("ok", f"extension {installed[0]} {installed[1]} is installed")
            return
        if installed is not None:
            says = f"extension {installed[0]} is version {installed[1]}, and this command of {EXTENSION_VERSION}"
            mend = (
                f"run pg-bridge install on the server's machine, then ALTER EXTENSION {installed[0]} UPDATE;"
                if is_older(installed[1], EXTENSION_VERSION)
                else f"install pg_bridge {installed[1]} here and where the server's Python finds it, then connect anew"
            )
            yield Check("FAIL", says, mend)
            return
        query = "SELECT name FROM pg_available_extensions WHERE name = ANY (%s)"
        available = {row[0] for row in connection.execute(query, [[*names, *HOST_OF.values()]])}
        ready = [name for name in names if name in available]
        usable = [name for name in ready if HOST_OF[name] in available]
        if usable:
            yield Check("FAIL", "the extension is not in this database", f"CREATE EXTENSION {usable[0]} CASCADE;")
        elif ready:
            missing = "plpython3u (Debian: apt install postgresql-plpython3-NN) or multicorn"
            yield Check("FAIL", "the server has pg_bridge's files but no Python", f"install {missing}")
        else:
            mend = "run pg-bridge install on the server's machine, then CREATE EXTENSION pg_bridge CASCADE;"
            yield Check("FAIL", "the server does not have the extension's files", mend)

    def _python(self, connection: psycopg.Connection[Any]) -> Iterator[Check]:
        told: list[str] = []
        connection.add_notice_handler(lambda notice: told.append(notice.message_primary or ""))
        connection.execute("SET client_min_messages = debug2")  # where the server's Python tells its version
        try:
            row = connection.execute("SELECT llm.version()").fetchone()
        except psycopg.errors.InsufficientPrivilege:
            yield Check("FAIL", "this user may not use schema llm", "GRANT USAGE ON SCHEMA llm TO your role;")
            return
        except psycopg.Error as error:
            says = f"the server's Python{_version(connection)} cannot import pg_bridge: {reason_of(error)}"
            mend = "install it and what it needs where that Python finds it: see docs/install.md; then connect anew"
            yield Check("FAIL", says, mend)
            return
        finally:
            connection.execute("RESET client_min_messages")
        version = row[0] if row else None
        python = next(iter(re.findall(r"^pg_bridge .*(Python [\d.]+)$", "\n".join(told), re.MULTILINE)), "Python")
        if version == __version__:
            yield Check("ok", f"the server's {python} imports pg_bridge {version} and what it needs")
        else:
            says = f"the server's {python} imports pg_bridge {version}, this command is {__version__}"
            yield Check("warn", says, "install the same version for both, then connect anew")
        module = next(iter(re.findall(r"native module ([\d.]+), Python", "\n".join(told))), EXTENSION_VERSION)
        if module != EXTENSION_VERSION:
            mend = "run pg-bridge install on the server's machine, then connect anew"
            yield Check("FAIL", f"a new session has the native module of version {module}", mend)

    def _servers(self, connection: psycopg.Connection[Any]) -> Iterator[Check]:
        rows = connection.execute(_SERVERS).fetchall()
        found = next((row for row in rows if row[0] == self._server_name), None)
        quoted = sql.Identifier(self._server_name).as_string(connection)
        if found is None:
            others = ", ".join(row[0] for row in rows) or "none"
            mend = f"CREATE SERVER {quoted} FOREIGN DATA WRAPPER pg_bridge OPTIONS (endpoint 'http://host:8000');"
            yield Check("FAIL", f'no server "{self._server_name}" of pg_bridge; there are: {others}', mend)
            return
        _, server_options, usable, has_mapping, mapping_options, owner_reads_files, owner_is_superuser = found
        if not usable:
            mend = f"ask its owner for: GRANT USAGE ON FOREIGN SERVER {quoted} TO your role;"
            yield Check("FAIL", f'no USAGE on server "{self._server_name}"', mend)
            return
        options = dict(option.split("=", 1) for option in [*(server_options or ()), *(mapping_options or ())])
        try:
            self.server = Server.from_options(self._server_name, options)
        except OptionError as error:
            yield Check("FAIL", error.message, error.hint)
            return
        rights = {"superuser": owner_is_superuser, "pg_read_server_files": owner_reads_files}
        denied = beyond_rights(options, lambda whose: bool(rights[whose]))
        if denied is not None:
            mend = f"give it to a superuser, ALTER SERVER {quoted} OWNER TO …, or drop the option"
            yield Check("FAIL", f'the server has the option "{denied.name}", which its owner may not set', mend)
        yield Check("ok", f'server "{self._server_name}" points at {self.server.endpoint}, and this user may use it')
        if not has_mapping:
            yield Check("ok", "no user mapping: the engine is asked without a key")
        elif mapping_options is None:
            mend = "the engine is checked without the key below; run doctor as the mapping's own user to use it"
            yield Check("warn", "a user mapping is there, but this user may not see it", mend)
        else:
            key = "with" if "api_key" in options else "without"
            yield Check("ok", f"a user mapping is there, {key} an api_key")


def _version(connection: psycopg.Connection[Any]) -> str:
    """The version of the Python that PL/Python embeds, after a space; empty if this user may not ask."""
    told: list[str] = []
    connection.add_notice_handler(lambda notice: told.append(notice.message_primary or ""))
    with contextlib.suppress(psycopg.Error):
        connection.execute("DO LANGUAGE plpython3u $$ import platform; plpy.notice(platform.python_version()) $$")
    return f" {told[0]}" if told else ""


def reason_of(error: BaseException) -> str:
    """What an error says, in a line; a compiled module's begins with an empty one and has its reason far below."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    detail = getattr(getattr(error, "diag", None), "message_detail", None)
    origin = [line for line in lines if line.startswith("Original error was:")]
    told = (origin or [line for line in lines[1:] if not line.isupper() and "PLEASE READ" not in line])[:1]
    first = lines[0] if lines else type(error).__name__
    if first.endswith(":") and told:
        return f"{first} {told[0].removeprefix('Original error was:').strip()}"
    return f"{first} ({detail.strip()})" if detail else first
