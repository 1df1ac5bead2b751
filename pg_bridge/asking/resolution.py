"""Which of many rows mean the same, by yes/no questions about pairs of them, of which few need to be asked.

In: how many rows, and pairs of them that may mean the same, the likeliest first. Out: round after round, pairs to be
asked about, and at the end groups. Nothing here is asked, and no row is looked at: rows are numbers.

    pairs, nearest first → a forest of them, one round → groups → what the groups leave open → … → groups

What follows is not asked: rows of one group are the same, and of two groups that are told apart no further pair is
asked about (Wang et al., "Leveraging Transitive Relations for Crowdsourced Joins", SIGMOD 2013, whose rounds these
are: in one, pairs are left out that would follow if the answers to those before them were yes).

Deviation: there answers are taken to be right, and one joins two groups. Here two rows are joined by one, a row and a
group by two more that say yes than say no, two groups by three more, about different pairs of them, so that one wrong
answer makes no group of two. As soon as more say no, they are told apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

Pair = tuple[int, int]
"""Two rows, the lesser first."""

_MOST_VOTES = 7  # between two groups, about as many pairs; then the majority counts
_FEW_YES = 0.25  # of a round's answers: what would follow from a yes is hardly saved by waiting for it


@dataclass(slots=True, eq=False)
class _Link:
    """What is known between two groups that may be one.

    Attributes:
        order: The place of its nearest pair among all.
        pair: That pair; its rows tell, too, which groups they are.
        yes: How many answers said that they are the same.
        no: How many that they are not.
        asked: How many of their pairs have been asked about, whether there was an answer or not.
        is_over: Whether its groups have become one, or another link has taken its place.
        is_listed: Whether it stands among those that may be open.
    """

    order: int
    pair: Pair
    yes: int = 0
    no: int = 0
    asked: int = 0
    is_over: bool = False
    is_listed: bool = True


class Resolution:
    """Finds groups of rows that mean the same.

    Args:
        rows: How many there are.
        candidates: Pairs that may mean the same, each once, the likeliest first.
    """

    def __init__(self, rows: int, candidates: Sequence[Pair]) -> None:
        self._group = list(range(rows))  # of each row a row nearer to that which names its group
        self._members: list[list[int]] = [[row] for row in range(rows)]
        self._links: list[dict[int, _Link]] = [{} for _ in range(rows)]
        self._open: list[_Link] = []
        self._answers: dict[Pair, bool | None] = {}
        self._expected: list[tuple[Pair, _Link]] = []
        self._postponed: list[_Link] = []
        self._forests = 1
        self._candidates = candidates
        for order, (one, other) in enumerate(candidates):
            link = _Link(order, (one, other))
            self._links[one][other] = self._links[other][one] = link
            self._open.append(link)

    @property
    def inferred(self) -> int:
        """How many of the candidates have not been asked about."""
        return sum(pair not in self._answers for pair in self._candidates)

    def pairs(self) -> list[Pair]:
        """What to ask in the next round; nothing where all is known."""
        waiting = self._still_open()
        self._expected = []
        for _ in range(self._forests):
            trees: dict[int, int] = {}
            waiting = [link for link in waiting if not self._expect(link, trees)]
        return [pair for pair, _ in self._expected]

    def take(self, answers: Sequence[bool | None]) -> None:
        """Take the answers about the latest `pairs`, in their order; None where there is none."""
        for (pair, link), answer in zip(self._expected, answers, strict=True):
            self._answers[pair] = answer
            link.asked += 1
            link.yes += answer is True
            link.no += answer is False
        few = sum(answer is True for answer in answers) < _FEW_YES * len(answers)
        self._forests = 2 * self._forests if few else 1
        changed, self._postponed = [*self._postponed, *(link for _, link in self._expected)], []
        for link in sorted(changed, key=lambda link: link.order):
            self._settle(link)

    def groups(self) -> list[int]:
        """(n,) of each row the one that names its group: the least of it."""
        names = {self._find(row): row for row in reversed(range(len(self._group)))}
        return [names[self._find(row)] for row in range(len(self._group))]

    def agreements(self) -> list[float | None]:
        """(n,) of the answers about each row the share that agrees with the groups; None where there was none."""
        told, agree = [0] * len(self._group), [0] * len(self._group)
        for pair, answer in self._answers.items():
            if answer is not None:
                agrees = answer == (self._find(pair[0]) == self._find(pair[1]))
                for row in pair:
                    told[row] += 1
                    agree[row] += agrees
        return [agree[row] / told[row] if told[row] else None for row in range(len(self._group))]

    def _still_open(self) -> list[_Link]:
        kept = []
        for link in self._open:
            link.is_listed = not link.is_over and self._judge(link) is None
            if link.is_listed:
                kept.append(link)
        self._open = sorted(kept, key=lambda link: link.order)
        return self._open

    def _expect(self, link: _Link, trees: dict[int, int]) -> bool:
        """Ask about a link, unless its groups would be one if all that is asked before it were."""
        one, other = (_follow(trees, self._find(row)) for row in link.pair)
        if one == other:
            return False
        trees[other] = one
        self._expected.append((self._pair_of(link), link))
        return True

    def _pair_of(self, link: _Link) -> Pair:
        """A pair between two groups that has not been asked about, the nearest if that is one."""
        if link.pair not in self._answers:
            return link.pair
        one, other = (self._members[self._find(row)] for row in link.pair)
        return next(pair for a, b in product(one, other) if (pair := (a, b) if a < b else (b, a)) not in self._answers)

    def _judge(self, link: _Link) -> bool | None:
        """Whether two groups are one, as far as is known."""
        one, other = (len(self._members[self._find(row)]) for row in link.pair)
        more = link.yes - link.no
        if link.asked >= min(one * other, _MOST_VOTES):
            return more > 0
        needed = 1 + (one > 1) + (other > 1)
        return False if more < 0 else True if more >= needed else None

    def _settle(self, link: _Link) -> None:
        """Join two groups if they are one, and whatever follows from it."""
        waiting = [link]
        while waiting:
            link = waiting.pop()
            if link.is_over or not self._judge(link):
                continue
            if self._has_nearer(link):
                self._postponed.append(link)
            else:
                waiting += self._join(link)

    def _has_nearer(self, link: _Link) -> bool:
        """Whether one of two groups is nearer to another that it may be, of which more is going to be known."""
        return any(
            other.order < link.order and other.yes > other.no and self._judge(other) is None
            for row in link.pair
            for other in self._links[self._find(row)].values()
        )

    def _join(self, link: _Link) -> Iterator[_Link]:
        """Make one group of two; yields the links to others, of which more is known now."""
        link.is_over = True
        kept, gone = (self._find(row) for row in link.pair)
        if len(self._links[kept]) < len(self._links[gone]):
            kept, gone = gone, kept
        own, others = self._links[kept], self._links[gone]
        del own[gone], others[kept]
        self._group[gone] = kept
        self._members[kept] += self._members[gone]
        self._links[gone] = {}
        self._members[gone] = []
        for group, theirs in others.items():
            del self._links[group][gone]
            mine = own.get(group)
            if mine is None:
                own[group] = self._links[group][kept] = theirs
                continue
            if theirs.order < mine.order:
                mine.order, mine.pair = theirs.order, theirs.pair
            mine.yes, mine.no, mine.asked = mine.yes + theirs.yes, mine.no + theirs.no, mine.asked + theirs.asked
            theirs.is_over = True
        for changed in own.values():
            if not changed.is_listed:
                changed.is_listed = True
                self._open.append(changed)
        return iter(list(own.values()))

    def _find(self, row: int) -> int:
        group = self._group
        while group[row] != row:
            group[row] = group[group[row]]
            row = group[row]
        return row


def _follow(trees: dict[int, int], group: int) -> int:
    while group in trees:
        after = trees[group]
        if after in trees:
            trees[group] = trees[after]
        group = after
    return group
