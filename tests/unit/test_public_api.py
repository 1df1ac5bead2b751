"""What `import pg_bridge` offers, and what it does not import yet."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

import pg_bridge
from pg_bridge import MapOptions
from pg_bridge.errors import EngineDenied
from pg_bridge.options import Call, options_of
from pg_bridge.testing.double import EngineDouble
from tests.typing import api


def test_importing_the_package_imports_nothing_heavy() -> None:
    program = "import pg_bridge, sys; print(sorted({'numpy', 'aiohttp', 'psycopg', 'asyncio'} & sys.modules.keys()))"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout == "[]\n"


def test_every_name_is_there() -> None:
    names = set(pg_bridge.__all__)
    mapping = {"MapOptions", "RowAnswer", "map_rows", "map_rows_async"}
    assert names == {"Engine", "Ordering", "PgBridgeError", "Server", "Table", "__version__", "plan", *mapping}
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
        assert len(api.ask_about_rows(engine.url)) == 3
        assert len(asyncio.run(api.ask_about_rows_later(engine.url))) == 3
    with EngineDouble(api_key="another") as engine:
        sqlstate, _, hint = api.say_what_went_wrong(engine.url)
    assert sqlstate == EngineDenied.sqlstate
    assert hint


def test_the_options_of_map_rows_are_those_of_llm_map() -> None:
    of_sql = {option.name for option in options_of(Call) if "map" in option.places} - {"server"}
    assert set(MapOptions.__annotations__) == of_sql | {"kind", "schema"}
