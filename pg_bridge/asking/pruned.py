"""How many true pairs are lost where only the nearest are asked about: what a sample of the others tells.

In: how many pairs were pruned, how many of them were asked about all the same, and how many of those were yes. Out: how
many of the others are yes at most, and the share of true pairs that was found at least, both with 95 % confidence.

The bound is that of Clopper and Pearson, for draws that are not put back: the largest number of true pairs for which so
few of the sample would still be yes with more than 5 %. It is exact, of whatever size the sample is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import exp, lgamma

RISK = 0.05
"""That the truth is beyond the bound."""


@dataclass(slots=True, eq=False)
class Pruned:
    """The pairs of one condition in one window, of which some were not asked about for being far.

    Attributes:
        pairs: Different ones that were pruned.
        sampled: Those of them that were asked about all the same.
        yes: Those of the sample for which the answer was yes.
        unanswered: Those of the sample without an answer.
        found: Pairs that were not pruned, for which the answer was yes.
    """

    pairs: int
    sampled: int
    yes: int = 0
    unanswered: int = 0
    found: int = 0

    def lost_at_most(self, risk: float = RISK) -> int:
        """Of how many pairs that nobody asked about the answer is yes, at most; what gave no answer counts as yes."""
        yes = self.yes + self.unanswered
        return most_of(self.pairs, self.sampled, yes, risk) - yes


@dataclass(frozen=True, slots=True)
class Told:
    """The same of all windows and conditions of a run.

    Attributes:
        pruned: Different pairs that were pruned, those of the sample included.
        sampled: Those of the sample.
        sampled_yes: Those of them for which the answer was yes.
        lost_at_most: Of how many of the others it is; None without a sample.
        recall_at_least: Of all pairs for which it is, the share that was found; None without a sample.
    """

    pruned: int
    sampled: int
    sampled_yes: int
    lost_at_most: int | None
    recall_at_least: float | None

    @classmethod
    def of(cls, parts: Sequence[Pruned]) -> Told | None:
        """What is told of some; None where nothing was pruned. Of several each has its share of the risk."""
        if not parts:
            return None
        pruned, sampled, yes = (sum(getattr(part, name) for part in parts) for name in ("pairs", "sampled", "yes"))
        if not sampled:
            return cls(pruned, sampled, yes, None, None)
        lost = sum(part.lost_at_most(RISK / len(parts)) for part in parts)
        found = yes + sum(part.found for part in parts)
        return cls(pruned, sampled, yes, lost, round(found / (found + lost), 4) if found + lost else 1.0)

    def __str__(self) -> str:
        """As EXPLAIN ANALYZE shows it."""
        if self.lost_at_most is None or self.recall_at_least is None:
            return f"{self.pruned}, none of them checked"
        share = 100 * self.lost_at_most / self.pruned
        return (
            f"{self.pruned}, of a sample of {self.sampled} {self.sampled_yes} were yes; 95 % sure: at most "
            f"{self.lost_at_most} are lost ({share:.1f} %), recall at least {self.recall_at_least:.2f}"
        )


def most_of(pairs: int, sampled: int, yes: int, risk: float = RISK) -> int:
    """How many of some pairs are true at most, if so many of a sample are.

    >>> most_of(1000, 1000, 7), most_of(1000, 200, 0), most_of(1000, 0, 0), most_of(10**6, 200, 3)
    (7, 13, 1000, 38307)
    """
    least, most = yes, pairs - sampled + yes
    while least < most:
        middle = (least + most + 1) // 2
        if _share_below(pairs, middle, sampled, yes) > risk:
            least = middle
        else:
            most = middle - 1
    return least


def _share_below(pairs: int, true: int, sampled: int, yes: int) -> float:
    """How likely a sample holds so many true pairs or fewer."""
    fewest = max(0, sampled - (pairs - true))

    def ways(of: int, some: int) -> float:
        return lgamma(of + 1) - lgamma(some + 1) - lgamma(of - some + 1)

    def each() -> Iterator[float]:
        for drawn in range(fewest, min(yes, true, sampled) + 1):
            yield exp(ways(true, drawn) + ways(pairs - true, sampled - drawn) - ways(pairs, sampled))

    return min(1.0, sum(each()))
