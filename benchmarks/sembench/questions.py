"""The ten questions: their SQL, as docs/sembench.md shows it, and how good an answer is, from 0 to 1.

In: rows of an answer, and the gold labels. Out: SemBench's measures: F1 where rows or pairs are found, of the rows
returned where there is a LIMIT; 1 / (1 + relative error) of a number; Spearman's rank correlation of scores.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sembench.gold import Film, Review

PAGE = Path(__file__).parents[2] / "docs/sembench.md"
TAKEN, QUANTUMANIA = "taken_3", "ant_man_and_the_wasp_quantumania"
FIVE, TEN = 5, 10  # the LIMITs

_BLOCK = re.compile(r"^```sql\n(.*?)^```$", re.M | re.S)
_QUESTION = re.compile(r"^## (\d+)\. .*?^```sql\n(.*?);\n```$", re.M | re.S)


def tables_sql(page: Path = PAGE) -> str:
    """The page's CREATE TABLE statements."""
    return _BLOCK.findall(page.read_text())[0]  # type: ignore[no-any-return]


def questions(page: Path = PAGE) -> dict[str, str]:
    """The page's ten queries, by their numbers."""
    return dict(_QUESTION.findall(page.read_text()))


def f1(found: Iterable[Any], right: set[Any], limit: int | None = None) -> float:
    """F1 of what was found among what is right; of a LIMIT's rows no more can be found than it lets through."""
    rows = set(found)
    hits = len(rows & right)
    wanted = min(limit or len(right), len(right))
    return 2 * hits / (len(rows) + wanted) if rows or wanted else 1.0


def closeness(number: float | None, truth: float) -> float:
    """1 / (1 + relative error)."""
    return 0.0 if number is None else 1 / (1 + abs(number - truth) / abs(truth))


def ranks(values: Sequence[float]) -> np.ndarray:
    """Each value's place among all; equal ones share the mean of theirs."""
    array = np.asarray(values, dtype=float)
    _, of, counts = np.unique(array, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[of]


def spearman(pairs: Sequence[tuple[float, float]]) -> float:
    """The rank correlation of two scores of the same things; 0 where one of them is the same for all."""
    if len(pairs) < 2:
        return 0.0
    left, right = (ranks(side) for side in zip(*pairs, strict=True))
    if np.ptp(left) == 0 or np.ptp(right) == 0:
        return 0.0
    return float(np.corrcoef(left, right)[0, 1])


def _of(reviews: Sequence[Review], film: str) -> list[Review]:
    return [review for review in reviews if review.film == film]


def _pairs(group: Sequence[Review], *, same: bool) -> set[tuple[int, int]]:
    return {
        (a.review_id, b.review_id)
        for a in group
        for b in group
        if a.review_id != b.review_id and (a.is_positive == b.is_positive) == same
    }


def quality(number: str, rows: Sequence[Sequence[Any]], reviews: Sequence[Review], films: Sequence[Film]) -> float:
    """How good the answer to a question is, from 0 to 1 (a correlation may be below 0)."""
    taken, quantumania = _of(reviews, TAKEN), _of(reviews, QUANTUMANIA)
    if number in ("1", "2"):
        among = reviews if number == "1" else taken
        return f1((row[0] for row in rows), {review.review_id for review in among if review.is_positive}, FIVE)
    if number in ("3", "4", "8"):
        return _of_numbers(number, rows, sum(review.is_positive for review in taken), len(taken))
    if number in ("5", "6", "7"):
        pairs = _pairs(quantumania, same=number == "5")
        return f1(((a, b) for a, b in rows), pairs, None if number == "7" else TEN)
    truths: dict[Any, float | None] = {review.review_id: review.stars for review in quantumania}
    truths |= {film.film: film.audience_score for film in films}
    return spearman([(score, truth) for name, score in rows if (truth := truths.get(name)) is not None])


def _of_numbers(number: str, rows: Sequence[Sequence[Any]], positive: int, total: int) -> float:
    if number == "3":
        return closeness(rows[0][0], positive)
    if number == "4":
        return closeness(float(rows[0][0]), positive / total)
    told = {str(label): count for label, count in rows}
    return (closeness(told.get("positive"), positive) + closeness(told.get("negative"), total - positive)) / 2
