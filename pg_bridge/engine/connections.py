"""Why there is no connection: what is wrong with the network, with TLS, or with the proxy between.

In: exceptions of the HTTP client, answers that send elsewhere. Out: reasons in words, and members of the error tree.
Nothing that the other side writes is shown but where it redirects to, without user and query.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

from pg_bridge.engine.failures import OR_RUN_DOCTOR
from pg_bridge.engine.proxies import PROXY_WANTS_USER, proxy_denied, unused_variable
from pg_bridge.engine.tls import blind_tls
from pg_bridge.engine.untrusted import hide_key, make_printable
from pg_bridge.errors import (
    CertificateDenied,
    EngineError,
    EngineUnreachable,
    ProxyDenied,
    Redirected,
    Untrusted,
    WrongScheme,
)
from pg_bridge.options import Server
from pg_bridge.options.values import URL

_PROBE_S = 2.0
_SHOWN_CHARS = 200
_LATER_STATUSES = frozenset({429, 500, 502, 503, 504})  # of a proxy that cannot reach the engine, or has much to do

# Numbers of X509_V_ERR_… in OpenSSL's x509_vfy.h.
_SELF_SIGNED = frozenset({18})
_UNKNOWN_AUTHORITY = frozenset({2, 19, 20, 21, 27})
_NOT_YET, _EXPIRED = 9, 10
_OTHER_NAME = frozenset({62, 64})

_NO_TLS = frozenset(
    {
        "HTTP_REQUEST",
        "HTTPS_PROXY_REQUEST",
        "PACKET_LENGTH_TOO_LONG",
        "RECORD_LAYER_FAILURE",
        "UNKNOWN_PROTOCOL",
        "WRONG_VERSION_NUMBER",
    }
)
_OF_CLIENT = (
    "ACCESS_DENIED",
    "BAD_CERTIFICATE",
    "CERTIFICATE_EXPIRED",
    "CERTIFICATE_REQUIRED",
    "CERTIFICATE_REVOKED",
    "CERTIFICATE_UNKNOWN",
    "UNKNOWN_CA",
    "UNSUPPORTED_CERTIFICATE",
)

_REASONS: dict[type[BaseException], str] = {
    socket.gaierror: "the host name is not known",
    ConnectionRefusedError: "connection refused",
    TimeoutError: "no connection in time",
}
# Before TLS 1.3 some refuse a client in so many words, and from then on most have hung up before it reads them.
_CLIENT_HINT = (
    "Check that the engine runs and that the server's endpoint is right, and whether it wants a client certificate, or "
    f"another one: the options cert_file and key_file{OR_RUN_DOCTOR}"
)


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why there is no connection.

    Attributes:
        reason: In words, without a full stop.
        hint: What to do; empty for what is always worth a look.
        error: What becomes of it.
        is_lasting: Whether trying again cannot help.
    """

    reason: str
    hint: str = ""
    error: type[EngineError] = EngineUnreachable
    is_lasting: bool = False


def trouble_of(error: BaseException, server: Server) -> Trouble:
    """What an exception of the HTTP client means."""
    status = getattr(error, "status", None)
    if server.proxy is not None and type(error).__name__ == "ClientHttpProxyError" and isinstance(status, int):
        return _refused_by_proxy(status)
    if server.proxy is not None and _is_at_proxy(error, server):
        found = _trouble(error, server.proxy, "proxy")
        return Trouble(f"no connection to its proxy: {found.reason}", found.hint, found.error, found.is_lasting)
    return _trouble(error, server.endpoint, "endpoint", has_certificate=server.cert_file is not None)


def unreachable(server: Server, trouble: Trouble) -> EngineError:
    """The error of a run that got no connection."""
    if trouble.error is ProxyDenied:
        return proxy_denied(server)
    hint = trouble.hint
    if not hint:
        what, variable = "proxy" if server.proxy else "endpoint", unused_variable(server)
        unused = f", and that it needs no proxy: the environment's {variable} is not used, the option proxy is"
        hint = f"Check that the engine runs and that the server's {what} is right"
        hint += f"{unused if variable else ''}{OR_RUN_DOCTOR}"
    return trouble.error(
        f'could not connect to the engine of server "{server.name}": {trouble.reason}',
        detail=_where(server),
        hint=hint,
    )


def wrong_scheme(server: Server) -> WrongScheme:
    """The error of a run that speaks plain HTTP to who speaks TLS."""
    return WrongScheme(
        f'could not connect to the engine of server "{server.name}": it speaks TLS, which it was not addressed in',
        detail=_where(server),
        hint=_set_endpoint(server, server.endpoint.replace("http:", "https:", 1)),
    )


def redirected(server: Server, status: int, path: str, location: str) -> Redirected:
    """The error of a run whose engine says that it is elsewhere.

    Args:
        server: The server.
        status: The HTTP status.
        path: What was asked for.
        location: Where it is said to be.
    """
    target = _target(server, path, location)
    base = target.removesuffix(path)
    hint = "Nothing is sent there. The server's endpoint must be the engine's own base URL."
    if base not in (target, server.endpoint) and re.fullmatch(URL.pattern, base):
        hint = f"Nothing is sent there. If it is the engine: {_set_endpoint(server, base)}"
    return Redirected(
        f'the engine of server "{server.name}" redirects to {target or "nowhere"} (HTTP status {status})',
        detail=_where(server),
        hint=hint,
    )


