"""The picture of a prefix tree: well-formed whatever the cells hold, every row in it once, nothing over anything."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import combinations
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from pg_bridge.analysis.drawing import draw
from pg_bridge.ordering import order_by, plan
from pg_bridge.rows.table import Table

SVG = "{http://www.w3.org/2000/svg}"

FILMS = [
    ("Alien", "Fox", "Slow but sure"),
    ("Brazil", "Universal", "Odd"),
    ("Alien", "Fox", "Dark"),
    ("Brazil", "Universal", "Funny"),
    ("Cube", "Trimark", "Square"),
    ("Alien", "Fox", "Loud"),
]


def table_of(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    cells = zip(*rows, strict=True)
    return Table.from_cells(columns, [[json.dumps(cell, ensure_ascii=False) for cell in column] for column in cells])


def films() -> Table:
    return table_of(("film", "studio", "review"), FILMS)


def drawn(table: Table, question: str = "", hit_rate: float = 0.5) -> str:
    return draw(table, plan(table), row_numbers=range(table.rows), question=question, hit_rate=hit_rate)


def texts(svg: str) -> list[str]:
    return [each.text or "" for each in ElementTree.fromstring(svg).iter(f"{SVG}text")]  # noqa: S314 - our own text


def boxes(svg: str) -> list[tuple[float, float, float, float, str]]:
    """Left, top, right, bottom and colour of every rectangle but the background."""
    found = []
    for each in ElementTree.fromstring(svg).iter(f"{SVG}rect"):  # noqa: S314 - our own text
        if "x" in each.attrib:
            x, y, width, height = (float(each.attrib[name]) for name in ("x", "y", "width", "height"))
            found.append((x, y, x + width, y + height, each.attrib["fill"]))
    return found


def test_every_row_is_there_once_in_sending_order() -> None:
    table = films()
    names = [text for text in texts(drawn(table)) if text.startswith("row ")]
    assert names == [f"row {row}" for row in plan(table).row_order.tolist()]


def test_shared_cells_have_a_box_of_their_own_with_the_number_of_rows() -> None:
    said = texts(drawn(films(), question="Well,\nis it?"))
    for cell, rows in (('"film": "Alien"', "3 rows"), ('"studio": "Universal"', "2 rows"), ("Well, is it?", "6 rows")):
        assert said.count(cell) == 1
        assert said[said.index(cell) - 1] == rows
    assert [text for text in said if "Cube" in text] == [text for text in said if "Trimark" in text]  # its own box
    assert said[0] == "Prefix tree of 6 rows: hit rate 50.0 %"
    colours = [box[4] for box in boxes(drawn(films()))]
    shared = 1 + 2 + 2  # the root, two studios, two films
    assert {colours.count(colour) for colour in set(colours)} == {shared + 1, len(FILMS) + 1}  # and each in the legend


def test_a_shared_cell_stands_at_the_middle_of_its_rows() -> None:
    heights: dict[str, float] = {}
    for each in ElementTree.fromstring(drawn(films())).iter(f"{SVG}text"):  # noqa: S314 - our own text
        heights.setdefault(each.text or "", float(each.attrib["y"]))
    for count, rows in (("6 rows", range(6)), ("3 rows", (0, 2, 5))):
        own = [heights[f"row {row}"] for row in rows]
        assert heights[count] == (min(own) + max(own)) / 2


@pytest.mark.parametrize("strategy", ["original", "tree"])
def test_hostile_cells_are_text(strategy: Any) -> None:
    hostile = ["<script>&\"'</script>", "]]>", "\x00\x1b[31m", "\ufffe\x7f", "<!--", "&amp;"]
    table = table_of(("a<b", 'q"&'), [(cell, "same") for cell in hostile])
    svg = draw(table, order_by(strategy, table), row_numbers=range(6), question="<b>&", hit_rate=0)
    root = ElementTree.fromstring(svg)  # noqa: S314 - our own text
    assert {each.tag for each in root.iter()} <= {SVG + name for name in ("svg", "title", "rect", "path", "text")}
    said = "\n".join(texts(svg))
    assert '"a<b": "<script>&\\"\'</script>"' in said
    assert '"&amp;"' in said
    assert "<b>&" in said


def test_equal_tables_make_equal_pictures() -> None:
    assert drawn(films()) == drawn(films())


@pytest.mark.parametrize(
    "table",
    [
        films(),
        table_of(("a", "b"), [(f"{i % 3}" * 50, "字" * i) for i in range(40)]),
        table_of([f"c{j}" for j in range(12)], [[f"{i // (j + 1)}" for j in range(12)] for i in range(40)]),
        table_of(("a",), [("x",)]),
        Table.from_cells(("a",), [[]]),
    ],
    ids=["films", "wide", "deep", "one row", "no rows"],
)
def test_nothing_lies_over_anything_or_outside(table: Table) -> None:
    svg = drawn(table, question="Is it so? " * 10)
    root = ElementTree.fromstring(svg)  # noqa: S314 - our own text
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for left, top, right, bottom, _ in boxes(svg):
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
    for one, other in combinations(boxes(svg), 2):
        apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
        assert apart, (one, other)
    for text in root.iter(f"{SVG}text"):
        assert float(text.attrib["x"]) + float(text.attrib["textLength"]) <= width
        assert float(text.attrib["y"]) <= height


def test_a_long_cell_is_cut() -> None:
    svg = drawn(table_of(("a", "b"), [("x" * 1_000_000, "1"), ("x" * 1_000_000, "y" * 1_000_000)]))
    assert len(svg) < 10_000
    assert "xxx…" in svg
    assert "yyy…" in svg


def test_of_many_columns_that_the_same_rows_share_the_last_box_tells_how_many() -> None:
    table = table_of([f"c{j}" for j in range(200)], [["same"] * 199 + [f"{i}"] for i in range(3)])
    said = texts(drawn(table))
    assert "… and 196 more cells" in said
    assert [text for text in said if text.startswith("row ")] == ["row 0", "row 1", "row 2"]


def test_rows_without_columns() -> None:
    table = Table((), np.empty((1, 0), np.int32), ())
    assert [text for text in texts(drawn(table, "Well?")) if "row" in text][:3] == [
        "Prefix tree of 1 row: hit rate 50.0 %",
        "1 row",
        "row 0",
    ]
