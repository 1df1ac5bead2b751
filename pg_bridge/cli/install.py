"""`pg-bridge install`: put the extensions' control and SQL files into a PostgreSQL server.

In: the files of `sql/`, which travel with the package. Out: two extensions in the server's extension folder, each
install script joined from foundation, host and surface, with the option table of `pg_bridge.options` filled in. It
creates nothing in any database and starts nothing.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from pg_bridge.errors import PgBridgeError
from pg_bridge.options import MULTICORN_WRAPPER, OPTIONS

VERSION = "0.1"
HOSTS: Mapping[str, str] = {"pg_bridge": "host_plpython.sql", "pg_bridge_multicorn": "host_multicorn.sql"}
_RELATION = ("table", "relation", "rowset|result|connection|state", "rowset, result, connection or state")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "install",
        help="copy the extensions' files into a PostgreSQL server",
        description="Copy the control and SQL files of the extensions pg_bridge (PL/Python) and pg_bridge_multicorn "
        "(Multicorn) into a PostgreSQL server. Run it as a user who may write there, with sudo for example.",
        epilog="Then, in a database: CREATE EXTENSION pg_bridge CASCADE; and see docs/install.md for how the server's "
        "Python finds this package.",
    )
    parser.add_argument(
        "--pg-config",
        default="pg_config",
        metavar="PATH",
        help="the server's pg_config (default: the one on PATH)",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="only say whether the server's files are up to date; exit 1 if not",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Install, or check."""
    folder = extension_folder(arguments.pg_config)
    stale = {name: text for name, text in extension_files().items() if _read(folder / name) != text}
    if arguments.check or not stale:
        print(f"{folder}: " + (f"{len(stale)} files are missing or old" if stale else "up to date"))
        return 1 if stale else 0
    try:
        for name, text in stale.items():
            (folder / name).write_text(text)
    except OSError as error:
        raise PgBridgeError(
            f"cannot write {folder}",
            detail=str(error.strerror),
            hint="Run it with sudo: sudo $(which pg-bridge) install",
        ) from error
    print(f"{folder}: installed {', '.join(sorted(stale))}")
    return 0


def extension_folder(pg_config: str) -> Path:
    """The server's folder of extensions.

    Raises:
        PgBridgeError: There is no such pg_config, or it has no such folder.
    """
    program = shutil.which(pg_config)
    if program is None:
        raise PgBridgeError(
            f"there is no {pg_config}",
            hint="Install PostgreSQL's server, or name its pg_config with --pg-config.",
        )
    printed = subprocess.run([program, "--sharedir"], check=True, capture_output=True, text=True)  # noqa: S603
    folder = Path(printed.stdout.strip()) / "extension"
    if not folder.is_dir():
        raise PgBridgeError(
            f"{folder} does not exist",
            hint="Install PostgreSQL's server; its client alone has no extensions.",
        )
    return folder


def extension_files() -> dict[str, str]:
    """The files to install: name to text."""
    source = files("pg_bridge.sql")
    result: dict[str, str] = {}
    for extension, host in HOSTS.items():
        (other,) = HOSTS.keys() - {extension}
        script = "\n".join((source / part).read_text() for part in ("foundation.sql", host, "surface.sql"))
        for mark, text in (
            ("@extension@", extension),
            ("@other_extension@", other),
            ("@wrapper@", MULTICORN_WRAPPER),
            ("@options@", _option_rows()),
        ):
            script = script.replace(mark, text)
        result[f"{extension}.control"] = (source / f"{extension}.control").read_text()
        result[f"{extension}--{VERSION}.sql"] = script
    return result


def _option_rows() -> str:
    rows = [(option.where, option.name, option.pattern, option.expects) for option in OPTIONS]
    return ", ".join("(" + ", ".join(_literal(text) for text in row) + ")" for row in (*rows, _RELATION))


def _literal(text: str) -> str:
    """A SQL string literal; backslashes are plain under standard_conforming_strings."""
    return "'" + text.replace("'", "''") + "'"


def _read(path: Path) -> str | None:
    return path.read_text() if path.exists() else None
