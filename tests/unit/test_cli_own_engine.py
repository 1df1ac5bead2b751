"""`--serve`: an engine that lives as long as the command."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from pg_bridge.cli import beside, main
from pg_bridge.errors import EngineUnreachable
from pg_bridge.testing.double import EngineDouble


class Served:
    """In the place of a vLLM: the engine double, and what was wanted of it."""

    def __init__(self, double: EngineDouble, *, starts: bool = True) -> None:
        self.double = double
        self.starts = starts
        self.life: list[str] = []
        self.endpoint = double.url

    def of(self, named: str, **options: Any) -> Served:
        options["progress"]("it starts")
        self.life.append(f"made for {named}")
        return self

    def __enter__(self) -> Served:
        self.life.append("started")
        if not self.starts:
            raise EngineUnreachable("vLLM is not installed")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.life.append("ended")


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.delenv("PG_BRIDGE_ENDPOINT", raising=False)
    with EngineDouble() as double:
        made = Served(double)
        monkeypatch.setattr(beside, "engine_for", made.of)
        yield made


def run(tmp_path: Path, *more: str, prompt: str = "Is {a} kind?") -> int:
    path = tmp_path / "rows.csv"
    path.write_text("a\n1\n2\n", encoding="utf-8")
    words = ["map", "--from", str(path), "--prompt", prompt, "--choices", "yes,no", "--into", str(tmp_path / "out.csv")]
    return main([*words, *more])


def test_it_is_started_asked_and_ended(tmp_path: Path, served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "--serve", "some/model") == 0
    assert served.life == ["made for some/model", "started", "ended"]
    assert len(served.double.received.prompts) == 2
    assert "[serve] it starts" in capsys.readouterr().err
    assert run(tmp_path, "--quiet", "--serve") == 0
    assert served.life[3] == "made for "  # the model in the box
    assert "it starts" not in capsys.readouterr().err


def test_it_is_ended_whatever_fails(tmp_path: Path, served: Served) -> None:
    served.double.behaviour.fail_first, served.double.behaviour.fail_status = 10**6, 401
    assert run(tmp_path, "--serve", "some/model") == 1
    assert served.life[-1] == "ended"


def test_what_is_wrong_is_told_before_it_starts(
    tmp_path: Path, served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "--serve", "m", "--endpoint", "http://127.0.0.1:9") == 2
    assert "--serve and --endpoint do not go together" in capsys.readouterr().err
    assert main(["map", "--query", "SELECT 1", "--prompt", "?", "--into", "t", "--serve", "m"]) == 2
    assert "--key is missing" in capsys.readouterr().err
    assert served.life == []
    served.starts = False
    assert run(tmp_path, "--serve", "m") == 1
    assert "vLLM is not installed" in capsys.readouterr().err
