"""How often a condition over pairs would be asked about in lists and in blocks, before anybody has read a row.

In: how many different rows either side has and how long they are, by PostgreSQL's figures, and how the call wants pairs
to be asked. Out: questions and tokens of each way. What `auto` takes is decided for the pairs that there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

from pg_bridge.asking.joint import LIST_ROWS, TOKENS_BESIDES, TOKENS_OF_PAIR
from pg_bridge.asking.memory import YesShare
from pg_bridge.asking.pair_plans import BLOCK_FRONTS, BLOCK_ROWS, TASK_TOKENS, Frame, Terms
from pg_bridge.asking.prefix_cache import CHARS_PER_TOKEN
from pg_bridge.asking.reduction import TEMPLATE_TOKENS
from pg_bridge.options import Call

WAYS = {"listed": "Lists", "blocks": "Blocks"}


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a join.

    Attributes:
        rows: Different ones.
        chars: Of each of them in a prompt.
    """

    rows: float
    chars: float

    @property
    def all_chars(self) -> float:
        """Of all its rows."""
        return self.rows * self.chars


@dataclass(frozen=True, slots=True)
class Foretold:
    """What one way would take.

    Attributes:
        way: Lists or Blocks.
        questions: How many.
        prompt_tokens: Of their prompts.
    """

    way: str
    questions: int
    prompt_tokens: int


def foretell(sides: tuple[Side, Side], prompt: str, call: Call, pairs: float) -> Iterator[Foretold]:
    """Tell what the ways take that a call may choose from.

    Args:
        sides: Both sides.
        prompt: The condition.
        call: How it is asked.
        pairs: How many different ones there are of both sides' rows.
    """
    for way, name in WAYS.items():
        if call.joins_pairs and call.pairs in (way, "auto"):
            yield _foretell(name, sides, prompt, call, pairs)


def _foretell(name: str, sides: tuple[Side, Side], prompt: str, call: Call, pairs: float) -> Foretold:
    listed, other = sorted(sides, key=lambda side: (side.rows < 2, side.all_chars))
    terms = Terms(call.context_tokens) if call.context_tokens else Terms()
    frame = Frame(prompt, call, terms, name == "Blocks")
    lists = ceil(max(listed.rows / LIST_ROWS, listed.all_chars / max(1, frame.list_bytes), 1))
    length = listed.rows / lists
    beside = 1.0
    if name == "Blocks":
        front = frame.said + length * listed.chars
        room = min(frame.room + frame.said - front, BLOCK_FRONTS * front) / max(1.0, other.chars)
        answered = (frame.answer_tokens - TOKENS_BESIDES) / (TOKENS_OF_PAIR * YesShare().expected) / max(1.0, length)
        beside = max(1.0, min(BLOCK_ROWS, room, answered))
    questions = max(1, min(lists * ceil(other.rows / beside), ceil(pairs)))
    front_tokens = (frame.said + length * listed.chars) / CHARS_PER_TOKEN + TEMPLATE_TOKENS + TASK_TOKENS
    rows_tokens = min(lists * other.rows, pairs) * other.chars / CHARS_PER_TOKEN
    return Foretold(name, questions, round(questions * front_tokens + rows_tokens))
