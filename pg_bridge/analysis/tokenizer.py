"""A model's own tokenizer, for figures about prompts: how many tokens they are and which of them they share.

In: a model's tokenizer file, then texts. Out: their token ids, as the engine counts them. Two kinds of file are
read: Hugging Face's `tokenizer.json` (by the package `tokenizers`) and Mistral's `tekken.json` (by `tiktoken`). Both
packages are optional; whoever has vLLM has them. It applies no chat template, adds no token of its own accord,
downloads nothing, and is never needed to ask an engine: that one tokenises for itself.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pg_bridge.errors import OptionError

Tokenizer = Callable[[Iterable[str]], Iterator[NDArray[np.integer[Any]]]]
"""Texts in; the token ids of each, (tokens,) of some integer dtype, in the texts' order. Texts are pulled a few
hundred at a time, so that as many as a table has rows need no room all at once."""

THREADS = 2  # a database server has other work to do

_BATCH_TEXTS = 256
_FILES = ("tokenizer.json", "tekken.json")
_WHICH_FILE = "Name a Hugging Face tokenizer.json, a Mistral tekken.json, or the directory of a model that has one."

_Encode = Callable[[list[str]], list[NDArray[np.int32]]]


def load_tokenizer(path: Path) -> Tokenizer:
    """Read a tokenizer.

    Args:
        path: A `tokenizer.json`, a `tekken.json`, or the directory of a model that has one of them.

    Returns:
        A function from texts to token ids, int32. In a `tokenizer.json` the special tokens are known by their
        names, so that a text may be one to which a chat template has been applied. Half of a surrogate pair, which
        no engine takes, counts as U+FFFD.

    Raises:
        OptionError: The file cannot be read, is of neither kind, or its package is missing.
    """
    if path.is_dir():
        found = [path / name for name in _FILES if (path / name).exists()]
        if not found:
            raise OptionError(f"there is no tokenizer in {path}", hint=_WHICH_FILE)
        path = found[0]
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
    except OSError as error:
        raise OptionError(f"cannot read {path}: {error.strerror}", hint=_WHICH_FILE) from error
    except ValueError as error:
        raise OptionError(f"{path} is not JSON", hint=_WHICH_FILE) from error
    keys = content.keys() if isinstance(content, dict) else set()
    try:
        if "model" in keys:
            return _in_batches(_hugging_face(text))
        if {"config", "vocab"} <= keys:
            return _in_batches(_tekken(content))
    except ImportError as error:
        raise OptionError(
            f"the package {error.name} is not installed, and {path} needs it",
            hint=f"pip install {error.name}, or run this where vLLM is installed.",
        ) from error
    except Exception as error:  # `tokenizers` raises plain Exception for a file that it cannot use
        raise OptionError(f"cannot use {path}: {error}", hint=_WHICH_FILE) from error
    raise OptionError(f"{path} is no tokenizer", hint=_WHICH_FILE)


def _in_batches(encode: _Encode) -> Tokenizer:
    def tokenize(texts: Iterable[str]) -> Iterator[NDArray[np.int32]]:
        rest = iter(texts)
        while batch := list(islice(rest, _BATCH_TEXTS)):
            yield from encode(batch)

    return tokenize


def _hugging_face(text: str) -> _Encode:
    # Read once, when the package's own threads start; what the user set stands.
    os.environ.setdefault("RAYON_NUM_THREADS", str(THREADS))
    import tokenizers  # noqa: PLC0415 - optional

    tokenizer = tokenizers.Tokenizer.from_str(text)
    # Some files hold the limits of the model's training; the engine lifts them too.
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def encode(texts: list[str]) -> list[NDArray[np.int32]]:
        encodings = tokenizer.encode_batch_fast([_whole(text) for text in texts], add_special_tokens=False)
        return [np.array(encoding.ids, np.int32) for encoding in encodings]

    return encode


def _tekken(content: dict[str, Any]) -> _Encode:
    import tiktoken  # noqa: PLC0415 - optional

    config = content["config"]
    special_tokens = config["default_num_special_tokens"]  # they have the first ids; the file counts without them
    ordinary = content["vocab"][: config["default_vocab_size"] - special_tokens]
    encoding = tiktoken.Encoding(
        "tekken",
        pat_str=config["pattern"],
        mergeable_ranks={base64.b64decode(token["token_bytes"]): token["rank"] for token in ordinary},
        special_tokens={},
    )

    def encode(texts: list[str]) -> list[NDArray[np.int32]]:
        ids = encoding.encode_ordinary_batch([_whole(text) for text in texts], num_threads=THREADS)
        return [np.array(each, np.int32) + np.int32(special_tokens) for each in ids]

    return encode


def _whole(text: str) -> str:
    """The text with half characters replaced; nearly every text has none, and then it is the text itself."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
