"""A Llama-architecture decoder in torch, small enough to read, and its files as transformers and vLLM load them.

In: token ids. Out: what the next tokens are likely to be. Parameter names are those of the published architecture, so
that the state dict is the file. It never serves anybody: vLLM does.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from models.recipe.spellings import EMBEDDING_SCALE, Spellings
from models.recipe.vocabulary import BEGIN_ID, END_ID

_EPSILON = 1e-5
_THETA = 100000.0
_FAST = 6  # pairs of a head that turn by a tenth of a circle and more from one token to the next, about


@dataclass(frozen=True, slots=True)
class Size:
    """How large the decoder is.

    Attributes:
        hidden: Width of the residual stream.
        layers: Number of transformer layers.
        heads: Number of attention heads, 64 wide each.
        intermediate: Width of the feed-forward layers.
        vocabulary: Number of tokens.
        context_tokens: Longest prompt and answer together.
    """

    hidden: int = 256
    layers: int = 6
    heads: int = 4
    intermediate: int = 448
    vocabulary: int = 13500
    context_tokens: int = 2048

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.hidden // self.heads


class _Attention(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.shape = (size.heads, size.head_dim)
        self.q_proj = nn.Linear(size.hidden, size.hidden, bias=False)
        self.k_proj = nn.Linear(size.hidden, size.hidden, bias=False)
        self.v_proj = nn.Linear(size.hidden, size.hidden, bias=False)
        self.o_proj = nn.Linear(size.hidden, size.hidden, bias=False)

    def look_back(self, sharpness: float = 2.2) -> None:
        """Let the last head begin as one in which each token looks at the one before it.

        It sees nothing of the tokens but the first element of their states, which begins as the same for all; the
        rotation of the positions does the rest.
        """
        _, dim = self.shape
        turn = _THETA ** -(torch.arange(0, dim, 2)[:_FAST] / dim)
        with torch.no_grad():
            query, key = self.q_proj.weight[-dim:], self.k_proj.weight[-dim:]
            query.zero_()
            key.zero_()
            query[:_FAST, 0] = sharpness
            key[:_FAST, 0] = sharpness * turn.cos()
            key[dim // 2 : dim // 2 + _FAST, 0] = sharpness * turn.sin()

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        batch, length, hidden = x.shape
        q, k, v = (
            f(x).view(batch, length, *self.shape).transpose(1, 2) for f in (self.q_proj, self.k_proj, self.v_proj)
        )
        # Written out: on CPUs, and for short prompts, several times faster than torch's function.
        scores = _rotated(q, rotation) @ _rotated(k, rotation).transpose(-1, -2) * q.shape[-1] ** -0.5
        scores = scores.masked_fill(torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1), -torch.inf)
        mixed = torch.softmax(scores, -1, scores.dtype) @ v
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, length, hidden))


class _FeedForward(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(size.hidden, size.intermediate, bias=False)
        self.up_proj = nn.Linear(size.hidden, size.intermediate, bias=False)
        self.down_proj = nn.Linear(size.intermediate, size.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class _Layer(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(size.hidden, eps=_EPSILON)
        self.self_attn = _Attention(size)
        self.post_attention_layernorm = nn.RMSNorm(size.hidden, eps=_EPSILON)
        self.mlp = _FeedForward(size)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rotation)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """The decoder; output and input embeddings are one matrix, which helps it to copy.

    Args:
        size: How large.
    """

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size
        self.embed_tokens: nn.Embedding | Spellings = nn.Embedding(size.vocabulary, size.hidden)
        self.layers = nn.ModuleList(_Layer(size) for _ in range(size.layers))
        self.norm = nn.RMSNorm(size.hidden, eps=_EPSILON)
        # At first no layer says anything and the residual stream is the token itself, so that it can be copied; the
        # last norm brings its scores down to 1.
        for name, parameter in self.named_parameters():
            if "embed" in name:
                nn.init.normal_(parameter, std=EMBEDDING_SCALE)
            elif "o_proj" in name or "down_proj" in name:
                nn.init.zeros_(parameter)
            elif parameter.ndim == 2:
                nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
        # Half of the heads begin with keys that are their queries, so that a token at first looks for its like.
        for layer in self.layers:
            alike = size.heads // 2 * size.head_dim
            layer.self_attn.k_proj.weight.data[:alike] = layer.self_attn.q_proj.weight.data[:alike]
        for layer in self.layers[:2]:
            layer.self_attn.look_back()
        nn.init.constant_(self.norm.weight, 1 / (EMBEDDING_SCALE * size.hidden**0.5))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the last layer's states, normed: (batch, length) int64 to (batch, length, hidden) float32."""
        return self.states(tokens)[-1]

    def states(self, tokens: Tensor) -> list[Tensor]:
        """Return every layer's states, the last layer's normed."""
        rotation = self._rotation(tokens.shape[1], tokens.device)
        x = self.embed_tokens(tokens)
        found = []
        for layer in self.layers:
            x = layer(x, rotation)
            found.append(x)
        found[-1] = self.norm(x)
        return found

    def scores(self, states: Tensor) -> Tensor:
        """Return the score of every token: (…, hidden) to (…, vocabulary)."""
        return functional.linear(states, self.embed_tokens.weight)

    def _rotation(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        half = torch.arange(0, self.size.head_dim, 2, device=device) / self.size.head_dim
        angles = torch.outer(torch.arange(length, device=device), _THETA**-half).repeat(1, 2)
        return angles.cos(), angles.sin()

    def save(self, directory: Path) -> None:
        """Write `model.safetensors` in half precision, `config.json` and `generation_config.json`."""
        values = {name: value for name, value in self.state_dict().items() if not name.startswith("embed_tokens.")}
        values["embed_tokens.weight"] = self.embed_tokens.weight.detach()
        weights = {f"model.{name}": value.half().contiguous().cpu() for name, value in values.items()}
        file = directory / "model.safetensors"
        save_file(weights, file, metadata={"format": "pt"})
        file.chmod(0o644)  # the library lets only its owner read it
        _write(directory / "config.json", self._config())
        _write(
            directory / "generation_config.json",
            {"bos_token_id": BEGIN_ID, "eos_token_id": END_ID, "do_sample": False},
        )

    def load(self, directory: Path) -> None:
        """Take over the weights that `save` has written."""
        weights = load_file(directory / "model.safetensors")
        self.load_state_dict({name.removeprefix("model."): value.float() for name, value in weights.items()})

    def _config(self) -> dict[str, Any]:
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.size.hidden,
            "intermediate_size": self.size.intermediate,
            "num_hidden_layers": self.size.layers,
            "num_attention_heads": self.size.heads,
            "num_key_value_heads": self.size.heads,
            "head_dim": self.size.head_dim,
            "hidden_act": "silu",
            "vocab_size": self.size.vocabulary,
            "max_position_embeddings": self.size.context_tokens,
            "rms_norm_eps": _EPSILON,
            "rope_theta": _THETA,
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": True,
            "bos_token_id": BEGIN_ID,
            "eos_token_id": END_ID,
            "torch_dtype": "float16",
        }


def _rotated(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    cosine, sine = rotation
    left, right = x.chunk(2, dim=-1)
    return x * cosine + torch.cat((-right, left), dim=-1) * sine


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
