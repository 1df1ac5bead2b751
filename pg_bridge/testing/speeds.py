"""How fast engines are: the constants of `pg_bridge.testing.fast_engine`, and where each comes from.

`H200_8B` and `H200_1B` are fitted to runs on a GPU (`python -m benchmarks.feed.fit` prints how well); the others take
from them what does not depend on the card, and state what of theirs is published or estimated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class EngineSpeed:
    """An engine's constants; where they come from stands beside each of `SPEEDS`. As they are, nothing takes any time.

    Attributes:
        tokens_per_s: Prompt tokens that one rank computes in a second, of those that are not cached; infinite for no
            limit.
        step_s: What each step takes besides, even with a single token in it.
        sequence_s: What each sequence adds to a step that it is in.
        render_s: An API server's work on a prompt of no length, from reading it to writing its answer.
        render_token_s: What each token of the prompt adds to that.
        request_s: An API server's work on a request besides, however many prompts it has.
        admit_s: An API server's work to hand a rendered prompt to the scheduler.
        answer_s: An API server's work on a prompt's answer.
        max_num_seqs: Sequences that run at one time, at most, in a rank.
        max_num_batched_tokens: Tokens of one step, at most, in a rank.
        cache_blocks: Blocks of the KV cache, in a rank.
        block_size: Tokens of a block.
        prefix_caching: Whether blocks are found again.
        answer_tokens: Tokens of every answer.
        api_servers: Processes that render.
        ranks: Copies of the model, each with a scheduler and a cache.
    """

    tokens_per_s: float = math.inf
    step_s: float = 0.0
    sequence_s: float = 0.0
    render_s: float = 0.0
    render_token_s: float = 0.0
    request_s: float = 0.0
    admit_s: float = 0.0
    answer_s: float = 0.0
    max_num_seqs: int = 1024
    max_num_batched_tokens: int = 8_192
    cache_blocks: int = 65_536
    block_size: int = 16
    prefix_caching: bool = True
    answer_tokens: int = 4
    api_servers: int = 1
    ranks: int = 1

    def __post_init__(self) -> None:
        for name in ("tokens_per_s", "max_num_seqs", "max_num_batched_tokens", "cache_blocks", "block_size"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be more than 0")
        for name in ("answer_tokens", "api_servers", "ranks"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 at least")
        for name in ("step_s", "sequence_s", "render_s", "render_token_s", "request_s", "admit_s", "answer_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be less than 0")

    @property
    def full_tokens_per_s(self) -> float:
        """Tokens that one rank computes a second where every step is full: of prompts that share nothing."""
        return self.max_num_batched_tokens / (self.step_s + self.max_num_batched_tokens / self.tokens_per_s)

    def front_s(self, requests: int, prompts: int, tokens: int) -> float:
        """Seconds that the API servers together need for so many requests, prompts and tokens, of all of them."""
        each_s = self.render_s + self.admit_s + self.answer_s
        return (requests * self.request_s + prompts * each_s + tokens * self.render_token_s) / self.api_servers


H200_8B = EngineSpeed(
    tokens_per_s=44_000,
    step_s=0.019,
    sequence_s=27e-6,
    render_s=1.42e-3,
    render_token_s=1.3e-6,
    request_s=0.9e-3,
    admit_s=0.11e-3,
    answer_s=0.2e-3,
    cache_blocks=2_500,
)
"""One H200 with a model of Llama 3's 8B shape in bf16, vLLM 0.26 in eager mode.

All seconds and the speed are fitted but `request_s`: the runs had large requests, in which it does not show. It is half
of what a prompt costs, by the CPU that vLLM 0.32 spends on requests of one and of eight prompts (note 46).
`max_num_seqs` and `max_num_batched_tokens` are what vLLM takes on cards of 70 GiB and more, `cache_blocks` what the
runs were given: 40,000 tokens.
"""

H200_1B = replace(H200_8B, tokens_per_s=214_000)
"""The same with a model of the 1B shape. The speed is fitted; the rest is the 8B's: those parts are the CPU's."""

H100_8B = replace(H200_8B, cache_blocks=25_000)
"""One H100 of 80 GB: the H200's chip and power, so its speed. The cache is estimated: (80 GB x 0.9 - 16 GB of weights
- 4 GB) / 131 kB a token."""

H100_1B = replace(H200_1B, cache_blocks=125_000)
"""One H100 of 80 GB with a model of the 1B shape. The cache is estimated: 66 GB / 33 kB a token."""

L4_8B = replace(
    H200_8B, tokens_per_s=3_600, step_s=0.065, max_num_seqs=256, max_num_batched_tokens=2_048, cache_blocks=2_500
)
"""One L4 of 24 GB, the paper's card. Published: 121 TFLOP/s in bf16, 300 GB/s, 72 W. Estimated from them: the speed
(the H200's share of its peak, less what 72 W take) and the step (16 GB of weights read once, 53 ms, and the CPU's).
`max_num_seqs` and `max_num_batched_tokens` are vLLM's for cards below 70 GiB; the cache is what is left beside 8B."""

EIGHT_H100_8B = replace(H100_8B, ranks=8, api_servers=8)
"""Eight H100, each with the whole model (data parallelism), behind as many API servers as vLLM then starts: one a rank.
Nothing of it is measured: ranks are taken not to slow each other down."""

SPEEDS = {
    "l4-8b": L4_8B,
    "h100-8b": H100_8B,
    "h100-1b": H100_1B,
    "h200-8b": H200_8B,
    "h200-1b": H200_1B,
    "8xh100-8b": EIGHT_H100_8B,
}
"""By the names that the engine double takes."""


def speed_of(told: str | Mapping[str, Any] | None) -> EngineSpeed:
    """The speed of a name, or of constants as JSON has them; None is one that knows no limit.

    Raises:
        ValueError: There is no such name or constant, or it cannot have that value.

    >>> speed_of({"tokens_per_s": 1000}).tokens_per_s, speed_of("l4-8b") is L4_8B
    (1000, True)
    """
    if isinstance(told, str):
        if told not in SPEEDS:
            raise ValueError(f"no speed {told!r}; there are: {', '.join(SPEEDS)}")
        return SPEEDS[told]
    if not isinstance(told, Mapping | None):
        raise ValueError("a speed is a name or an object of constants")
    constants = dict(told or {})
    unknown = sorted(constants.keys() - {each.name for each in fields(EngineSpeed)})
    if unknown:
        raise ValueError(f"no constant {unknown[0]!r} of a speed")
    try:
        return EngineSpeed(**constants)
    except TypeError as error:
        raise ValueError(f"a constant of a speed is no number: {error}") from None
