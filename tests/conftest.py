"""Fixtures by topic: a PostgreSQL cluster a session, a database a test or a module, an engine double, and a real vLLM.

`make test` runs two sessions or more at once, by pytest-xdist: each has a cluster of its own, and one of them the vLLM.

Every integration test runs on both hosts. The Multicorn host is skipped, with the reason, where the server has no
Multicorn2.
"""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from psycopg import sql

from pg_bridge.cli.install import extension_files, extension_folder
from pg_bridge.errors import EngineUnreachable
from pg_bridge.serving.demo import demo_engine
from pg_bridge.serving.environment import find_vllm
from pg_bridge.serving.launch import VllmEngine
from pg_bridge.testing.behaviour import Behaviour
from pg_bridge.testing.cluster import Cluster
from pg_bridge.testing.double import EngineDouble
from tests.certificates import Authority
from tests.kept_database import EXTENSIONS_SCHEMA, KeptSession
from tests.memory_folder import use_memory
from tests.parallel import needs_vllm, pytest_xdist_make_scheduler, turn_of

__all__ = ["pytest_xdist_make_scheduler"]  # a hook: pytest finds it here

EXTENSIONS = {"plpython": "pg_bridge", "multicorn": "pg_bridge_multicorn"}

Connect = Callable[..., psycopg.Connection[Any]]

# A machine may be slow or busy: a test fails for what is wrong, never for what takes long.
UNTIMED: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("quick", max_examples=15, **UNTIMED)
settings.register_profile("thorough", max_examples=300, **UNTIMED)
settings.load_profile("quick")


def pytest_configure() -> None:
    use_memory()


def pytest_collection_finish() -> None:
    gc.freeze()  # what was imported and collected stays, and need not be looked through at every garbage collection


def pytest_itemcollected(item: pytest.Item) -> None:
    """A module may say that its tests are slow ones on the second host, unbatched, or in the second schema."""
    params = item.callspec.params if hasattr(item, "callspec") else {}
    module = getattr(item, "module", None)
    if params.get("host") == "multicorn" and getattr(module, "MULTICORN_IS_SLOW", False):
        item.add_marker("slow")
    is_asked_for = any(mark.args[0] == "schema" for mark in item.iter_markers("parametrize"))
    if params.get("switched_conn") == "off" and getattr(module, "UNBATCHED_IS_SLOW", False):
        item.add_marker("slow")
    if params.get("schema") == "llm" and not is_asked_for and getattr(module, "EXTENSION_IS_SLOW", False):
        item.add_marker("slow")


