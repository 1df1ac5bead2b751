"""Questions about several pairs at once: a row of one side, or some, and a list of the other's.

In: pairs about which the same is asked. Out: joint questions, each with the pairs that it answers, and what comes of
their answers. Every row with every other is as many questions as there are pairs; with lists of forty it is a fortieth
of them, with blocks of eight rows an eighth of that, and those about one list begin alike.

The list is of the side whose texts are shorter: names, labels, titles. The text of a question never mixes with a row's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from pg_bridge.asking.pairs import Pairs
from pg_bridge.asking.prompt import escape, rename_columns
from pg_bridge.asking.reduction import BYTES_PER_TOKEN, TEMPLATE_TOKENS
from pg_bridge.ledger.spending import CHARS_PER_TOKEN
from pg_bridge.options import Call
from pg_bridge.options.values import Pairs as Way

LIST_ROWS = 40
LIST_CHARS = 4_000
"""Of the rows of one list. Longer ones are answered worse."""

BLOCK_ROWS = 8
"""Rows of the other side that are asked about at once."""

EXPECTED_YES = 0.25
"""The share of a block's pairs for which its answer has room. One with more is cut off, and asked about in lists."""

DEAREST = 2.0
"""How many times the tokens of the cheapest way a more exact one may take, where the way is chosen."""

_YES = "yes"
_FEWEST = 2  # pairs that a joint question is worth it for
_TOKENS_OF_NUMBER, _TOKENS_OF_ROW, _TOKENS_BESIDES = 5, 8, 16
_TOKENS_OF_A_QUESTION = 24  # around its row: the template's, its last block of the cache, its first token

_ABOUT_ONE = (
    'Answer for each candidate of this list, where its {columns} stand{s}: {{"yes": […]}} with the numbers of those '
    "for which the answer is yes, none of them if there is none."
)
_ABOUT_SOME = (
    "Answer for each of the numbered rows, and for each candidate of this list, where its {columns} stand{s}: "
    '{{"1": […], "2": […], …}} with, for every row, the numbers of those candidates for which the answer is yes, '
    "none of them if there is none."
)


@dataclass(frozen=True, slots=True)
class Joint:
    """A question about one row or several, and a list.

    Attributes:
        prompt: With the list in it.
        row: The row, a JSON object; of several an object that has them by their numbers, from 1 on.
        places: For each row and each candidate the pairs that they are, by their places.
    """

    prompt: str
    row: str
    places: tuple[tuple[tuple[int, ...], ...], ...]

    @property
    def rows(self) -> int:
        """How many rows it is about."""
        return len(self.places)

    @property
    def candidates(self) -> int:
        """How many candidates its list has."""
        return len(self.places[0])

    def pairs(self) -> Iterator[tuple[int, ...]]:
        """The places of each of its pairs."""
        return (places for candidates in self.places for places in candidates)


def put_together(some: Iterable[Pairs], most_rows: int, context_tokens: int) -> tuple[list[Joint], list[int]]:
    """Put questions about pairs together.

    Args:
        some: The pairs.
        most_rows: How many rows a question may be about; 1 for lists, `BLOCK_ROWS` for blocks.
        context_tokens: What a prompt and its answer may have together.

    Returns:
        Joint questions; and the places of the pairs of which too few are left for one.
    """
    joint: list[Joint] = []
    alone: list[int] = []
    for pairs in some:
        for each in _questions(pairs, most_rows, context_tokens):
            if isinstance(each, Joint):
                joint.append(each)
            else:
                alone += each
    return joint, alone


def call_about(call: Call, rows: int, candidates: int) -> Call:
    """How so many rows and candidates are asked about; what fails is asked about in smaller parts."""
    numbers = {
        "type": "array",
        "items": {"type": "integer", "enum": list(range(1, candidates + 1))},
        "maxItems": candidates,
    }
    keys = [_YES] if rows == 1 else [str(number) for number in range(1, rows + 1)]
    schema = json.dumps(  # an object, because some engines can be held to nothing else
        {"type": "object", "properties": dict.fromkeys(keys, numbers), "required": keys, "additionalProperties": False}
    )
    most = max(call.max_tokens, _answer_tokens(rows, candidates, 1.0 if rows == 1 else EXPECTED_YES))
    return replace(call, kind="json", choices=(), schema=schema, max_tokens=most, on_error="null")


