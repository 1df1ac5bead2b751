"""Do the answers stay the same when rows and columns are moved? With the model in the box, on rows with known answers.

In: a number of rows, an engine. Out: for each way, how many answers are those of the original order, and how many are
right. The rows are invented film reviews of four columns; the model was trained on their like, so that right and wrong
mean something.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

from benchmarks.paper.ways import ORIGINAL, OURS, WAYS, Way
from models.recipe.reviews import Sentiment, review
from models.recipe.tables import value_of
from pg_bridge.asking.inquiry import sampling_of
from pg_bridge.asking.prompt import Question, render
from pg_bridge.engine import Engine
from pg_bridge.options import Call, Server
from pg_bridge.ordering import plan
from pg_bridge.rows.table import Table

FELT: tuple[Sentiment, ...] = ("positive", "negative", "mixed")
QUESTION = Question("Is the sentiment of review positive, negative or mixed?", ())


def known_rows(count: int, seed: int) -> tuple[list[str], list[str]]:
    """Rows as JSON, and the right answers; some 20 films, so that something repeats."""
    rng = random.Random(seed)
    films = [(str(value_of(rng, "title")), rng.randint(1950, 2026)) for _ in range(20)]
    rows, truths = [], []
    for _ in range(count):
        felt = rng.choice(FELT)
        film, year = rng.choice(films)
        critic = str(value_of(rng, "person"))
        rows.append(json.dumps({"critic": critic, "review": review(rng, felt), "film": film, "year": year}))
        truths.append(str(felt))
    return rows, truths


def answers(way: Way, rows: list[str], server: Server) -> list[str | None]:
    """The answer to each row, in the rows' order."""
    table = Table.from_json(rows, ["critic", "review", "film", "year"])
    ordering = way.order(table) if way.order else plan(table)
    prompts = render(QUESTION, table, ordering)
    told: list[str | None] = [None] * len(rows)
    places = ordering.row_order.tolist()
    sampling = sampling_of(Call(max_tokens=8, kind="label", choices=FELT))
    for completion in Engine(server).complete(prompts, sampling, eager=True):
        if completion is not None:
            told[places[completion.index]] = completion.text
    return told


def lines(rows: int, seed: int, server: Server) -> Iterator[str]:
    """Compare the ways."""
    texts, truths = known_rows(rows, seed)
    yield f"Answers of the model in the box to {rows} rows of four columns whose right answers are known:"
    original: list[str | None] = []
    for way in sorted(WAYS, key=lambda way: way.name != ORIGINAL):
        if not way.cached or way.one_by_one:
            continue
        told = answers(way, texts, server)
        original = original or told
        same = sum(a == b for a, b in zip(told, original, strict=True))
        right = sum(a == b for a, b in zip(told, truths, strict=True))
        mark = " <-" if way.name == OURS else ""
        yield f"{way.name:<28} the original's: {same / rows:.1%}   right: {right / rows:.1%}{mark}"
