"""Makes a small Llama-architecture language model with random weights, for an engine to serve.

In: a size and a seed. Out: a directory that vLLM and transformers can load. Its answers mean nothing; its
arithmetic, its tokens and its KV cache are real, which is what demos, tests and benchmarks of pg_bridge need.
It never runs inside PostgreSQL, and it downloads nothing.
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

from pg_bridge.engine.launch import VllmEngine

NAME = "random-weights-demo"

# Raise it whenever the recipe below changes, so that a cached model of the old recipe is not used.
_RECIPE = 2

_BEGIN, _END = 0, 1  # the ids of the first two
_SPECIAL = ("<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")

_CHAT_TEMPLATE = (
    "<|begin|>{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}<|end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)

# What the tokenizer learns its words from: plain sentences about what people ask of a database.
_TOKENIZER_TEXT = """
You answer a question about one row of a table. The row is a JSON object. Reply with the answer alone.
Is the sentiment of this review positive or negative? Answer with one word: positive, negative or neutral.
Does this setting have to do with memory, with the disk, with the network, with security or with logging?
{"name": "shared_buffers", "setting": "16384", "unit": "8kB", "short_desc": "Sets the number of buffers"}
{"title": "The Long Road", "year": 1994, "genre": "drama", "review": "A slow start, but a fine ending."}
{"product": "kettle", "price": 12.50, "rating": 4, "text": "It boils water quickly and does not leak."}
{"id": 1207, "subject": "Invoice", "body": "Please find the invoice for last month in the attachment."}
Sets the maximum number of concurrent connections. Enables the planner's use of index scan plans.
Sets the time interval between progress updates for long-running startup operations in milliseconds.
Write-Ahead Log / Checkpoints. Resource Usage / Memory. Client Connection Defaults / Statement Behavior.
Query Tuning / Planner Method Configuration. Reporting and Logging / When to Log. Statistics / Monitoring.
Vacuum cost delay in milliseconds. Number of pages per write. Shows the size of a disk block, in bytes.
The server waits for the standby to confirm that it has received the transaction before the commit returns.
Summarise the text in one short sentence. Translate the title. Which country is this address in?
What is the name of the person who wrote this message, and what do they want us to do about it?
There are no more rows where the value is null, true or false; every other column holds a number or a text.
Customers were happy with the quality of the product, but some of them had to wait more than two weeks.
The film was good, the music was great, the story was bad, and the actors did what they could with it.
"""


@dataclass(frozen=True, slots=True)
class ModelSize:
    """How large a model is.

    Attributes:
        hidden: Width of the residual stream; a multiple of 64.
        layers: Number of transformer layers.
        vocabulary: Most tokens that the tokenizer may learn.
        context_tokens: Longest prompt and answer together.
    """

    hidden: int = 256
    layers: int = 4
    vocabulary: int = 1024
    context_tokens: int = 8192

    @property
    def intermediate(self) -> int:
        """Width of the feed-forward layers, 8/3 of `hidden` as in Llama."""
        return -(-self.hidden * 8 // (3 * 32)) * 32

    @property
    def heads(self) -> int:
        """Number of attention heads, 64 wide each; half as many hold keys and values."""
        return self.hidden // 64


DEMO = ModelSize()
"""About 4 million parameters: answers at once on a CPU."""

BENCHMARK = ModelSize(hidden=768, layers=12)
"""About 80 million parameters: prompt tokens cost enough for their reuse to be seen on a CPU."""


def random_model(size: ModelSize = DEMO, *, seed: int = 0, cache: Path | None = None) -> Path:
    """Return the directory of the model of that size and seed; make it if it is not there.

    Args:
        size: How large.
        seed: Of the weights.
        cache: Where models are kept; None is `cache_directory()`.
    """
    recipe = json.dumps([_RECIPE, seed, asdict(size), _CHAT_TEMPLATE, _TOKENIZER_TEXT])
    digest = hashlib.sha256(recipe.encode()).hexdigest()[:8]
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


def demo_engine(size: ModelSize = DEMO, **options: Any) -> VllmEngine:  # noqa: ANN401 - handed on as they are
    """Return an engine, not yet started, that serves the random-weights model under its own honest name.

    Args:
        size: How large.
        options: Of `VllmEngine`.
    """
    # vLLM would round float32 to bfloat16. But the likeliest token of a random model leads by little: rounded
    # so coarsely, one prompt could get two answers, depending on the prompts beside it.
    options["extra"] = ["--dtype", "float32", *options.get("extra", ())]
    return VllmEngine(random_model(size), served_name=NAME, **options)


def cache_directory() -> Path:
    """Return where made models are kept: $XDG_CACHE_HOME/pg_bridge, usually ~/.cache/pg_bridge."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pg_bridge"


def _write_model(directory: Path, size: ModelSize, seed: int) -> None:
    from safetensors.numpy import save_file  # noqa: PLC0415 - comes with the engine, not with pg_bridge

    tokens = _write_tokenizer(directory, size)
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


def _write_tokenizer(directory: Path, size: ModelSize) -> list[str]:
    """Write a byte-level BPE tokenizer and return its tokens, in order of id."""
    from tokenizers import (  # noqa: PLC0415 - comes with the engine, not with pg_bridge
        Tokenizer,
        decoders,
        models,
        pre_tokenizers,
        trainers,
    )

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size.vocabulary,
        special_tokens=list(_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TOKENIZER_TEXT.splitlines(keepends=True), trainer)
    tokenizer.save(str(directory / "tokenizer.json"))
    _write_json(
        directory / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": _SPECIAL[_BEGIN],
            "eos_token": _SPECIAL[_END],
            "model_max_length": size.context_tokens,
            "clean_up_tokenization_spaces": False,
            "chat_template": _CHAT_TEMPLATE,
        },
    )
    by_token = tokenizer.get_vocab()
    return sorted(by_token, key=lambda token: int(by_token[token]))


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
        if token in _SPECIAL or not _is_printable(token):
            head[number] = 0
    # The end of an answer, by contrast, is likely enough for answers to end after some twenty tokens.
    head[_END] = normal(1, size.hidden, 8.0)
    yield "lm_head.weight", head


def _is_printable(token: str) -> bool:
    # Byte-level BPE writes a space as U+0120, and every other byte outside printable ASCII above that.
    return all("!" <= character <= "~" or character == "\u0120" for character in token)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def main() -> int:
    """Make a model and print its directory: `python -m pg_bridge.testing.random_model --hidden 768 …`."""
    parser = argparse.ArgumentParser(description="Make a model with random weights and print its directory.")
    for name in ModelSize.__dataclass_fields__:
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(DEMO, name))
    parser.add_argument("--seed", type=int, default=0)
    arguments = vars(parser.parse_args())
    seed = arguments.pop("seed")
    sys.stdout.write(f"{random_model(ModelSize(**arguments), seed=seed)}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
