"""llm.map_with_tools on Multicorn, where no function can be called."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from pg_bridge.testing.double import EngineDouble
from tests.conftest import create_server

KEEP_DATABASE = True


@pytest.mark.parametrize("host", ["multicorn"], indirect=True)
def test_it_says_that_it_cannot(db: psycopg.Connection[Any], engine: EngineDouble) -> None:
    create_server(db, engine.url)
    with pytest.raises(psycopg.errors.FeatureNotSupported) as caught:
        db.execute("SELECT * FROM llm.map_with_tools('SELECT 1 AS a', 'Well?', '{now()}')")
    assert "PL/Python host" in (caught.value.diag.message_hint or "")
    assert engine.received.prompts == []