def _spare(items: list[pytest.Item]) -> None:
    """Of a test's many cases, `make test` runs as many as its mark `some` says, evenly spread; the others are slow."""
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("some") and not item.get_closest_marker("slow"):
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for of_test in cases.values():
        (most,) = next(of_test[0].iter_markers("some")).args
        kept = {len(of_test) * i // most for i in range(most)}
        for place, item in enumerate(of_test):
            if place not in kept:
                item.add_marker("slow")


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    _spare(items)
    yield  # others take out what is slow, and shuffle
    missing = ""
    try:
        find_vllm()
    except EngineUnreachable as error:
        missing = error.message
    for item in items:
        if item.get_closest_marker("vllm"):
            assert needs_vllm(item.nodeid), f"name the file of {item.nodeid} in tests/parallel.py"
            item.add_marker(pytest.mark.timeout(1200))  # its start counts, on a busy machine too
            if missing:
                item.add_marker(pytest.mark.skip(reason=missing))
    items.sort(key=lambda item: turn_of(item.nodeid))


@dataclass(frozen=True)
class Database:
    """A database of its own with the extension in it.

    Attributes:
        host: `plpython` or `multicorn`.
        name: The database's name.
        cluster: Where it is.
        session: A superuser's connection to it that former tests have used; None in a new database.
    """

    host: str
    name: str
    cluster: Cluster
    session: psycopg.Connection[Any] | None = None

    @property
    def dsn(self) -> str:
        return self.cluster.dsn_of(self.name)

    def psql(self, statements: str, *arguments: str) -> str:
        return self.cluster.psql(statements, database=self.name, arguments=arguments or ("-qAt",))


# -- PostgreSQL


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    # Statistics change when a test says so, not when the autovacuum comes by. And no test needs a certificate, of which
    # aiohttp reads all that the machine has when it is imported, in each of some five hundred sessions.
    with Cluster(settings={"autovacuum": "off"}, environment={"SSL_CERT_FILE": os.devnull}) as running:
        folder = extension_folder(str(running.binaries / "pg_config"))
        stale = [name for name, text in extension_files().items() if not _same(folder / name, text)]
        if stale and (folder / "pg_bridge.control").exists():  # tests of jobs do with a server that has none of them
            pytest.fail(f"{stale[0]} in {folder} is missing or old: run `make setup`", pytrace=False)
        yield running


def _same(path: Path, text: str) -> bool:
    return path.exists() and path.read_text() == text


@pytest.fixture(scope="session")
def administer(cluster: Cluster) -> Iterator[Callable[[str], None]]:
    """Run a statement in the database `postgres`, over one connection a session."""
    opened: list[psycopg.Connection[Any]] = []

    def run(statement: str) -> None:
        if not opened or opened[-1].closed:
            opened.append(psycopg.connect(cluster.dsn, autocommit=True))
        opened[-1].execute(statement.encode())

    yield run
    for connection in opened:
        connection.close()


@pytest.fixture(scope="session")
def make_template(cluster: Cluster) -> Callable[[str, str], str]:
    """The template database of a host, its extensions in a schema, made at its first use."""

    @cache
    def template(host: str, schema: str) -> str:
        available = "SELECT count(*) FROM pg_available_extensions WHERE name = 'multicorn'"
        if host == "multicorn" and cluster.psql(available).strip() == "0":
            pytest.skip("this PostgreSQL has no Multicorn2")
        if cluster.psql("SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_bridge'").strip() == "0":
            pytest.fail("this PostgreSQL has no pg_bridge: run `make setup`", pytrace=False)
        name = f"template_{host}_{schema}"
        cluster.psql(f"CREATE DATABASE {name}")
        cluster.psql(
            f"CREATE SCHEMA IF NOT EXISTS {schema}; CREATE EXTENSION {EXTENSIONS[host]} SCHEMA {schema} CASCADE",
            database=name,
        )
        cluster.psql("SELECT", database=name)  # leaves a cache of the catalogs, which copies have, too
        return name

    return template


@pytest.fixture(params=["plpython", pytest.param("multicorn", marks=pytest.mark.multicorn)])
def host(request: pytest.FixtureRequest) -> str:
    return str(request.param)


MakeDatabase = Callable[..., AbstractContextManager[Database]]

_numbers = count(1)


@pytest.fixture(scope="session")
def make_database(
    cluster: Cluster, make_template: Callable[[str, str], str], administer: Callable[[str], None]
) -> MakeDatabase:
    """A new database of a host, its extensions in a schema, for a `with`."""
    # Copying a small database's files costs less than logging their pages; before PostgreSQL 15 nothing else is known.
    strategy = "STRATEGY FILE_COPY" if int(cluster.psql("SHOW server_version_num")) >= 150000 else ""

    @contextmanager
    def made(host: str, schema: str = "public") -> Iterator[Database]:
        name = f"test_{next(_numbers)}"
        administer(f"CREATE DATABASE {name} TEMPLATE {make_template(host, schema)} {strategy}")
        yield Database(host, name, cluster)
        administer(f"DROP DATABASE {name} WITH (FORCE)")

    return made


@pytest.fixture(scope="module")
def keep(make_database: MakeDatabase) -> Iterator[Callable[[str], tuple[Database, KeptSession]]]:
    """The database that a module's tests use one after the other on a host, made at its first use, and its session."""
    with ExitStack() as stack:

        @cache
        def kept(host: str) -> tuple[Database, KeptSession]:
            database = stack.enter_context(make_database(host, EXTENSIONS_SCHEMA))
            return database, stack.enter_context(closing(KeptSession(database.dsn)))

        yield kept


@pytest.fixture
def database(
    request: pytest.FixtureRequest,
    host: str,
    make_database: MakeDatabase,
    keep: Callable[[str], tuple[Database, KeptSession]],
) -> Iterator[Database]:
    """A database of the test's own; its module's, as if it were new, where that says KEEP_DATABASE."""
    keeps = getattr(request.module, "KEEP_DATABASE", False)
    if keeps and not request.node.get_closest_marker("new_database"):
        kept, session = keep(host)
        yield replace(kept, session=session.borrow())
        session.reset()
    else:
        with make_database(host) as made:
            yield made


@pytest.fixture
def connect(database: Database) -> Iterator[Connect]:
    """Open connections to the test's database; all are closed at its end."""
    opened: list[psycopg.Connection[Any]] = []

    def open_one(*, user: str = "postgres", autocommit: bool = True) -> psycopg.Connection[Any]:
        connection: psycopg.Connection[Any] = psycopg.connect(database.dsn, user=user, autocommit=autocommit)
        opened.append(connection)
        return connection

    yield open_one
    for connection in opened:
        connection.close()


@pytest.fixture
def db(database: Database, connect: Connect) -> psycopg.Connection[Any]:
    """A superuser's connection in autocommit mode, without a server."""
    return database.session or connect()


@pytest.fixture(scope="session")
def without_module(cluster: Cluster) -> Path:
    """A value for dynamic_library_path: all of the server's libraries but our module. From PostgreSQL 18 on,
    a folder without plpgsql would hide that, too."""
    folder = cluster.directory / "without_module"
    folder.mkdir()
    pg_config = [str(cluster.binaries / "pg_config"), "--pkglibdir"]
    installed = Path(subprocess.run(pg_config, check=True, capture_output=True, text=True).stdout.strip())
    for library in installed.glob("*.so"):
        if library.name != "pg_bridge.so":
            (folder / library.name).symlink_to(library)
    return folder


@pytest.fixture
def batching(database: Database) -> Database:
    """The test's database, where the native module gathers calls; skipped where the server has not the module."""
    if not database.cluster.has_module:
        pytest.skip("this PostgreSQL has not the module pg_bridge")
    return database


# -- engines


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who certifies engines and their clients; no system trusts it."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl, the program, makes certificates, and is not here")
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def engine() -> Iterator[EngineDouble]:
    """An engine double, in a thread of this process."""
    with EngineDouble() as running:
        yield running


