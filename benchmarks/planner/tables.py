"""The tables that the planner is measured on.

In: a name, a number of rows, a seed. Out: a `PaperTable`: rows and the prompts that go with them. No row of
`../shared/data` is written anywhere but to a temporary folder.
"""

from __future__ import annotations

import csv
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.paper_tables import PAPER_TABLES, SYSTEM_PROMPT, PaperTable, make
from benchmarks.paper_tables.shape import as_json

SHARED_DATA = Path(__file__).parents[3] / "shared" / "data"
JOINED, REVIEWS, FILMS = "reviews+films", "reviews", "films"

_QUESTIONS = {
    JOINED: "Going by what is known of the film and by this review, would you take children to see it? Answer Yes or "
    "No.",
    REVIEWS: "Does the critic who wrote this review recommend the film? Answer only POSITIVE or NEGATIVE.",
    FILMS: "Is this film likely to be based on a book? Answer Yes or No.",
}

TABLES = (*PAPER_TABLES, *_QUESTIONS)


def missing(name: str) -> str | None:
    """Say why a table cannot be had; None where it can."""
    if name in _QUESTIONS and not (SHARED_DATA / "movie_reviews.csv").exists():
        return f"{name}: skipped, there is no folder ../shared/data beside this checkout"
    return None


def load(name: str, rows: int | None = None, seed: int = 0) -> PaperTable:
    """Make or read a table.

    Args:
        name: One of `TABLES`.
        rows: How many rows at most; None for as many as in the paper, or in the file.
        seed: Of the tables that are made.
    """
    return make(name, rows, seed) if name in PAPER_TABLES else _read(name, rows)


def widened(made: PaperTable) -> PaperTable:
    """The beers with a tenth column, the alcohol by volume: a number that the beer determines."""
    strength = {beer: f"{3 + int(beer) * 7919 % 96 / 10:g}" for beer in dict.fromkeys(made.cells[0])}
    return replace(
        made,
        name=f"{made.name}+1",
        columns=(*made.columns, "beer/ABV"),
        types=(*made.types, "double precision"),
        cells=(*made.cells, [strength[beer] for beer in made.cells[0]]),
    )


def _read(name: str, rows: int | None) -> PaperTable:
    """Read one of the shared files or join both; every cell is text, as `pg-bridge plan` takes it."""
    read = partial(_csv, SHARED_DATA)
    columns, records = read("movies.csv" if name == FILMS else "movie_reviews.csv")
    if name == JOINED:
        film_columns, films = read("movies.csv")
        of: dict[str, list[list[str]]] = {}
        for film in films:
            of.setdefault(film[0], []).append(film[1:])
        columns = columns + film_columns[1:]
        records = [review + film for review in records for film in of.get(review[0], ())]
    cells = tuple([as_json(cell) for cell in column] for column in zip(*records[:rows], strict=True))
    return PaperTable(name, tuple(columns), ("text",) * len(columns), cells, SYSTEM_PROMPT, _QUESTIONS[name])


def _csv(folder: Path, file: str) -> tuple[list[str], list[list[str]]]:
    with (folder / file).open(encoding="utf-8", newline="") as lines:
        columns, *records = csv.reader(lines)
    return columns, records
