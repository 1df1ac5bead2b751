"""How many questions llm.resolve asks about rows of which some are misspelt copies, and how many copies it finds.

Rows are names of companies, drawn by --seed: one to six spellings of each, with letters changed, lost, added, words
turned round and legal forms spelt out. Beside it: all pairs asked about, and all candidates, where whatever is joined
by a yes is one. Nothing is asked: answers are drawn, wrong with the probability --noise. F1 is that of pairs of rows
that are one, the mean of --runs. Then: how long it takes to find which of --large rows are nearest, and clusters.
"""

from __future__ import annotations

import random
import resource
import time
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from functools import partial

import numpy as np

from benchmarks.machine import describe
from benchmarks.report import Report, parser_of
from pg_bridge.asking.centres import find_clusters
from pg_bridge.asking.nearness import letters_of, nearest_pairs, to_units
from pg_bridge.asking.resolution import Pair, Resolution

SYLLABLES = ["ka", "lo", "mi", "ter", "ban", "dor", "sel", "vi", "nex", "po", "gra", "tu", "ren", "sto", "fel"]
FORMS = {"Ltd": "Limited", "Inc": "Incorporated", "AG": "Aktiengesellschaft", "Corp": "Corporation", "SE": "SE"}
COPIES = (1, 1, 1, 2, 2, 3, 4, 6)
LETTERS = "abcdefghijklmnopqrstuvwxyz"
DIMENSIONS = 384

Judge = Callable[[Pair], bool]
Found = tuple[int, int, Sequence[Hashable]]
"""Questions, batches, and of each row its group."""
Way = Callable[[int, Sequence[Pair], Judge], Found]


def draw_rows(count: int, chance: random.Random) -> tuple[list[str], list[int]]:
    """Names in the order of their letters, and which company each is of."""
    rows: dict[str, int] = {}
    company = 0
    while len(rows) < count:
        words = ("".join(chance.choices(SYLLABLES, k=chance.randint(2, 4))).title() for _ in range(2))
        name = f"{' '.join(words)} {chance.choice(list(FORMS))}"
        copies, wanted = {name}, chance.choice(COPIES)
        while len(copies) < wanted:
            copies.add(misspell(name, chance))
        rows |= {copy: company for copy in copies if copy not in rows}
        company += 1
    names = sorted(rows)[:count]
    return names, [rows[name] for name in names]


def misspell(name: str, chance: random.Random) -> str:
    """The name otherwise."""
    for _ in range(chance.randint(1, 3)):
        at, kind = chance.randrange(len(name)), chance.randrange(5)
        letter = chance.choice(LETTERS)
        word = name.rsplit(maxsplit=1)[-1]
        name = (
            name[:at] + letter + name[at + 1 :],
            name[:at] + name[at + 1 :],
            name[:at] + letter + name[at:],
            " ".join(reversed(name.split())),
            name.removesuffix(word) + FORMS.get(word, word),
        )[kind]
    return name


def by_resolving(rows: int, candidates: Sequence[Pair], judge: Judge) -> Found:
    """llm.resolve."""
    resolution, questions, batches = Resolution(rows, candidates), 0, 0
    while pairs := resolution.pairs():
        questions, batches = questions + len(pairs), batches + 1
        resolution.take(list(map(judge, pairs)))
    return questions, batches, resolution.groups()


def by_each(rows: int, candidates: Sequence[Pair], judge: Judge) -> Found:
    """All of them asked about, and whatever is joined is one."""
    groups = list(range(rows))
    for one, other in filter(judge, candidates):
        if groups[one] != groups[other]:
            gone = groups[other]
            groups = [groups[one] if group == gone else group for group in groups]
    return len(candidates), 1, groups


def f1_of(found: Sequence[Hashable], truth: Sequence[Hashable]) -> float:
    """Of pairs of rows."""

    def pairs(groups: Sequence[Hashable]) -> int:
        return sum(size * (size - 1) // 2 for size in Counter(groups).values())

    return 2 * pairs(list(zip(found, truth, strict=True))) / max(1, pairs(found) + pairs(truth))


def measure(rows: int, most: int | None, noise: float, way: Way, runs: int, seed: int) -> str:
    """A line's figures."""
    found: list[tuple[int, int, float]] = []
    for number in range(runs):
        chance = random.Random(f"{seed} {number}")
        names, truth = draw_rows(rows, chance)
        candidates = nearest_pairs(letters_of(names), most)

        def judge(pair: Pair, truth: list[int] = truth, chance: random.Random = chance) -> bool:
            return (truth[pair[0]] == truth[pair[1]]) != (chance.random() < noise)

        questions, batches, groups = way(rows, candidates, judge)
        found.append((questions, batches, f1_of(groups, truth)))
    questions, batches, f1 = (sum(each) / runs for each in zip(*found, strict=True))
    return f"{questions:>10,.0f} {batches:>8.1f} {f1:>7.3f}"


def time_of(call: Callable[[], object]) -> float:
    """Seconds of this process."""
    started = time.process_time()
    call()
    return time.process_time() - started


def main() -> int:
    """Measure and print."""
    parser = parser_of("benchmarks.alike", __doc__)
    parser.add_argument("--noise", type=float, nargs="+", default=[0, 0.02, 0.05])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--large", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=71)
    arguments = parser.parse_args()
    report = Report(arguments)
    report.add(
        *describe(arguments), "", f"{'rows':>6} {'noise':>6} {'':<28} {'questions':>10} {'batches':>8} {'F1':>7}"
    )
    for rows, choices in ((200, (None, 5)), (1000, (5, 10))):
        report.add(f"{rows:>6} {'':>6} {'every pair':<28} {rows * (rows - 1) // 2:>10,}")
        for noise in arguments.noise:
            for most in choices:
                named = "all" if most is None else f"nearest {most}"
                for name, way in (("each asked", by_each), ("llm.resolve", by_resolving)):
                    figures = measure(rows, most, noise, way, arguments.runs, arguments.seed)
                    report.add(f"{rows:>6} {noise:>6.0%} {f'{named}, {name}':<28} {figures}")
    chance = np.random.default_rng(arguments.seed)
    units = to_units(chance.normal(size=(arguments.large, DIMENSIONS)).astype(np.float32))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = time_of(partial(nearest_pairs, units, 5))
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    report.add(
        "", f"nearest 5 of {arguments.large:,} rows, {DIMENSIONS} dimensions: {seconds:.1f} s of CPU, {more:.0f} MiB"
    )
    seconds = time_of(partial(find_clusters, units, [1] * arguments.large, 20))
    report.add(f"20 clusters of them: {seconds:.1f} s of CPU")
    return report.close()


if __name__ == "__main__":
    raise SystemExit(main())