def read_answer(answer: str | None, rows: int, candidates: int) -> list[set[int]] | None:
    """For each row the candidates for which the answer is yes, counted from 0; None for what is no answer.

    >>> [read_answer(f'{{"yes": {numbers}}}', 1, 3) for numbers in ("[1, 3]", "[]", "[4]", "[true]")]
    [[{0, 2}], [set()], None, None]
    >>> [read_answer(said, 2, 3) for said in ('{"1": [3], "2": []}', '{"1": [3]}')]
    [[{2}, set()], None]
    """
    try:
        said = json.loads(answer or "")
        of_rows = [said[_YES]] if rows == 1 else [said[str(number)] for number in range(1, rows + 1)]
    except (ValueError, RecursionError, TypeError, LookupError):
        return None
    for numbers in of_rows:
        if not isinstance(numbers, list) or not all(type(n) is int and 1 <= n <= candidates for n in numbers):
            return None
    return [{number - 1 for number in numbers} for numbers in of_rows]


def ways_of(pairs: Way, some: Sequence[Pairs], context_tokens: int) -> Sequence[int]:
    """About how many rows a question is, at most: first, and where that fails.

    Where nobody says, the most exact way is taken that costs at most `DEAREST` times what the cheapest does, in
    tokens to compute, by lengths. That depends on the pairs alone.
    """
    ways: dict[Way, Sequence[int]] = {"each": (), "listed": (1,), "blocks": (BLOCK_ROWS, 1)}
    if pairs in ways:
        return ways[pairs]
    tokens = {"each": sum(map(_tokens_of_each, some))}
    for way in ("listed", "blocks"):
        joint, alone = put_together(some, ways[way][0], context_tokens)
        tokens[way] = _tokens_of_joint(joint) + len(alone) * _TOKENS_OF_A_QUESTION
    return ways[next(way for way in ways if tokens[way] <= DEAREST * min(tokens.values()))]


