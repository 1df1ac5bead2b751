"""A model's tokenizer, read from its file: the ids are its own, and what cannot be read is said plainly."""

from __future__ import annotations

import base64
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pg_bridge.analysis.tokenizer import load_tokenizer
from pg_bridge.errors import OptionError

TEXTS = ["one row of a table", "", "one row, one question", "héllo wörld \N{SNOWMAN}", "0123456789" * 100]

mistral = pytest.mark.skipif(not importlib.util.find_spec("mistral_common"), reason="mistral_common is not installed")


@pytest.fixture
def trained(tmp_path: Path) -> Any:
    """A small byte-level tokenizer of Hugging Face's kind, saved with the limits that some models' files have."""
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|begin|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS[:3], trainer)
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing("<|begin|> $A", None, [("<|begin|>", 0)])
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


@pytest.mark.parametrize("name", ["", "tokenizer.json"])
def test_hugging_face(trained: Any, tmp_path: Path, name: str) -> None:
    tokens = list(load_tokenizer(tmp_path / name)(TEXTS))
    assert [each.tolist() for each in tokens] == [trained.encode(text, add_special_tokens=False).ids for text in TEXTS]
    assert all(each.dtype == np.int32 for each in tokens)
    assert len(tokens[-1]) > 8  # the file's limit is lifted


def test_special_tokens_are_known_and_none_is_added(trained: Any, tmp_path: Path) -> None:
    templated, plain = load_tokenizer(tmp_path)(["<|begin|>row", "row"])
    assert templated.tolist() == [0, *plain]


def test_half_a_character_is_no_stumbling_block(trained: Any, tmp_path: Path) -> None:
    half, replaced = load_tokenizer(tmp_path)(["row \ud800!", "row \ufffd!"])
    assert half.tolist() == replaced.tolist()


def test_texts_are_pulled_as_they_are_wanted(trained: Any, tmp_path: Path) -> None:
    pulled = []

    def texts() -> Iterator[str]:
        for i in range(2000):
            pulled.append(i)
            yield f"row {i}"

    tokens = load_tokenizer(tmp_path)(texts())
    next(tokens)
    assert len(pulled) < 1000
    assert sum(1 for _ in tokens) == 1999


TEKKEN: dict[str, Any] = {
    "config": {"pattern": r"\w+|\W", "default_vocab_size": 260, "default_num_special_tokens": 3, "version": "v3"},
    "vocab": [
        {"rank": rank, "token_bytes": base64.b64encode(token).decode()}
        for rank, token in enumerate([*(bytes([byte]) for byte in range(256)), b"ro", b"row"])
    ],
}


def test_tekken(tmp_path: Path) -> None:
    pytest.importorskip("tiktoken")
    (tmp_path / "tekken.json").write_text(json.dumps(TEKKEN))
    tokens = [each.tolist() for each in load_tokenizer(tmp_path)(["row", "", "<s>"])]
    # After three special tokens; 'row' is beyond the vocabulary's size, so it is 'ro' and 'w'.
    assert tokens == [[256 + 3, ord("w") + 3], [], [ord(each) + 3 for each in "<s>"]]


@pytest.mark.slow  # its import takes seconds
@mistral
def test_tekken_is_read_as_mistral_reads_it() -> None:
    spec = importlib.util.find_spec("mistral_common")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).parent / "data" / "tekken_240911.json"
    theirs = pytest.importorskip("mistral_common.tokens.tokenizers.tekken").Tekkenizer.from_file(path)
    ours = [each.tolist() for each in load_tokenizer(path)(TEXTS)]
    assert ours == [theirs.encode(text, bos=False, eos=False) for text in TEXTS]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read .*No such file"),
        ("tokens", "is not JSON"),
        ("[]", "is no tokenizer"),
        ('{"other": 1}', "is no tokenizer"),
        ('{"model": 1}', "cannot use"),
        ('{"config": {}, "vocab": []}', "cannot use"),
    ],
)
def test_a_file_that_is_none(tmp_path: Path, content: str | None, message: str) -> None:
    pytest.importorskip("tokenizers")
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(OptionError, match=message) as raised:
        load_tokenizer(path)
    assert "tekken.json" in raised.value.hint


def test_a_directory_without_one(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="there is no tokenizer in"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(("package", "content"), [("tokenizers", {"model": {}}), ("tiktoken", TEKKEN)])
def test_a_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, content: dict[str, Any]
) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(OptionError, match=f"the package {package} is not installed") as raised:
        load_tokenizer(path)
    assert f"pip install {package}" in raised.value.hint
