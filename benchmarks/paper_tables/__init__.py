"""Seeded tables that have the shape of the paper's seven (Liu et al., arXiv 2403.05821, MLSys 2025).

In: a name, a number of rows, a seed. Out: a `PaperTable`. The data sets themselves are not here and nothing is
downloaded: texts are invented, and mean nothing. What planners see is meant to be like the real tables: which cells
are equal, and how long they are.

Published, and held at full size: rows and number of columns; the cardinalities in `Spec.published`; the functional
dependencies in `Spec.dependencies`; the average tokens of a prompt, within 5 % (by the Tekken tokenizer here, by
Llama 3's there: Tekken takes a token for every digit, Llama 3 one for three).

Assumed, from what is generally known of such data:

* All tables: the columns' names and order, the system prompt's and questions' wording, the skew of popularity
  (Zipf-Mandelbrot, exponents 0.3 to 1.2), the spread of lengths (log-normal), rows in random order.
* Movies: the film determines its company and genres too; of the rows whose review is not new, 45 % have none or a
  stock line, the rest are whole rows that came twice.
* Products: 7,100 variants (`id`), each of one parent; 1,500 descriptions that parents share; a quarter of the review
  titles are stock ones.
* BIRD: posts with more comments have longer bodies (power 0.8), and one date each.
* PDMX: which 57 columns; the path and metadata are keys and the six flags constant; 8,600 songs, 2,900 composers,
  independent flags and counts.
* Beer: 2,600 beers of 89 styles, 4,200 tasters, marks that depend on the beer; the beer determines its style.
* FEVER, SQuAD: 1,500 topics of 5 passages, 48 of 43; the four passages nearest to a claim or question are
  retrieved, the nearest first.

With other numbers of rows, cardinalities of entities scale with them; closed sets (genres, styles, marks) do not.
`python -m benchmarks.paper_tables` prints what was made beside what was published.
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
        "Is this beer European? Answer YES or NO.",
    ),
    "fever": Spec(
        fever,
        19_929,
        1302,
        {},
        (),
        "A claim and four pieces of evidence are given. Read all four and judge the claim by them alone, not by what "
        "you know of the matter. Answer SUPPORTS if the evidence shows that the claim is true, REFUTES if it shows "
        "that it is false, NOT ENOUGH INFO if it shows neither. Answer with one of these three.",
    ),
    "squad": Spec(
        squad,
        22_665,
        1047,
        {},
        (),
        "A question and four contexts are given. Find the context that answers the question, and give the answer in as "
        "few of its own words as will do, without a sentence around them. Answer NONE if none of the four holds it.",
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
