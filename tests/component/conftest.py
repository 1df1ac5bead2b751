from __future__ import annotations

import pytest


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that fails is asked again at once, rather than after a tenth of a second and more."""
    monkeypatch.setattr("pg_bridge.engine.client.FIRST_BACKOFF_S", 0.01)
