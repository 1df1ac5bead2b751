"""A picture of the prefix tree that planned rows form, as SVG.

In: a few unique rows and their plan. Out: the text of an SVG file that needs nothing else: no script, no font, no
style sheet of its own. The tree grows to the right. A box with a count is a cell that so many rows begin with, after
the cells to its left; a box with a row's number is what that row has for itself. It plans nothing, and cells longer
than a few words are cut.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile
from xml.sax.saxutils import escape

from pg_bridge.ordering import Ordering
from pg_bridge.rows.table import Table

MOST_ROWS = 40

_MOST_CELL_CHARS = 32  # drawn of a cell
_MOST_REST_CHARS = 80  # drawn of what a row has for itself
_MOST_CHAIN = 4  # boxes in a row for cells that the same rows share

_LINE = 28  # pixels, as all lengths below
_BOX = 20
_GAP = 32
_MARGIN = 16
_PAD = 7
_CHAR = 7.2  # the advance of a monospaced font of 12 pixels

_SHARED = 'fill="#d3e5f8" stroke="#2b6cb0"'
_COMPUTED = 'fill="#ffffff" stroke="#a0a0a0"'
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Box:
    """One box of the picture.

    Attributes:
        depth: Its place from the left; the root has 0.
        line: Its place from the top, in lines; halves occur.
        text: What is written in it, first.
        note: What is written after that, in another colour.
        shared: Whether more than one row has it.
        parent: The box that it hangs on, by number; None for the root.
    """

    depth: int
    line: float
    text: str
    note: str
    shared: bool
    parent: int | None


def draw(table: Table, ordering: Ordering, *, row_numbers: Sequence[int], question: str, hit_rate: float) -> str:
    """Draw the tree.

    Args:
        table: Unique rows, as a rule at most `MOST_ROWS`.
        ordering: Their plan.
        row_numbers: What to call each of the table's rows.
        question: What every prompt begins with; may be empty.
        hit_rate: For the caption, a fraction.
    """
    boxes = _boxes(table, ordering, row_numbers, " ".join(question.split()))
    lefts, rights = _columns(boxes)
    lines = max(table.rows, 1)
    top = 2 * _MARGIN + _LINE  # below the heading
    bottom = top + lines * _LINE
    notes = [
        (_SHARED, "a cell that several rows begin with: computed once"),
        (_COMPUTED, "what a row, counted from 0, has for itself: computed for that row"),
    ]
    heading = f"Prefix tree of {_count(table.rows)}: hit rate {100 * hit_rate:.1f} %"
    caption = "Hit rate: characters shared with the prompt above, of all; equal beginnings of two cells count too."
    width = max(
        *(lefts[box.depth] + _box_width(box) for box in boxes),
        *(_MARGIN + 2 * _LINE + _width(text) for _, text in notes),
        _MARGIN + _width(caption),
        _MARGIN + _width(heading),
    )
    parts = [_text(_MARGIN, _MARGIN + _BOX, heading, 'font-weight="bold"')]
    parts += [
        _edge(
            rights[boxes[box.parent].depth],
            lefts[boxes[box.parent].depth],
            boxes[box.parent],
            lefts[box.depth],
            box,
            top,
        )
        for box in boxes
        if box.parent is not None
    ]
    for box in boxes:
        parts += _draw_box(box, lefts[box.depth], top + box.line * _LINE)
    for number, (style, text) in enumerate(notes):
        y = bottom + _MARGIN + number * _LINE
        parts.append(_rectangle(_MARGIN, y, 1.5 * _LINE, style))
        parts.append(_text(_MARGIN + 2 * _LINE, y + 14, text))
    height = bottom + _MARGIN + (len(notes) + 1) * _LINE
    parts.append(_text(_MARGIN, height - _LINE + 14, caption, 'fill="#505050"'))
    size = f"{width + _MARGIN:.0f} {height + _MARGIN:.0f}"
    shape = 'width="{}" height="{}"'.format(*size.split())
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" {shape} role="img"'
            ' font-family="ui-monospace, Menlo, Consolas, \'DejaVu Sans Mono\', monospace" font-size="12">',
            f"<title>{_escape(heading)}</title>",
            '<rect width="100%" height="100%" fill="#ffffff"/>',
            *parts,
            "</svg>",
        ]
    )


def _boxes(table: Table, ordering: Ordering, row_numbers: Sequence[int], question: str) -> list[Box]:
    """The root, then the tree below it, rows in sending order from top to bottom."""
    labels, values = table.labels(), table.values
    codes = table.codes
    numbers = ordering.row_order.tolist()
    rows = [
        [labels[j] + values[j][codes[row, j]] for j in columns]
        for row, columns in zip(numbers, ordering.column_order.tolist(), strict=True)
    ]
    names = [f"row {row_numbers[row]}" for row in numbers]
    root = Box(0, max(len(rows) - 1, 0) / 2, _shorten(question, _MOST_CELL_CHARS) or "{", _count(len(rows)), True, None)
    boxes = [root]

    def grow(first: int, last: int, place: int, parent: int) -> None:
        """Hang rows first to last, which share all before `place`, under a box."""
        for start, end in _groups(rows, first, last, place):
            on = parent
            shared = _shared_from(rows[start:end], place) if end - start > 1 else []
            for text in _chain(shared):
                box = Box(boxes[on].depth + 1, (start + end - 1) / 2, text, _count(end - start), True, on)
                boxes.append(box)
                on = len(boxes) - 1
            if end - start > 1:
                grow(start, end, place + len(shared), on)
            else:
                boxes.append(Box(boxes[on].depth + 1, start, _rest(rows[start][place:]), names[start], False, on))

    grow(0, len(rows), 0, 0)
    return boxes


def _groups(rows: list[list[str]], first: int, last: int, place: int) -> Iterator[tuple[int, int]]:
    """Runs of neighbours with the same cell at a place; rows that end there stand alone."""

    def key(i: int) -> tuple[int, str]:
        return (0, rows[i][place]) if place < len(rows[i]) else (i, "")

    for _, run in groupby(range(first, last), key):
        members = list(run)
        yield members[0], members[-1] + 1


def _shared_from(rows: list[list[str]], place: int) -> list[str]:
    """The cells from a place on that all of the rows share."""
    columns = takewhile(lambda cells: len(set(cells)) == 1, zip(*(row[place:] for row in rows), strict=True))
    return [cells[0] for cells in columns]


def _chain(shared: list[str]) -> list[str]:
    """A box's text for each cell that the same rows share; of many the last box stands for the rest."""
    texts = [_shorten(cell, _MOST_CELL_CHARS) for cell in shared]
    if len(texts) <= _MOST_CHAIN:
        return texts
    return [*texts[: _MOST_CHAIN - 1], f"… and {len(texts) - _MOST_CHAIN + 1} more cells"]


