"""The limits that hold for a call, and how they are said: what a call, its server and a day allow.

In: the options of a call and a server. Out: limits, and the error for one that is reached.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pg_bridge.errors import BudgetExceeded, OptionError
from pg_bridge.ledger.prices import has_prices
from pg_bridge.ledger.spending import Spent
from pg_bridge.options import Call, Server

Kind = Literal["requests", "prompt_tokens", "completion_tokens", "cost", "seconds"]
DAILY_KINDS: tuple[Kind, ...] = ("requests", "prompt_tokens", "completion_tokens", "cost")
KINDS: tuple[Kind, ...] = (*DAILY_KINDS, "seconds")

_WHOSE = {"call": "max_", "statement": "the server's max_", "day": "today's daily_"}
_REMEDIES = {
    "call": "Raise the limit, ask about fewer rows, or take what there is with on_budget => 'null'.",
    "statement": "Ask about fewer rows, or take what there is with on_budget => 'null'; the owner sets these limits.",
    "day": "llm.usage() tells what today has taken; go on tomorrow; the server's owner sets these limits.",
}


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit; as a text it is what users know it by.

    Attributes:
        kind: What is limited.
        most: How much of it is allowed.
        of: What it holds for: all calls of a statement with the same options, the whole statement, or the role's day.
    """

    kind: Kind
    most: float
    of: Literal["call", "statement", "day"]

    def __str__(self) -> str:
        return f"{_WHOSE[self.of]}{self.kind} = {self.most:.15g}"


def find_limits(call: Call, server: Server | None) -> list[Limit]:
    """All limits that hold for a call.

    Raises:
        OptionError: One of them is a cost, and the server has no prices.
    """
    limits = list(_limits(call, server))
    if any(limit.kind == "cost" for limit in limits) and not (server and has_prices(server)):
        name = server.name if server else call.server
        raise OptionError(
            f'a cost is limited, and server "{name}" has no prices',
            hint=f"ALTER SERVER {name} OPTIONS (ADD price_prompt '…', ADD price_completion '…');",
        )
    return limits


def _limits(call: Call, server: Server | None) -> Iterator[Limit]:
    for kind in KINDS:
        if (most := getattr(call, f"max_{kind}")) is not None:
            yield Limit(kind, most, "call")
        if server is not None and (most := getattr(server, f"max_{kind}")) is not None:
            yield Limit(kind, most, "statement")
    for kind in DAILY_KINDS:
        if server is not None and (most := getattr(server, f"daily_{kind}")) is not None:
            yield Limit(kind, most, "day")


def reached(limit: Limit, taken: Spent, to_come: Spent | None, *, keeps: bool, has_prices: bool) -> BudgetExceeded:
    """The error for a limit that ends a statement.

    Args:
        limit: The limit.
        taken: What has been taken by those for whom it holds.
        to_come: What it would take to go on, at the least, if that is known.
        keeps: Whether answers are kept for other statements.
        has_prices: Whether costs are known.
    """
    details = []
    if to_come is not None:
        details.append(f"It would take at least {_figures(to_come, has_prices)}, as far as lengths tell.")
    if taken.requests:
        details.append(f"So far it has taken {_figures(taken, has_prices)}.")
    kept = "Nothing was sent."
    if taken.requests and keeps:
        kept = "Nothing more is sent. What was answered is kept: run it again, and only what is missing is asked."
    elif taken.requests:
        kept = "Nothing more is sent. What was answered is not kept: that is the option cache's, or there is no ledger."
    return BudgetExceeded(
        f"the statement {'would exceed' if to_come else 'has reached'} its limit: {limit}",
        detail=" ".join(details),
        hint=f"{kept} {_REMEDIES[limit.of]}",
    )


def _figures(spent: Spent, has_prices: bool) -> str:
    parts = [
        f"{spent.requests} prompts",
        f"{spent.prompt_tokens} prompt tokens",
        f"{spent.completion_tokens} completion tokens",
        *([f"a cost of {spent.cost:.6g}"] if has_prices else []),
        *([f"{spent.seconds:.1f} s"] if spent.began_s is not None else []),
    ]
    return f"{', '.join(parts[:-1])} and {parts[-1]}"
