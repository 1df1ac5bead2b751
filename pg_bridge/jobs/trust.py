"""Whose jobs a login may do: those of roles that could themselves become all that the login could.

In: the connection of who logged in, the role of a job. Out: why it is refused, or that it is not. A job is its role's
own SQL, and runs after SET ROLE in a session of the login. No such session holds anybody: a function that a query calls
can `set_config('role', …)`, go back to the login, and on to any role that the login may become. So what the login could
do beyond the role is what every job of the role could. (docs/decisions/0056 says what else was thought of.)
"""

from __future__ import annotations

from collections.abc import Collection

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
        WHERE r.oid <> login.oid AND pg_catalog.pg_has_role(login.oid, r.oid, 'MEMBER')
              AND NOT pg_catalog.pg_has_role(own.oid, r.oid, 'MEMBER')),
       EXISTS (SELECT FROM pg_catalog.pg_shdepend AS d
               WHERE d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND d.refobjid = login.oid
                     AND (d.deptype = 'o' OR d.deptype IN ('a', 'r')
                          AND d.classid <> 'pg_catalog.pg_database'::pg_catalog.regclass))
FROM pg_catalog.pg_roles AS login, pg_catalog.pg_roles AS own
WHERE login.rolname = session_user AND own.oid = $1::oid
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
    found = connection.execute(_BEYOND, [oid]).fetchone()
    is_superuser, has_attributes, other, has_own = found or (True, True, None, True)
    beyond = (
        "is a superuser"
        if is_superuser
        else f'may become "{other}", too'
        if other is not None
        else "has attributes that this role has not"
        if has_attributes
        else "has objects or rights of its own"
        if has_own
        else None
    )
    return None if beyond is None else f'"{login}" {beyond}, which a job of "{role}" could use'
