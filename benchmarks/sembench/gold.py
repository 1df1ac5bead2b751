"""The tables of SemBench with their gold labels, and a double that knows them and errs at a given rate.

In: the two files of SHARED_DATA. Out: records, tables in PostgreSQL, answers. The double errs about a text, not about a
request: who asks twice is told the same.
"""

from __future__ import annotations

import csv
import json
import random
import re
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from benchmarks.planner.tables import SHARED_DATA

FILES = {"reviews": "movie_reviews.csv", "movies": "movies.csv"}
LOWEST, HIGHEST = 1, 5


class Review(NamedTuple):
    """A review and what is true of it: whether it is positive, and its author's score where it is a fraction."""

    film: str
    review_id: int
    text: str
    is_positive: bool
    stars: float | None


class Film(NamedTuple):
    """A film and what its audience thinks of it."""

    film: str
    audience_score: float


def _records(name: str, folder: Path) -> list[dict[str, str]]:
    with (folder / FILES[name]).open(newline="") as file:
        return list(csv.DictReader(file))


def load_reviews(folder: Path = SHARED_DATA) -> list[Review]:
    """The reviews, in the file's order."""
    return [
        Review(
            record["id"],
            int(record["reviewId"]),
            record["reviewText"],
            record["scoreSentiment"] == "POSITIVE",
            float(found[1]) if (found := re.match(r"([\d.]+)/", record["originalScore"])) else None,
        )
        for record in _records("reviews", folder)
    ]


def load_films(folder: Path = SHARED_DATA) -> list[Film]:
    """The films."""
    return [Film(record["id"], float(record["audienceScore"])) for record in _records("movies", folder)]


def fill(connection: psycopg.Connection[Any], folder: Path = SHARED_DATA) -> None:
    """Copy the files into the tables, which are there."""
    for table, file in FILES.items():
        copy = sql.SQL("COPY {} FROM STDIN (FORMAT csv, HEADER)").format(sql.Identifier(table))
        with connection.cursor() as cursor, cursor.copy(copy) as into:
            into.write((folder / file).read_bytes())
    connection.execute("ANALYZE")


def knowing(reviews: Sequence[Review], noise: float, seed: int) -> Callable[[str], str]:
    """Return what answers a prompt by the gold label of the review in it, and by another one at the rate of `noise`.

    Asked for a score it gives the author's own where it is one of five, else a 4 or a 2.
    """
    by_text = {review.text: review for review in reviews}

    def answer(prompt: str) -> str:
        review = by_text[_text_in(prompt)]
        rng = random.Random(blake2b(f"{seed} {review.text}".encode(), digest_size=8).digest())
        errs = rng.random() < noise
        if "From 1" in prompt:
            return str(rng.randint(LOWEST, HIGHEST) if errs else _score(review))
        words = ("positive", "negative") if "sentiment" in prompt else ("yes", "no")
        return words[review.is_positive == errs]

    return answer


def _text_in(prompt: str) -> str:
    """The text that a prompt asks about: the one cell of its row."""
    row, _ = json.JSONDecoder().raw_decode(prompt, prompt.index('{"'))
    (text,) = row.values()
    return str(text)


def _score(review: Review) -> float:
    if review.stars is not None and LOWEST <= review.stars <= HIGHEST:
        return review.stars
    return 4 if review.is_positive else 2
