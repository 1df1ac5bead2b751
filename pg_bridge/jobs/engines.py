"""The engines that jobs name: on a server with the extension its servers, elsewhere those of the worker's own settings.

In: a connection with the rights of a job's role, the name of an engine. Out: a `Server`. A job gives a name and nothing
else, so no job has a key sent to where its role says: a server of the extension is its owner's, and the key that of the
role's own user mapping, read with the role's own rights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pg_bridge.errors import NotPermitted, ServerDenied, UnknownServer
from pg_bridge.jobs.database import Connection
from pg_bridge.options import Server, beyond_rights

EXTENSION_SCHEMA, RENTED_SCHEMA = "llm", "llm_jobs"

# A role sees the options of its own mapping, and those of the public one only if the server is its own. The path is
# what it says, and may have operators of its own in it.
_OPTIONS = """
SELECT pg_catalog.has_server_privilege(s.oid, 'USAGE'), ARRAY(
    SELECT ARRAY[o.option_name::text, o.option_value] FROM pg_catalog.pg_options_to_table(s.srvoptions) AS o), ARRAY(
    SELECT ARRAY[o.option_name::text, o.option_value]
    FROM pg_catalog.pg_user_mappings AS m, pg_catalog.pg_options_to_table(m.umoptions) AS o
    WHERE m.srvid OPERATOR(pg_catalog.=) s.oid AND m.umuser OPERATOR(pg_catalog.=) (
        SELECT pg_catalog.max(n.umuser) FROM pg_catalog.pg_user_mappings AS n
        WHERE n.srvid OPERATOR(pg_catalog.=) s.oid AND n.umuser OPERATOR(pg_catalog.=) ANY (ARRAY[
            0, (SELECT r.oid FROM pg_catalog.pg_roles AS r WHERE r.rolname OPERATOR(pg_catalog.=) current_user)]))),
    EXISTS (SELECT FROM pg_catalog.pg_user_mappings AS m
            WHERE m.srvid OPERATOR(pg_catalog.=) s.oid AND m.umuser OPERATOR(pg_catalog.=) 0 AND m.umoptions IS NULL),
    (SELECT r.rolsuper FROM pg_catalog.pg_roles AS r WHERE r.oid OPERATOR(pg_catalog.=) s.srvowner),
    pg_catalog.pg_has_role(s.srvowner, 'pg_read_server_files', 'USAGE')
FROM pg_catalog.pg_foreign_server AS s
JOIN pg_catalog.pg_foreign_data_wrapper AS w ON w.oid OPERATOR(pg_catalog.=) s.srvfdw
WHERE w.fdwname OPERATOR(pg_catalog.=) 'pg_bridge' AND s.srvname OPERATOR(pg_catalog.=) $1::name
"""


@dataclass(frozen=True, slots=True)
class Engines:
    """Where jobs ask.

    Attributes:
        schema: That of the jobs, which tells whether the extension is there.
        own: Those of the worker's settings, by name.
    """

    schema: str
    own: Mapping[str, Server]

    def find(self, connection: Connection, name: str) -> Server:
        """The engine of a name.

        Args:
            connection: With the rights of the role that asks.
            name: The name.

        Raises:
            UnknownServer: There is none.
            ServerDenied: The role may not use it.
        """
        if self.schema == EXTENSION_SCHEMA:
            return _of_extension(connection, name)
        if name not in self.own:
            known = ", ".join(sorted(self.own))
            raise UnknownServer(
                f'the worker has no engine "{name}"',
                hint=f"It has: {known}." if known else "Start it with --endpoint, or with --engines FILE.",
            )
        return self.own[name]


def _of_extension(connection: Connection, name: str) -> Server:
    row = connection.execute(_OPTIONS, [name]).fetchone()
    if row is None:
        raise UnknownServer(f'server "{name}" does not exist', hint="CREATE SERVER makes one.")
    is_usable, of_server, of_mapping, is_hidden, is_superusers, reads_files = row
    if not is_usable:
        raise ServerDenied(name)
    if is_hidden and not of_mapping:
        raise UnknownServer(
            f'server "{name}" has its key in the mapping of PUBLIC, which your role cannot read',
            hint=f"Jobs need a mapping of their own role: CREATE USER MAPPING FOR … SERVER {name}.",
        )
    options = {**dict(of_server), **dict(of_mapping)}
    denied = beyond_rights(options, lambda whose: is_superusers or (whose == "pg_read_server_files" and reads_files))
    if denied is not None:  # and that on this machine, where the owner of the server may be nobody
        raise NotPermitted(f'server "{name}" has the option "{denied.name}", and its owner may not set it')
    return Server.from_options(name, options)
