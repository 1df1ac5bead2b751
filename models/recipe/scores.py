"""How often a decoder is right, by task, on examples it was not trained on.

An answer counts as right if every token of it, its end included, is the likeliest one: what an engine writes at
temperature 0 without being held to any choices.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import torch
from tokenizers import Tokenizer

from models.recipe.decoder import Decoder
from models.recipe.examples import TASKS, Example, Split, dumped, example
from models.recipe.tables import Row, invented_word
from models.recipe.vocabulary import END, conversation, encode
from pg_bridge.options import DEFAULT_SYSTEM_PROMPT
from pg_bridge.ordering import plan
from pg_bridge.rows.table import Table

SPLITS = {
    "held-out rows": Split(),
    "held-out wordings": Split(wordings="held out"),
    "held-out table shapes": Split(shapes="held out"),
    "held-out wordings and shapes": Split(shapes="held out", wordings="held out"),
}
_BATCH = 32


def held_out(split: Split, count: int, seed: int, seen: set[int]) -> dict[str, list[Example]]:
    """Make examples of each task, none of them with a checksum among `seen`."""
    rng = random.Random(seed)
    found: dict[str, list[Example]] = {}
    for task in TASKS:
        kept: list[Example] = []
        while len(kept) < count:
            each = example(rng, task, split)
            if each.checksum not in seen:
                kept.append(each)
        found[task] = kept
    return found


def planned(given: Sequence[Example], seed: int) -> list[Example]:
    """Return the same examples with their columns in the order that the planner sends them in.

    Each row is planned among fifteen others, which have half of its cells and something else for the rest.
    """
    rng = random.Random(seed)
    return [replace(each, row=_planned(rng, each.row)) for each in given]


def _planned(rng: random.Random, row: Row) -> Row:
    others = (
        {name: value if rng.random() < 0.5 else invented_word(rng) for name, value in row.items()} for _ in range(15)
    )
    table = Table.from_json([dumped(each) for each in (row, *others)], list(row))
    ordering = plan(table)
    place = ordering.row_order.tolist().index(0)
    names = [table.columns[column] for column in ordering.column_order[place]]
    return {name: row[name] for name in names}


def report(decoder: Decoder, tokenizer: Tokenizer, given: Sequence[Example], device: str = "cpu") -> str:
    """Say how many of the examples the decoder gets right, with columns in random and in planned order."""
    first, second = (
        sum(are_right(decoder, tokenizer, each, device)) / len(given) for each in (given, planned(given, seed=0))
    )
    return f"{100 * first:5.1f} % with columns in random order, {100 * second:5.1f} % in planned order"


def are_right(decoder: Decoder, tokenizer: Tokenizer, given: Sequence[Example], device: str = "cpu") -> list[bool]:
    """Say of each example whether the decoder's own answer is the right one."""
    before = encode(tokenizer, [conversation(DEFAULT_SYSTEM_PROMPT, each.message) for each in given])
    answers = encode(tokenizer, [each.answer + END for each in given])
    right = [False] * len(given)
    by_length = sorted(range(len(given)), key=lambda i: len(before[i]))
    for start in range(0, len(given), _BATCH):
        places = by_length[start : start + _BATCH]
        rows = [before[i] + answers[i] for i in places]
        tokens = torch.ones((len(rows), max(map(len, rows))), dtype=torch.int64)
        for row, ids in zip(tokens, rows, strict=True):
            row[: len(ids)] = torch.tensor(ids)
        with torch.no_grad():
            states = decoder(tokens.to(device))
            for i, state in zip(places, states, strict=True):
                first = len(before[i])
                likeliest = decoder.scores(state[first - 1 : first - 1 + len(answers[i])]).argmax(-1)
                right[i] = likeliest.tolist() == answers[i]
    return right
