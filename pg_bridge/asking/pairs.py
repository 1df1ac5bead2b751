"""Yes/no questions about pairs, as a join asks them, put together: one row of one side and a list of the other's.

In: prompts, and inputs that are two rows side by side. Out: questions about lists, each with the pairs that it answers,
and the pairs that are asked about one by one. Every row with every other is as many questions as there are pairs; with
lists of forty it is a fortieth of them, and those about one list begin alike.

The list is of the side whose texts are shorter: names, labels, titles. The text of a question never mixes with a row's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from pg_bridge.asking.prompt import escape, parse_question, rename_columns
from pg_bridge.errors import PgBridgeError
from pg_bridge.options import Call
from pg_bridge.rows.cutting import cells_of, object_of, sides_of

LIST_ROWS = 40
LIST_CHARS = 4_000
"""Of the rows of one list. Longer ones are answered worse, and one must stay within the model's context."""

_KEY = "yes"
_FEWEST = 2  # pairs that a list is worth it for
_WORK_ROWS = 1_000
_TOKENS_OF_NUMBER, _TOKENS_BESIDES = 5, 16

_TASK = (
    'Answer for each candidate of this list, where its {columns} stand{s}: {{"yes": […]}} with the numbers of those '
    "for which the answer is yes, none of them if there is none."
)


