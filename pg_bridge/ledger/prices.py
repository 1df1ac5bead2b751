"""What tokens cost, at the prices that a server's options give.

In: token counts and a server. Out: an amount in the currency of the prices, which nobody names here. It is arithmetic
and no more: what it is asked about may be an estimate, a run's figures, or a day's.
"""

from __future__ import annotations

from typing import Protocol

from pg_bridge.options import Server

PER_TOKENS = 1_000_000


class Tokens(Protocol):
    """Token counts; None where nobody knows."""

    @property
    def prompt_tokens(self) -> int | None:
        """Of all prompts."""

    @property
    def cached_tokens(self) -> int | None:
        """Those of them that came from the prefix cache."""

    @property
    def completion_tokens(self) -> int | None:
        """Of all answers."""


def has_prices(server: Server) -> bool:
    """Whether tokens of a server have a price at all."""
    return server.price_prompt is not None or server.price_completion is not None


def cost_of(tokens: Tokens, server: Server) -> float | None:
    """What tokens cost.

    Args:
        tokens: How many there are. Where nobody knows which came from the cache, none did.
        server: Its prices, each for a million tokens. Without `price_cached` cached tokens cost what others do; of the
            other two, one that is missing is nothing.

    Returns:
        The amount; None where the server has no prices, or where a number that it depends on is not known.

    >>> from pg_bridge.engine import Usage
    >>> server = Server("s", "http://engine", price_prompt=2.0, price_cached=0.5, price_completion=8.0)
    >>> cost_of(Usage(prompt_tokens=3_000_000, cached_tokens=2_000_000, completion_tokens=100_000), server)
    3.8
    """
    if not has_prices(server):
        return None
    price_prompt, price_completion = server.price_prompt or 0.0, server.price_completion or 0.0
    price_cached = price_prompt if server.price_cached is None else server.price_cached
    amount = 0.0
    if price_prompt or price_cached:
        if tokens.prompt_tokens is None:
            return None
        cached = min(tokens.cached_tokens or 0, tokens.prompt_tokens)
        amount += (tokens.prompt_tokens - cached) * price_prompt + cached * price_cached
    if price_completion:
        if tokens.completion_tokens is None:
            return None
        amount += tokens.completion_tokens * price_completion
    return amount / PER_TOKENS
