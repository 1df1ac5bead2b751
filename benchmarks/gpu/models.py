"""Folders of models of known shapes, served with random weights: what their work costs is real, what they say is not.

In: `mistral-common`, whose wheel holds Tekken, the tokenizer of Mistral's models, 131,072 tokens. Out: folders that
vLLM takes with `--load-format dummy`: a tokenizer of Hugging Face's form, a chat template, a `config.json`. No weights.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

TEKKEN = "tekken_240911.json"
POSITIONS = 8192
_BEGIN, _END = "<s>", "</s>"
_TEMPLATE = (
    "<s>{% for message in messages %}"
    "{% if message['role'] == 'system' %}[SYSTEM_PROMPT]{{ message['content'] }}[/SYSTEM_PROMPT]"
    "{% elif message['role'] == 'user' %}[INST]{{ message['content'] }}[/INST]"
    "{% else %}{{ message['content'] }}</s>{% endif %}{% endfor %}"
)
_CONTROL = [
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]"),
    *("[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
]
"""Tekken's control tokens, from the first on: this version's file does not name them."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What decides a Llama's work for a token.

    Attributes:
        hidden: Width of the residual stream.
        intermediate: Width of the feed-forward layers.
        layers: How many.
        heads: Attention heads, each `head_dim` wide.
        key_value_heads: Those of keys and values.
        head_dim: Width of a head.
        tied: Whether the head has the embedding's weights.
    """

    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_value_heads: int
    head_dim: int
    tied: bool


SHAPES = {
    "8b": Shape(4096, 14336, 32, 32, 8, 128, tied=False),
    "1b": Shape(2048, 8192, 16, 32, 8, 64, tied=True),
    "toy": Shape(128, 352, 2, 2, 1, 64, tied=True),
}
"""Those of Llama 3 with 8 and with 1 billion parameters, and one to try things out."""


def write_models(folder: Path) -> None:
    """Write a folder for each shape; they share the tokenizer's files by links."""
    tokenizer = folder / "tokenizer"
    write_tokenizer(tokenizer)
    for name, shape in SHAPES.items():
        of = folder / name
        of.mkdir()
        for path in tokenizer.iterdir():
            (of / path.name).symlink_to(os.path.relpath(path, of))
        (of / "config.json").write_text(json.dumps(_config(shape), indent=1))
        (of / "generation_config.json").write_text(json.dumps({"bos_token_id": 1, "eos_token_id": 2}))


def _config(shape: Shape) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.key_value_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "vocab_size": 131_072,
        "max_position_embeddings": POSITIONS,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500_000.0,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": shape.tied,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "bfloat16",
    }


def write_tokenizer(folder: Path) -> None:
    """Write Tekken as Hugging Face's libraries read it."""
    folder.mkdir(parents=True)
    told = json.loads(_tekken().read_text())
    size, first = told["config"]["default_vocab_size"], told["config"]["default_num_special_tokens"]
    ranks = {base64.b64decode(token["token_bytes"]): token["rank"] for token in told["vocab"][: size - first]}
    control = [*_CONTROL, *(f"<SPECIAL_{number}>" for number in range(len(_CONTROL), first))]
    vocabulary = {_printable(token): rank + first for token, rank in ranks.items()}
    vocabulary |= {token: number for number, token in enumerate(control)}
    merges = [(_printable(left), _printable(right)) for left, right in _merges(ranks)]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(told["config"]["pattern"]), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": _BEGIN,
        "eos_token": _END,
        "clean_up_tokenization_spaces": False,
        "chat_template": _TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def _tekken() -> Path:
    spec = find_spec("mistral_common")
    assert spec is not None  # noqa: S101 - it is one of our own development requirements
    assert spec.origin is not None  # noqa: S101
    return Path(spec.origin).parent / "data" / TEKKEN


def _merges(ranks: dict[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """Every pair of tokens that makes a token, the most frequent token's first: Tekken has ranks only."""
    for token in sorted(ranks, key=ranks.__getitem__):
        halves = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        yield from sorted(
            (pair for pair in halves if pair[0] in ranks and pair[1] in ranks),
            key=lambda pair: (ranks[pair[0]], ranks[pair[1]]),
        )


def _printable(token: bytes) -> str:
    """A token in the letters that byte-level BPE writes bytes in: what prints stands for itself."""
    return "".join(_LETTERS[byte] for byte in token)


def _letters() -> dict[int, str]:
    selves = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in selves]
    return {byte: chr(byte) for byte in selves} | {byte: chr(256 + number) for number, byte in enumerate(others)}


_LETTERS = _letters()
