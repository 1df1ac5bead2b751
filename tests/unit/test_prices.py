"""What tokens cost at a server's prices."""

from __future__ import annotations

import pytest

from pg_bridge.engine import Usage
from pg_bridge.errors import OptionError
from pg_bridge.ledger.prices import cost_of
from pg_bridge.options import Server

USED = Usage(prompt_tokens=1_000_000, cached_tokens=400_000, completion_tokens=10_000)


def server(**prices: str) -> Server:
    return Server.from_options("s", {"endpoint": "http://engine", **prices})


@pytest.mark.parametrize(
    ("prices", "cost"),
    [
        ({}, None),
        ({"price_cached": "1"}, None),  # of what, if prompts have no price
        ({"price_prompt": "2"}, 2.0),
        ({"price_prompt": "2", "price_cached": "0.5"}, 1.2 + 0.2),
        ({"price_prompt": "2", "price_cached": "0"}, 1.2),
        ({"price_completion": "8"}, 0.08),
        ({"price_prompt": "0.15", "price_cached": "0.075", "price_completion": "0.6"}, 0.09 + 0.03 + 0.006),
        ({"price_prompt": "0", "price_completion": "0"}, 0.0),
    ],
)
def test_cost(prices: dict[str, str], cost: float | None) -> None:
    assert cost_of(USED, server(**prices)) == (cost if cost is None else pytest.approx(cost, rel=1e-12))


def test_what_is_not_known_costs_what_it_may_and_no_less() -> None:
    unknown = Usage(prompt_tokens=1_000_000, cached_tokens=None, completion_tokens=None)
    assert cost_of(unknown, server(price_prompt="2", price_cached="0.5")) == 2.0
    assert cost_of(unknown, server(price_prompt="2", price_completion="8")) is None
    assert cost_of(Usage(prompt_tokens=None), server(price_prompt="2")) is None
    assert cost_of(Usage(prompt_tokens=None, completion_tokens=500_000), server(price_completion="8")) == 4.0
    assert cost_of(Usage(prompt_tokens=10, cached_tokens=20), server(price_prompt="1", price_cached="0")) == 0.0


@pytest.mark.parametrize("text", ["", "-1", "free", "1e3", ".5", "1.", "NaN", "1234567890"])
def test_a_price_is_a_decimal_number(text: str) -> None:
    with pytest.raises(OptionError) as caught:
        server(price_prompt=text)
    assert caught.value.hint == "It must be a price in decimals, 0.15 for example."
