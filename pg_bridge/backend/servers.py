"""Servers as a backend may use them: parsed, and with no option that their owner had no right to.

In: options as the catalog has them, and the oid of who owns the server. Out: a `Server`, or an error. That somebody who
had the right once wrote an option does not say that its owner has it: ALTER SERVER … OWNER TO and a dump that is
restored ask nobody.
"""

from __future__ import annotations

from collections.abc import Mapping

from pg_bridge.backend import postgres
from pg_bridge.errors import NotPermitted
from pg_bridge.options import Server, beyond_rights


def open_server(name: str, options: Mapping[str, str], owner: int) -> Server:
    """Parse the options of a server and a user mapping.

    Args:
        name: The server's name.
        options: Option name to text, server and user mapping together.
        owner: The oid of the server's owner; 0 where nobody knows it, who has no rights.

    Raises:
        OptionError: An option is unknown, malformed, or `endpoint` is missing.
        NotPermitted: An option takes rights that the owner has not.
    """
    server = Server.from_options(name, options, owner)
    denied = beyond_rights(options, lambda whose: postgres.has_rights_of(owner, whose))
    if denied is not None:
        or_member = "" if denied.needs == "superuser" else f" or a member of {denied.needs}"
        raise NotPermitted(
            f'server "{name}" has the option "{denied.name}", and its owner may not set it',
            hint=f"Its owner must be a superuser{or_member}: ALTER SERVER … OWNER TO …, or drop the option.",
        )
    return server