@pytest.fixture
def asked(engine: EngineDouble) -> Callable[[], int]:
    """How many prompts the engine has had since this was last called."""
    seen = 0

    def since_then() -> int:
        nonlocal seen
        now = len(engine.received.prompts)
        seen, since = now, now - seen
        return since

    return since_then


@pytest.fixture
def fresh(db: psycopg.Connection[Any], engine: EngineDouble) -> psycopg.Connection[Any]:
    """A superuser's connection in a database whose server `vllm` is the engine double, all of them the test's own."""
    create_server(db, engine.url)
    return db


@pytest.fixture
def conn(fresh: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """The connection of a test: `fresh`, unless its module says `used_conn`."""
    return fresh


@pytest.fixture(scope="session")
def vllm() -> Iterator[VllmEngine]:
    """A real vLLM with the model in the box, started at its first use."""
    with demo_engine() as running:
        yield running


def create_server(connection: psycopg.Connection[Any], endpoint: str, name: str = "vllm", **options: str) -> None:
    """CREATE SERVER with options.

    Most tests count what is asked, so nothing is recalled from the ledger unless one says `cache="persistent"`.
    """
    listed = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(key), sql.Literal(value))
        for key, value in {"endpoint": endpoint, "cache": "transaction", **options}.items()
    )
    connection.execute(
        sql.SQL("CREATE SERVER {} FOREIGN DATA WRAPPER pg_bridge OPTIONS ({})").format(sql.Identifier(name), listed)
    )


def is_ended(connection: psycopg.Connection[Any]) -> bool:
    """Whether PostgreSQL has ended a session, as it ends all of them where a backend was killed."""
    try:
        connection.execute("SELECT 1")
    except psycopg.OperationalError:
        return True
    return False


# -- for tests that leave their database as it was: a session a module and host, which has its imports behind it


@dataclass(frozen=True)
class Shared:
    """What tests of a module share.

    Attributes:
        conn: A superuser's connection in autocommit mode, in a database whose server `vllm` is the engine double.
        engine: The engine double.
    """

    conn: psycopg.Connection[Any]
    engine: EngineDouble


@pytest.fixture(scope="module")
def share(make_database: MakeDatabase) -> Iterator[Callable[[str], Shared]]:
    """What the tests of a module share on a host, made at its first use."""
    with ExitStack() as stack:
        made: dict[str, Shared] = {}

        def shared(host: str) -> Shared:
            if host not in made:
                database = stack.enter_context(make_database(host))
                engine = stack.enter_context(EngineDouble())
                connection = stack.enter_context(psycopg.connect(database.dsn, autocommit=True, prepare_threshold=None))
                create_server(connection, engine.url)
                made[host] = Shared(connection, engine)
            return made[host]

        yield shared


