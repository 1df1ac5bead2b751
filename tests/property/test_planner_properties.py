"""What must hold for any row set: every answer lands on its row, every row keeps its cells, no plan loses."""

from __future__ import annotations

import json
from itertools import pairwise
from os import path
from typing import Any

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks.ggr import EarlyStop, ggr
from pg_bridge.analysis.bound import most_shared_by_neighbours, most_shared_chars
from pg_bridge.asking.prompt import Question, render
from pg_bridge.cli.plan import place_duplicates
from pg_bridge.options import REORDER, Reorder
from pg_bridge.ordering import STRATEGIES, Ordering, order_by, plan
from pg_bridge.ordering.cells import Cells, count_shared
from pg_bridge.rows.dedup import dedup
from pg_bridge.rows.table import Table

QUESTION = Question("Well?", ())
EAGER = EarlyStop(row_depth=float("inf"), column_depth=float("inf"), smallest_score=1)

# Few and short texts, so that cells repeat, share prefixes and come up in several columns.
words = st.sampled_from(
    [
        "",
        "a",
        "ab",
        "abc",
        "ab" * 40,
        "ab" * 40 + "c",
        "null",
        "1",
        "é",
        "日本",
        "😀",
        '"',
        "\\",
        "\n",
        "\x01",
        "{%s}",
        "\\u0041",
    ]
) | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)
numbers = st.sampled_from(["0", "1", "12", "12.5", "12.50", "-1", "1e400", "1E+5", "9" * 40])
names = st.sampled_from(["a", "ab", "A", "the name", "é", '"', "{}", "%s", "\n", "\\"]) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=5
)


def postgres_json(text: str) -> str:
    """A text as row_to_json prints it."""
    return json.dumps(text, ensure_ascii=False)


