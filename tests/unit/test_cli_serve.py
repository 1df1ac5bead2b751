import json
import math
import re
from pathlib import Path

import pytest

from pg_bridge.cli import main
from pg_bridge.serving import demo
from pg_bridge.serving.demo import find_model

ROOT = Path(__file__).parents[2]

needs_model = pytest.mark.skipif(not (ROOT / "models/demo").is_dir(), reason="the sdist has no model in the box")


def test_a_missing_directory_is_named_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--model", str(tmp_path / "nothing"), "--port", "0"]) == 2
    said = capsys.readouterr().err
    assert f"there is no directory {tmp_path}/nothing" in said
    assert "hint: " in said


@pytest.mark.parametrize("words", [["--kv-cache-gib", "0"], ["--max-model-len", "-1"], ["--device", "tpu"]])
def test_wrong_usage_ends_with_status_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["serve", *words])
    assert caught.value.code == 2
    assert words[0] in capsys.readouterr().err


@needs_model
def test_where_the_model_in_the_box_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_model() == ROOT / "models/demo"
    (tmp_path / "config.json").touch()
    monkeypatch.setenv("PG_BRIDGE_DEMO_MODEL", str(tmp_path))
    assert find_model() == tmp_path


def test_an_installed_package_says_where_the_model_in_the_box_is_to_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PG_BRIDGE_DEMO_MODEL", str(tmp_path))
    assert main(["serve", "--port", "0"]) == 2
    said = capsys.readouterr().err
    assert f"pg-bridge: there is no model in {tmp_path}" in said
    assert "hint: Name a model with --model, or a checkout's folder models/demo in PG_BRIDGE_DEMO_MODEL." in said
    monkeypatch.delenv("PG_BRIDGE_DEMO_MODEL")
    monkeypatch.setattr(demo, "__file__", str(tmp_path / "site-packages/pg_bridge/serving/demo.py"))
    assert main(["serve", "--port", "0"]) == 2
    assert "the model in the box comes with a checkout of pg_bridge only" in capsys.readouterr().err


@needs_model
def test_its_size_is_the_same_wherever_it_is_named() -> None:
    with (ROOT / "models/demo/model.safetensors").open("rb") as weights:
        header = json.loads(weights.read(int.from_bytes(weights.read(8), "little")))
    tensors = [tensor["shape"] for name, tensor in header.items() if name != "__metadata__"]
    millions = f"{sum(math.prod(shape) for shape in tensors) / 1e6:.1f} million parameters"
    megabytes = f"{(ROOT / 'models/demo/model.safetensors').stat().st_size / 1e6:.1f} MB"
    assert millions in (ROOT / "README.md").read_text()
    assert f"a language model of {millions}" in (ROOT / "models/README.md").read_text()
    assert f"{megabytes} of half-precision weights" in (ROOT / "models/README.md").read_text()
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "models").glob("*.md")]
    for file in [*pages, *(ROOT / "pg_bridge").rglob("*.py")]:
        named = re.findall(r"[\w.]+ million parameters", file.read_text())
        assert set(named) <= {millions}, file
