"""pg-bridge doctor: what it finds and how it says so. Its database half is tested beside a real server."""

import socket
from dataclasses import replace

import pytest

from pg_bridge.cli import main
from pg_bridge.cli.check_database import reason_of
from pg_bridge.cli.check_engine import check_engine
from pg_bridge.options import Server
from pg_bridge.testing.double import EngineDouble
from pg_bridge.testing.speeds import speed_of

KEY = "sk-very-secret"


def doctor(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    status = main(["doctor", *arguments])
    output = capsys.readouterr()
    return status, output.out + output.err


def test_a_well_engine(capsys: pytest.CaptureFixture[str]) -> None:
    with EngineDouble() as engine:
        status, said = doctor(capsys, "--endpoint", f"{engine.url}/v1/")
    assert status == 0
    assert "FAIL" not in said
    assert "warn" not in said
    assert "serves: double" in said
    assert "answers are held to choices by structured_outputs" in said
    assert "reused 96 of 102 prompt tokens" in said
    assert said.endswith("all is well\n")


def test_of_several_engines_each_has_its_own_findings(capsys: pytest.CaptureFixture[str]) -> None:
    with EngineDouble() as one, EngineDouble(metrics=False) as other:
        status, said = doctor(capsys, "--endpoint", f"{one.url},{other.url}")
        first, second = said.split(f"engine {other.url}\n")
    assert status == 0
    assert first.startswith(f"engine {one.url}\n")
    assert "prefix cache counters move" in first
    assert "prefix cache counters move" not in second
    assert "ok    they are asked for the same model: double" in second


def test_a_model_whose_name_is_the_key_or_no_text(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PG_BRIDGE_API_KEY", KEY)
    with EngineDouble(models=[f"{KEY}\x1b[2J"]) as engine:
        _, said = doctor(capsys, "--endpoint", engine.url)
    assert "serves: …" in said
    assert KEY not in said
    assert "\x1b" not in said


def test_several_engines_that_do_not_serve_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    with EngineDouble(models=["one"]) as one, EngineDouble(models=["other"]) as other:
        status, said = doctor(capsys, "--endpoint", f"{one.url},{other.url}")
    assert status == 1
    assert f"FAIL  they serve different models: {one.url} one, {other.url} other" in said


@pytest.mark.parametrize(
    ("has", "told", "words"),
    [
        (2, 1, ["warn", "it has 2 ranks", "option ranks to 2", "reused 96 of 102"]),
        (2, 2, ["each is sent a run", "all is well"]),
        (1, 4, ["warn", "option ranks says 4", "reused 96 of 102"]),
    ],
)
def test_ranks_that_nobody_tells_of(has: int, told: int, words: list[str]) -> None:
    with EngineDouble(speed=replace(speed_of(None), ranks=has)) as engine:
        checks = list(check_engine(Server("vllm", engine.url, ranks=told)))
    said = "\n".join(f"{check.verdict} {check.says} {check.mend}" for check in checks) + "\n"
    if all(check.verdict == "ok" for check in checks):
        said += "all is well"
    assert [word for word in words if word not in said] == []


def test_it_asks_as_often_as_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    with EngineDouble() as engine:
        doctor(capsys, "--endpoint", engine.url)
        asked = engine.received.prompts
    assert (len(asked), len(set(asked))) == (7, 2)
    assert len(set(asked[:4])) == 1
    with pytest.raises(SystemExit):
        main(["doctor", "--help"])
    assert "one short question, asked up to four times" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [
        ({"metrics": False}, 0, ["warn", "/metrics"]),
        ({"prompt_tokens_details": False}, 0, ["warn", "--enable-prompt-tokens-details"]),
        ({"batch_endpoint": False}, 0, ["warn", "one conversation a request"]),
        (
            {"ignore_choices": True},
            0,
            ["warn", "not held to choices", "does not keep to structured_outputs, response_format"],
        ),
        ({"refuse_fields": ("structured_outputs", "response_format")}, 0, ["warn", "asked in words"]),
        ({"block_size": 4096}, 0, ["warn", "--enable-prefix-caching"]),
        ({"reasoning": "Hm. " * 10}, 0, ["warn", "reasons before it answers", "max_reasoning_tokens"]),
        ({"models": ()}, 1, ["FAIL", "no list of models"]),
        ({"reject_marker": "question"}, 1, ["FAIL", "bad prompt", "api option"]),
        ({"malformed": True}, 1, ["FAIL", "cannot be read"]),
        ({"api_key": KEY}, 1, ["FAIL", "wants a key", "USER MAPPING"]),
    ],
)
def test_what_is_wrong_is_said_with_its_mending(
    fault: dict[str, object], status: int, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with EngineDouble(**fault) as engine:  # type: ignore[arg-type]
        found, said = doctor(capsys, "--endpoint", engine.url)
    assert found == status
    assert "mend: " in said
    for word in words:
        assert word in said


def test_an_engine_that_lists_no_models_is_asked_for_the_one_that_is_named() -> None:
    with EngineDouble(listed=False) as engine:
        checks = list(check_engine(Server("vllm", engine.url, model="double")))
    assert checks[0].verdict == "warn"
    assert "lists no models" in checks[0].says
    assert any("answers are held to choices by response_format" in check.says for check in checks)


def test_nobody_listens(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from_options = Server.from_options
    impatient = lambda name, options: from_options(name, {**options, "connect_timeout_s": "0.3"})  # noqa: E731
    monkeypatch.setattr(Server, "from_options", impatient)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        status, said = doctor(capsys, "--endpoint", f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert status == 1
    assert "FAIL  could not connect" in said
    assert "run: pg-bridge doctor" not in said  # that is what was run
    assert "mend: Check that the engine runs" in said


def test_the_key_comes_from_the_environment_and_is_never_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with EngineDouble(api_key=KEY) as engine:
        monkeypatch.setenv("PG_BRIDGE_API_KEY", "sk-wrong-key")
        status, said = doctor(capsys, "--endpoint", engine.url)
        assert status == 1
        assert "refuses the key" in said
        assert "sk-wrong-key" not in said
        monkeypatch.setenv("PG_BRIDGE_API_KEY", KEY)
        status, said = doctor(capsys, "--endpoint", engine.url)
        assert status == 0
        assert KEY not in said


def test_no_database_is_said_without_the_password(capsys: pytest.CaptureFixture[str]) -> None:
    for dsn in ("host=/nonexistent password=hunter2", "postgres hunter2"):
        status, said = doctor(capsys, "--dsn", dsn)
        assert status == 1
        assert "FAIL" in said
        assert "hunter2" not in said


def test_an_endpoint_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    status, said = doctor(capsys, "--endpoint", "localhost:8000")
    assert status == 2
    assert "http://" in said


def test_the_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "  pg-bridge doctor --endpoint http" in said
    assert "PG_BRIDGE_API_KEY" in said


NUMPY_SAYS = """ImportError:

IMPORTANT: PLEASE READ THIS FOR ADVICE ON HOW TO SOLVE THIS ISSUE!

Importing the numpy C-extensions failed. This error can happen for many reasons.

Original error was: No module named 'numpy._core._multiarray_umath'
"""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ModuleNotFoundError: No module named 'x'\nCONTEXT: …", "ModuleNotFoundError: No module named 'x'"),
        (NUMPY_SAYS, "ImportError: No module named 'numpy._core._multiarray_umath'"),
        ("ImportError: \n\nit is not for this Python\n", "ImportError: it is not for this Python"),
        ("", "RuntimeError"),
    ],
)
def test_the_reason_is_never_empty(text: str, reason: str) -> None:
    assert reason_of(RuntimeError(text)) == reason
