"""Yes/no questions about pairs, as a join asks them: which pairs there are, and what is sent of each.

In: prompts, and inputs that are two rows side by side. Out: the pairs that may be asked about together, and the places
of what is to be asked one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pg_bridge.asking.prompt import parse_question
from pg_bridge.errors import PgBridgeError
from pg_bridge.rows.cutting import cells_of, object_of, sides_of

_WORK_ROWS = 1_000

Columns = tuple[tuple[str, ...], tuple[str, ...]]
"""What is sent of the left side and of the right one."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs about which the same is asked.

    Attributes:
        prompt: What.
        columns: Of the sides.
        places: For each two texts, JSON objects of what is sent of the sides, where the pair stands; several times, it
            may be.
    """

    prompt: str
    columns: Columns
    places: dict[tuple[str, str], list[int]] = field(default_factory=dict)


def find_pairs(
    prompts: Sequence[str | None],
    rows: Sequence[str | None],
    places: Sequence[int],
    work: Callable[[], None] = lambda: None,
) -> tuple[list[Pairs], list[int]]:
    """Find the pairs among some inputs.

    Args:
        prompts: (n,) the prompt of each.
        rows: (n,) the input of each, a JSON object; two rows side by side are a pair.
        places: Which of them to look at.
        work: Called now and then.

    Returns:
        Pairs, put together by what is asked; and the places of what is none, or wrong.
    """
    alike: dict[tuple[str, Columns], Pairs] = {}
    others: list[int] = []
    cut = _Cutter()
    for number, place in enumerate(places):
        if number % _WORK_ROWS == 0:
            work()
        prompt = prompts[place]
        pair = cut(prompt, rows[place])
        if pair is None or prompt is None:
            others.append(place)
        else:
            of_shape = alike.setdefault((prompt, pair.columns), Pairs(prompt, pair.columns))
            of_shape.places.setdefault(pair.texts, []).append(place)
    return list(alike.values()), others


@dataclass(frozen=True, slots=True)
class _Pair:
    """A pair: its sides as JSON objects of what is sent of them, and their columns."""

    texts: tuple[str, str]
    columns: Columns


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
