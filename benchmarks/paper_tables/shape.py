"""A generated table and the prompts that go with it.

In: columns of cells. Out: a `Table` to plan, or rows as PostgreSQL's `row_to_json` prints them. It draws nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from pg_bridge.rows.table import Table


@dataclass(frozen=True, slots=True)
class PaperTable:
    """A table of the paper's shape.

    Attributes:
        name: As in `PAPER_TABLES`.
        columns: The column names.
        types: The PostgreSQL type of each column.
        cells: Column by column, each cell as the JSON text that `row_to_json` prints for it.
        system_prompt: The system instruction, the same for all tables.
        question: A question that filters rows; it names no column in braces.
    """

    name: str
    columns: tuple[str, ...]
    types: tuple[str, ...]
    cells: tuple[list[str], ...]
    system_prompt: str
    question: str

    def table(self) -> Table:
        """Return what planners take."""
        return Table.from_cells(self.columns, self.cells)

    def rows(self) -> list[str]:
        """Return each row as one JSON object."""
        row = "{" + ",".join(as_json(column).replace("%", "%%") + ":%s" for column in self.columns) + "}"
        return [row % cells for cells in zip(*self.cells, strict=True)]


@dataclass(frozen=True, slots=True)
class Column:
    """One column: name, PostgreSQL type, cells as JSON text."""

    name: str
    type: str
    cells: list[str]


def as_json(text: str | None) -> str:
    r"""Write a text cell as `row_to_json` does; None is null.

    >>> as_json('5" é'), as_json(None)
    ('"5\\" é"', 'null')
    """
    return json.dumps(text, ensure_ascii=False)


def texts(name: str, values: Iterable[str | None]) -> Column:
    """Make a text column; equal values that are one object give one cell object."""
    seen: dict[str | None, str] = {}
    cells = []
    for value in values:
        cell = seen.get(value)
        if cell is None:
            cell = seen[value] = as_json(value)
        cells.append(cell)
    return Column(name, "text", cells)


def integers(name: str, values: Iterable[int], *, wide: bool = False) -> Column:
    """Make a column of integers, `bigint` where wide."""
    return Column(name, "bigint" if wide else "integer", _shared(str(value) for value in values))


def doubles(name: str, values: Iterable[float]) -> Column:
    """Make a column of double precision; a whole number has no point, as PostgreSQL prints it.

    >>> doubles("a", [4.5, 4.0]).cells
    ['4.5', '4']
    """
    return Column(name, "double precision", _shared(repr(value).removesuffix(".0") for value in values))


def booleans(name: str, values: Iterable[bool]) -> Column:
    """Make a column of booleans."""
    return Column(name, "boolean", ["true" if value else "false" for value in values])


def _shared(cells: Iterable[str]) -> list[str]:
    """Keep one object for equal texts: a million rows hold few distinct ratings."""
    kept: dict[str, str] = {}
    return [kept.setdefault(cell, cell) for cell in cells]
