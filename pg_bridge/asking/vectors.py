"""Texts embedded for a statement that compares them itself, as one matrix: texts in, unit vectors out.

In: different texts, a call that embeds, a statement's memory and what asks. Out: a vector each, of length 1; zeros
where there is none. They are asked for as `llm.embed` would ask for them, some at a time, so that what both have
embedded is one. It knows neither PostgreSQL nor HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import closing

import numpy as np

from pg_bridge.asking.inquiry import Ask
from pg_bridge.asking.memory import Memory
from pg_bridge.asking.nearness import Vectors, to_units
from pg_bridge.asking.together import Round, outcomes_at
from pg_bridge.engine import numbers_of
from pg_bridge.errors import OptionError
from pg_bridge.options import Call
from pg_bridge.rows.cutting import NULL, VALUE, cells_of
from pg_bridge.rows.media import nulls_for_media
from pg_bridge.rows.table import Table

MOST_NUMBERS = 1 << 26  # 256 MB


def text_of(row: str, between: str = ", ") -> str:
    r"""What is embedded of a row, the text of a JSON object: its values, parted by something, without nulls and media.

    >>> text_of('{"name": "Acme", "city": null, "size": 7}')
    'Acme, 7'
    >>> text_of('{"name": "Heat", "year": 1995, "stars": null}', "\n")
    'Heat\n1995'
    """
    cells = (cell for _, cell in cells_of(nulls_for_media(row)) or () if cell != NULL)
    return between.join(json.loads(cell, strict=False) if cell.startswith('"') else cell for cell in cells)


def embed_texts(
    texts: Sequence[str], call: Call, memory: Memory, begin: Callable[[], Round], *, are_rows: bool = False
) -> Vectors:
    """Embed texts.

    Args:
        texts: (n,) different ones.
        call: How.
        memory: Of the statement.
        begin: Begins what asks; once for each `window_rows` of them.
        are_rows: Whether they are all rows that the user asks about: they count as such, may not be too many, and what
            is found is not kept for others.

    Returns:
        (n, d) float32: unit vectors; zeros where there is no embedding, if `on_error` or `on_budget` is `null`, or an
        embedding of zeros.

    Raises:
        Failed: A text has no embedding, and `on_error` is `fail`.
        OptionError: They are too many numbers to be held.
        BudgetExceeded: More would have to be asked than a budget allows, and `on_budget` is `fail`.
        EngineError: The engine failed as a whole, or makes no embeddings.
    """
    units = np.zeros((len(texts), 0), np.float32)
    for start in range(0, len(texts), call.window_rows):
        some = slice(start, start + call.window_rows)
        for place, answer in enumerate(_ask(texts[some], call, memory, begin, are_rows=are_rows), start):
            if answer is None:
                continue
            vector = numbers_of(answer)
            if not units.shape[1]:  # the first: those of a statement have the same dimensions
                if are_rows:
                    _see_that_they_fit(len(texts), len(vector))
                units = np.zeros((len(texts), len(vector)), np.float32)
            units[place] = vector
        units[some] = to_units(units[some])
    return units


def _ask(
    texts: Sequence[str], call: Call, memory: Memory, begin: Callable[[], Round], *, are_rows: bool
) -> list[str | None]:
    inquiry = memory.inquiry(Ask(None, call))
    cells = [json.dumps(text, ensure_ascii=False) for text in texts]
    with closing(begin()) as asking:
        groups = asking.ask(
            len(texts) if are_rows else 0,
            lambda: iter([asking.group([inquiry], Table.from_cells([VALUE], [cells]))]),
        )
    outcomes = outcomes_at(groups, [range(len(texts))], len(texts))
    if are_rows:
        inquiry.outcomes.clear()
    return [text for text, _ in outcomes]


def _see_that_they_fit(rows: int, dimensions: int) -> None:
    if rows * dimensions > MOST_NUMBERS:
        raise OptionError(
            f"{rows} different rows with {dimensions} dimensions each are more than {MOST_NUMBERS} numbers",
            hint="Take fewer rows, or fewer dimensions, of a model that can give fewer: dimensions => 256.",
        )