def _rest(cells: list[str]) -> str:
    texts = ", ".join(_shorten(cell, _MOST_CELL_CHARS) for cell in cells[:_MOST_REST_CHARS])
    return _shorten(texts, _MOST_REST_CHARS)


def _count(rows: int) -> str:
    return "1 row" if rows == 1 else f"{rows} rows"


def _shorten(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _columns(boxes: list[Box]) -> tuple[list[float], list[float]]:
    """Where each depth begins, and where its shared boxes end; a row's own box may go on to the right of that."""
    depths = 1 + max(box.depth for box in boxes)
    widest = [0.0] * depths
    for box in boxes:
        if box.shared:
            widest[box.depth] = max(widest[box.depth], _box_width(box))
    lefts = [float(_MARGIN)]
    for width in widest[:-1]:
        lefts.append(lefts[-1] + width + _GAP)
    return lefts, [left + width for left, width in zip(lefts, widest, strict=True)]


def _box_width(box: Box) -> float:
    return 3 * _PAD + _width(box.text) + _width(box.note)


def _width(text: str) -> float:
    """How wide a monospaced font sets a text: East Asian characters take two places, marks on a letter none."""
    return _CHAR * sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def _edge(right: float, left: float, parent: Box, child_left: float, child: Box, top: float) -> str:
    """A line from a box, straight to the end of its depth, then bent to one at the next depth."""
    start, end = (top + box.line * _LINE + _BOX / 2 for box in (parent, child))
    middle = (right + child_left) / 2
    path = f"M{left + _box_width(parent):.1f} {start:.1f}H{right:.1f}"
    bend = f"C{middle:.1f} {start:.1f} {middle:.1f} {end:.1f} {child_left:.1f} {end:.1f}"
    return f'<path d="{path}{bend}" fill="none" stroke="#8a9bb0"/>'


def _draw_box(box: Box, left: float, y: float) -> list[str]:
    note = _text(left + _PAD, y + 14, box.note, 'fill="#2b6cb0" font-weight="bold"' if box.shared else 'fill="#707070"')
    text = _text(left + 2 * _PAD + _width(box.note), y + 14, box.text)
    return [
        _rectangle(left, y, _box_width(box), _SHARED if box.shared else _COMPUTED),
        note,
        *([text] if box.text else []),
    ]


def _rectangle(x: float, y: float, width: float, style: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{_BOX}" rx="3" {style}/>'


def _text(x: float, y: float, text: str, style: str = 'fill="#1a1a1a"') -> str:
    # The length is stated, so that a box holds its text in any font.
    length = f'textLength="{_width(text):.1f}" lengthAdjust="spacingAndGlyphs"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {length} xml:space="preserve" {style}>{_escape(text)}</text>'


def _escape(text: str) -> str:
    return escape(_NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text))
