"""The proxy over which an engine is asked: the one that the server names, and never another.

In: a server. Out: what a request is given so that it takes that way, and the error of a proxy that wants to know more.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from pg_bridge.errors import ProxyDenied
from pg_bridge.options import Server

PROXY_WANTS_USER = 407


def with_proxy(server: Server, headers: Mapping[str, str]) -> dict[str, Any]:
    """What aiohttp is told of each request, so that it goes over the server's proxy, which alone learns its user.

    Args:
        server: The server.
        headers: What the engine is told.
    """
    if server.proxy is None:
        return {"headers": headers}
    if server.proxy_user is None and server.proxy_password is None:
        return {"headers": headers, "proxy": server.proxy}
    login = base64.b64encode(f"{server.proxy_user or ''}:{server.proxy_password or ''}".encode()).decode()
    own = {"Proxy-Authorization": f"Basic {login}"}
    if server.endpoint.startswith("https:"):  # the proxy sees nothing of a request but the CONNECT before it
        return {"headers": headers, "proxy": server.proxy, "proxy_headers": own}
    return {"headers": {**headers, **own}, "proxy": server.proxy}


def proxy_denied(server: Server) -> ProxyDenied:
    """The error of a run whose proxy wants to know who it is."""
    return ProxyDenied(
        f'the proxy of server "{server.name}" {"refused its user" if server.proxy_user else "wants a user"}',
        detail=f"{server.proxy} answered with HTTP status {PROXY_WANTS_USER}.",
        hint="CREATE or ALTER USER MAPPING FOR … SERVER … OPTIONS (proxy_user '…', proxy_password '…').",
    )


def unused_variable(server: Server) -> str | None:
    """The variable of the environment that names a proxy for the engine, where the server names none."""
    if server.proxy is not None:
        return None
    from urllib.request import proxy_bypass  # noqa: PLC0415 - of use where something is wrong alone

    try:
        host = urlsplit(server.endpoint).hostname or ""
    except ValueError:
        return None
    names = (f"{server.endpoint.partition(':')[0]}_proxy", "all_proxy")
    found = next((each for name in names for each in (name, name.upper()) if os.environ.get(each)), None)
    return None if found is None or proxy_bypass(host) else found
