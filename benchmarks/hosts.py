"""One database for each host of pg_bridge, with a server `vllm` that points at an engine.

In: a running cluster and an endpoint. Out: the databases' connection strings, and the reasons for hosts left out; of a
connection what its backend took.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from pg_bridge.options import MULTICORN_WRAPPER
from pg_bridge.testing.binaries import SUPERUSER
from pg_bridge.testing.cluster import Cluster

EXTENSIONS = {"plpython": "pg_bridge", "multicorn": "pg_bridge_multicorn"}


@dataclass(frozen=True, slots=True)
class Host:
    """One host.

    Attributes:
        name: `plpython` or `multicorn`.
        dsn: The connection string of its database; empty where it is skipped.
        skipped: Why it is skipped; empty where it is not.
    """

    name: str
    dsn: str
    skipped: str = ""


def make_hosts(cluster: Cluster, endpoint: str) -> list[Host]:
    """Create a database for each host that the cluster can run."""
    hosts = []
    for name, extension in EXTENSIONS.items():
        available = "SELECT count(*) FROM pg_available_extensions WHERE name = 'multicorn'"
        if name == "multicorn" and cluster.psql(available).strip() == "0":
            hosts.append(Host(name, "", "skipped: this PostgreSQL has no Multicorn2"))
            continue
        cluster.psql(f"CREATE DATABASE {name}")
        cluster.psql(f"CREATE EXTENSION {extension} CASCADE", database=name)
        wrapper = f", wrapper '{MULTICORN_WRAPPER}'" if name == "multicorn" else ""
        cluster.psql(
            f"CREATE SERVER vllm FOREIGN DATA WRAPPER pg_bridge "
            f"OPTIONS (endpoint '{endpoint}', cache 'transaction'{wrapper});"
            f"CREATE USER MAPPING FOR CURRENT_USER SERVER vllm OPTIONS (user '{SUPERUSER}')",
            database=name,
        )
        hosts.append(Host(name, cluster.dsn_of(name)))
    return hosts


def peak_bytes(connection: psycopg.Connection[Any]) -> int:
    """The most memory that a connection's backend ever had; what it shares with others counts."""
    status = Path(f"/proc/{connection.info.backend_pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
