"""What docker/ says of itself holds together; scripts/images.py builds and tries it, which wants a Docker."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest

from pg_bridge.options import MULTICORN_WRAPPER

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
COMPOSE = (DOCKER / "compose.yaml").read_text()
SERVICES = pytest.importorskip("yaml").safe_load(COMPOSE)["services"]

sys.path.insert(0, str(ROOT / "scripts"))
images = importlib.import_module("images")
sys.path.pop(0)


def test_each_major_has_a_debian() -> None:
    assert [images.release_of(major) for major in (15, 16, 17, 18)] == ["12", "13", "13", "13"]
    assert set(images.RELEASES.values()) <= images.SUITES.keys()


def test_one_engine_of_a_profile_answers_to_its_name() -> None:
    assert {name: service.get("profiles") for name, service in SERVICES.items()} == {
        "database": None,
        "engine": ["cpu"],
        "engine-gpu": ["gpu"],
    }
    gpu = SERVICES["engine-gpu"]
    assert gpu["networks"]["default"]["aliases"] == ["engine"]
    assert gpu["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    assert re.fullmatch(r"vllm/vllm-openai:\$\{VLLM:-v[\d.]+\}", gpu["image"])
    assert "healthcheck" in gpu


def test_variables_are_told() -> None:
    told = re.findall(r"^\| (`[A-Z_]+`(?:, `[A-Z_]+`)*) \|", (DOCKER / "README.md").read_text(), re.MULTILINE)
    names = {name for line in told for name in re.findall("[A-Z_]+", line)}
    assert names == set(re.findall(r"\$\{([A-Z_]+):-", COMPOSE))


@pytest.mark.parametrize("file", ["Dockerfile", "multicorn.Dockerfile"])
def test_no_python_is_named_and_nobody_is_root(file: str) -> None:
    text = (DOCKER / file).read_text()
    commands = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    assert not re.search(r"python3\.\d", commands)
    started = [stage for stage in re.split(r"^FROM ", commands, flags=re.MULTILINE) if re.search("^CMD ", stage, re.M)]
    assert len(started) == (2 if file == "Dockerfile" else 1)
    for stage in started:
        assert re.search(r"^USER (postgres|engine)$", stage, re.MULTILINE)
        assert "\nHEALTHCHECK " in stage


def test_what_was_never_built_says_so_and_changes_what_is_there() -> None:
    text = (DOCKER / "multicorn.Dockerfile").read_text()
    assert text.startswith("# UNBUILT")
    assert f"wrapper '{MULTICORN_WRAPPER}'" in text
    setup = (DOCKER / "database.sql").read_text()
    replaced = re.findall(r"-e ['\"]s/([^/]+)/", text)
    assert len(replaced) == 2
    assert [words for words in replaced if words not in setup] == []