@pytest.fixture
def used_engine(host: str, share: Callable[[str], Shared]) -> EngineDouble:
    """The module's engine double, which behaves, counts and caches as a new one does."""
    engine = share(host).engine
    engine.reset()
    engine.cache.queried_tokens = engine.cache.hit_tokens = 0
    engine.behaviour = Behaviour()
    return engine


_USED = count(1)


@pytest.fixture
def used_conn(
    host: str, share: Callable[[str], Shared], used_engine: EngineDouble
) -> Iterator[psycopg.Connection[Any]]:
    """The module's session, whose server `vllm` is `used_engine`; settings and the like go, tables and servers stay.

    What the session has learnt of the engine goes, too: it is of a server with other options.
    """
    connection = share(host).conn
    patience = sql.SQL("ALTER SERVER vllm OPTIONS ({} connect_timeout_s {})")
    is_set = "SELECT srvoptions::text LIKE '%connect_timeout_s%' FROM pg_foreign_server WHERE srvname = 'vllm'"
    how = sql.SQL("SET" if connection.execute(is_set).fetchone() == (True,) else "ADD")
    connection.execute(patience.format(how, sql.Literal(f"5.{next(_USED):06d}")))
    yield connection
    connection.execute("DISCARD ALL")


@pytest.fixture(params=["on", "off"])
def switched_conn(
    request: pytest.FixtureRequest, used_conn: psycopg.Connection[Any], cluster: Cluster, host: str
) -> psycopg.Connection[Any]:
    """`used_conn`, where calls are batched, or not."""
    if request.param == "on" and not (cluster.has_module and host == "plpython"):
        pytest.skip("nothing is batched here")
    if cluster.has_module:
        used_conn.execute("LOAD 'pg_bridge'")
        used_conn.execute(f"SET pg_bridge.batching = {request.param}".encode())
    return used_conn


def is_batched(connection: psycopg.Connection[Any]) -> bool:
    """Whether the native module gathers the calls of a session."""
    row = connection.execute("SELECT current_setting('pg_bridge.batching', true) = 'on'").fetchone()
    return row == (True,)


@pytest.fixture(scope="module")
def shared_conn(cluster: Cluster, share: Callable[[str], Shared]) -> psycopg.Connection[Any]:
    """The module's session on the PL/Python host, where the native module gathers calls."""
    if not cluster.has_module:
        pytest.skip("this PostgreSQL has not the module pg_bridge")
    return share("plpython").conn


@pytest.fixture(scope="module")
def shared_engine(share: Callable[[str], Shared]) -> EngineDouble:
    """The engine double of `shared_conn`; whoever counts requests resets it first."""
    return share("plpython").engine


# -- foreign tables

MAPPING = "CREATE USER MAPPING FOR CURRENT_USER SERVER vllm OPTIONS (user 'postgres')"
WRAPPER = {"multicorn": {"wrapper": "pg_bridge.multicorn.wrapper.Wrapper"}, "plpython": {}}


@pytest.fixture
def foreign(database: Database, db: psycopg.Connection[Any], engine: EngineDouble) -> psycopg.Connection[Any]:
    """A superuser's connection in a database that can have foreign tables, with a server `vllm`."""
    if database.host == "plpython" and not database.cluster.has_module:
        pytest.skip("this PostgreSQL has not the module pg_bridge")
    create_server(db, engine.url, **WRAPPER[database.host])
    db.execute(MAPPING)
    return db


@pytest.fixture(scope="module")
def share_foreign(cluster: Cluster, share: Callable[[str], Shared]) -> Callable[[str, str], None]:
    """Let what a module's tests share on a host have foreign tables; for the statements that make them."""

    @cache
    def made(host: str, statements: str) -> None:
        if host == "plpython" and not cluster.has_module:
            pytest.skip("this PostgreSQL has not the module pg_bridge")
        shared = share(host)
        shared.conn.execute("DROP SERVER vllm")
        create_server(shared.conn, shared.engine.url, **WRAPPER[host])
        shared.conn.execute(f"{MAPPING};{statements}".encode())

    return made
