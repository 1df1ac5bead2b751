"""The extension as it was in version 0.1, for tests of what becomes of databases that were made with it.

Its install scripts stand in integration/version_0_1, as `pg-bridge install` wrote them on 2026-11-25.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pg_bridge.cli.install import extension_folder
from pg_bridge.testing.cluster import Cluster
from tests.conftest import EXTENSIONS

OLD = Path(__file__).parent / "integration/version_0_1"
MEMBERS = (OLD / "members.sql").read_bytes()


@contextmanager
def install_scripts(cluster: Cluster) -> Iterator[None]:
    """Put those of 0.1 into the server's folder for a while; skips the test where this user may not write there."""
    folder = extension_folder(str(cluster.binaries / "pg_config"))
    had = {}
    try:
        for extension in EXTENSIONS.values():
            name = f"{extension}--0.1.sql"
            path = folder / name
            had[path] = path.read_text() if path.exists() else None
            path.write_text((OLD / name).read_text())
    except OSError as error:
        pytest.skip(f"the scripts of 0.1 cannot be put beside the server's others: {error.strerror}")
    yield
    for path, text in had.items():
        path.unlink() if text is None else path.write_text(text)


def members(cluster: Cluster, database: str) -> dict[tuple[str, str], list[Any]]:
    """All that belongs to the extension in a database, by kind and name."""
    with psycopg.connect(cluster.dsn_of(database), autocommit=True) as conn:
        conn.execute("SET search_path = pg_catalog")
        return {(kind, name): what for kind, name, what in conn.execute(MEMBERS).fetchall()}
