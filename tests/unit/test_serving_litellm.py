"""What `pg-bridge serve --litellm` tells LiteLLM, and what it refuses before anything starts."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from pg_bridge.cli import main
from pg_bridge.errors import EngineUnreachable, OptionError
from pg_bridge.serving import litellm as of_litellm
from pg_bridge.serving.litellm import KEY_VARIABLE, LitellmProxy

KEY = "sk-of-a-test-and-of-no-use"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}-either")


def test_a_server_and_a_mapping_for_each_model_and_no_key_in_any() -> None:
    proxy = LitellmProxy(["openai/gpt-4o-mini", "gemini/flash", "openai/gpt-4o-mini"], port=4000)
    assert proxy.statements == [
        r"\getenv key LITELLM_MASTER_KEY",
        "CREATE SERVER litellm_1 FOREIGN DATA WRAPPER pg_bridge "
        "OPTIONS (endpoint 'http://127.0.0.1:4000', model 'openai/gpt-4o-mini');",
        "CREATE USER MAPPING FOR CURRENT_USER SERVER litellm_1 OPTIONS (api_key :'key');",
        "CREATE SERVER litellm_2 FOREIGN DATA WRAPPER pg_bridge "
        "OPTIONS (endpoint 'http://127.0.0.1:4000', model 'gemini/flash');",
        "CREATE USER MAPPING FOR CURRENT_USER SERVER litellm_2 OPTIONS (api_key :'key');",
    ]
    assert " litellm FOREIGN" in LitellmProxy(["a/b"]).statements[1]


def test_the_configuration_has_models_and_no_key() -> None:
    proxy = LitellmProxy(["openai/a", "openai/b"], api_base="http://10.0.0.7:8000/v1")
    (text,) = proxy.files.values()
    assert json.loads(text)["model_list"] == [
        {"model_name": name, "litellm_params": {"model": name, "api_base": "http://10.0.0.7:8000/v1"}}
        for name in ("openai/a", "openai/b")
    ]
    assert "sk-" not in text


@pytest.mark.parametrize(
    "model", ["gpt-4o", "", "openai/", "openai/a b", "a/b'; DROP TABLE x; --", "a/b\nc", "a/\\b", '/"']
)
def test_what_is_no_model_of_litellms_is_told(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", f"--litellm={model}"]) == 2
    assert "is no model of LiteLLM's" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["", "mine", "sk-", "sk-a b"])
def test_without_a_key_for_those_who_ask_nothing_starts(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, key)
    with pytest.raises(OptionError, match=KEY_VARIABLE) as caught:
        LitellmProxy(["openai/a"])
    assert key == "" or f"{key} " not in str(caught.value)


@pytest.mark.parametrize("url", ["nowhere", "http://user:secret@host/v1", "file:///etc/passwd"])
def test_an_address_is_one_without_secrets(url: str) -> None:
    with pytest.raises(OptionError, match="api-base"):
        LitellmProxy(["openai/a"], api_base=url)


@pytest.mark.parametrize(
    "words",
    [["--model", "x"], ["--max-model-len", "9"], ["--kv-cache-gib", "1"], ["--no-prefix-caching"], ["--", "--x"]],
    ids=str,
)
def test_what_is_vllms_does_not_go_with_it(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--litellm", "openai/a", *words]) == 2
    assert "do not go together" in capsys.readouterr().err


def test_api_base_alone_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--api-base", "http://a/v1"]) == 2
    assert "--api-base goes with --litellm" in capsys.readouterr().err


def test_where_it_is_not_installed_one_is_told_how(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineUnreachable, match="is not installed"):
        LitellmProxy(["openai/a"]).start()


def test_it_gets_keys_by_its_environment_and_its_files_are_private(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A program in LiteLLM's place notes what it was given, and ends."""
    told = tmp_path / "told"
    program = tmp_path / "litellm"
    program.write_text(f'#!/bin/sh\nenv >{told}\necho "$@" >>{told}\nstat -c %a "$2" >>{told}\ntrue\n')
    program.chmod(0o755)
    monkeypatch.setattr(of_litellm, "find_litellm", lambda: str(program))
    monkeypatch.setenv("DATABASE_URL", "postgresql://mine")
    log = tmp_path / "log"
    with (
        pytest.raises(EngineUnreachable, match="LiteLLM ended while it was starting"),
        LitellmProxy(["openai/a"], log_path=log),
    ):
        pass
    said = told.read_text()
    assert f"{KEY_VARIABLE}={KEY}" in said
    assert "DATABASE_URL" not in said
    *_, words, mode = said.splitlines()
    assert mode == "600"
    assert "sk-" not in words
    assert stat.S_IMODE(os.stat(log).st_mode) == 0o600
