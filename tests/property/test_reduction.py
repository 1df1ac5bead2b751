"""The tree of an aggregate's questions: every row is in it, no prompt is too long, and it ends."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pg_bridge.asking.reduction import LEAST_BYTES, Reduction
from pg_bridge.errors import OptionError

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=900), min_size=1, max_size=60)


def run(tree: Reduction, *, longest: int | None = None) -> tuple[list[list[str]], list[int]]:
    """Answer with what is short; return the cells of each level, and the rows behind each part of the last."""
    levels: list[list[str]] = []
    rows: list[int] = []
    while parts := tree.parts():
        levels.append([part.cell for part in parts])
        rows = [part.rows for part in parts]
        too_long = [longest is not None and len(part.cell.encode()) > longest for part in parts]
        tree.take([(None, "too long") if is_long else ("said", None) for is_long in too_long], too_long=too_long)
    return levels, rows


@given(TEXTS, st.integers(LEAST_BYTES, 2000))
def test_every_row_is_asked_about_and_no_prompt_is_too_long(texts: list[str], room: int) -> None:
    tree = Reduction([json.dumps(text) for text in texts], room)
    levels, rows = run(tree)
    assert tree.answer == "said"
    # Escapes are twice as long, at most, in a piece that is a string within a string.
    assert all(len(cell.encode()) <= 3 * room for level in levels for cell in level)
    assert rows[-1:] == [rows[0]]  # one question is left
    seen: list[object] = [item for cell in levels[0] for item in json.loads(cell)]
    whole = [item for item in seen if isinstance(item, str)]
    pieces = [item["piece of a row"] for item in seen if isinstance(item, dict)]
    kept = [text for text in texts if len(json.dumps(text).encode()) <= room]
    assert whole == kept
    assert "".join(pieces) == "".join(json.dumps(text) for text in texts if len(json.dumps(text).encode()) > room)


@given(st.integers(1, 400), st.integers(LEAST_BYTES, 600))
def test_all_rows_stand_behind_the_last_question(count: int, room: int) -> None:
    levels, rows = run(Reduction([json.dumps(f"row {i}") for i in range(count)], room))
    assert rows == [count]
    assert len(levels) <= 12
    if len(levels) > 1:
        assert sum(part["rows"] for part in json.loads(levels[-1][0])) == count


@given(TEXTS, st.integers(800, 2000))
def test_what_the_engine_finds_too_long_is_asked_in_halves(texts: list[str], room: int) -> None:
    tree = Reduction([json.dumps(text) for text in texts], room)
    levels, _ = run(tree, longest=room // 2)
    assert tree.answer == "said"
    assert len(levels[-1][0].encode()) <= room // 2


def test_a_context_that_nothing_fits_into_is_an_error() -> None:
    tree = Reduction(['"x"'], LEAST_BYTES)
    run(tree, longest=0)
    assert tree.answer is None
    assert tree.error == "too long"


def test_answers_of_which_no_two_fit_are_an_error() -> None:
    tree = Reduction([json.dumps("x" * 300)] * 4, 400)
    answers = [("y" * 390, None)] * len(tree.parts())
    with pytest.raises(OptionError, match=re.escape("no two of them fit")):
        tree.take(answers, too_long=[False] * len(answers))


def test_parts_keep_the_order_of_rows() -> None:
    tree = Reduction([json.dumps(f"{i:0100}") for i in range(9)], 400)
    parts = tree.parts()
    tree.take([(f"said {i}", None) for i in range(len(parts))], too_long=[False] * len(parts))
    (last,) = tree.parts()
    assert [part["said"] for part in json.loads(last.cell)] == [f"said {i}" for i in range(len(parts))]