async def speaks_tls(url: str) -> bool:
    """Whether what listens at a URL's port shakes hands as TLS does; it is told nothing."""
    try:
        parts = urlsplit(url)
        async with asyncio.timeout(_PROBE_S):
            _, writer = await asyncio.open_connection(
                parts.hostname, parts.port or 80, ssl=blind_tls(), server_hostname=parts.hostname
            )
    except ssl.SSLError as error:
        return "ALERT" in (error.reason or "")
    except (OSError, ValueError):
        return False
    writer.transport.abort()
    return True


def _refused_by_proxy(status: int) -> Trouble:
    if status == PROXY_WANTS_USER:
        return Trouble("", error=ProxyDenied, is_lasting=True)
    return Trouble(
        f"its proxy does not connect to it (HTTP status {status})",
        ""
        if status in _LATER_STATUSES
        else "See what the proxy allows, and whether the server's option proxy names one.",
        is_lasting=status not in _LATER_STATUSES,
    )


def _is_at_proxy(error: BaseException, server: Server) -> bool:
    """Whether a connection failed that was to the proxy, not over it."""
    parts = urlsplit(server.proxy or "")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return (getattr(error, "host", None), getattr(error, "port", None)) == (parts.hostname, port)


def _trouble(error: BaseException, url: str, option: str, *, has_certificate: bool = False) -> Trouble:
    for seen in _causes(error):
        if isinstance(seen, ssl.SSLCertVerificationError):
            return _untrusted(seen, option)
        if isinstance(seen, ssl.SSLError):
            return _failed_handshake(seen, url, option, has_certificate=has_certificate)
        for kind, reason in _REASONS.items():
            if isinstance(seen, kind):
                return Trouble(reason)
    if isinstance(error, ValueError):
        return Trouble("it is no URL", is_lasting=True)
    told = error.strerror if isinstance(error, OSError) else None
    reason = told.lower() if told else "it closed the connection without an answer"
    return Trouble(reason, _CLIENT_HINT if url.startswith("https:") else "")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """What is behind an exception; aiohttp's own are kinds of what they wrap, and know less of it."""
    seen: Any = error
    while seen is not None:
        wrapped = getattr(seen, "certificate_error", None) or getattr(seen, "os_error", None)
        if wrapped is None:
            yield seen
        seen = wrapped or seen.__cause__


def _untrusted(error: ssl.SSLCertVerificationError, option: str) -> Trouble:
    """What is wrong with a certificate, each with what can be done about it."""
    code = getattr(error, "verify_code", 0)
    if code in _SELF_SIGNED:
        reason = "its certificate is self-signed, and not known here"
        hint = "If it is the right one: set the server's option ca_file to a file that holds it."
    elif code in _UNKNOWN_AUTHORITY:
        reason = "its certificate is of an authority that is not known here"
        hint = "Set the server's option ca_file to a file with the certificate of that authority."
    elif code == _EXPIRED:
        reason, hint = "its certificate has expired", "It must be renewed where the engine is served."
    elif code == _NOT_YET:
        reason = "its certificate is not valid yet"
        hint = "Check the clock of this machine, and the certificate."
    elif code in _OTHER_NAME:
        reason = f"its certificate is for another host than the {option}'s"
        hint = f"Set the server's {option} to a host that the certificate names, or have one made for this host."
    else:
        reason = f"its certificate is not accepted ({getattr(error, 'verify_message', '') or f'error {code}'})"
        hint = "See how the engine's certificate was made, and the server's option ca_file."
    return Trouble(reason, hint, Untrusted, is_lasting=True)


def _failed_handshake(error: ssl.SSLError, url: str, option: str, *, has_certificate: bool) -> Trouble:
    reason = error.reason or ""
    if reason in _NO_TLS:
        hint = f"If it is to be asked without TLS: set the server's {option} to {url.replace('https:', 'http:', 1)}."
        return Trouble("it does not speak TLS, which it was addressed in", hint, WrongScheme, is_lasting=True)
    if "ALERT" in reason and any(word in reason for word in _OF_CLIENT):
        says = "it does not take the client certificate" if has_certificate else "it wants a client certificate"
        hint = "Set the options cert_file and key_file, of the server or of the user mapping, to one that it takes."
        return Trouble(says, hint, CertificateDenied, is_lasting=True)
    if "PROTOCOL_VERSION" in reason or "UNSUPPORTED_PROTOCOL" in reason:
        return Trouble("it speaks no TLS of version 1.2 or later", "It must be served by a later one.", is_lasting=True)
    # OpenSSL's own names of its errors; nothing of the other side is in them.
    told = f" ({reason.lower().replace('_', ' ')})" if reason else ""
    return Trouble(f"the TLS handshake failed{told}", _CLIENT_HINT, is_lasting="ALERT" in reason)


def _where(server: Server) -> str:
    over = f" The proxy is {server.proxy}." if server.proxy else ""
    return f"The endpoint is {server.endpoint}.{over}"


def _target(server: Server, path: str, location: str) -> str:
    """Where a redirect points to, without user, query and fragment, fit to be shown; empty where that is no URL."""
    try:
        parts = urlsplit(urljoin(f"{server.endpoint}{path}", location))
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return ""
    host = parts.hostname or ""
    if not location or not host or parts.scheme not in ("http", "https"):
        return ""
    host = f"[{host}]" if ":" in host else host
    return make_printable(hide_key(f"{parts.scheme}://{host}{port}{parts.path}", server))[:_SHOWN_CHARS]


def _set_endpoint(server: Server, url: str) -> str:
    name, text = server.name.replace('"', '""'), url.replace("'", "''")
    return f"ALTER SERVER \"{name}\" OPTIONS (SET endpoint '{text}');"
