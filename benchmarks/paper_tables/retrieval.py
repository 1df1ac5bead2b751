"""FEVER and SQuAD: a question and the four passages that a retriever found for it.

In: a generator and the number of rows. Out: columns. Passages and questions are points; passages of a topic lie
around its middle, a question lies near the passage it was asked about, and the four nearest passages are retrieved,
the nearest first. So neighbouring questions retrieve overlapping sets in varying positions, as from a vector index.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.paper_tables.draw import Codes, by_rank, distinct, every_one, pick, scaled
from benchmarks.paper_tables.prose import lengths, prose
from benchmarks.paper_tables.shape import Column, texts

_RETRIEVED = 4
_DIMENSIONS = 4


def fever(chance: np.random.Generator, rows: int, full_rows: int) -> list[Column]:
    """Claims with four pieces of evidence; a topic is an encyclopedia's page and what it links to."""
    topics = scaled(1500, rows, full_rows)
    each = scaled(7500, rows, full_rows) / topics
    found, passages = _retrieve(chance, rows, topics, each=each, skews=(0.6, 1.2), noise=0.2)
    evidence = distinct(prose(chance, lengths(chance, passages, 224, 0.4)))
    claims = distinct(prose(chance, lengths(chance, rows, 10, 0.0)))
    columns = [texts(f"evidence{place + 1}", pick(evidence, found[:, place])) for place in range(_RETRIEVED)]
    return [texts("claim", claims), *columns]


def squad(chance: np.random.Generator, rows: int, full_rows: int) -> list[Column]:
    """Questions with four contexts; a topic is an article, a context one of its paragraphs."""
    topics = scaled(48, rows, full_rows)
    each = scaled(2064, rows, full_rows) / topics
    found, passages = _retrieve(chance, rows, topics, each=each, skews=(0.3, 0.3), noise=0.15)
    context = distinct(prose(chance, lengths(chance, passages, 182, 0.4)))
    asked = [text[:-1] + "?" for text in prose(chance, lengths(chance, rows, 11, 0.0))]
    columns = [texts(f"context{place + 1}", pick(context, found[:, place])) for place in range(_RETRIEVED)]
    return [texts("question", distinct(asked)), *columns]


def _retrieve(
    chance: np.random.Generator, rows: int, topics: int, *, each: float, skews: tuple[float, float], noise: float
) -> tuple[NDArray[np.intp], int]:
    """Retrieve four passages a row.

    Args:
        chance: The generator.
        rows: How many questions.
        topics: How many topics.
        each: Passages of a topic on average.
        skews: Of the topics' popularity and of the passages' within a topic.
        noise: How far from its passage a question lies; passages of a topic lie at distances of about 2 to 3.

    Returns:
        (rows, 4) intp passages, nearest first, and how many passages there are.
    """
    topic = every_one(chance, rows, topics, skews[0], 3)
    sizes = np.maximum(_RETRIEVED, chance.poisson(each, topics))
    first = np.cumsum(sizes) - sizes
    found = np.empty((rows, _RETRIEVED), np.intp)
    members: list[Codes] = np.split(
        np.argsort(topic, kind="stable"), np.cumsum(np.bincount(topic, minlength=topics))[:-1]
    )
    for number, asked in enumerate(members):
        size = int(sizes[number])
        points = chance.normal(size=(size, _DIMENSIONS))
        about = by_rank(chance, len(asked), size, skews[1])
        questions = points[about] + chance.normal(0, noise, (len(asked), _DIMENSIONS))
        distances = ((questions[:, np.newaxis] - points) ** 2).sum(axis=2)
        found[asked] = first[number] + np.argsort(distances, axis=1, kind="stable")[:, :_RETRIEVED]
    return found, int(sizes.sum())
