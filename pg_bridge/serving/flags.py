"""The flags of vLLM that fit a machine with a GPU, each with its reason.

In: the machine's cores, the card's memory, what the user said to vLLM. Out: flags and why, so that whoever serves can
read and overrule them. On a CPU the block size is all: there the engine is slower than everything before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

BLOCK_SIZES = {"cpu": 32, "cuda": 16}
"""Tokens a block: the smallest that each backend takes, because only whole blocks are reused."""

MOST_API_SERVERS = 8
LARGE_CARD_GIB = 70.0

# Who spreads an engine over several servers or machines decides how many servers of ours are before it.
_SPREADS = ("--data-parallel", "--headless", "--grpc")


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag of vLLM.

    Attributes:
        name: As on its command line.
        value: Its value.
        reason: Why it has this value, for whoever serves.
    """

    name: str
    value: int
    reason: str

    @property
    def words(self) -> list[str]:
        """The flag on a command line."""
        return [self.name, str(self.value)]


def choose(device: Literal["cpu", "cuda"], said: Sequence[str], cores: int, card_gib: float | None) -> list[Flag]:
    """Return the flags for a machine, without those that the user has set.

    Args:
        device: What vLLM computes on.
        said: The user's own arguments for vLLM.
        cores: Of the machine.
        card_gib: Memory of the card; None if it is not known, and vLLM's own sizes stay.
    """
    chosen = [flag for flag in _all(device, cores, card_gib) if not _says(said, flag.name)]
    if any(word.startswith(_SPREADS) for word in _written_alike(said)):
        return [flag for flag in chosen if flag.name != "--api-server-count"]
    return chosen


def _all(device: Literal["cpu", "cuda"], cores: int, card_gib: float | None) -> Iterator[Flag]:
    yield Flag("--block-size", BLOCK_SIZES[device], f"only whole blocks are reused; the smallest on {device}")
    if device == "cpu":
        return
    servers = max(1, min(MOST_API_SERVERS, cores // 2))
    yield Flag(
        "--api-server-count",
        servers,
        f"half of {cores} cores, at most {MOST_API_SERVERS}: each renders some 500 prompts a second",
    )
    if card_gib is None:
        return
    # vLLM's own for an API server on a large card. On a small one vLLM runs 256 at once, which answers fill while
    # prompts come from the cache; steps of 2,048 tokens keep its matrix units as busy as larger ones do.
    large = card_gib >= LARGE_CARD_GIB
    card = f"a card of {card_gib:.0f} GiB"
    yield Flag("--max-num-seqs", 1024 if large else 512, f"{card}: prompts that come from the cache want places only")
    yield Flag("--max-num-batched-tokens", 8192 if large else 2048, f"{card}: a step of a fraction of a second")


def _says(said: Sequence[str], name: str) -> bool:
    names = {name, "-asc"} if name == "--api-server-count" else {name}
    return not names.isdisjoint(_written_alike(said))


def _written_alike(said: Sequence[str]) -> list[str]:
    """Arguments without their values, dashes for underscores: vLLM takes either."""
    return [word.partition("=")[0].replace("_", "-") for word in said if word.startswith("-")]
