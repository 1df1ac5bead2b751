"""The best few of many rows, by questions that each put a short list of rows in order.

In: how many rows, how many of them are wanted, how many a question may compare. Out: round after round, lists of rows
to be put in order, and at the end who stands where. Nothing here is asked, and no row is looked at: rows are numbers.

    all → lists, one round → of each list its head → … → those that are left, each compared with each → standings

Who stands at a place of a list has as many rows above it. So where that row is not among the best of those at the same
place of all lists, all from there on are out. How many questions that takes depends on the numbers alone and on no
answer: `questions_of` tells it beforehand, and no answers, however they contradict one another, make them more.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, combinations

import numpy as np
from numpy.typing import NDArray

SPARE = 4
"""Rows more than are wanted that are kept until each is compared with each: who was misjudged may come back."""

_ROUND_IS_WORTH = 10  # questions, or a tenth of the first lists: so many more are asked to save waiting for one round
_WAYS = 8  # that are looked at, about
_WORTH_IT = 0.9  # of the rows; else there would be no end to small steps
_SEED = 62  # the same rows are compared in the same lists, so that answers are found again

List = tuple[int, ...]
"""Rows that a question compares, in the order in which it shows them."""
Order = Sequence[int] | None
"""The rows of a list that the answer names, the best first; None where there is no answer."""
Rounds = Generator[list[List], list[Order], list[int]]


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a row stands.

    Attributes:
        row: The row.
        rank: One more than rows are better: those that comparisons cannot tell apart have the same.
        ties: How many others have the same.
        agreement: Of its last comparisons with rows of other ranks those that agree with the ranks, from 0 to 1; None
            where there was none.
    """

    row: int
    rank: int
    ties: int
    agreement: float | None


@dataclass(frozen=True, slots=True)
class Effort:
    """What finding the best takes.

    Attributes:
        questions: Lists to be put in order.
        rounds: How often all questions that can be asked together are asked.
        met: How many rows are compared each with each, at most: what is held of that grows with its square.
    """

    questions: int
    rounds: int
    met: int = 0

    def __add__(self, other: Effort) -> Effort:
        return Effort(self.questions + other.questions, self.rounds + other.rounds, max(self.met, other.met))


@dataclass(frozen=True, slots=True)
class _Plan:
    """How the best are found.

    Attributes:
        effort: What it takes.
        place: At which place of each list its row is compared with those of the others; None for no further lists.
        heads: How many of these are good enough.
        left: How many rows are left then.
    """

    effort: Effort
    place: int | None = None
    heads: int = 0
    left: int = 0


def questions_of(rows: int, wanted: int, size: int) -> Effort:
    """What finding the best of some rows takes, whatever is answered.

    Args:
        rows: How many there are.
        wanted: How many of them are to be ranked.
        size: How many a question compares, at least 2.

    >>> questions_of(1000, 10, 10), questions_of(10, 3, 10)
    (Effort(questions=228, rounds=11, met=39), Effort(questions=4, rounds=1, met=10))
    """
    if rows < 2 or wanted < 1:
        return Effort(0, 0)
    return _planner(rows, size).plan(rows, min(rows, wanted + SPARE), 2).effort


