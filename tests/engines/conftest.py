"""Starts each engine once, for all its tests one after the other, and gathers the table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pg_bridge.serving.launch import VllmEngine
from tests.conftest import MakeDatabase, create_server
from tests.engines import served
from tests.engines.features import FILMS, Conn
from tests.engines.served import Served
from tests.engines.table import Table

TABLE = pytest.StashKey[Table]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-table", action="store_true", help="write what the engines can do into docs/engines.md")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TABLE] = Table()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker("engines")
            item.add_marker(pytest.mark.timeout(900))  # an engine's start counts, on a busy machine too


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    table = config.stash[TABLE]
    if table.is_empty():
        return
    terminalreporter.write_line("")
    terminalreporter.write_line(table.text())
    if config.getoption("--write-table"):
        table.write()


@pytest.fixture(scope="session")
def table(pytestconfig: pytest.Config) -> Table:
    return pytestconfig.stash[TABLE]


@pytest.fixture(scope="session")
def vllm() -> Iterator[VllmEngine]:
    """The vLLM of these tests, started at its first use."""
    with served.one_vllm() as running:
        yield running


@pytest.fixture(scope="session")
def other_vllm() -> Iterator[VllmEngine]:
    """A second vLLM beside `vllm`, started at its first use."""
    with served.one_vllm() as running:
        yield running


Running = AbstractContextManager[Served]

PROXIES: dict[str, Callable[[VllmEngine, Path], Running]] = {
    "vLLM": lambda vllm, _: nullcontext(Served(served.vllm_version(), vllm.endpoint)),
    "LiteLLM": served.litellm,
    "vllm-router": lambda vllm, _: served.vllm_router(vllm),
    "sglang-router": lambda vllm, _: served.sglang_router(vllm),
}
OTHERS: dict[str, Callable[[Path], Running]] = {
    "llama.cpp": served.llama_cpp,
    "transformers serve": lambda _: served.transformers(),
}


@pytest.fixture(scope="session")
def engine_named(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Served]]:
    """The engine of a test that is run with each of them; it ends before the next one starts."""
    name, folder = request.param, tmp_path_factory.mktemp("engine")
    with OTHERS[name](folder) if name in OTHERS else PROXIES[name](request.getfixturevalue("vllm"), folder) as running:
        yield name, running


Open = Callable[[Served], AbstractContextManager[Conn]]


@pytest.fixture(scope="session")
def opened(make_database: MakeDatabase) -> Open:
    """A session in a database of its own, with the films in it, whose server is an engine."""

    @contextmanager
    def open_one(engine: Served) -> Iterator[Conn]:
        with make_database("plpython") as database, psycopg.connect(database.dsn, autocommit=True) as connection:
            connect_server(connection, engine)
            connection.execute(FILMS.encode())
            yield connection

    return open_one


def connect_server(connection: psycopg.Connection[Any], engine: Served) -> None:
    create_server(connection, engine.url, **engine.options)
    if engine.key:
        mapping = f"CREATE USER MAPPING FOR CURRENT_USER SERVER vllm OPTIONS (api_key '{engine.key}')"
        connection.execute(mapping.encode())


@pytest.fixture(scope="session")
def db(engine_named: tuple[str, Served], opened: Open) -> Iterator[Conn]:
    with opened(engine_named[1]) as connection:
        yield connection