def fewest(pairs: Way, count: int) -> int:
    """How many questions so many pairs are at least.

    >>> [fewest(way, 401) for way in ("each", "listed", "blocks", "auto")]
    [401, 11, 2, 2]
    """
    rows = {"each": 0, "listed": 1}.get(pairs, BLOCK_ROWS)
    return -(-count // (rows * LIST_ROWS or 1))


def _questions(pairs: Pairs, most_rows: int, context_tokens: int) -> Iterator[Joint | list[int]]:
    """Lists of the shorter side, for the rows of the other; or the places of what is too little for one."""
    sides: tuple[dict[str, None], dict[str, None]] = {}, {}
    for texts in pairs.places:
        for side, text in zip(sides, texts, strict=True):
            side[text] = None
    listed = min((1, 0), key=lambda side: (len(sides[side]) < _FEWEST, sum(map(len, sides[side]))))
    list_of = _cut_in_lists(sides[listed])
    of_row: dict[tuple[int, str], dict[str, list[int]]] = {}
    for texts, places in pairs.places.items():
        of_row.setdefault((list_of[texts[listed]], texts[1 - listed]), {})[texts[listed]] = places
    order = {text: number for number, text in enumerate(sides[listed])}
    alike: dict[tuple[str, ...], list[str]] = {}  # which rows have the same candidates left
    # List after list, so that the prompts of one come one after the other.
    for (_, row), candidates in sorted(of_row.items(), key=lambda item: item[0][0]):
        if len(candidates) < _FEWEST:
            yield [place for places in candidates.values() for place in places]
        else:
            alike.setdefault(tuple(sorted(candidates, key=order.__getitem__)), []).append(row)
    for texts_of_list, rows in alike.items():
        number = list_of[texts_of_list[0]]
        words = pairs.columns[listed]
        about_one = _about(_ABOUT_ONE, pairs.prompt, words, words, texts_of_list)
        words_of_both = pairs.columns[0] + pairs.columns[1]
        about_some = _about(_ABOUT_SOME, pairs.prompt, words, words_of_both, texts_of_list)
        room = _room(about_some, len(texts_of_list), most_rows, context_tokens)
        for some in _cut_in_blocks(rows, most_rows, room):
            places_of = tuple(tuple(tuple(of_row[number, row][text]) for text in texts_of_list) for row in some)
            yield (
                Joint(about_one, some[0], places_of)
                if len(some) == 1
                else Joint(about_some, _numbered(some), places_of)
            )


def _cut_in_lists(texts: Iterable[str]) -> dict[str, int]:
    """Which list each text is of."""
    list_of: dict[str, int] = {}
    number = rows = chars = 0
    for text in texts:
        if rows and (rows == LIST_ROWS or chars + len(text) > LIST_CHARS):
            number, rows, chars = number + 1, 0, 0
        list_of[text] = number
        rows, chars = rows + 1, chars + len(text)
    return list_of


def _cut_in_blocks(rows: Sequence[str], most: int, room: int) -> Iterator[list[str]]:
    some: list[str] = []
    size = 0
    for row in rows:
        if some and (len(some) == most or size + len(row.encode()) > room):
            yield some
            some, size = [], 0
        some.append(row)
        size += len(row.encode())
    yield some


def _room(about: str, candidates: int, rows: int, context_tokens: int) -> int:
    """Bytes that a block's rows may have together."""
    answer = _answer_tokens(rows, candidates, EXPECTED_YES)
    return (context_tokens - answer - TEMPLATE_TOKENS) * BYTES_PER_TOKEN - len(about.encode())


def _answer_tokens(rows: int, candidates: int, share: float) -> int:
    """How long an answer may be, where so large a share of the pairs is said yes to."""
    return _TOKENS_BESIDES + rows * (_TOKENS_OF_ROW + _TOKENS_OF_NUMBER * max(1, math.ceil(share * candidates)))


def _numbered(rows: Sequence[str]) -> str:
    return "{" + ", ".join(f'"{number}": {row}' for number, row in enumerate(rows, 1)) + "}"


def _about(task: str, prompt: str, columns: Sequence[str], words: Sequence[str], texts: Sequence[str]) -> str:
    """The prompt about a list.

    Args:
        task: What to do with it.
        prompt: The question about a pair.
        columns: What the list has.
        words: Of what the question names, what becomes a word: it is no column of the row.
        texts: The list.
    """
    task = task.format(columns=" and ".join(columns), s="" if len(columns) > 1 else "s")
    candidates = (f"{number}. {text}" for number, text in enumerate(texts, 1))
    behind = "\n".join((task, *candidates))
    return f"{rename_columns(prompt, words)}\n{escape(behind)}"


def _tokens_of_each(pairs: Pairs) -> float:
    """What is to be computed for each pair by itself: rows of one side once, in front, and the other's ever again."""
    once = [sum(map(len, {texts[side] for texts in pairs.places})) for side in (0, 1)]
    each_time = [sum(len(texts[side]) for texts in pairs.places) for side in (0, 1)]
    chars = min(once[0] + each_time[1], once[1] + each_time[0])
    return chars / CHARS_PER_TOKEN + len(pairs.places) * _TOKENS_OF_A_QUESTION


def _tokens_of_joint(joint: Sequence[Joint]) -> float:
    heads = sum(map(len, {each.prompt for each in joint})) / CHARS_PER_TOKEN
    return heads + sum(
        len(each.row) / CHARS_PER_TOKEN
        + _TOKENS_OF_A_QUESTION
        + _answer_tokens(each.rows, each.candidates, EXPECTED_YES / 2)
        for each in joint
    )
