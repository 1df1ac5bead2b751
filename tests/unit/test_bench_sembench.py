"""SemBench's ten questions: the SQL on the page, the measures, and the double's errors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks.planner.tables import SHARED_DATA
from benchmarks.sembench.gold import Review, knowing, load_films, load_reviews
from benchmarks.sembench.published import PUBLISHED
from benchmarks.sembench.questions import (
    QUANTUMANIA,
    TAKEN,
    closeness,
    f1,
    quality,
    questions,
    ranks,
    spearman,
    tables_sql,
)

REVIEWS = [
    Review(TAKEN, 1, "fine", True, None),
    Review(TAKEN, 2, "dull", False, None),
    Review(QUANTUMANIA, 3, "lovely", True, 5.0),
    Review(QUANTUMANIA, 4, "weak", False, 1.0),
]


def test_the_page_has_ten_queries_and_two_tables() -> None:
    assert list(questions()) == list(PUBLISHED) == [str(number) for number in range(1, 11)]
    assert all("llm." in query and ";" not in query for query in questions().values())
    assert tables_sql().count("CREATE TABLE") == 2


def test_f1_of_rows_pairs_and_limits() -> None:
    assert f1([1, 2], {1, 2}) == 1
    assert f1([1, 9], {1, 2}) == 0.5
    assert f1([], {1}) == 0
    assert f1([1, 2, 3, 4, 5], set(range(100)), limit=5) == 1
    assert f1([1], set(range(100)), limit=5) == pytest.approx(2 / 6)


def test_a_number_is_as_close_as_its_relative_error() -> None:
    assert closeness(14, 14) == 1
    assert closeness(28, 14) == closeness(0, 14) == 0.5
    assert closeness(None, 14) == 0


def test_ranks_share_their_mean_and_correlate() -> None:
    assert list(ranks([10, 20, 10, 30])) == [1.5, 3, 1.5, 4]
    assert spearman([(1, 10), (2, 20), (3, 30)]) == pytest.approx(1)
    assert spearman([(1, 30), (2, 20), (3, 10)]) == pytest.approx(-1)
    assert spearman([(1, 1), (1, 2)]) == 0


@pytest.mark.parametrize(
    ("number", "right", "wrong"),
    [
        ("1", [(1,), (3,)], [(2,)]),
        ("2", [(1,)], [(3,)]),
        ("3", [(1,)], [(4,)]),
        ("4", [(0.5,)], [(0.9,)]),
        ("6", [(3, 4), (4, 3)], [(3, 3)]),
        ("7", [(3, 4), (4, 3)], [(3, 4)]),
        ("8", [("positive", 1), ("negative", 1)], [("negative", 2)]),
        ("9", [(3, 4.5), (4, 2.0)], [(3, 1.0), (4, 2.0)]),
    ],
)
def test_what_is_right_has_quality_1(number: str, right: list[tuple[Any, ...]], wrong: list[tuple[Any, ...]]) -> None:
    assert quality(number, right, REVIEWS, []) == pytest.approx(1)
    assert quality(number, wrong, REVIEWS, []) < 0.8


def test_the_double_errs_about_texts_at_the_rate_that_it_is_told() -> None:
    reviews = [Review("film", number, f"text {number}", number % 3 == 0, None) for number in range(2000)]
    prompts = ["Is it positive?\n" + json.dumps({"input": review.text}) for review in reviews]
    answers = [knowing(reviews, 0.05, seed=1)(prompt) for prompt in prompts]
    assert answers == [knowing(reviews, 0.05, seed=1)(prompt) for prompt in prompts]
    errors = sum((told == "yes") != review.is_positive for told, review in zip(answers, reviews, strict=True))
    assert 60 <= errors <= 145
    assert knowing(reviews, 0.0, seed=1)('From 1 to 5?\n{"input": "text 0"}') == "4"


@pytest.mark.skipif(not (SHARED_DATA / "movies.csv").exists(), reason="SemBench's tables are not here")
def test_the_labels_are_those_that_the_benchmark_tells_of() -> None:
    reviews = load_reviews()
    taken = [review for review in reviews if review.film == TAKEN]
    assert (len(reviews), len({review.text for review in reviews})) == (2000, 1864)
    assert (sum(review.is_positive for review in taken), len(taken)) == (14, 120)
    assert len(load_films()) == 116