_Columns = tuple[tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Listed:
    """A question about one row and a list.

    Attributes:
        prompt: With the list in it.
        row: The row, a JSON object.
        places: For each candidate the pairs that it and the row are, by their places.
    """

    prompt: str
    row: str
    places: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class _Pair:
    """A pair: its sides as JSON objects of what is sent of them, and their columns."""

    texts: tuple[str, str]
    columns: _Columns


def arrange(
    prompts: Sequence[str | None], rows: Sequence[str | None], work: Callable[[], None] = lambda: None
) -> tuple[list[Listed], list[int]]:
    """Put questions about pairs together.

    Args:
        prompts: (n,) the prompt of each.
        rows: (n,) the input of each, a JSON object; two rows side by side are a pair.
        work: Called now and then.

    Returns:
        Questions about lists; and the places of what is to be asked one by one, in their order.
    """
    of_shape: dict[tuple[str, _Columns], dict[tuple[str, str], list[int]]] = {}
    alone: list[int] = []
    cut = _Cutter()
    for place, (prompt, row) in enumerate(zip(prompts, rows, strict=True)):
        if place % _WORK_ROWS == 0:
            work()
        pair = cut(prompt, row)
        if pair is None or prompt is None:
            alone.append(place)
        else:
            of_shape.setdefault((prompt, pair.columns), {}).setdefault(pair.texts, []).append(place)
    listed: list[Listed] = []
    for (shared, columns), places_of in of_shape.items():
        for question in _lists(shared, columns, places_of):
            if isinstance(question, Listed):
                listed.append(question)
            else:
                alone += question
    return listed, sorted(alone)


def call_about(call: Call, size: int) -> Call:
    """How a list of so many candidates is asked about; a row that fails is asked about in pairs."""
    numbers = {"type": "array", "items": {"type": "integer", "enum": list(range(1, size + 1))}, "maxItems": size}
    schema = json.dumps(  # an object, because some engines can be held to nothing else
        {"type": "object", "properties": {_KEY: numbers}, "required": [_KEY], "additionalProperties": False}
    )
    most = max(call.max_tokens, _TOKENS_BESIDES + _TOKENS_OF_NUMBER * size)
    return replace(call, kind="json", choices=(), schema=schema, max_tokens=most, on_error="null")


def read_numbers(answer: str | None, size: int) -> set[int] | None:
    """The candidates for which the answer is yes, counted from 0; None for what is no answer.

    >>> [read_numbers(f'{{"yes": {numbers}}}', 3) for numbers in ("[1, 3]", "[]", "[4]", "[true]")]
    [{0, 2}, set(), None, None]
    """
    try:
        numbers = json.loads(answer or "")[_KEY]
    except (ValueError, RecursionError, TypeError, LookupError):
        return None
    if not isinstance(numbers, list) or not all(type(n) is int and 1 <= n <= size for n in numbers):
        return None
    return {number - 1 for number in numbers}


def _lists(prompt: str, columns: _Columns, places_of: dict[tuple[str, str], list[int]]) -> Iterator[Listed | list[int]]:
    """Lists of the shorter side, for each row of the other; or the places of what is too little for one."""
    sides: tuple[dict[str, None], dict[str, None]] = {}, {}
    for texts in places_of:
        for side, text in zip(sides, texts, strict=True):
            side[text] = None
    listed = min((1, 0), key=lambda side: (len(sides[side]) < _FEWEST, sum(map(len, sides[side]))))
    outer = 1 - listed
    block_of = _blocks(sides[listed])
    of_block: dict[tuple[int, str], dict[str, list[int]]] = {}
    for texts, places in places_of.items():
        of_block.setdefault((block_of[texts[listed]], texts[outer]), {})[texts[listed]] = places
    # Block after block, so that the prompts of one list come one after the other.
    order = {text: number for number, text in enumerate(sides[listed])}
    about: dict[tuple[str, ...], str] = {}
    for (_, row), candidates in sorted(of_block.items(), key=lambda item: item[0][0]):
        if len(candidates) < _FEWEST:
            yield [place for places in candidates.values() for place in places]
            continue
        texts_of_list = tuple(sorted(candidates, key=order.__getitem__))
        if texts_of_list not in about:
            about[texts_of_list] = _about(prompt, columns[listed], texts_of_list)
        yield Listed(about[texts_of_list], row, tuple(tuple(candidates[text]) for text in texts_of_list))


def _blocks(texts: dict[str, None]) -> dict[str, int]:
    """Which list each text is of."""
    block_of: dict[str, int] = {}
    block = rows = chars = 0
    for text in texts:
        if rows and (rows == LIST_ROWS or chars + len(text) > LIST_CHARS):
            block, rows, chars = block + 1, 0, 0
        block_of[text] = block
        rows, chars = rows + 1, chars + len(text)
    return block_of


def _about(prompt: str, columns: tuple[str, ...], texts: tuple[str, ...]) -> str:
    """The prompt about a list: what it names of the list becomes a word, what of the other side stays a column."""
    task = _TASK.format(columns=" and ".join(columns), s="" if len(columns) > 1 else "s")
    candidates = (f"{number}. {text}" for number, text in enumerate(texts, 1))
    behind = "\n".join((task, *candidates))
    return f"{rename_columns(prompt, columns)}\n{escape(behind)}"


class _Cutter:
    """Tells pairs by their prompt and their row; what many have in common is looked at once."""

    def __init__(self) -> None:
        self._named: dict[str, tuple[str, ...] | None] = {}
        self._sides: dict[str, dict[str, str] | None] = {}

    def __call__(self, prompt: str | None, row: str | None) -> _Pair | None:
        """The pair; None for what is none, and for what is wrong, which is told when it is asked about alone."""
        named = self._columns(prompt)
        try:
            sides = None if row is None or named is None else sides_of(row)
        except (PgBridgeError, ValueError):
            return None
        if named is None or sides is None or len(sides) != 2:
            return None
        left, right = map(self._cells, sides)
        if left is None or right is None or left.keys() & right.keys() & set(named or left):
            return None
        chosen = [tuple(name for name in side if not named or name in named) for side in (left, right)]
        if not all(chosen) or len(named) > sum(map(len, chosen)):
            return None
        texts = [
            object_of((name, side[name]) for name in names) for side, names in zip((left, right), chosen, strict=True)
        ]
        return _Pair((texts[0], texts[1]), (chosen[0], chosen[1]))

    def _columns(self, prompt: str | None) -> tuple[str, ...] | None:
        if prompt is None:
            return None
        if prompt not in self._named:
            try:
                self._named[prompt] = parse_question(prompt).columns
            except PgBridgeError:
                self._named[prompt] = None
        return self._named[prompt]

    def _cells(self, side: str) -> dict[str, str] | None:
        if side not in self._sides:
            try:
                named = cells_of(side)
            except (PgBridgeError, ValueError):
                named = None
            cells = None if named is None else dict(named)
            self._sides[side] = cells if cells is not None and len(cells) == len(named or ()) else None
        return self._sides[side]
