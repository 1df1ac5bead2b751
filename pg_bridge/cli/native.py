"""The native module: built from the sources that travel with the package, and put into a PostgreSQL server.

In: a server's pg_config. Out: `pg_bridge.so` in the server's library folder, which says of which sources it was made.
It needs a compiler, make and the server's headers, and says what is missing; without the module all works, one request
a call.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pg_bridge
from pg_bridge.errors import PgBridgeError

MODULE = "pg_bridge.so"


def is_current(pg_config: str, destdir: str = "") -> bool:
    """Whether the server has the module, of these sources and for its major version."""
    module = below(destdir, install_folder(pg_config)) / MODULE
    made_of = f"pg_bridge source {digest()} for {server_version(pg_config)}\0".encode()
    return module.exists() and made_of in module.read_bytes()


def install_folder(pg_config: str) -> Path:
    """Where the server looks for modules."""
    return _ask_pg_config(pg_config, "--pkglibdir")


def server_version(pg_config: str) -> int:
    """The major version of the server."""
    printed = _run_pg_config(pg_config, "--version")  # PostgreSQL 17.12 (Debian 17.12-0+deb13u1), 19devel
    return int(re.findall(r"\d+", printed)[0])


def what_is_missing(pg_config: str) -> str:
    """What keeps the module from being built, in words; empty if nothing does."""
    for program in ("make", os.environ.get("CC", "gcc")):
        if shutil.which(program) is None:
            return f"there is no {program}"
    if (
        not _ask_pg_config(pg_config, "--pgxs").exists()
        or not (_ask_pg_config(pg_config, "--includedir-server") / "postgres.h").exists()
    ):
        return "the server's headers are not installed (on Debian: postgresql-server-dev-…)"
    return ""


def install(pg_config: str, destdir: str = "") -> Path:
    """Build the module and put it into the server's library folder; returns where it is.

    Args:
        pg_config: The server's.
        destdir: A folder that stands for the root of the file system.

    Raises:
        PgBridgeError: It does not compile, or the folder cannot be written.
    """
    target = below(destdir, install_folder(pg_config)) / MODULE
    with tempfile.TemporaryDirectory(prefix="pg_bridge_native_") as name:
        folder = Path(name)
        for source in _sources():
            shutil.copy(source, folder)
        command = ["make", "-s", "-C", name, f"PG_CONFIG={pg_config}", f"SOURCE_DIGEST={digest()}"]
        outcome = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if outcome.returncode:
            raise PgBridgeError(
                "the native module does not compile",
                detail=outcome.stderr.strip()[-2000:],
                hint="pg-bridge install --no-native leaves it out. Please report this, with the server's version.",
            )
        try:
            # A running server has the old file mapped: it keeps that one, and new sessions get this one.
            target.parent.mkdir(parents=True, exist_ok=True)
            fresh = target.with_name(f".{MODULE}.new")
            shutil.copy(folder / MODULE, fresh)
            fresh.chmod(0o755)
            fresh.replace(target)
        except OSError as error:
            raise cannot_write(target.parent, error) from error
    return target


def below(destdir: str, folder: Path) -> Path:
    """A folder of the server in the tree that begins at `destdir`, as `make install DESTDIR=…` has it."""
    return Path(destdir, *folder.parts[1:]) if destdir else folder


def cannot_write(folder: Path, error: OSError) -> PgBridgeError:
    """The error for a folder of the server that this user may not write to."""
    return PgBridgeError(
        f"cannot write {folder}",
        detail=str(error.strerror),
        hint="Run it with sudo: sudo $(which pg-bridge) install",
    )


def digest() -> str:
    """A number for the sources' texts."""
    texts = [source.name.encode() + b"\0" + source.read_bytes() for source in _sources()]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()[:16]


def _sources() -> list[Path]:
    folder = Path(pg_bridge.__file__).parent / "native"
    return sorted(path for path in folder.iterdir() if path.suffix in {".c", ".h"} or path.name == "Makefile")


def _ask_pg_config(pg_config: str, what: str) -> Path:
    return Path(_run_pg_config(pg_config, what))


def _run_pg_config(pg_config: str, what: str) -> str:
    return subprocess.run([pg_config, what], check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603
