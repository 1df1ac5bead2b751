"""What the two engines of the paper's table are started with: room for their caches, and each its share of a card.

In: a model, a device, the size of the cache. Out: options of `VllmEngine`. It starts nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from pg_bridge.serving.environment import Device, find_device
from pg_bridge.serving.flags import BLOCK_SIZES

SHARE = 0.45
"""Of a card's memory, for each of the two: weights and cache. By itself vLLM takes twice that."""


class Options(TypedDict, total=False):
    """What `VllmEngine` takes beside the model."""

    device: Device
    max_model_len: int
    extra: list[str]


def options(model: Path | str, device: Device, cache_tokens: int, said: Sequence[str] = ()) -> Options:
    """Return the options of each engine.

    Args:
        model: A folder, or a name on the hub.
        device: What to compute on.
        cache_tokens: What the KV cache holds, and no more; 0 leaves it to vLLM.
        said: The user's own arguments for vLLM; they come last, so they win.
    """
    backend = find_device(device)
    chosen: Options = {"device": device, "extra": []}
    if cache_tokens:
        block = BLOCK_SIZES[backend]
        # One block is vLLM's own. It refuses a longest prompt that the cache or the model has no room for.
        longest = [cache_tokens - block, positions(model)]
        chosen["max_model_len"] = min(tokens for tokens in longest if tokens)
        chosen["extra"] += ["--num-gpu-blocks-override", str(cache_tokens // block)]
    if backend == "cuda":
        chosen["extra"] += ["--gpu-memory-utilization", str(SHARE)]
    chosen["extra"] += said
    return chosen


def positions(model: Path | str) -> int:
    """The longest prompt and answer that a model is made for, by its folder; 0 if that does not tell."""
    try:
        told = json.loads((Path(model) / "config.json").read_text())
    except OSError:
        return 0
    return int(told.get("text_config", told).get("max_position_embeddings", 0))
