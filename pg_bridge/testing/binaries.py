"""The programs of a PostgreSQL server on this machine: where they are, and as whom and with what around them they run.

In: a `pg_config`. Out: a directory with `initdb` and `postgres`, a data directory made by the one, and what a process
needs that runs the other: the user whom PostgreSQL does not refuse, an environment that leads to our Python. It starts
no server.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pg_bridge.errors import PgBridgeError

SUPERUSER = "postgres"


def find_binaries(pg_config: str | None = None) -> Path:
    """Return the directory that holds `initdb` and `postgres`.

    Args:
        pg_config: A `pg_config` to ask; None asks $PG_CONFIG, then the one on PATH, then looks where Debian
            puts each major version and takes the newest.

    Raises:
        PgBridgeError: No PostgreSQL server is installed there.
    """
    named = pg_config or os.environ.get("PG_CONFIG")
    asked = [named] if named else [path for path in [shutil.which("pg_config")] if path]
    candidates = []
    for program in asked:
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            answer = subprocess.run([program, "--bindir"], check=True, capture_output=True, text=True)
            candidates.append(Path(answer.stdout.strip()))
    if not named:
        majors = [path for path in Path("/usr/lib/postgresql").glob("*") if path.name.isdecimal()]
        candidates += [path / "bin" for path in sorted(majors, key=lambda path: int(path.name), reverse=True)]
    for directory in candidates:
        # A pg_config of the client library alone names a directory without the server's programs.
        if (directory / "initdb").exists() and (directory / "postgres").exists():
            return directory
    raise PgBridgeError(
        "no PostgreSQL server was found",
        detail=f"{named} names no directory with initdb and postgres" if named else "",
        hint="Run `make setup`, or set PG_CONFIG to the pg_config of the server to use.",
    )


def has_module(binaries: Path) -> bool:
    """Whether the server whose programs stand there has the native module."""
    return (_library_folder(binaries) / "pg_bridge.so").exists()


@cache
def _library_folder(binaries: Path) -> Path:
    pg_config = [str(binaries / "pg_config"), "--pkglibdir"]
    return Path(subprocess.run(pg_config, check=True, capture_output=True, text=True).stdout.strip())


def make_data_directory(binaries: Path, data: Path, arguments: Sequence[str]) -> None:
    """Run initdb; the directory above belongs to the server's user already.

    Raises:
        PgBridgeError: initdb failed; the detail is what it said.
    """
    outcome: subprocess.CompletedProcess[str] = subprocess.run(
        [
            str(binaries / "initdb"),
            f"--pgdata={data}",
            f"--username={SUPERUSER}",
            "--auth=trust",
            "--locale=C.UTF-8",
            "--encoding=UTF8",
            "--no-sync",
            *arguments,
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        start_new_session=True,
        **as_server_user(),
    )
    if outcome.returncode:
        raise failed("initdb failed", outcome.stderr.strip())


def server_environment(python_path: Path, changes: Mapping[str, str | None]) -> dict[str, str]:
    """Our environment as a server is to see it: with one directory for its Python; None as a change removes a name."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "PYTHON"))}
    kept |= {"PYTHONPATH": str(python_path), "PYTHONNOUSERSITE": "1", "PATH": _path_without_environments()}
    for name, value in changes.items():
        if value is None:
            kept.pop(name, None)
        else:
            kept[name] = value
    return kept


def _path_without_environments() -> str:
    """PATH without virtual environments: an embedded Python takes the first `python3` on it for its own place."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join(folder for folder in folders if not Path(folder).with_name("pyvenv.cfg").exists())


def as_server_user() -> dict[str, Any]:
    """What `subprocess` takes to run a program as the server's user; nothing if that is who we are."""
    user = _server_user()
    if user is None:
        return {}
    groups = [group.gr_gid for group in grp.getgrall() if user.pw_name in group.gr_mem]
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": groups}


def give_to_server_user(root: Path) -> None:
    """Make the server's user the owner of a directory and of all in it: the server may not run as root."""
    user = _server_user()
    if user is None:
        return
    os.chown(root, user.pw_uid, user.pw_gid)
    for directory, directories, files in os.walk(root):
        for name in directories + files:
            os.chown(Path(directory, name), user.pw_uid, user.pw_gid, follow_symlinks=False)


def _server_user() -> pwd.struct_passwd | None:
    """Return the operating system's user that the server must run as; None for ourselves."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise PgBridgeError(
        "PostgreSQL does not run as root, and there is no user postgres", hint="Run this as an ordinary user."
    )


def failed(message: str, detail: str) -> PgBridgeError:
    """An error of a program of the server, with what it said."""
    error = PgBridgeError(message, detail=detail)
    error.add_note(detail)  # so that a traceback in a test's output tells why
    return error
