"""Yes/no questions about pairs, as a join asks them: which of them belong together, and what their sides are.

In: prompts, and inputs that are two rows side by side. Out: matters, each a condition with the different rows of both
sides and the pairs of them that there are; and what is no such pair. Which of them are asked together in one question,
`pair_plans` says. The text of a question never mixes with a row's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pg_bridge.asking.prompt import parse_question
from pg_bridge.errors import PgBridgeError
from pg_bridge.rows.cutting import cells_of, object_of, sides_of
from pg_bridge.rows.media import lift, may_hold_media

_WORK_ROWS = 1_000
_BEGIN, _END = '{"":[', "]}"

Columns = tuple[tuple[str, ...], tuple[str, ...]]
"""Those that are sent of either side."""


@dataclass(slots=True, eq=False)
class Matter:
    """A condition, and the pairs that it is asked about.

    Attributes:
        prompt: With columns in braces.
        columns: What is sent of either side.
        sides: The different rows of either side, as JSON objects of what is sent of them, each with its number.
        places: Of each pair, by the numbers of its rows, where it stands among the calls.
    """

    prompt: str
    columns: Columns
    sides: tuple[dict[str, int], dict[str, int]] = field(default_factory=lambda: ({}, {}))
    places: dict[tuple[int, int], list[int]] = field(default_factory=dict)

    def add(self, texts: tuple[str, str], place: int) -> None:
        """Count a pair in."""
        left, right = self.sides
        pair = left.setdefault(texts[0], len(left)), right.setdefault(texts[1], len(right))
        self.places.setdefault(pair, []).append(place)

    def of(self, listed: int, row: int, candidate: int) -> list[int]:
        """The places of a pair of a row and one of the side that is listed; none where it is not asked about."""
        return self.places.get((candidate, row) if listed == 0 else (row, candidate), [])


@dataclass(frozen=True, slots=True)
class _Pair:
    """A pair: its sides as JSON objects of what is sent of them, and their columns."""

    texts: tuple[str, str]
    columns: Columns


def find_pairs(
    prompts: Sequence[str | None], rows: Sequence[str | None], work: Callable[[], None] = lambda: None
) -> tuple[list[Matter], list[int]]:
    """Find the pairs among questions.

    Args:
        prompts: (n,) the prompt of each.
        rows: (n,) the input of each, a JSON object; two rows side by side are a pair.
        work: Called now and then.

    Returns:
        Conditions with their pairs; and the places of what is none.
    """
    matters: dict[tuple[str, Columns], Matter] = {}
    others: list[int] = []
    cut = _Cutter()
    for place, (prompt, row) in enumerate(zip(prompts, rows, strict=True)):
        if place % _WORK_ROWS == 0:
            work()
        pair = cut(prompt, row)
        if pair is None or prompt is None:
            others.append(place)
            continue
        key = prompt, pair.columns
        if key not in matters:
            matters[key] = Matter(*key)
        matters[key].add(pair.texts, place)
    return list(matters.values()), others


@dataclass(frozen=True, slots=True)
class _Side:
    """A row of a pair: its columns and its cells."""

    columns: tuple[str, ...]
    cells: dict[str, str]


class _Cutter:
    """Tells pairs by their prompt and their row; what many have in common is looked at once."""

    def __init__(self) -> None:
        self._named: dict[str, tuple[str, ...] | None] = {}
        self._sides: dict[str, _Side | None] = {}
        self._columns: dict[tuple[tuple[str, ...], ...], Columns | None] = {}
        self._texts: dict[tuple[str, tuple[str, ...]], str] = {}
        self._head, self._tail, self._latest = "\0", "\0", ("", "")

    def __call__(self, prompt: str | None, row: str | None) -> _Pair | None:
        """The pair; None for what is none, and for what is wrong, which is told when it is asked about alone."""
        named = self._named_in(prompt)
        try:
            sides = None if row is None or named is None or _has_media(row) else self._split(row)
        except (PgBridgeError, ValueError):
            return None
        if named is None or sides is None:
            return None
        left, right = map(self._side, sides)
        if left is None or right is None:
            return None
        key = named, left.columns, right.columns
        if key not in self._columns:
            self._columns[key] = _choose(*key)
        columns = self._columns[key]
        if columns is None:
            return None
        return _Pair((self._text(sides[0], left, columns[0]), self._text(sides[1], right, columns[1])), columns)

    def _split(self, row: str) -> tuple[str, str] | None:
        """Both sides. One of them is mostly that of the row before, and the other one has been seen."""
        left, right = self._latest
        if row.startswith(self._head) and (other := row[len(self._head) : -len(_END)]) in self._sides:
            return (left, other) if row.endswith(_END) else None
        if row.endswith(self._tail) and (other := row[len(_BEGIN) : -len(self._tail)]) in self._sides:
            return (other, right) if row.startswith(_BEGIN) else None
        sides = sides_of(row)
        if sides is None or len(sides) != 2:
            return None
        left, right = sides
        head, tail = f"{_BEGIN}{left}", f"{right}{_END}"
        if row.startswith(head) and row.endswith(tail):  # as SQL's llm.row spells it
            between = row[len(head) : -len(tail)]
            self._latest, self._head, self._tail = (left, right), head + between, between + tail
        return left, right

    def _named_in(self, prompt: str | None) -> tuple[str, ...] | None:
        if prompt is None:
            return None
        if prompt not in self._named:
            try:
                self._named[prompt] = parse_question(prompt).columns
            except PgBridgeError:
                self._named[prompt] = None
        return self._named[prompt]

    def _side(self, side: str) -> _Side | None:
        if side not in self._sides:
            try:
                named = cells_of(side)
            except (PgBridgeError, ValueError):
                named = None
            cells = dict(named or ())
            is_one = named is not None and len(cells) == len(named)
            self._sides[side] = _Side(tuple(cells), cells) if is_one else None
        return self._sides[side]

    def _text(self, side: str, cut: _Side, columns: tuple[str, ...]) -> str:
        key = side, columns
        if key not in self._texts:
            self._texts[key] = object_of((name, cut.cells[name]) for name in columns)
        return self._texts[key]


def _has_media(row: str) -> bool:
    """Whether there is a picture in a row: of such each pair is asked about by itself."""
    return may_hold_media(row) and lift(row) is not row


def _choose(named: tuple[str, ...], left: tuple[str, ...], right: tuple[str, ...]) -> Columns | None:
    """The columns that are sent of either side; None where it is not clear of which, or of one there are none."""
    if set(left) & set(right) & set(named or left):
        return None
    chosen = [tuple(name for name in side if not named or name in named) for side in (left, right)]
    if not all(chosen) or len(named) > sum(map(len, chosen)):
        return None
    return chosen[0], chosen[1]
