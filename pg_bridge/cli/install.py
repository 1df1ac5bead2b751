"""`pg-bridge install`: put the extensions' files and the native module into a PostgreSQL server.

In: the files of `sql/` and `native/`, which travel with the package. Out: two extensions in the server's extension
folder, each install script joined from its parts, with the option table of `pg_bridge.options` filled in; and the
native module, where it can be built. It creates nothing in any database and starts nothing.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from pg_bridge import EXTENSION_VERSION
from pg_bridge.cli import FAILED, native, option_sql, print_error, upgrade_sql
from pg_bridge.errors import PgBridgeError
from pg_bridge.options import MULTICORN_WRAPPER, OPTIONS, Option

OLDEST = 15  # PostgreSQL that it was ever tried on
JOBS = ("jobs.sql", "chunks.sql", "kept.sql")
"""What a server without the extension has, too, in a schema of its own."""
BESIDE = (*JOBS, "kept_extension.sql")
PARTS: Mapping[str, Sequence[str]] = {
    "pg_bridge": (
        "foundation.sql",
        "host_plpython.sql",
        "surface.sql",
        "media.sql",
        "operators.sql",
        "search.sql",
        "aggregates.sql",
        "batching.sql",
        "foreign.sql",
        *BESIDE,
    ),
    "pg_bridge_multicorn": (
        "foundation.sql",
        "host_multicorn.sql",
        "surface.sql",
        "media.sql",
        "operators.sql",
        "search.sql",
        *BESIDE,
    ),
}

UPGRADES: Mapping[str, Mapping[str, Sequence[str]]] = {
    "pg_bridge": {"0.1": ("upgrade_0_1_plpython.sql", "upgrade_0_1_plpython_after.sql")},
    "pg_bridge_multicorn": {"0.1": ("upgrade_0_1_multicorn.sql",)},
}
"""By extension and old version: what that one needs besides, before and after the new functions are made."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "install",
        help="put the extensions' files and the native module into a PostgreSQL server",
        description="Copy the control and SQL files of the extensions pg_bridge (PL/Python) and pg_bridge_multicorn "
        "(Multicorn) into a PostgreSQL server, and build the native module, which gathers calls of llm.complete and "
        "its kin into batches and makes foreign tables work on PL/Python. That needs gcc, make and the server's "
        "headers; where they are not, calls are made one by one. Run it as a user who may write there, with sudo for "
        "example.",
        epilog="Then set session_preload_libraries = 'pg_bridge' for the database or the server, and in the database: "
        "CREATE EXTENSION pg_bridge CASCADE; see docs/install.md for how the server's Python finds this package.",
    )
    _add_arguments(parser)
    parser.set_defaults(run=run)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
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
    parser.add_argument("--no-native", action="store_true", help="leave the native module out")
    parser.add_argument(
        "--destdir",
        default="",
        metavar="DIR",
        help="put them below this folder instead, in the folders that the server has; for who makes packages",
    )


def run(arguments: argparse.Namespace) -> int:
    """Install, or check.

    Raises:
        PgBridgeError: The server is too old, not there, or its folders cannot be written.
    """
    folder = extension_folder(arguments.pg_config, arguments.destdir)
    version = native.server_version(arguments.pg_config)
    if version < OLDEST:
        raise PgBridgeError(
            f"PostgreSQL {version} is too old for the extension, which needs {OLDEST} or later",
            hint="pg-bridge map, which needs nothing in the server, works with 13, too: docs/jobs.md.",
        )
    extensions = _install_extensions(folder, arguments)
    module = 0 if arguments.no_native else _install_module(arguments)
    return extensions or module


def _install_module(arguments: argparse.Namespace) -> int:
    if native.is_current(arguments.pg_config, arguments.destdir):
        print("native module: up to date")
        return 0
    missing = native.what_is_missing(arguments.pg_config)
    if missing:
        print(
            f"native module: left out, {missing}; calls of llm.complete and its kin are made one "
            "by one, and there are no foreign tables on PL/Python"
        )
        return 0
    if arguments.check:
        print("native module: missing or old")
        return 1
    print(f"native module: installed {native.install(arguments.pg_config, arguments.destdir)}")
    return 0


def _install_extensions(folder: Path, arguments: argparse.Namespace) -> int:
    stale = {name: text for name, text in extension_files().items() if _read(folder / name) != text}
    if arguments.check or not stale:
        print(f"{folder}: " + (f"{len(stale)} files are missing or old" if stale else "up to date"))
        return 1 if stale else 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in stale.items():
            (folder / name).write_text(text)
    except OSError as error:
        raise native.cannot_write(folder, error) from error
    print(f"{folder}: installed {', '.join(sorted(stale))}")
    return 0


def extension_folder(pg_config: str, destdir: str = "") -> Path:
    """The server's folder of extensions, or what stands for it below `destdir`, which need not be there.

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
    if destdir:
        return native.below(destdir, folder)
    if not folder.is_dir():
        raise PgBridgeError(
            f"{folder} does not exist",
            hint="Install PostgreSQL's server; its client alone has no extensions.",
        )
    return folder


def extension_files(options: Sequence[Option] = OPTIONS) -> dict[str, str]:
    """The files to install: name to text."""
    source = files("pg_bridge.sql")
    result: dict[str, str] = {}
    for extension, parts in PARTS.items():
        (other,) = PARTS.keys() - {extension}
        new = "\n".join((source / part).read_text() for part in parts)
        scripts = {f"{extension}--{EXTENSION_VERSION}.sql": new}
        for old, by_hand in UPGRADES[extension].items():
            read = [(source / part).read_text() for part in by_hand]
            scripts[f"{extension}--{old}--{EXTENSION_VERSION}.sql"] = upgrade_sql.join(old, read, new)
        result[f"{extension}.control"] = (source / f"{extension}.control").read_text()
        for name, script in scripts.items():
            text = script
            for mark, meaning in (
                ("@extension@", extension),
                ("@other_extension@", other),
                ("@version@", EXTENSION_VERSION),
                ("@schema@", "llm"),
                ("@wrapper@", MULTICORN_WRAPPER),
                ("@options@", option_sql.validator_rows(options)),
            ):
                text = text.replace(mark, meaning)
            result[name] = option_sql.fill(text, options)
    return result


def jobs_script(options: Sequence[Option] = OPTIONS) -> str:
    """The SQL that makes schema `llm_jobs` in a database without the extension; an ordinary role can run it."""
    script = "\n".join((files("pg_bridge.sql") / part).read_text() for part in JOBS).replace("@schema@", "llm_jobs")
    return (
        "CREATE SCHEMA llm_jobs;\nGRANT USAGE ON SCHEMA llm_jobs TO PUBLIC;\n"
        f"COMMENT ON SCHEMA llm_jobs IS 'pg_bridge: work for pg-bridge worker';\n{option_sql.fill(script, options)}"
    )


def _read(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


def main() -> int:
    """For a Python that has nothing of what answers need, as that of a packager or of PGXN's client may be."""
    parser = argparse.ArgumentParser(prog="python3 -m pg_bridge.cli.install")
    _add_arguments(parser)
    try:
        return run(parser.parse_args())
    except PgBridgeError as error:
        print_error(error)
        return FAILED


if __name__ == "__main__":
    raise SystemExit(main())
