"""What administrators do to a cluster, and what becomes of the ledger: base backups, standbys, dumps, extensions."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from pg_bridge.serving.children import private_directory
from pg_bridge.testing.binaries import give_to_server_user
from pg_bridge.testing.cluster import Cluster
from pg_bridge.testing.double import EngineDouble
from pg_bridge.testing.python_path import copy_python
from tests.conftest import EXTENSIONS, MAPPING, WRAPPER, Connect, Database, create_server
from tests.integration.test_faults import eventually

MULTICORN_IS_SLOW = True

Conn = psycopg.Connection[Any]

ASK = "SELECT row_id, output FROM llm.map('SELECT id, review FROM reviews WHERE id <= {}', 'Is {{review}} kind?')"
SCAN = "SELECT id, kind FROM insight WHERE id <= {}"


@pytest.fixture
def made(database: Database, db: Conn, engine: EngineDouble) -> Conn:
    """A connection to a database with rows, a server that keeps answers, and a foreign table where there can be one."""
    make(db, database, engine)
    return db


def make(connection: Conn, database: Database, engine: EngineDouble) -> None:
    create_server(connection, engine.url, cache="persistent", max_in_flight="16", **WRAPPER[database.host])
    connection.execute(MAPPING)
    connection.execute(
        "CREATE TABLE reviews AS SELECT i AS id, 'review ' || i AS review FROM generate_series(1, 400) i"
    )
    if database.host == "multicorn" or database.cluster.has_module:
        connection.execute(
            "CREATE FOREIGN TABLE insight (id int, review text, kind text OPTIONS (prompt 'Is {review} kind?'))"
            " SERVER vllm OPTIONS (source 'reviews')"
        )


def asked(engine: EngineDouble) -> int:
    prompts = len(engine.received.prompts)
    engine.reset()
    return prompts


@contextmanager
def standby_of(primary: Cluster) -> Iterator[Cluster]:
    """A hot standby, made by pg_basebackup."""
    standby = Cluster(settings={"hot_standby": "on"}, environment={"SSL_CERT_FILE": os.devnull})
    standby.directory = private_directory("pg_bridge")
    try:
        copy_python(standby.python_path)
        give_to_server_user(standby.directory)
        where = ("--host=127.0.0.1", f"--port={primary.port}", "--username=postgres")
        standby.run("pg_basebackup", "--pgdata=data", "--checkpoint=fast", "--write-recovery-conf", *where)
        standby.resume()
        yield standby
    finally:
        standby.stop("immediate")


@pytest.mark.slow
def test_a_hot_standby_of_a_base_backup_taken_while_somebody_writes(
    made: Conn, connect: Connect, database: Database, engine: EngineDouble
) -> None:
    query = SCAN if database.host == "multicorn" else ASK  # llm.map stages rows there, which a standby refuses
    known = sorted(made.execute(query.format(50)).fetchall())
    assert asked(engine) == 50
    writing = connect()
    engine.behaviour.delay_s = 0.02
    thread = threading.Thread(target=lambda: writing.execute(query.format(300)))
    thread.start()
    assert eventually(lambda: engine.received.answered > 50)
    with standby_of(database.cluster) as standby:
        thread.join()
        engine.behaviour.delay_s = 0
        assert asked(engine) == 250
        with psycopg.connect(standby.dsn_of(database.name), autocommit=True) as there:
            said: list[str] = []
            there.add_notice_handler(lambda notice: said.append(str(notice.message_primary)))
            assert there.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)
            assert sorted(there.execute(query.format(50)).fetchall()) == known
            assert asked(engine) == 0
            assert len(there.execute(query.format(300)).fetchall()) == 300
            assert asked(engine) <= 250  # what the backup came too early for
            assert len(there.execute(query.format(400)).fetchall()) == 400
            assert asked(engine) == 100
            assert len(there.execute(query.format(400)).fetchall()) == 400
            assert asked(engine) == 0
            assert said == []
        made.execute(query.format(400))  # what the standby was answered the primary does not know
        assert asked(engine) == 100


def test_a_dropped_extension_and_a_dump_that_is_restored(
    made: Conn,
    database: Database,
    engine: EngineDouble,
    connect: Connect,
    administer: Callable[[str], None],
) -> None:
    made.execute(ASK.format(50))
    assert asked(engine) == 50
    made.execute(f"DROP EXTENSION {EXTENSIONS[database.host]} CASCADE; DROP TABLE reviews")
    made.execute(f"CREATE EXTENSION {EXTENSIONS[database.host]}")
    make(made, database, engine)
    made.execute(ASK.format(50))
    assert asked(engine) == 0
    made.close()
    where = ("--host=127.0.0.1", f"--port={database.cluster.port}", "--username=postgres")
    dump = database.cluster.run("pg_dump", *where, database.name)
    assert "answer " not in dump
    administer(f"DROP DATABASE {database.name} WITH (FORCE)")
    administer(f"CREATE DATABASE {database.name}")
    database.psql(dump)
    restored = connect()
    restored.execute(ASK.format(50))
    assert asked(engine) == 0
    assert restored.execute("SELECT answers FROM llm.cache_stats()").fetchone() == (50,)
