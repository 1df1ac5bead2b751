"""A question about many rows as a tree of questions, none of which is longer than the model's context.

In: an instruction and a group's rows, as JSON texts. Out: level after level what to ask, until one answer is left.
All that fits into one prompt is one question. More is asked about in parts, and then about their answers, each with the
number of rows behind it. Nothing here is asked, and no token counted: lengths are bytes of UTF-8.

    rows → parts → answers about parts → … → the answer
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from math import ceil

from pg_bridge.errors import OptionError
from pg_bridge.rows.media import Illustrated, joined

DEFAULT_CONTEXT_TOKENS = 4096  # where the engine does not tell
BYTES_PER_TOKEN = 3  # hardly a text has fewer; what is too long all the same is asked about in halves
LEAST_BYTES = 256  # of a prompt's rows
TEMPLATE_TOKENS = 64  # what stands around the texts of a prompt
_AROUND_PIECE = 64  # bytes of JSON around a piece of a row

SYSTEM_PROMPT = (
    "You answer a question about the rows of a table, or about what was said of them. They are given as JSON. "
    "Reply with the answer alone."
)
SUMMARIZE = "Sum up these texts in a few sentences."
_OF_SOME_ROWS = "\nThese are some of the rows only. Say in a few words what they tell for the answer about all of them."
_OF_SOME_PARTS = (
    '\nEach part is what was said of as many rows as "rows" says. These are some of the parts only. '
    "Say in a few words what they tell together for the answer about all of them."
)
_OF_ALL_PARTS = (
    '\nEach part is what was said of as many rows as "rows" says. Answer for all of them; a part counts by its rows.'
)
_NOTES = (_OF_SOME_ROWS, _OF_SOME_PARTS, _OF_ALL_PARTS)

_NUMBERS = count()


@dataclass(frozen=True, slots=True)
class Item:
    """What a prompt holds several of: a row, a piece of one, or the answer about some.

    Attributes:
        text: JSON.
        rows: How many rows stand behind it.
        of: Tells rows apart: pieces of one row are of one.
        piece: What a piece holds of its row; None for what is whole.
    """

    text: str
    rows: int = 1
    of: int = field(default_factory=_NUMBERS.__next__)
    piece: str | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """Items that are asked about in one prompt.

    Attributes:
        note: What is said behind the instruction.
        column: What the items are called in the prompt.
        items: Some.
    """

    note: str
    column: str
    items: tuple[Item, ...]

    @property
    def cell(self) -> str:
        """Its items as one JSON array."""
        return joined("", ("[", joined(", ", (item.text for item in self.items)), "]"))

    @property
    def rows(self) -> int:
        """How many rows stand behind it; one that is cut counts once."""
        return sum({item.of: item.rows for item in self.items}.values())


def least_context(told: int | None, wanted: int | None) -> int:
    """What a prompt and its answer may have together, by what the engine tells and what the call says.

    >>> least_context(8192, 1000), least_context(None, 10_000), least_context(None, None)
    (1000, 10000, 4096)
    """
    return min(told or wanted or DEFAULT_CONTEXT_TOKENS, wanted or told or DEFAULT_CONTEXT_TOKENS)


def room_for(context_tokens: int, max_tokens: int, instruction: str, system_prompt: str) -> int:
    """How many bytes of rows a prompt has room for.

    Raises:
        OptionError: There is none.
    """
    longest = max(len(note.encode()) for note in _NOTES)
    said = len(instruction.encode()) + len(system_prompt.encode()) + longest
    room = (context_tokens - max_tokens - TEMPLATE_TOKENS) * BYTES_PER_TOKEN - said
    if room < LEAST_BYTES:
        raise OptionError(
            f"a context of {context_tokens} tokens has no room for rows beside the instruction and the answer",
            hint="Lower max_tokens, or write a shorter instruction.",
        )
    return room


def pack(items: Sequence[Item], room: int) -> Iterator[tuple[Item, ...]]:
    """Put items together, in their order, as many as there is room for; one that is too long stands alone.

    >>> [[item.text for item in some] for some in pack([Item("1"), Item("22"), Item("333")], 5)]
    [['1', '22'], ['333']]
    """
    some: list[Item] = []
    size = 0
    for item in items:
        length = len(item.text.encode()) + len(", ")
        if some and size + length > room + len(", "):
            yield tuple(some)
            some, size = [], 0
        some.append(item)
        size += length
    if some:
        yield tuple(some)


def cut(item: Item, room: int) -> Iterator[Item]:
    """Cut a row that is longer than there is room for into pieces; not one with a picture in it."""
    if len(item.text.encode()) <= room or isinstance(item.text, Illustrated):
        yield item
        return
    row = item.text if item.piece is None else item.piece
    size = len(json.dumps(row, ensure_ascii=False).encode())
    chars = ceil(len(row) / ceil(size / max(1, room - _AROUND_PIECE)))
    for start in range(0, len(row), chars):
        piece = row[start : start + chars]
        yield Item(json.dumps({"piece of a row": piece}, ensure_ascii=False), item.rows, item.of, piece)


class Reduction:
    """One group's tree.

    Args:
        rows: The rows, as JSON texts, at least one.
        room: Bytes of items that a prompt has room for.

    Attributes:
        answer: The answer, once there is one.
        error: Why there is none.
    """

    def __init__(self, rows: Sequence[str], room: int) -> None:
        self.answer: str | None = None
        self.error: str | None = None
        self._room = room
        self._of_rows = True
        self._level: list[Part | Item] = []  # in the rows' order: what is to be asked, and what has been answered
        self._begin([Item(row) for row in rows])

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to be asked."""
        return self.answer is not None or self.error is not None

    def parts(self) -> list[Part]:
        """What to ask now."""
        return [] if self.is_done else [part for part in self._level if isinstance(part, Part)]

    def take(self, outcomes: Sequence[tuple[str | None, str | None]], *, too_long: Sequence[bool]) -> None:
        """Take the outcomes of what was to be asked: a text, or why there is none.

        Args:
            outcomes: As many as there were parts, in their order.
            too_long: Which of them have none because the engine found the prompt too long: they are asked in halves.
        """
        whole = len(self._level) == 1
        given = iter(zip(outcomes, too_long, strict=True))
        level: list[Part | Item] = []
        if any(too_long):
            largest = max(
                len(part.cell.encode()) for part, is_long in zip(self.parts(), too_long, strict=True) if is_long
            )
            self._room = min(self._room, largest) // 2
        for place in self._level:
            if isinstance(place, Item):
                level.append(place)
                continue
            (text, error), is_too_long = next(given)
            if is_too_long and (smaller := self._smaller(place)):
                level += smaller
            elif text is None:
                self.error = error
                return
            elif whole:
                self.answer = text
                return
            else:
                level.append(Item(json.dumps({"rows": place.rows, "said": text}, ensure_ascii=False), place.rows))
        self._level = level
        answered = [item for item in level if isinstance(item, Item)]
        if len(answered) == len(level):
            self._of_rows = False
            self._begin(answered)

    def _begin(self, items: list[Item]) -> None:
        """Begin a level; a last answer that stands alone waits for the next."""
        if self._of_rows:
            items = [piece for item in items for piece in cut(item, self._room)]
        packed = list(pack(items, self._room))
        if not self._of_rows and 1 < len(packed) == len(items):
            raise OptionError(
                "the answers about parts of a group are so long that no two of them fit into the model's context",
                hint="Lower max_tokens, or raise context_tokens.",
            )
        notes = (("", _OF_SOME_ROWS), (_OF_ALL_PARTS, _OF_SOME_PARTS))[not self._of_rows]
        note, column = notes[len(packed) > 1], "rows" if self._of_rows else "parts"
        self._level = [
            some[0] if not self._of_rows and len(some) == 1 < len(packed) else Part(note, column, some)
            for some in packed
        ]

    def _smaller(self, part: Part) -> list[Part]:
        """The same in smaller parts; none where that cannot be."""
        if self._room < _AROUND_PIECE or (len(part.items) == 1 and not self._of_rows):
            return []
        items = [piece for item in part.items for piece in (cut(item, self._room) if self._of_rows else (item,))]
        packed = list(pack(items, self._room))
        if len(packed) < 2:
            half = max(1, len(items) // 2)
            packed = [tuple(items[:half]), tuple(items[half:])] if len(items) > 1 else []
        note, column = (_OF_SOME_ROWS, "rows") if self._of_rows else (_OF_SOME_PARTS, "parts")
        return [Part(note, column, some) for some in packed]
