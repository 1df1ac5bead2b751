"""What `import pg_bridge` offers, and what it does not import yet."""

from __future__ import annotations

import subprocess
import sys

import pytest

import pg_bridge
from pg_bridge.errors import EngineDenied
from pg_bridge.testing.double import EngineDouble
from tests.typing import api


def test_importing_the_package_imports_nothing_heavy() -> None:
    program = "import pg_bridge, sys; print(sorted({'numpy', 'aiohttp', 'psycopg', 'asyncio'} & sys.modules.keys()))"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout == "[]\n"


def test_every_name_is_there() -> None:
    names = set(pg_bridge.__all__)
    assert names == {"Engine", "Ordering", "PgBridgeError", "Server", "Table", "__version__", "plan"}
    assert names <= set(dir(pg_bridge))
    for name in names - {"__version__"}:
        assert getattr(pg_bridge, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'plann'"):
        pg_bridge.plann  # type: ignore[attr-defined]  # noqa: B018


def test_the_names_do_what_their_types_say() -> None:
    ordering = api.order_a_table()
    assert sorted(ordering.row_order.tolist()) == [0, 1, 2]
    with EngineDouble() as engine:
        assert len(api.ask_an_engine(api.name_a_server(engine.url), iter(["a", "b"]))) == 2
    with EngineDouble(api_key="another") as engine:
        sqlstate, _, hint = api.say_what_went_wrong(engine.url)
    assert sqlstate == EngineDenied.sqlstate
    assert hint
