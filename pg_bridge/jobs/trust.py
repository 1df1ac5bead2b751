"""Whose jobs a login may do: those of roles that could themselves become all that the login could.

In: the connection of who logged in, the role of a job. Out: why it is refused, or that it is not; and whether the table
of jobs may be believed, which its owner writes into as he likes. A job is its role's own SQL, and runs after SET ROLE
in a session of the login. No such session holds anybody: a function that a query calls can `set_config('role', …)`, go
back to the login, and on to any role that the login may become. So what the login could do beyond the role is what
every job of the role could. (docs/decisions/0056 says what else was thought of.)
"""

from __future__ import annotations

from collections.abc import Collection

from pg_bridge.errors import NotPermitted
from pg_bridge.jobs.database import Connection

# Of the login: nothing else is asked where it is the role itself.
_RELATION = """
SELECT login.rolname::text, login.oid = $1::oid, pg_catalog.pg_has_role(login.oid, $1::oid, CASE
           WHEN pg_catalog.current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END)
FROM pg_catalog.pg_roles AS login
WHERE login.rolname = session_user
      AND EXISTS (SELECT FROM pg_catalog.pg_roles AS own WHERE own.oid = $1::oid AND own.rolname = $2::name)
"""

_BEYOND = """
SELECT login.rolsuper AND NOT own.rolsuper,
       login.rolcreaterole AND NOT own.rolcreaterole OR login.rolcreatedb AND NOT own.rolcreatedb
       OR login.rolreplication AND NOT own.rolreplication OR login.rolbypassrls AND NOT own.rolbypassrls,
       (SELECT pg_catalog.min(r.rolname::text) FROM pg_catalog.pg_roles AS r
        WHERE r.oid <> login.oid AND CASE
            WHEN pg_catalog.current_setting('server_version_num')::int < 160000
            THEN pg_catalog.pg_has_role(login.oid, r.oid, 'MEMBER')
                 AND NOT pg_catalog.pg_has_role(own.oid, r.oid, 'MEMBER')
            WHEN pg_catalog.pg_has_role(own.oid, r.oid, 'SET') THEN false
            ELSE pg_catalog.pg_has_role(login.oid, r.oid, 'SET')
                 OR pg_catalog.pg_has_role(login.oid, r.oid, 'USAGE')
                    AND NOT pg_catalog.pg_has_role(own.oid, r.oid, 'USAGE')
            END),
       (SELECT pg_catalog.min(r.rolname::text) FROM pg_catalog.pg_roles AS r
        WHERE r.oid <> login.oid AND pg_catalog.pg_has_role(login.oid, r.oid, 'MEMBER WITH ADMIN OPTION')
              AND NOT pg_catalog.pg_has_role(own.oid, r.oid, 'MEMBER WITH ADMIN OPTION')),
       (SELECT pg_catalog.min(d.datname::text) FROM pg_catalog.pg_database AS d
        WHERE pg_catalog.has_database_privilege(login.oid, d.oid, 'CREATE')
              AND NOT pg_catalog.has_database_privilege(own.oid, d.oid, 'CREATE')),
       EXISTS (SELECT FROM pg_catalog.pg_shdepend AS d
               WHERE d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND d.refobjid = login.oid
                     AND (d.deptype = 'o' OR d.deptype IN ('a', 'r')
                          AND d.classid <> 'pg_catalog.pg_database'::pg_catalog.regclass))
FROM pg_catalog.pg_roles AS login, pg_catalog.pg_roles AS own
WHERE login.rolname = session_user AND own.oid = $1::oid
"""

# Superusers, and who is the database's owner or may become that, are believed.
_OWNERS = """
SELECT r.oid, r.rolname::text, session_user::text
FROM pg_catalog.pg_roles AS r
WHERE NOT r.rolsuper AND r.rolname <> session_user AND NOT pg_catalog.pg_has_role(r.oid, (
          SELECT d.datdba FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database()), 'MEMBER')
      AND r.oid IN (
          SELECT n.nspowner FROM pg_catalog.pg_namespace AS n WHERE n.nspname = $1::name
          UNION SELECT c.relowner FROM pg_catalog.pg_class AS c
                JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = $1::name
          UNION SELECT p.proowner FROM pg_catalog.pg_proc AS p
                JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace WHERE n.nspname = $1::name)
ORDER BY r.rolname
"""


def refusal(connection: Connection, role: str, oid: int, trusted: Collection[str] = ()) -> str | None:
    """Why jobs of a role are not done by who has logged in on a connection; None where they are.

    Args:
        connection: Where, in a session that has taken on no other role.
        role: The role.
        oid: Its oid when it submitted.
        trusted: Roles that whoever runs the worker lets reach all that the login reaches.
    """
    row = connection.execute(_RELATION, [oid, role]).fetchone()
    if row is None:
        return f'role "{role}" is another than the one that submitted them'
    login, is_same, is_member = row
    if not is_member:
        return f'"{login}" may not become "{role}"'
    if is_same or role in trusted:
        return None
    beyond = _beyond(connection, oid)
    return None if beyond is None else f'"{login}" {beyond}, which a job of "{role}" could use'


def refuse_owners(connection: Connection, schema: str, trusted: Collection[str] = ()) -> None:
    """See that a schema is of those who gain nothing by it: its owners could make jobs in anybody's name.

    Args:
        connection: Where, in a session of who logged in.
        schema: The schema.
        trusted: As for `refusal`.

    Raises:
        NotPermitted: It is another's.
    """
    for oid, owner, login in connection.execute(_OWNERS, [schema]).fetchall():
        beyond = None if owner in trusted else _beyond(connection, oid)
        if beyond is not None:
            raise NotPermitted(
                f'schema {schema} has an owner, "{owner}", who could make jobs in any role\'s name: '
                f'"{login}" {beyond}, which "{owner}" could use',
                hint="Have the owner of the database make the schema, or name the role with --trust.",
            )


def _beyond(connection: Connection, oid: int) -> str | None:
    """What a login could do that a role could not; None for nothing."""
    found = connection.execute(_BEYOND, [oid]).fetchone()
    is_superuser, has_attributes, other, granted, database, has_own = found or (True, True, None, None, None, True)
    if is_superuser:
        return "is a superuser"
    if other is not None:
        return f'may become "{other}", too'
    if granted is not None:
        return f'may grant "{granted}" to others'
    if database is not None:
        return f'may create in database "{database}"'
    if has_attributes:
        return "has attributes that this role has not"
    return "has objects or rights of its own" if has_own else None
