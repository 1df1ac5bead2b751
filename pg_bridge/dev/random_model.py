"""Makes a Llama-architecture language model of any size with random weights, for benchmarks.

In: a size and a seed. Out: a directory that vLLM and transformers can load, with the tokenizer of the model in the box.
Its answers mean nothing; its arithmetic, its tokens and its KV cache are real. It never runs inside PostgreSQL, and it
downloads nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pg_bridge.serving.demo import EXACT, find_model
from pg_bridge.serving.launch import VllmEngine

NAME = "random-weights"

# Raise it whenever the recipe below changes, so that a cached model of the old recipe is not used.
_RECIPE = 3

_BEGIN, _END = 0, 1  # tokens of the model in the box
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True, slots=True)
class ModelSize:
    """How large a model is.

    Attributes:
        hidden: Width of the residual stream; a multiple of 128.
        layers: Number of transformer layers.
        context_tokens: Longest prompt and answer together.
    """

    hidden: int = 256
    layers: int = 4
    context_tokens: int = 8192

    @property
    def intermediate(self) -> int:
        """Width of the feed-forward layers, 8/3 of `hidden` as in Llama."""
        return -(-self.hidden * 8 // (3 * 32)) * 32

    @property
    def heads(self) -> int:
        """Number of attention heads, 64 wide each; half as many hold keys and values."""
        return self.hidden // 64


def random_model(size: ModelSize, *, seed: int = 0, cache: Path | None = None) -> Path:
    """Return the directory of the model of that size and seed; make it if it is not there.

    Args:
        size: How large.
        seed: Of the weights.
        cache: Where models are kept; None is `cache_directory()`.
    """
    recipe = json.dumps([_RECIPE, seed, asdict(size)]).encode()
    tokenizer = b"".join((find_model() / name).read_bytes() for name in _TOKENIZER)
    digest = hashlib.sha256(recipe + tokenizer).hexdigest()[:8]
    home = cache or cache_directory()
    directory = home / f"{NAME}-{size.hidden}x{size.layers}-{digest}"
    if not directory.exists():
        home.mkdir(parents=True, exist_ok=True)
        # Made beside its place and moved there whole: no Ctrl-C and no second process leaves half a model.
        making = Path(tempfile.mkdtemp(prefix=".making-", dir=home))
        try:
            _write_model(making, size, seed)
            making.chmod(0o755)
            try:
                making.rename(directory)
            except OSError:
                if not directory.exists():
                    raise
        finally:
            shutil.rmtree(making, ignore_errors=True)
    return directory


def random_engine(size: ModelSize, **options: Any) -> VllmEngine:  # noqa: ANN401 - handed on as they are
    """Return an engine, not yet started, that serves the random-weights model under its own honest name.

    Args:
        size: How large.
        options: Of `VllmEngine`.
    """
    options["extra"] = [*EXACT, *options.get("extra", ())]
    return VllmEngine(random_model(size), served_name=NAME, **options)


def cache_directory() -> Path:
    """Return where made models are kept: $XDG_CACHE_HOME/pg_bridge, usually ~/.cache/pg_bridge."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pg_bridge"


def _write_model(directory: Path, size: ModelSize, seed: int) -> None:
    from safetensors.numpy import save_file  # noqa: PLC0415 - comes with the engine, not with pg_bridge

    for name in _TOKENIZER:
        shutil.copy(find_model() / name, directory)
    tokens = _tokens()
    config = _config(size, len(tokens))
    weights = dict(_weights(size, tokens, seed))
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    millions = sum(weight.size for weight in weights.values()) / 1e6
    _write_json(directory / "config.json", config)
    _write_json(directory / "generation_config.json", {"bos_token_id": _BEGIN, "eos_token_id": _END})
    (directory / "README.md").write_text(
        f"# {NAME}\n\n"
        f"A Llama-architecture model of {millions:.1f} million RANDOM weights (seed {seed}).\n"
        "pg_bridge made it to run an engine end to end. It was never trained: its answers mean nothing.\n"
    )


def _config(size: ModelSize, vocabulary: int) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": size.hidden,
        "intermediate_size": size.intermediate,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.heads // 2,
        "head_dim": 64,
        "hidden_act": "silu",
        "vocab_size": vocabulary,
        "max_position_embeddings": size.context_tokens,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "bos_token_id": _BEGIN,
        "eos_token_id": _END,
        "torch_dtype": "float32",
    }


def _tokens() -> list[str]:
    """Return the tokenizer's tokens, in order of id."""
    by_token: dict[str, int] = json.loads((find_model() / "tokenizer.json").read_text())["model"]["vocab"]
    return sorted(by_token, key=by_token.__getitem__)


def _weights(size: ModelSize, tokens: list[str], seed: int) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield every tensor's name and values.

    The scales are chosen so that an answer depends on the whole prompt: with the usual tiny initial weights
    the last token would decide alone, and every row would get the same answer.
    """
    generator = np.random.default_rng(seed)

    def normal(rows: int, columns: int, gain: float) -> NDArray[np.float32]:
        scale = np.float32(gain / np.sqrt(columns))
        return generator.standard_normal((rows, columns), dtype=np.float32) * scale

    def ones(name: str) -> tuple[str, NDArray[np.float32]]:
        return name, np.ones(size.hidden, dtype=np.float32)

    key_value = size.heads // 2 * 64
    yield "model.embed_tokens.weight", normal(len(tokens), size.hidden, 0.5)
    for layer in range(size.layers):
        name = f"model.layers.{layer}"
        yield f"{name}.self_attn.q_proj.weight", normal(size.hidden, size.hidden, 3.0)
        yield f"{name}.self_attn.k_proj.weight", normal(key_value, size.hidden, 3.0)
        yield f"{name}.self_attn.v_proj.weight", normal(key_value, size.hidden, 2.0)
        yield f"{name}.self_attn.o_proj.weight", normal(size.hidden, size.hidden, 2.0)
        yield f"{name}.mlp.gate_proj.weight", normal(size.intermediate, size.hidden, 1.0)
        yield f"{name}.mlp.up_proj.weight", normal(size.intermediate, size.hidden, 1.0)
        yield f"{name}.mlp.down_proj.weight", normal(size.hidden, size.intermediate, 0.3)
        yield ones(f"{name}.input_layernorm.weight")
        yield ones(f"{name}.post_attention_layernorm.weight")
    yield ones("model.norm.weight")
    head = normal(len(tokens), size.hidden, 3.0)
    for number, token in enumerate(tokens):
        # A score of 0 is never the highest: free answers are made of printable ASCII, and of nothing special.
        if not _is_printable(token):
            head[number] = 0
    # The end of an answer, by contrast, is likely enough for answers to end after some twenty tokens.
    head[_END] = normal(1, size.hidden, 8.0)
    yield "lm_head.weight", head


def _is_printable(token: str) -> bool:
    # Byte-level BPE writes a space as U+0120, and every other byte outside printable ASCII above that. The tokens of
    # the chat template stand between bars.
    return not token.startswith("<|") and all("!" <= character <= "~" or character == "\u0120" for character in token)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def main() -> int:
    """Make a model and print its directory: `python -m pg_bridge.dev.random_model --hidden 768 …`."""
    parser = argparse.ArgumentParser(description="Make a model with random weights and print its directory.")
    default = ModelSize()
    for name in ModelSize.__dataclass_fields__:
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(default, name))
    parser.add_argument("--seed", type=int, default=0)
    arguments = vars(parser.parse_args())
    seed = arguments.pop("seed")
    sys.stdout.write(f"{random_model(ModelSize(**arguments), seed=seed)}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
