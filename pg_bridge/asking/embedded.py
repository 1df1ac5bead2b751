"""Texts embedded for a statement that compares them itself: each distinct one once, in its memory and in the ledger.

In: different texts, a call that embeds, a statement's memory. Out: their embeddings, as a matrix. They are asked for as
`llm.embed` would ask for them, some at a time, so that what both have embedded is one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from pg_bridge.asking.inquiry import Ask
from pg_bridge.asking.memory import Memory
from pg_bridge.asking.portions import Group
from pg_bridge.asking.together import Failed, Round, outcomes_at
from pg_bridge.engine import numbers_of
from pg_bridge.errors import EmbeddingError
from pg_bridge.options import Call
from pg_bridge.rows.cutting import VALUE
from pg_bridge.rows.table import Table


def embed(texts: Sequence[str], call: Call, memory: Memory, begin: Callable[[Call], Round]) -> NDArray[np.float32]:
    """Embed texts.

    Args:
        texts: (n,) different ones, not empty.
        call: How.
        memory: Of the statement.
        begin: From a call's options to what asks with them.

    Returns:
        (n, d) embeddings, d > 0; of what has none, where the call makes do without, the row is NaN.

    Raises:
        EmbeddingError: A text has none, and the call's `on_error` is `fail`.
        BudgetExceeded: More would have to be asked than a budget allows, and `on_budget` of the call is `fail`.
        EngineError: The engine failed as a whole, or makes no embeddings.
    """
    found = np.full((len(texts), 1), np.nan, np.float32)
    for start in range(0, len(texts), call.window_rows):
        some = texts[start : start + call.window_rows]
        for place, answer in enumerate(_embed_some(some, call, memory, begin), start):
            if answer is None:
                continue
            numbers = numbers_of(answer)
            if found.shape[1] != len(numbers):  # the first: those of a statement have the same dimensions
                found = np.full((len(texts), len(numbers)), np.nan, np.float32)
            found[place] = numbers
    return found


def _embed_some(texts: Sequence[str], call: Call, memory: Memory, begin: Callable[[Call], Round]) -> list[str | None]:
    inquiry = memory.inquiry(Ask(None, call))

    def make_groups() -> Iterator[Group]:
        cells = [json.dumps(text, ensure_ascii=False) for text in texts]
        yield asking.group([inquiry], Table.from_cells([VALUE], [cells]))

    with closing(begin(call)) as asking:
        try:
            groups = asking.ask(0, make_groups)  # they are none of the rows that the user asks about
        except Failed as failed:
            raise EmbeddingError(failed.reason, call.server) from None
    return [text for text, _ in outcomes_at(groups, [range(len(texts))], len(texts))]
