"""TLS as a server's options say it: whose certificates are trusted, and which one is shown.

In: a server. Out: what a connection's TLS is made by, kept for the session, for to read the authorities that a system
trusts takes thirty milliseconds. No error tells what is in a file: whoever asks need not be allowed to read it.
"""

from __future__ import annotations

import os
import ssl
import stat
from collections.abc import Hashable

from pg_bridge.errors import FileFault
from pg_bridge.options import Server

LARGEST_FILE_BYTES = 4 << 20  # what a system trusts is a quarter of a megabyte

_KEPT = 4
_CONTEXTS: dict[Hashable, ssl.SSLContext] = {}  # the latest last


class _Encrypted(Exception):
    """A key is, and nobody is asked for its password: OpenSSL would ask on the terminal."""


def tls_of(server: Server) -> ssl.SSLContext | None:
    """What the server's connections are secured by; None where none is.

    Raises:
        FileFault: A file that an option names cannot be used.
    """
    if not server.uses_tls:
        return None
    named = {name: getattr(server, name) for name in ("ca_file", "cert_file", "key_file")}
    key = (server.no_verify, *(_look_at(server, name, path) for name, path in named.items() if path is not None))
    context = _CONTEXTS.pop(key, None) or _make(server)
    _CONTEXTS[key] = context
    while len(_CONTEXTS) > _KEPT:
        del _CONTEXTS[next(iter(_CONTEXTS))]
    return context


def blind_tls() -> ssl.SSLContext:
    """What shakes hands with anybody; for who has nothing to tell him."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _look_at(server: Server, option: str, path: str) -> Hashable:
    """What changes where a file does."""
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        raise _fault(server, option, _reason(error)) from None
    if not stat.S_ISREG(found.st_mode):
        raise _fault(server, option, "it is no regular file")
    if found.st_size > LARGEST_FILE_BYTES:
        raise _fault(server, option, f"it has more than {LARGEST_FILE_BYTES >> 20} MB")
    return option, path, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _make(server: Server) -> ssl.SSLContext:
    # Not ssl.create_default_context, which writes the session's keys to where the environment's SSLKEYLOGFILE says.
    context = blind_tls() if server.no_verify else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["http/1.1"])
    if server.ca_file is not None:
        _trust(context, server, server.ca_file)
    elif not server.no_verify:
        context.load_default_certs()
    if server.cert_file is not None:
        _show(context, server, server.cert_file)
    return context


def _trust(context: ssl.SSLContext, server: Server, path: str) -> None:
    try:
        with open(path, "rb") as file:
            text = file.read(LARGEST_FILE_BYTES).decode("ascii", "ignore")  # names in comments may be in any language
        context.load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError):  # an empty one
        raise _fault(server, "ca_file", "it has no certificate in the format PEM, or a broken one") from None
    except OSError as error:
        raise _fault(server, "ca_file", _reason(error)) from None
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # so that it may be the engine's own, too


def _show(context: ssl.SSLContext, server: Server, path: str) -> None:
    try:
        context.load_cert_chain(path, server.key_file, password=_refuse)
    except _Encrypted:
        raise _fault(server, "key_file" if server.key_file else "cert_file", "the key in it is encrypted") from None
    except ssl.SSLError as error:
        is_pair = error.reason == "KEY_VALUES_MISMATCH"
        what = (
            "the key is another certificate's" if is_pair else "it lacks a certificate, or its key, in the format PEM"
        )
        raise _fault(server, "cert_file", what) from None
    except OSError as error:
        raise _fault(server, "key_file" if server.key_file else "cert_file", _reason(error)) from None


def _refuse() -> str:
    raise _Encrypted


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is none of that name"
    return "it may not be read" if isinstance(error, PermissionError) else "it cannot be read"


def _fault(server: Server, option: str, why: str) -> FileFault:
    return FileFault(
        f'the file that option "{option}" of server "{server.name}" names cannot be used: {why}',
        hint="Files are read on the machine from which the engine is asked, as the operating system's user there: "
        "in a database, the one that PostgreSQL runs as.",
    )
