"""What a vLLM engine has counted so far, from its page of metrics.

In: an endpoint. Out: prompts and tokens; the difference of two readings is what happened between them.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.request import urlopen


class Counters(NamedTuple):
    """Sums since the engine's start.

    Attributes:
        prompts: Prompts answered.
        prompt_tokens: Tokens of them.
        cached_tokens: Those of them that came from the prefix cache.
        completion_tokens: Tokens of the answers.
    """

    prompts: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int

    def since(self, before: Counters) -> Counters:
        """What was counted after an earlier reading."""
        return Counters(*(now - then for now, then in zip(self, before, strict=True)))


_NAMES = ("request_success_total", "prompt_tokens_total", "prefix_cache_hits_total", "generation_tokens_total")


def read(endpoint: str) -> Counters:
    """Read the counters as they are at this moment."""
    with urlopen(f"{endpoint}/metrics") as page:  # noqa: S310 - an engine that a benchmark started
        text = page.read().decode()
    sums = (sum(map(float, re.findall(rf"^vllm:{name}(?:{{.*}})? (\S+)$", text, re.M))) for name in _NAMES)
    return Counters(*map(int, sums))