def nested(children: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    arrays = st.lists(children, max_size=3).map(lambda cells: f"[{', '.join(cells)}]")
    objects = st.lists(st.tuples(words.map(postgres_json), children), max_size=2)
    return arrays | objects.map(lambda pairs: "{" + ", ".join(f"{name}: {cell}" for name, cell in pairs) + "}")


scalars = words.map(postgres_json) | numbers | st.sampled_from(["null", "true", "false"])
cells = scalars | st.recursive(scalars, nested, max_leaves=4)


@st.composite
def row_sets(draw: st.DrawFn, max_rows: int = 12) -> tuple[list[str], list[dict[str, str] | None]]:
    """Column names, and rows as cell texts by name; None is a NULL row."""
    columns = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    pool = [draw(st.lists(cells, min_size=1, max_size=3)) for _ in columns]
    row = st.tuples(*(st.sampled_from(choices) | cells for choices in pool))
    rows = draw(st.lists(st.none() | row, max_size=max_rows))
    return columns, [None if row is None else dict(zip(columns, row, strict=True)) for row in rows]


def as_json(row: dict[str, str] | None) -> str | None:
    return None if row is None else "{" + ",".join(f"{postgres_json(name)}:{cell}" for name, cell in row.items()) + "}"


def table_of(columns: list[str], rows: list[dict[str, str] | None]) -> Table:
    return Table.from_json([as_json(row) for row in rows], columns)


def exactly(text: str) -> Any:
    """A JSON text as Python objects that keep a number's spelling and all of an object's pairs."""
    return json.loads(
        text,
        object_pairs_hook=lambda pairs: ("object", tuple(pairs)),
        parse_float=lambda number: ("number", number),
        parse_int=lambda number: ("number", number),
        strict=False,
    )


def cells_of(message: str) -> dict[str, Any]:
    """The cells of a user message."""
    kind, pairs = exactly(message.removeprefix(QUESTION.text + "\n"))
    assert kind == "object"
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def expected_cells(columns: list[str], row: dict[str, str] | None) -> dict[str, Any]:
    return {name: None if row is None else exactly(row[name]) for name in columns}


def message_of(row: dict[str, str] | None, columns: list[str]) -> tuple[str, ...]:
    return tuple("null" if row is None else row[name] for name in columns)


def shared_by_neighbours(messages: list[str]) -> int:
    bare = [message.removeprefix(QUESTION.text + "\n") for message in messages]
    return sum(len(path.commonprefix(pair)) for pair in pairwise(bare))  # noqa: RUF071 - characters are meant


def shared_in_a_tree(messages: list[str]) -> int:
    """Characters that need no node of their own in a tree with one character a node."""
    bare = [message.removeprefix(QUESTION.text + "\n") for message in messages]
    nodes = {text[:end] for text in bare for end in range(1, len(text) + 1)}
    return sum(map(len, bare)) - len(nodes)


@given(row_sets(), st.sampled_from(REORDER), st.booleans())
def test_answers_land_on_the_right_row(
    row_set: tuple[list[str], list[dict[str, str] | None]], reorder: Reorder, deduplicated: bool
) -> None:
    columns, rows = row_set
    unique = dedup(table_of(columns, rows), enabled=deduplicated)
    ordering = plan(unique.table, reorder=reorder)
    messages = list(render(QUESTION, unique.table, ordering))
    assert len(messages) == unique.table.rows == len(ordering.row_order)
    answers: list[str | None] = [None] * len(rows)
    offsets, members = unique.fan_out()
    for message, sent in zip(messages, ordering.row_order.tolist(), strict=True):
        for row_id in members[offsets[sent] : offsets[sent + 1]].tolist():
            assert answers[row_id] is None
            answers[row_id] = message
    for row, answer in zip(rows, answers, strict=True):
        assert answer is not None
        assert cells_of(answer) == expected_cells(columns, row)


@given(row_sets())
def test_dedup_merges_equal_rows_and_no_others(
    row_set: tuple[list[str], list[dict[str, str] | None]],
) -> None:
    columns, rows = row_set
    null = dict.fromkeys(columns, "null")
    distinct = list(dict.fromkeys(tuple((row or null).values()) for row in rows))
    unique = dedup(table_of(columns, rows))
    assert unique.inverse.tolist() == [distinct.index(tuple((row or null).values())) for row in rows]
    assert unique.table.rows == len(distinct)


@given(row_sets(), st.randoms(use_true_random=False))
def test_key_order_extra_keys_and_missing_nulls_change_nothing(
    row_set: tuple[list[str], list[dict[str, str] | None]], random: Any
) -> None:
    columns, rows = row_set
    plain = table_of(columns, rows)
    texts = []
    for row in rows:
        pairs = [(name, cell) for name, cell in (row or {}).items() if cell != "null"]
        pairs.append(("an extra key", '{"x": [1, "}"]}'))
        random.shuffle(pairs)
        text = ", ".join(f"{json.dumps(name)} : {cell}" for name, cell in pairs)
        texts.append(f"{{ {text} }}")
    table = Table.from_json(texts, columns)
    assert np.array_equal(table.codes, plain.codes)
    assert table.values == plain.values


@given(row_sets())
def test_many_rows_are_cut_like_few(row_set: tuple[list[str], list[dict[str, str] | None]]) -> None:
    columns, rows = row_set
    few, many = table_of(columns, rows), table_of(columns, rows * 200)
    assert many.values == few.values
    assert np.array_equal(many.codes, np.tile(few.codes, (200, 1)))


@given(row_sets(), st.sampled_from(REORDER))
def test_orderings_are_permutations_with_exact_figures_and_never_lose(
    row_set: tuple[list[str], list[dict[str, str] | None]], reorder: Reorder
) -> None:
    table = table_of(*row_set)
    ordering = plan(table, reorder=reorder)
    assert sorted(ordering.row_order.tolist()) == list(range(table.rows))
    assert ordering.column_order.shape == table.codes.shape
    assert np.array_equal(
        np.sort(ordering.column_order, axis=1), np.tile(np.arange(len(table.columns)), (table.rows, 1))
    )
    messages = list(render(QUESTION, table, ordering))
    assert ordering.shared_chars == shared_by_neighbours(messages)
    assert ordering.total_chars == sum(len(message) - len(QUESTION.text) - 1 for message in messages)
    in_input_order = list(render(QUESTION, table, original(table)))
    assert ordering.shared_chars >= shared_by_neighbours(in_input_order)


@given(row_sets(max_rows=9))
def test_no_other_ordering_that_is_known_shares_more(
    row_set: tuple[list[str], list[dict[str, str] | None]],
) -> None:
    table = table_of(*row_set)
    ordering = plan(table)
    assert ordering.strategy in STRATEGIES
    for strategy in STRATEGIES:
        assert order_by(strategy, table).shared_chars <= ordering.shared_chars, strategy
    assert ordering.shared_chars <= most_shared_chars(Cells(table))
    assert ordering.shared_chars <= most_shared_by_neighbours(Cells(table))


@given(row_sets(max_rows=9))
def test_every_strategy_says_exactly_what_it_shares(
    row_set: tuple[list[str], list[dict[str, str] | None]],
) -> None:
    table = table_of(*row_set)
    for strategy in STRATEGIES:
        ordering = order_by(strategy, table)
        messages = list(render(QUESTION, table, ordering))
        assert sorted(ordering.row_order.tolist()) == list(range(table.rows))
        assert ordering.strategy == (strategy if table.rows > 1 else "original")
        assert ordering.shared_chars == shared_by_neighbours(messages), strategy
        if ordering.strategy != "original":
            assert ordering.shared_chars == shared_in_a_tree(messages), strategy


@given(row_sets(), st.data())
def test_some_rows_of_a_table_plan_like_a_table_of_their_own(
    row_set: tuple[list[str], list[dict[str, str] | None]], data: st.DataObject
) -> None:
    columns, rows = row_set
    kept = data.draw(st.lists(st.sampled_from(range(len(rows))), unique=True)) if rows else []
    table = table_of(columns, rows).take(np.array(kept, np.intp))
    ordering = plan(table)
    messages = list(render(QUESTION, table, ordering))
    assert ordering.shared_chars == shared_by_neighbours(messages)
    for message, sent in zip(messages, ordering.row_order.tolist(), strict=True):
        assert cells_of(message) == expected_cells(columns, rows[kept[sent]])
    assert dedup(table).table.rows == len({message_of(rows[i], columns) for i in kept})


@given(row_sets())
def test_more_freedom_never_costs_hits(row_set: tuple[list[str], list[dict[str, str] | None]]) -> None:
    table = table_of(*row_set)
    none, rows, both = (plan(table, reorder=reorder) for reorder in ("none", "rows", "rows and columns"))
    assert none.shared_chars <= rows.shared_chars <= both.shared_chars
    assert rows.column_order.tolist() == none.column_order.tolist()
    assert none.row_order.tolist() == list(range(table.rows))


@given(row_sets(max_rows=30))
def test_ggr_keeps_every_cell_and_its_worth_is_exact(
    row_set: tuple[list[str], list[dict[str, str] | None]],
) -> None:
    columns, rows = row_set
    assume(rows)
    table = table_of(columns, rows)
    row_order, column_order = ggr(table, EAGER)
    messages = list(render(QUESTION, table, as_ordering(row_order, column_order)))
    assert sorted(row_order.tolist()) == list(range(table.rows))
    for message, row in zip(messages, row_order.tolist(), strict=True):
        assert cells_of(message) == expected_cells(columns, rows[row])
    assert int(count_shared(Cells(table), row_order, column_order).sum()) == shared_by_neighbours(messages)
    assert Cells(table).total_chars() == sum(len(message) - len(QUESTION.text) - 1 for message in messages)


@given(row_sets(), st.data())
def test_any_column_order_is_measured_exactly(
    row_set: tuple[list[str], list[dict[str, str] | None]], data: st.DataObject
) -> None:
    table = table_of(*row_set)
    n, k = table.codes.shape
    row_order = np.array(data.draw(st.permutations(range(n))), np.intp)
    column_order = np.array([data.draw(st.permutations(range(k))) for _ in range(n)], np.int16).reshape(n, k)
    messages = list(render(QUESTION, table, as_ordering(row_order, column_order)))
    assert int(count_shared(Cells(table), row_order, column_order).sum()) == shared_by_neighbours(messages)


@given(row_sets())
def test_placing_duplicates_beside_their_twin_never_costs_hits(
    row_set: tuple[list[str], list[dict[str, str] | None]],
) -> None:
    table = table_of(*row_set)
    unique = dedup(table)
    ordering = plan(unique.table)
    placed = place_duplicates(unique, ordering)
    assert sorted(placed.row_order.tolist()) == list(range(table.rows))
    sent = unique.inverse[placed.row_order]
    changes = np.flatnonzero(np.diff(sent)) + 1
    assert [group[0] for group in np.split(sent, changes) if len(group)] == ordering.row_order.tolist()
    messages = list(render(QUESTION, table, as_ordering(placed.row_order, placed.column_order)))
    shared = shared_by_neighbours(messages)
    assert shared - ordering.shared_chars == Cells(table).total_chars() - ordering.total_chars
    assert shared >= shared_by_neighbours(list(render(QUESTION, table, original(table))))


def original(table: Table) -> Ordering:
    n, k = table.codes.shape
    return as_ordering(np.arange(n), np.tile(np.arange(k, dtype=np.int16), (n, 1)))


def as_ordering(row_order: NDArray[np.intp], column_order: NDArray[np.int16]) -> Ordering:
    return Ordering(row_order, column_order, "test", 0, 0)
