"""What the native module shows to other modules: a name that two of them define is the first one's for both."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pg_bridge import EXTENSION_VERSION
from pg_bridge.cli import native
from pg_bridge.errors import PgBridgeError
from pg_bridge.testing.binaries import find_binaries


def test_only_what_postgresql_looks_up_is_seen() -> None:
    try:
        pg_config = str(find_binaries() / "pg_config")
    except PgBridgeError as error:
        pytest.skip(str(error))
    folder = subprocess.run([pg_config, "--pkglibdir"], check=True, capture_output=True, text=True).stdout.strip()
    if not (Path(folder) / native.MODULE).exists() or shutil.which("nm") is None:
        pytest.skip("this PostgreSQL has not the module pg_bridge, or there is no nm")
    assert native.is_current(pg_config)  # the digest is in the file, hidden or not
    assert f"pg_bridge version {EXTENSION_VERSION}\0".encode() in (Path(folder) / native.MODULE).read_bytes()
    listed = subprocess.run(
        ["nm", "-D", "--defined-only", "-P", Path(folder) / native.MODULE], check=True, capture_output=True, text=True
    ).stdout
    names = {line.split()[0] for line in listed.splitlines()}
    functions = {name.removeprefix("pg_finfo_") for name in names if name.startswith("pg_finfo_")}
    assert functions  # SQL calls some
    for_python = {"pg_bridge_ledger_directory", "pg_bridge_ledger_size", "pg_bridge_wait_event", "pg_bridge_version"}
    assert names == {"Pg_magic_func", "_PG_init"} | for_python | functions | {f"pg_finfo_{name}" for name in functions}
    assert all(name.startswith("pg_bridge_") for name in functions)
