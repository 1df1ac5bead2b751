"""How many questions to a large model a cascade leaves, how many a share takes, and how often what was stated held.

Nothing is asked: answers and confidences are drawn anew for each run. The small model's scores are two normal
distributions, of the rows with yes and of those with no, so far apart that they have the AUC named: the chance that a
row with yes has the higher one. Asked is the share of all rows that the large model is asked about, a mean of --runs;
kept is in how many runs recall and precision, both, reached the target; the probability asked for is --probability.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from benchmarks.machine import describe
from benchmarks.report import Report, parser_of
from pg_bridge.asking.cascade import Cascade, keep_recall_and_precision
from pg_bridge.asking.poll import Poll

AUCS = (0.5, 0.7, 0.9, 0.99)
TARGETS = (0.9, 0.95)


def measure_cascade(
    rows: int, share: float, auc: float, target: float, probability: float, chance: tuple[int, ...]
) -> tuple[int, float, float]:
    """Questions to the large model, recall and precision of one run."""
    drawn = np.random.default_rng(chance)
    yes = drawn.random(rows) < share
    apart = NormalDist().inv_cdf(auc) * 2**0.5
    scores = 1 / (1 + np.exp(-(drawn.normal(size=rows) + apart * (yes - 0.5)) * max(apart, 0.1)))
    keep = keep_recall_and_precision(target, target, probability)
    cascade = Cascade(scores, np.ones(rows), keep, int(drawn.integers(1 << 30)))
    questions = 0
    while len(asked := cascade.rows()):
        questions += len(asked)
        cascade.take(yes[asked].astype(np.float64))
    no, sure = cascade.stands()
    output = np.where(no, False, np.where(sure, True, yes))
    right = int((yes & output).sum())
    return questions, right / max(1, int(yes.sum())), right / max(1, int(output.sum()))


def measure_share(
    rows: int, share: float, error: float, probability: float, chance: tuple[int, ...]
) -> tuple[int, bool]:
    """Questions of one run, and whether the share is within its bounds."""
    drawn = np.random.default_rng(chance)
    yes = (drawn.random(rows) < share).astype(np.float64)
    poll = Poll(np.ones(rows), error, 1 - probability, int(drawn.integers(1 << 30)))
    while len(asked := poll.rows()):
        poll.take(yes[asked])
    bounds = poll.bounds()
    return poll.known, bool(bounds.low - 1e-9 <= yes.mean() <= bounds.high + 1e-9)


def main() -> int:
    """Measure and print."""
    parser = parser_of("benchmarks.cascade", __doc__)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=70)
    parser.add_argument("--probability", type=float, default=0.95)
    arguments = parser.parse_args()
    report = Report(arguments)
    runs, probability = arguments.runs, arguments.probability
    report.add(*describe(arguments), "", f"{runs} runs each, probability {probability}, seed {arguments.seed}", "")
    report.add(
        f"{'rows':>7} {'yes':>5} {'AUC':>5} {'target':>7} {'asked':>7} {'recall':>7} {'precision':>9} {'kept':>8}"
    )
    for rows in (1_000, 10_000):
        for share in (0.1, 0.5):
            for auc in AUCS:
                for target in TARGETS:
                    got = [
                        measure_cascade(rows, share, auc, target, probability, (arguments.seed, run, rows))
                        for run in range(runs)
                    ]
                    asked, recall, precision = np.mean(got, axis=0)
                    kept = sum(min(each[1:]) >= target - 1e-9 for each in got)
                    report.add(
                        f"{rows:>7,} {share:>5.0%} {auc:>5} {target:>7} {asked / rows:>7.1%} {recall:>7.3f} "
                        f"{precision:>9.3f} {kept:>4}/{runs}"
                    )
    report.add("", "llm.share", f"{'rows':>7} {'yes':>5} {'error':>6} {'asked':>7} {'within':>8}")
    for rows in (1_000, 10_000):
        for share in (0.5, 0.1):
            for error in (0.1, 0.05, 0.02):
                polls = [
                    measure_share(rows, share, error, probability, (arguments.seed, run, rows)) for run in range(runs)
                ]
                mean = sum(each[0] for each in polls) / runs
                report.add(f"{rows:>7,} {share:>5.0%} {error:>6} {mean:>7,.0f} {sum(e[1] for e in polls):>4}/{runs}")
    return report.close()


if __name__ == "__main__":
    raise SystemExit(main())