class _Planner:
    """Finds the cheapest way, by size alone.

    Args:
        size: How many rows a question compares.
        round_is_worth: Questions: so many more are asked to save waiting for one round.
    """

    def __init__(self, size: int, round_is_worth: int) -> None:
        self._size = size
        self._round_is_worth = round_is_worth
        self._known: dict[tuple[int, int, int], _Plan] = {}

    def plan(self, rows: int, wanted: int, orders: int) -> _Plan:
        """The cheapest way to the best of some rows; `orders` is in how many orders the last lists are shown."""
        key = (rows, wanted, orders)
        if key not in self._known:
            self._known[key] = self._find(rows, wanted, orders)
        return self._known[key]

    def _find(self, rows: int, wanted: int, orders: int) -> _Plan:
        best = _Plan(Effort(_count_meetings(rows, self._size, orders), 1, rows) if rows > 1 else Effort(0, 0))
        if rows <= self._size:
            return best
        lists = -(-rows // self._size)
        shortest, longest = rows // lists, -(-rows // lists)
        # No head of a list is put aside for one misplaced row: of ten it would have to be two.
        first = min(self._size // 5, wanted // 3)
        end = min(shortest, wanted)
        for place in range(first, end, max(1, (end - first) // _WAYS)):
            heads = -(-wanted // (place + 1))
            left = heads * min(longest, wanted) + (lists - heads) * place
            if heads < lists and left <= _WORTH_IT * rows:
                asked = rows - lists if shortest == 1 else lists  # not of one row
                effort = Effort(asked, 1) + self.plan(lists, heads, 1).effort + self.plan(left, wanted, orders).effort
                if self._worth(effort) < self._worth(best.effort):
                    best = _Plan(effort, place, heads, left)
        return best

    def _worth(self, effort: Effort) -> int:
        return effort.questions + self._round_is_worth * effort.rounds


def _planner(rows: int, size: int) -> _Planner:
    return _Planner(size, max(_ROUND_IS_WORTH, rows // size // 10))


def _count_meetings(rows: int, size: int, orders: int) -> int:
    """Lists in which each of some rows meets each other one, in so many orders."""
    if rows <= size:
        return orders * (orders if rows > 2 else 1)
    blocks = -(-rows // max(1, size // 2))
    return orders * blocks * (blocks - 1) // 2


class Contest:
    """Finds the best of some rows.

    Args:
        rows: How many there are, at least one.
        wanted: How many of them are to be ranked, at least one.
        size: How many a question compares, at least 2.

    Attributes:
        standings: Of the wanted rows and some more, the best first, once there is nothing left to be asked.
        unanswered: How many questions had no answer: their rows stand as if they had not been compared.
    """

    def __init__(self, rows: int, wanted: int, size: int) -> None:
        self.standings: list[Standing] | None = None
        self.unanswered = 0
        self._random = random.Random(_SEED)
        self._size = size
        self._planner = _planner(rows, size)
        self._lists: list[List] = []
        self._rounds = self._play(rows, min(wanted, rows))
        self._go_on(None)

    def lists(self) -> list[List]:
        """What to ask now, all of it together; empty at the end."""
        return self._lists

    def take(self, orders: list[Order]) -> None:
        """Take the answers to what was to be asked, in its order."""
        self.unanswered += sum(order is None for order in orders)
        self._go_on(orders)

    def _go_on(self, orders: list[Order] | None) -> None:
        try:
            self._lists = next(self._rounds) if orders is None else self._rounds.send(orders)
        except StopIteration:
            self._lists = []

    def _play(self, rows: int, wanted: int) -> Rounds:
        left = yield from self._sift(list(range(rows)), min(rows, wanted + SPARE), 2)
        self.standings = (yield from self._meet(left, 2)).standings()
        return left

    def _best(self, rows: list[int], wanted: int) -> Rounds:
        """The best of some rows, in whatever order."""
        left = yield from self._sift(rows, wanted, 1)
        votes = yield from self._meet(left, 1)
        return [standing.row for standing in votes.standings()[:wanted]]

    def _sift(self, rows: list[int], wanted: int, orders: int) -> Rounds:
        """Put rows aside that are not among the best, as far as that saves questions."""
        while (plan := self._planner.plan(len(rows), wanted, orders)).place is not None:
            rows = list(rows)
            self._random.shuffle(rows)
            lists = list(_deal(rows, -(-len(rows) // self._size)))
            answers = iter((yield [shown for shown in lists if len(shown) > 1]))
            ordered = [_complete(shown, next(answers) if len(shown) > 1 else None) for shown in lists]
            heads = yield from self._best([order[plan.place] for order in ordered], plan.heads)
            good = set(heads)
            kept: list[int] = []
            out: list[list[int]] = []
            for order in ordered:
                stays = wanted if order[plan.place] in good else plan.place
                kept += order[:stays]
                out.append(order[stays:])
            # So many that nothing depends on which list was one shorter than others.
            spare = (row for at in range(self._size) for order in out for row in order[at : at + 1])
            kept += [row for row, _ in zip(spare, range(plan.left - len(kept)), strict=False)]
            rows = kept
        return rows

    def _meet(self, rows: list[int], orders: int) -> Generator[list[List], list[Order], _Votes]:
        """Compare each with each."""
        votes = _Votes(rows)
        if len(rows) > 1:
            rows = list(rows)
            lists: list[List] = []
            for _ in range(orders if 2 < len(rows) <= self._size else 1):  # a list of all costs little
                self._random.shuffle(rows)
                lists += _meetings(rows, self._size)
            if orders > 1:
                lists += [shown[::-1] for shown in lists]
            answers = yield lists
            for shown, order in zip(lists, answers, strict=True):
                votes.count(shown, order)
        return votes


def _deal(rows: Sequence[int], count: int) -> Iterator[List]:
    """So many lists, of which none is more than one longer than another."""
    for number in range(count):
        yield tuple(rows[len(rows) * number // count : len(rows) * (number + 1) // count])


def _meetings(rows: Sequence[int], size: int) -> Iterator[List]:
    """Lists in which each row meets each other one; those that begin alike come one after the other."""
    if len(rows) <= size:
        yield tuple(rows)
        return
    blocks = list(_deal(rows, -(-len(rows) // (size // 2))))
    for first, second in combinations(blocks, 2):
        yield first + second


def _complete(shown: List, order: Order) -> list[int]:
    """All rows of a list: those that its answer names, then the others as they were shown."""
    return list(dict.fromkeys(chain(order or (), shown)))


class _Votes:
    """What comparisons of each of some rows with each say."""

    def __init__(self, rows: Sequence[int]) -> None:
        self._rows = list(rows)
        self._place = {row: place for place, row in enumerate(rows)}
        # How often the one was better than the other: of two rows of one block as often as there are blocks, about.
        self._for: NDArray[np.uint16] = np.zeros((len(rows), len(rows)), np.uint16)

    def count(self, shown: List, order: Order) -> None:
        """Count an answer; who is named is better than who is not, of whom nothing is known."""
        if order is None:
            return
        places = [self._place[row] for row in _complete(shown, order)]
        above = np.triu(np.ones((len(places), len(places)), np.uint16), 1)
        above[len(order) :] = 0
        self._for[np.ix_(places, places)] += above

    def standings(self) -> list[Standing]:
        """By how many others a row is better than; one that is neither better nor worse counts half."""
        halves = np.array(
            [
                np.count_nonzero(own > against) + np.count_nonzero(own >= against)
                for own, against in zip(self._for, self._for.T, strict=True)
            ]
        )
        wins = self._for.sum(axis=1, dtype=np.int64)
        order = np.lexsort((np.array(self._rows), -wins, -halves)).tolist()
        return [self._standing(place, halves) for place in order]

    def _standing(self, place: int, halves: NDArray[np.int64]) -> Standing:
        own, against = self._for[place], self._for[:, place]
        better, worse = halves > halves[place], halves < halves[place]
        agrees = int(against[better].sum()) + int(own[worse].sum())
        all_told = agrees + int(own[better].sum()) + int(against[worse].sum())
        above = int(np.count_nonzero(better))
        ties = len(halves) - above - int(np.count_nonzero(worse)) - 1
        return Standing(self._rows[place], above + 1, ties, agrees / all_told if all_told else None)
