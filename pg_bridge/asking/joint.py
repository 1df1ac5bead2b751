"""A question about several pairs at once: one row of one side, or some, and a list of the other side's.

In: a matter, and which of its rows. Out: a prompt, a row, the form of the answer; from an answer the pairs that it says
yes to; and where there is no answer, smaller questions about the same pairs.

The list stands in the prompt, in front of the row or the rows. Of one row the answer is numbers of the list; of several
it is pairs of numbers. No number is of both a row and a candidate, so that a pair says which is which in either order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pg_bridge.asking.pairs import Matter
from pg_bridge.asking.prompt import escape, rename_columns
from pg_bridge.options import Call

LIST_ROWS = 40
"""Of one list; of longer ones a model overlooks more. The rows beside it have the numbers behind these."""

FEWEST = 2
"""Pairs that a question about several is worth it for."""

ANSWER_TOKENS = 1_024
"""Of an answer about a block, at most, unless `max_tokens` is more: a longer one would be cut off."""

TOKENS_OF_NUMBER, TOKENS_OF_PAIR, TOKENS_BESIDES = 5, 9, 16  # as models spell them in JSON

_KEY, _ROWS = "yes", "rows"

_LIST_TASK = (
    'Answer for each candidate of this list, where its {columns} stand{s}: {{"yes": […]}} with the numbers of those '
    "for which the answer is yes, none of them if there is none."
)
_BLOCK_TASK = (
    "Answer for each of these candidates, where its {columns} stand{s}, with each of the rows that follow, where its "
    '{others} stand{os}: {{"yes": [[row, candidate], …]}} with the numbers of those pairs for which the answer is yes, '
    "none of them if there is none."
)


@dataclass(frozen=True, slots=True, eq=False)
class Joint:
    """A question about some rows of one side and some of the other.

    Attributes:
        matter: What it is about.
        listed: Which side stands in the list.
        rows: The numbers of the other side's rows.
        candidates: The numbers of the list's.
    """

    matter: Matter
    listed: int
    rows: tuple[int, ...]
    candidates: tuple[int, ...]

    @property
    def is_block(self) -> bool:
        """Whether it is about several rows of both sides."""
        return len(self.rows) > 1

    @property
    def shape(self) -> tuple[int, int]:
        """How many rows and how many candidates it has: what the form of its answer depends on."""
        return len(self.rows), len(self.candidates)

    def pairs(self) -> Iterator[tuple[int, int, list[int]]]:
        """Those of its pairs that there are: the places of a row and a candidate in it, and the pair's own."""
        for i, row in enumerate(self.rows):
            for j, candidate in enumerate(self.candidates):
                if places := self.matter.of(self.listed, row, candidate):
                    yield i, j, places

    def places(self) -> list[int]:
        """The places of all its pairs."""
        return [place for _, _, places in self.pairs() for place in places]

    def halves(self) -> list[Joint]:
        """The same in two questions, of half the rows each, or of half the list; none where that is too little."""
        many = self.rows if self.is_block else self.candidates
        middle = len(many) // 2
        parts = many[:middle], many[middle:]
        if self.is_block:
            return [replace(self, rows=part) for part in parts]
        return [replace(self, candidates=part) for part in parts] if middle >= FEWEST else []

    def lists(self) -> tuple[list[Joint], list[int]]:
        """The same as a list for each row, of the candidates that it is asked about with; and places of lone pairs."""
        of_row: dict[int, list[tuple[int, list[int]]]] = {}
        for i, j, places in self.pairs():
            of_row.setdefault(self.rows[i], []).append((self.candidates[j], places))
        lists, alone = [], []
        for row, asked in of_row.items():
            if len(asked) < FEWEST:
                alone += [place for _, places in asked for place in places]
            else:
                lists.append(replace(self, rows=(row,), candidates=tuple(candidate for candidate, _ in asked)))
        return lists, alone


