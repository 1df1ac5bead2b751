"""Embeddings of rows, as one matrix: texts in, unit vectors out.

In: texts, each once, a call that embeds, a statement's memory and what asks. Out: a vector each, of length 1; zeros
where there is none. It knows neither PostgreSQL nor HTTP.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence

import numpy as np

from pg_bridge.asking.failures import digest_prompt
from pg_bridge.asking.inquiry import Ask, Outcome
from pg_bridge.asking.memory import Memory
from pg_bridge.asking.nearness import Vectors, to_units
from pg_bridge.asking.together import Failed, Round, outcomes_at
from pg_bridge.errors import OptionError, RowError
from pg_bridge.options import Call
from pg_bridge.rows.cutting import NULL, VALUE, cells_of
from pg_bridge.rows.table import Table

MOST_NUMBERS = 1 << 26  # 256 MB


def text_of(row: str) -> str:
    """What is embedded of a row, the text of a JSON object: its values, parted by commas, without nulls.

    >>> text_of('{"name": "Acme", "city": null, "size": 7}')
    'Acme, 7'
    """
    cells = (cell for _, cell in cells_of(row) or () if cell != NULL)
    return ", ".join(json.loads(cell, strict=False) if cell.startswith('"') else cell for cell in cells)


def embedding_call(embedder: str, call: Call) -> Call:
    """How rows are embedded, for a call that asks about them: what holds for the answers' limits does not."""
    return Call.from_arguments(
        {
            "kind": "embedding",
            "server": embedder,
            "dimensions": call.dimensions,
            "on_error": call.on_error,
            "on_budget": call.on_budget,
            "cache": call.cache,
            "max_age": call.max_age,
            "priority": call.priority,
            "window_rows": 10_000,
        }
    )


def embed_texts(
    texts: Sequence[str], row_ids: Sequence[int], call: Call, memory: Memory, begin: Callable[[], Round]
) -> Vectors:
    """Embed texts.

    Args:
        texts: The texts.
        row_ids: For each a row that it is of, for errors.
        call: As `embedding_call` makes it.
        memory: Of the statement.
        begin: Begins what asks; once for each window.

    Returns:
        (n, d) float32: unit vectors; zeros where there is no embedding, if `on_error` or `on_budget` is `null`, or an
        embedding of zeros.

    Raises:
        RowError: A text has no embedding, and `on_error` is `fail`.
        OptionError: They are too many numbers to be held.
        BudgetExceeded: More would have to be asked than a budget allows, and `on_budget` is `fail`.
        EngineError: The engine failed as a whole.
    """
    units = np.zeros((len(texts), 0), np.float32)
    for start in range(0, len(texts), call.window_rows):
        some = texts[start : start + call.window_rows]
        for place, (embedding, _) in enumerate(_ask(some, row_ids[start:], call, memory, begin()), start):
            if embedding is None:
                continue
            vector = np.frombuffer(base64.b64decode(embedding), "<f4")
            if not units.shape[1]:
                _see_that_they_fit(len(texts), len(vector))
                units = np.zeros((len(texts), len(vector)), np.float32)
            units[place] = vector
        units[start : start + len(some)] = to_units(units[start : start + len(some)])
    return units


def _ask(texts: Sequence[str], row_ids: Sequence[int], call: Call, memory: Memory, asking: Round) -> list[Outcome]:
    inquiry = memory.inquiry(Ask(None, call))
    cells = [json.dumps(text, ensure_ascii=False) for text in texts]
    try:
        groups = asking.ask(len(texts), lambda: iter([asking.group([inquiry], Table.from_cells([VALUE], [cells]))]))
    except Failed as failed:
        row_id = next(row_ids[place] for place, text in enumerate(texts) if digest_prompt(text) == failed.prompt)
        raise RowError(row_id, failed.reason) from None
    outcomes = outcomes_at(groups, [range(len(texts))], len(texts))
    inquiry.outcomes.clear()  # each text comes once
    return outcomes


def _see_that_they_fit(rows: int, dimensions: int) -> None:
    if rows * dimensions > MOST_NUMBERS:
        raise OptionError(
            f"{rows} different rows with {dimensions} dimensions each are more than {MOST_NUMBERS} numbers",
            hint="Take fewer rows, or fewer dimensions, of a model that can give fewer: dimensions => 256.",
        )
