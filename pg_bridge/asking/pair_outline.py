"""How often a condition over pairs would be asked about in lists, in blocks, and about the nearest, with no row read.

In: how many different rows either side has and how long they are, by PostgreSQL's figures, and how the call wants pairs
to be asked. Out: questions and tokens of each way, and of embeddings. What `auto` takes is decided for the pairs that
there are, and so is which of them are near.
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

WAYS = {"listed": "Questions in Lists", "blocks": "Questions in Blocks"}
NEAREST, EMBEDDINGS = "Questions about the Nearest", "Embeddings"


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
        way: What is asked for.
        questions: How many.
        prompt_tokens: Of their prompts.
    """

    way: str
    questions: int
    prompt_tokens: int


def foretell(sides: tuple[Side, Side], prompt: str, call: Call, pairs: float) -> Iterator[Foretold]:
    """Tell what the ways take that a call may choose from.

    Args:
        sides: Both sides, as the condition has them.
        prompt: The condition.
        call: How it is asked.
        pairs: How many different ones there are of both sides' rows.
    """
    if not call.joins_pairs:
        return
    first, last = sides
    own = pairs / max(1.0, first.rows)  # of each row
    kept = own if call.nearest is None else min(own, call.nearest)
    near = first.rows * kept if kept < own else pairs
    sampled = min(call.checked, pairs - near)
    each_tokens = (len(prompt) + first.chars + last.chars) / CHARS_PER_TOKEN + TEMPLATE_TOKENS
    if near < pairs:
        if call.pairs in ("each", "auto"):
            yield Foretold(NEAREST, round(near + sampled), round((near + sampled) * each_tokens))
        yield Foretold(
            EMBEDDINGS, round(first.rows + last.rows), round(sum(s.all_chars for s in sides) / CHARS_PER_TOKEN)
        )
    for way, name in WAYS.items():
        if call.pairs in (way, "auto"):
            told = _foretell(way, sides, prompt, call, near, kept)
            yield Foretold(name, told.questions + round(sampled), told.prompt_tokens + round(sampled * each_tokens))


def _foretell(way: str, sides: tuple[Side, Side], prompt: str, call: Call, pairs: float, kept: float) -> Foretold:
    listed, other = sorted(sides, key=lambda side: (side.rows < 2, side.all_chars))
    length, together = listed.rows, other.rows
    if call.nearest is not None:
        other, listed = sides
        length, together = min(kept, listed.rows), other.rows * kept / max(1.0, listed.rows)
    terms = Terms(call.context_tokens) if call.context_tokens else Terms()
    frame = Frame(prompt, call, terms, way == "blocks")
    lists = ceil(max(length / LIST_ROWS, length * listed.chars / max(1, frame.list_bytes), 1))
    length /= lists
    beside = 1.0
    if way == "blocks":
        front = frame.said + length * listed.chars
        room = min(frame.room + frame.said - front, BLOCK_FRONTS * front) / max(1.0, other.chars)
        answered = (frame.answer_tokens - TOKENS_BESIDES) / (TOKENS_OF_PAIR * YesShare().expected) / max(1.0, length)
        beside = max(1.0, min(BLOCK_ROWS, room, answered, together))
    questions = max(1, min(lists * ceil(other.rows / beside), ceil(pairs)))
    front_tokens = (frame.said + length * listed.chars) / CHARS_PER_TOKEN + TEMPLATE_TOKENS + TASK_TOKENS
    rows_tokens = min(lists * other.rows, pairs) * other.chars / CHARS_PER_TOKEN
    return Foretold(way, questions, round(questions * front_tokens + rows_tokens))
