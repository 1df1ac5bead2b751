"""The arguments of `pg-bridge map`, and what it says at the end; jobs themselves are tested beside an engine."""

from __future__ import annotations

import re

import pytest

from pg_bridge.asking.run import Run
from pg_bridge.cli import build_parser, map_options
from pg_bridge.engine import Usage
from pg_bridge.errors import OptionError
from pg_bridge.jobs.report import Report, summary
from pg_bridge.options import Call, Server, options_of

WORDS = ["map", "--query", "SELECT 1 AS id", "--key", "id", "--prompt", "Well?", "--into", "t"]


def test_every_option_of_llm_map_and_of_an_engine_is_an_argument() -> None:
    of_sql = {option.name for option in options_of(Call) if "map" in option.places}
    assert {option.name for option in map_options.call_options()} == of_sql - {"server", "choices"}
    of_server = {option.name for option in options_of(Server) if "server" in option.places}
    left_out = {name for name in of_server if name.startswith(("daily_", "max_re", "cache"))} - {"max_retries"}
    left_out |= {"endpoint", "patience_s", "max_prompt_tokens", "max_completion_tokens", "max_seconds", "max_cost"}
    left_out |= {"reasoning", "request_options"}
    assert {option.name for option in map_options.server_options()} == of_server - left_out


def test_arguments_become_options_of_their_types() -> None:
    given = [
        *WORDS,
        "--max-tokens",
        "7",
        "--temperature",
        "0.5",
        "--max-cost",
        "2.5",
        "--dedup",
        "false",
        "--model",
        "m",
    ]
    arguments = build_parser().parse_args(given)
    options = map_options.call_arguments(arguments)
    assert options == {
        "on_error": "null",
        "window_rows": map_options.WINDOW_ROWS,
        "max_tokens": 7,
        "temperature": 0.5,
        "max_cost": 2.5,
        "dedup": False,
    }
    assert Call.from_arguments(options).max_cost == 2.5
    assert map_options.server_texts(arguments, map_options.server_options()) == {"model": "m"}


@pytest.mark.parametrize(("name", "value"), [("--max-tokens", "0"), ("--reorder", "columns"), ("--on-budget", "ask")])
def test_a_value_that_is_not_valid_is_an_error_that_names_the_argument(name: str, value: str) -> None:
    arguments = build_parser().parse_args([*WORDS, name, value])
    with pytest.raises(OptionError, match=f"invalid value for {name}"):
        map_options.call_arguments(arguments)


def test_the_help_teaches_and_has_no_marks(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["map", "--help"])
    told = capsys.readouterr().out
    assert not re.search(r"`|\]\(|%%", told)
    for word in ("--dry-run", "--limit 20", "exit status", "PGSERVICE", "crontab"):
        assert word in told
    assert "password=" not in told


@pytest.fixture
def at_100_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock stands still."""
    monkeypatch.setattr("pg_bridge.jobs.report.time.monotonic", lambda: 100.0)


@pytest.mark.usefixtures("at_100_s")
def test_the_last_line_says_what_was_saved() -> None:
    run = Run(unique_prompts=88, usage=Usage(prompt_tokens=9000, cached_tokens=6030))
    report = Report(read=250, known=10, answered=237, failed=3, run=run, began_s=90.0)
    assert summary(report, Server("s", "http://e", price_prompt=1.0), "t") == (
        "237 rows answered into t, 10 had their answers, 3 have an error. 152 of 240 prompts saved; "
        "67% of the remaining 9,000 prompt tokens came from the prefix cache; cost 0.009; 10.0 s."
    )


@pytest.mark.usefixtures("at_100_s")
def test_what_is_left_is_told_by_the_speed_so_far() -> None:
    report = Report(expected=1000, asking_since_s=90.0, answered=100, known=500)
    assert report.left_s() == 40.0
    report.limit = 150
    assert report.left_s() == 5.0
    report.all_read, report.read = True, 600
    assert report.left_s() == 0.0
    assert Report(expected=5).left_s() is None