class Writer:
    """Writes questions about several pairs of one matter; what many of them have in common is written once.

    Args:
        matter: The matter.
    """

    def __init__(self, matter: Matter) -> None:
        self._matter = matter
        self._texts = tuple(list(side) for side in matter.sides)
        self._prompts: dict[tuple[int, tuple[int, ...], bool], str] = {}

    def prompt(self, joint: Joint) -> str:
        """The prompt, with the list in it."""
        key = joint.listed, joint.candidates, joint.is_block
        if key not in self._prompts:
            self._prompts[key] = self._write(*key)
        return self._prompts[key]

    def row(self, joint: Joint) -> str:
        """The row, or an object of the rows by their numbers."""
        texts = [self._texts[1 - joint.listed][row] for row in joint.rows]
        if not joint.is_block:
            return texts[0]
        numbered = (f'"{number}": {text}' for number, text in enumerate(texts, LIST_ROWS + 1))
        return f'{{"{_ROWS}": {{{", ".join(numbered)}}}}}'

    def _write(self, listed: int, candidates: Sequence[int], is_block: bool) -> str:
        """Columns of the list become words; those of the other side stay columns of one row."""
        columns, others = self._matter.columns[listed], self._matter.columns[1 - listed]
        words: dict[str, str] = {}
        for name, of_side in (("columns", columns), ("others", others)):
            words[name] = " and ".join(of_side)
            words["s" if name == "columns" else "os"] = "" if len(of_side) > 1 else "s"
        task = (_BLOCK_TASK if is_block else _LIST_TASK).format(**words)
        texts = self._texts[listed]
        behind = "\n".join((task, *(f"{n}. {texts[candidate]}" for n, candidate in enumerate(candidates, 1))))
        return f"{rename_columns(self._matter.prompt, columns + others if is_block else columns)}\n{escape(behind)}"


def call_about(call: Call, rows: int, candidates: int, most_tokens: int = ANSWER_TOKENS) -> Call:
    """How so many rows and candidates are asked about; what is not answered is asked about in smaller questions.

    Args:
        call: How a pair is asked about.
        rows: 1 is a list, more are a block.
        candidates: Of the list.
        most_tokens: Of an answer about a block, at most.
    """
    of_list = list(range(1, candidates + 1))
    number: dict[str, object] = {"type": "integer", "enum": of_list}
    if rows > 1:
        either = {"type": "integer", "enum": [*of_list, *range(LIST_ROWS + 1, LIST_ROWS + rows + 1)]}
        number = {"type": "array", "items": either, "minItems": 2, "maxItems": 2}
    numbers = {"type": "array", "items": number, "maxItems": rows * candidates}
    schema = json.dumps(  # an object, because some engines can be held to nothing else
        {"type": "object", "properties": {_KEY: numbers}, "required": [_KEY], "additionalProperties": False}
    )
    needed = tokens_of_answer(rows, candidates)
    most = max(call.max_tokens, needed if rows == 1 else min(needed, most_tokens))
    return replace(call, kind="json", choices=(), schema=schema, max_tokens=most, on_error="null")


def tokens_of_answer(rows: int, candidates: int) -> int:
    """Of an answer that is yes for all pairs."""
    return TOKENS_BESIDES + (TOKENS_OF_NUMBER if rows == 1 else TOKENS_OF_PAIR) * rows * candidates


def read_yes(answer: str | None, rows: int, candidates: int) -> set[tuple[int, int]] | None:
    """The pairs for which the answer is yes, by the places of row and candidate; None for what is no answer.

    >>> sorted(read_yes('{"yes": [1, 3]}', 1, 3)), sorted(read_yes('{"yes": [[41, 3], [2, 42]]}', 2, 3))
    ([(0, 0), (0, 2)], [(0, 2), (1, 1)])
    >>> [read_yes(f'{{"yes": {pairs}}}', 2, 3) for pairs in ("[]", "[[1, 2]]", "[[43, 1]]", "[1]")]
    [set(), None, None, None]
    """
    try:
        told = json.loads(answer or "")[_KEY]
    except (ValueError, RecursionError, TypeError, LookupError):
        return None
    if not isinstance(told, list):
        return None
    found = set()
    for each in told:
        pair = (LIST_ROWS + 1, each) if rows == 1 else each
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(type(number) is int for number in pair):
            return None
        candidate, row = sorted(pair)
        if not (1 <= candidate <= candidates and LIST_ROWS < row <= LIST_ROWS + rows):
            return None
        found.add((row - LIST_ROWS - 1, candidate - 1))
    return found
