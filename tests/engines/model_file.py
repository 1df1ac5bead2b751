"""Writes the model in the box as a GGUF file, which llama.cpp reads. It runs in llama.cpp's environment, not in ours.

    .venv-engines/llama-cpp/bin/python tests/engines/model_file.py models/demo demo.gguf

llama.cpp knows no patterns by which a text is cut into words but those in its own source. `llama-bpe` is the nearest of
those that take a whole word as one token if there is one, as the model's tokenizer does. The two differ where a sign
stands directly before a word, as in `(word` and `well-made`, and where several blanks stand together; what the tests
ask about is cut alike, and they compare its answers with vLLM's.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFWriter, LlamaFileType, TokenType
from numpy.typing import NDArray

NAME = "pg-bridge-demo"

_WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_OF_A_LAYER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_gguf(model: Path, file: Path) -> None:
    """Write a Llama with a byte-level BPE tokenizer, its weights in float32."""
    config, tokenizer, more = (
        json.loads((model / name).read_text()) for name in ("config.json", "tokenizer.json", "tokenizer_config.json")
    )
    writer = GGUFWriter(file, "llama")
    writer.add_name(NAME)
    writer.add_file_type(LlamaFileType.ALL_F32)
    _add_sizes(writer, config)
    _add_tokenizer(writer, config, tokenizer)
    writer.add_chat_template(more["chat_template"])
    for name, weight in _weights(model / "model.safetensors"):
        writer.add_tensor(_name_there(name), _as_there(name, weight.astype(np.float32), config))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_sizes(writer: GGUFWriter, config: dict[str, Any]) -> None:
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])


def _add_tokenizer(writer: GGUFWriter, config: dict[str, Any], tokenizer: dict[str, Any]) -> None:
    tokens = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].__getitem__)
    control = {token["content"] for token in tokenizer["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if token in control else TokenType.NORMAL for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(False)  # it stands in the chat template


def _weights(file: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    """Read a safetensors file: eight bytes of length, a JSON object of names and places, the numbers."""
    content = file.read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    kinds = {"F16": np.float16, "F32": np.float32}
    for name, told in json.loads(content[8:begin]).items():
        if name != "__metadata__":
            first, last = told["data_offsets"]
            numbers = np.frombuffer(content[begin + first : begin + last], dtype=kinds[told["dtype"]])
            yield name, numbers.reshape(told["shape"])


def _name_there(name: str) -> str:
    plain = name.removesuffix(".weight")
    if plain in _WHOLE:
        return f"{_WHOLE[plain]}.weight"
    _, _, layer, part = plain.split(".", 3)
    return f"blk.{layer}.{_OF_A_LAYER[part]}.weight"


def _as_there(name: str, weight: NDArray[Any], config: dict[str, Any]) -> NDArray[Any]:
    """Rotary positions turn neighbouring numbers of a head there; here they turn its two halves."""
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(name.split(".")[-2])
    if heads:
        halves = weight.reshape(config[heads], 2, -1, weight.shape[1])
        weight = halves.swapaxes(1, 2).reshape(weight.shape)
    return np.ascontiguousarray(weight)


if __name__ == "__main__":
    write_gguf(Path(sys.argv[1]), Path(sys.argv[2]))
