"""Seeded tables that have the shape of the paper's seven (Liu et al., arXiv 2403.05821).

In: a name, a number of rows, a seed. Out: a `PaperTable`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.paper_tables.retrieval import fever, squad
from benchmarks.paper_tables.reviews import beers, movies, posts, products
from benchmarks.paper_tables.scores import scores
from benchmarks.paper_tables.shape import Column, PaperTable

__all__ = ["PAPER_TABLES", "PaperTable", "Spec", "make"]

SYSTEM_PROMPT = (
    "You are a data analyst. Answer the question about the one row that is given as JSON, and use only what stands in "
    "it. Reply with the answer alone, without an explanation and without any extra formatting."
)


@dataclass(frozen=True, slots=True)
class Spec:
    """How a table is made and what the paper says about it.

    Attributes:
        columns: Draws the columns, from a generator, the number of rows and that of the paper.
        rows: Rows in the paper.
        tokens: Average input tokens of a prompt in the paper.
        published: Cardinalities the paper gives, by column.
        dependencies: Groups of columns that determine each other, in the paper.
        question: The filter's question.
    """

    columns: Callable[[np.random.Generator, int, int], list[Column]]
    rows: int
    tokens: int
    published: dict[str, int]
    dependencies: tuple[tuple[str, ...], ...]
    question: str


PAPER_TABLES: dict[str, Spec] = {
    "movies": Spec(
        movies,
        15_000,
        276,
        {"reviewcontent": 12_327, "rottentomatoeslink": 1344, "productioncompany": 355, "genres": 313},
        (("movieinfo", "movietitle", "rottentomatoeslink"),),
        "Going by what the film is about and by this review, is the film suitable for children? Answer only Yes or No.",
    ),
    "products": Spec(
        products,
        14_890,
        377,
        {"parent_asin": 5597},
        (("parent_asin", "product_title"),),
        "Is this customer content with the product, judging by the review and by what the product claims to be? "
        "Answer only POSITIVE, NEGATIVE or NEUTRAL.",
    ),
    "bird": Spec(
        posts,
        14_920,
        765,
        {"PostId": 5165},
        (("Body", "PostId"),),
        "Is this post about statistics, and does the comment help whoever wrote it? Answer only YES or NO.",
    ),
    "pdmx": Spec(
        scores,
        10_000,
        738,
        {},
        (
            ("metadata", "path"),
            ("hasannotations", "hasmetadata", "isdraft", "isofficial", "isuserpublisher", "subset:all"),
        ),
        "Going by all that is known of this score, does it have a single composer who is named? Answer only YES or NO.",
    ),
    "beer": Spec(
        beers,
        28_479,
        156,
        {},
        (("beer/beerId", "beer/name"),),
        "Is this a European beer? Answer only YES or NO.",
    ),
    "fever": Spec(
        fever,
        19_929,
        1302,
        {},
        (),
        "Four pieces of evidence are given. Do they support the claim, refute it, or is there not enough information? "
        "Answer only SUPPORTS, REFUTES or NOT ENOUGH INFO.",
    ),
    "squad": Spec(
        squad,
        22_665,
        1047,
        {},
        (),
        "Four contexts are given. Can the question be answered from them? Answer with the few words of the contexts "
        "that answer it.",
    ),
}


def make(name: str, rows: int | None = None, seed: int = 0) -> PaperTable:
    """Make a table; the same arguments make the same table, everywhere.

    Args:
        name: One of `PAPER_TABLES`.
        rows: How many rows, at least one; None for as many as in the paper.
        seed: Any integer from 0 on.
    """
    spec = PAPER_TABLES[name]
    count = spec.rows if rows is None else rows
    if count < 1:
        raise ValueError("a table needs one row at least")
    chance = np.random.default_rng([seed, count, list(PAPER_TABLES).index(name)])
    columns = spec.columns(chance, count, spec.rows)
    return PaperTable(
        name,
        tuple(column.name for column in columns),
        tuple(column.type for column in columns),
        tuple(column.cells for column in columns),
        SYSTEM_PROMPT,
        spec.question,
    )
