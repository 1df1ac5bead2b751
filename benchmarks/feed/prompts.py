"""The paper's filters as an engine sees them: the prompts of a table in a way's order, as token ids.

In: a table, a way. Out: each prompt by its tokens, which are Tekken's as in the runs on the GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from benchmarks.ggr import ggr
from benchmarks.paper_tables import PaperTable
from benchmarks.planner.prompts import tekken
from pg_bridge.analysis.tokenizer import Tokenizer
from pg_bridge.asking.prompt import Question, render
from pg_bridge.ordering import Ordering, order_by, plan, weigh
from pg_bridge.rows.dedup import dedup
from pg_bridge.rows.table import Table
from pg_bridge.testing.fast_engine import Prompt

# What the chat template of the runs adds, by the numbers of Tekken's special tokens.
_BEGIN, _SYSTEM, _END_SYSTEM, _USER, _END_USER = 1, 17, 18, 3, 4

ORDERS: dict[str, Callable[[Table], Ordering]] = {
    "orig": lambda table: order_by("original", table),
    "v1": lambda table: order_by("v1", table),
    "ggr": lambda table: weigh("GGR", table, *ggr(table)),
    "ours": plan,
}
"""By the names in `measured.py`."""


def texts(made: PaperTable, way: str) -> list[str]:
    """The user messages in the order in which a way sends them; ours asks equal rows once."""
    table = made.table()
    table = dedup(table).table if way == "ours" else table
    return list(render(Question(made.question, ()), table, ORDERS[way](table)))


@cache
def _tokenizer() -> Tokenizer:
    """Tekken, which takes a second to load."""
    return tekken()


def prompts(made: PaperTable, way: str, block_size: int, run: int = 1000) -> list[Prompt]:
    """All prompts as the engine sees them, behind a system prompt of the run's own, as in `benchmarks.paper.runs`."""
    tokenize = _tokenizer()
    (system,) = tokenize([f"Run {run}. {made.system_prompt}"])
    head = np.array([_BEGIN, _SYSTEM, *system, _END_SYSTEM, _USER], np.int32)
    return [Prompt.of(np.concatenate([head, each, [_END_USER]]), block_size) for each in tokenize(texts(made, way))]
