"""How many questions llm.rank asks for the best of some rows, and how many of them it finds where answers are wrong.

Beside it: every pair once, ordered by wins, and ORDER BY llm.score, a question a row. Nothing is asked: answers are
drawn. Of the rows of a list each pair is told the wrong way round with the probability --noise, and the list is in the
order of wins; a score is another row's with that probability. Recall is the share of the truly best k that are among
those found, the mean of --runs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations

from benchmarks.machine import describe
from benchmarks.report import Report, parser_of
from pg_bridge.asking.contest import Contest, List, questions_of

SIZES = (2, 10, 20)
Found = tuple[int, int, list[int]]
"""Questions, batches, and the rows found; row 0 is the best, 1 the next."""
Way = Callable[[Sequence[int], int, float, random.Random], Found]


def in_lists(size: int, rows: Sequence[int], k: int, noise: float, chance: random.Random) -> Found:
    """llm.rank."""

    def order(shown: List) -> list[int]:
        wins = count_wins([rows[number] for number in shown], noise, chance)
        return sorted(shown, key=lambda number: -wins[rows[number]])

    contest, questions, batches = Contest(len(rows), k, size), 0, 0
    while lists := contest.lists():
        questions, batches = questions + len(lists), batches + 1
        contest.take([order(shown) for shown in lists])
    effort = questions_of(len(rows), k, size)
    if (effort.questions, effort.rounds) != (questions, batches):
        raise AssertionError(f"{effort} was told")
    return questions, batches, [rows[each.row] for each in (contest.standings or ())[:k]]


def in_pairs(rows: Sequence[int], k: int, noise: float, chance: random.Random) -> Found:
    """Every pair once."""
    wins = count_wins(rows, noise, chance)
    return len(rows) * (len(rows) - 1) // 2, 1, sorted(rows, key=lambda row: -wins[row])[:k]


def by_scores(rows: Sequence[int], k: int, noise: float, chance: random.Random) -> Found:
    """ORDER BY llm.score."""
    scores = {row: chance.choice(rows) + 0.5 if chance.random() < noise else row for row in rows}
    return len(rows), 1, sorted(rows, key=scores.__getitem__)[:k]


def count_wins(rows: Sequence[int], noise: float, chance: random.Random) -> dict[int, int]:
    """How many of the others each is told to be better than."""
    wins = dict.fromkeys(rows, 0)
    for one, other in combinations(rows, 2):
        better, worse = min(one, other), max(one, other)
        wins[worse if chance.random() < noise else better] += 1
    return wins


def measure(rows: int, k: int, noise: float, way: Way, runs: int, seed: int) -> str:
    """A line."""
    recalls, questions, batches = [], 0, 0
    for number in range(runs):
        chance = random.Random(f"{seed} {number}")
        shuffled = list(range(rows))
        chance.shuffle(shuffled)
        questions, batches, found = way(shuffled, k, noise, chance)
        recalls.append(len(set(found) & set(range(k))) / k)
    return f"{questions:>10,} {batches:>8} {100 * sum(recalls) / runs:>9.1f} %"


def main() -> int:
    """Measure and print."""
    parser = parser_of("benchmarks.rank", __doc__)
    parser.add_argument("--noise", type=float, default=0.05)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=62)
    arguments = parser.parse_args()
    report = Report(arguments)
    noise = arguments.noise
    report.add(*describe(arguments), "", f"noise {noise:.0%}, {arguments.runs} runs, seed {arguments.seed}", "")
    report.add(f"{'rows':>6} {'k':>4} {'':<24} {'questions':>10} {'batches':>8} {'recall':>11}")
    for rows, k in ((100, 1), (100, 10), (1000, 1), (1000, 10), (1000, 50)):
        ways: dict[str, Way] = {f"llm.rank, lists of {size}": partial(in_lists, size) for size in SIZES}
        for name, way in (ways | {"each with each": in_pairs, "ORDER BY llm.score": by_scores}).items():
            report.add(f"{rows:>6} {k:>4} {name:<24} {measure(rows, k, noise, way, arguments.runs, arguments.seed)}")
    return report.close()


if __name__ == "__main__":
    raise SystemExit(main())
