"""A made or shared table as a table in PostgreSQL.

In: a connection, a `PaperTable`, the order of its rows. Out: a table that holds them, analyzed. Cells come out of
`row_to_json` as the text that they are in the `PaperTable`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import psycopg
from psycopg import sql

from benchmarks.paper_tables import PaperTable


def columns_of(table: PaperTable) -> sql.Composable:
    """The columns as CREATE TABLE takes them."""
    return sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(column), sql.SQL(type_))
        for column, type_ in zip(table.columns, table.types, strict=True)
    )


def load_table(
    connection: psycopg.Connection[Any], table: PaperTable, name: str, order: Iterable[int] | None = None
) -> None:
    """Make a table anew and fill it.

    Args:
        connection: Of the database.
        table: Its columns and cells.
        name: Of the table in PostgreSQL.
        order: The rows, by their places; None for all of them in their own order.
    """
    made = sql.Identifier(name)
    connection.execute(
        sql.SQL("DROP TABLE IF EXISTS {} CASCADE; CREATE TABLE {} ({})").format(made, made, columns_of(table))
    )
    with connection.cursor() as cursor, cursor.copy(sql.SQL("COPY {} FROM STDIN").format(made)) as copy:
        for row in range(len(table.cells[0])) if order is None else order:
            copy.write_row([_value(cells[row]) for cells in table.cells])
    connection.execute(sql.SQL("ANALYZE {}").format(made))


def _value(cell: str) -> str | None:
    """What COPY takes for a cell: a text without its quotes, a number or a boolean as it stands, None for null."""
    if cell.startswith('"'):
        text: str = json.loads(cell)
        return text
    return None if cell == "null" else cell
