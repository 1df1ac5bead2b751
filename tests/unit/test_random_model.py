import json
from pathlib import Path

import pytest

from pg_bridge.dev import random_model as module
from pg_bridge.dev.random_model import NAME, ModelSize, random_model

pytest.importorskip("safetensors")
if not (Path(__file__).parents[2] / "models/demo").is_dir():
    pytest.skip("the sdist has no model in the box, whose tokenizer these take", allow_module_level=True)

TINY = ModelSize(hidden=128, layers=1)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a made model."""
    folder = tmp_path_factory.mktemp("models")
    random_model(TINY, cache=folder)
    return folder


def test_the_same_size_and_seed_are_the_same_model(cache: Path, tmp_path: Path) -> None:
    first, second = (random_model(TINY, cache=folder) for folder in (cache, tmp_path))
    assert first.name == second.name
    for file in first.iterdir():
        assert file.read_bytes() == (second / file.name).read_bytes(), file.name
    other = random_model(TINY, seed=1, cache=tmp_path)
    assert (other / "model.safetensors").read_bytes() != (first / "model.safetensors").read_bytes()


def test_a_made_model_is_used_again(cache: Path) -> None:
    directory = random_model(TINY, cache=cache)
    before = (directory / "model.safetensors").stat().st_mtime_ns
    assert random_model(TINY, cache=cache) == directory
    assert (directory / "model.safetensors").stat().st_mtime_ns == before


def test_an_interrupted_making_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_config", interrupted)
    with pytest.raises(KeyboardInterrupt):
        random_model(TINY, cache=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_it_says_what_it_is_and_fits_its_configuration(cache: Path) -> None:
    from safetensors import safe_open  # noqa: PLC0415 - comes with the engine

    directory = random_model(TINY, cache=cache)
    assert NAME in directory.name
    assert "RANDOM" in (directory / "README.md").read_text()
    config = json.loads((directory / "config.json").read_text())
    with safe_open(directory / "model.safetensors", framework="numpy") as weights:
        shape = weights.get_tensor("model.embed_tokens.weight").shape
    assert shape == (config["vocab_size"], config["hidden_size"])
