r"""A row set as columns of codes: what the planner computes on.

In: rows as the JSON objects that PostgreSQL's `row_to_json` prints. Out: a `Table`, which keeps each column's
distinct cells once, as JSON text, and one integer code per cell. A cell's text is cut out of the row, not
parsed and printed again: `12.50`, `1e400`, a forty-digit number and a json column's own spacing stay as they
are.

It never reads a database, never changes a cell and never looks at a cell's meaning.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress, count, islice

import numpy as np
from numpy.typing import NDArray

from pg_bridge.errors import QueryError
from pg_bridge.rows.cutting import Choose, cut

_CHUNK_ROWS = 1 << 10
_LOOKED_AT_ROWS = 1 << 14  # by which a column is judged; whole chunks
_HARDLY_REPEATED = 0.99  # of them distinct


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """n rows of k columns.

    Attributes:
        columns: The k column names, each once.
        codes: (n, k) int32, Fortran order; `codes[i, j]` indexes `values[j]`. Equal code, equal text.
        values: `values[j]` are column j's distinct cells as JSON text, in order of first appearance.
    """

    columns: tuple[str, ...]
    codes: NDArray[np.int32]
    values: tuple[list[str], ...]

    @classmethod
    def from_json(
        cls, rows: Sequence[str | None], columns: Sequence[str], check_interrupts: Callable[[], None] = lambda: None
    ) -> Table:
        """Cut rows of JSON text into cells.

        Args:
            rows: Each the text of one JSON object; None is a row whose cells are all null. Keys may stand in
                any order and there may be more of them than `columns`; a missing key is null.
            columns: The columns to keep, in the order to keep them.
            check_interrupts: Called every thousand rows; what it raises ends cutting.

        Raises:
            QueryError: Two columns have the same name.
            ValueError: A row is not the text of a JSON object.

        >>> table = Table.from_json(['{"a":12.50,"b":"x"}', '{"b":"y","a":12.50}', None], ["a", "b"])
        >>> table.values
        (['12.50', 'null'], ['"x"', '"y"', 'null'])
        >>> table.codes.tolist()
        [[0, 0], [0, 1], [1, 2]]
        """
        names = _distinct(columns)
        building = _Building(names)
        if names:
            cells = (cells for _, cells in cut(rows, lambda _: names))
            for _ in range(0, len(rows), _CHUNK_ROWS):
                building.add(list(islice(cells, _CHUNK_ROWS)))
                check_interrupts()
        return building.table(len(rows))

    @classmethod
    def group_json(
        cls, rows: Sequence[str | None], choose: Choose, check_interrupts: Callable[[], None] = lambda: None
    ) -> list[tuple[list[int], Table]]:
        """Cut rows of JSON text that may have columns of their own, each once.

        Args:
            rows: As for `from_json`.
            choose: From a row's columns, None for a row that is None, to those of them to keep, each once; called once
                for each layout that there is.
            check_interrupts: As for `from_json`.

        Returns:
            For each set of columns kept, the places of its rows, ascending, and their table. Rows that have the same
            columns in another order stand in one table.

        Raises:
            ValueError: A row is not the text of a JSON object.

        >>> groups = Table.group_json(['{"a":1,"b":2}', '{"b":2,"a":1}', '{"a":1}'], lambda columns: columns)
        >>> [(places, table.columns, table.codes.tolist()) for places, table in groups]
        [([0, 1], ('a', 'b'), [[0, 0], [0, 0]]), ([2], ('a',), [[0]])]
        """
        groups: dict[frozenset[str], tuple[_Building, list[int], list[tuple[str, ...]]]] = {}
        of_columns: dict[tuple[str, ...], tuple[frozenset[str], list[int] | None]] = {}
        for place, (columns, cells) in enumerate(cut(rows, choose)):
            if columns not in of_columns:
                key = frozenset(columns)
                first = groups.setdefault(key, (_Building(columns), [], []))[0].columns
                of_columns[columns] = key, None if columns == first else [columns.index(name) for name in first]
            key, turned = of_columns[columns]
            building, places, pending = groups[key]
            places.append(place)
            pending.append(cells if turned is None else tuple([cells[j] for j in turned]))
            if len(pending) == _CHUNK_ROWS:
                building.add(pending)
                pending.clear()
                check_interrupts()
        for building, _, pending in groups.values():
            building.add(pending)
        return [(places, building.table(len(places))) for building, places, _ in groups.values()]

    @classmethod
    def from_cells(cls, columns: Sequence[str], cells: Iterable[Sequence[str]]) -> Table:
        """Build a table from whole columns.

        Args:
            columns: The column names, at least one.
            cells: For each column its cells as JSON text, one a row.

        Raises:
            QueryError: Two columns have the same name.
            ValueError: There is not one sequence for each column, or they are not equally long.
        """
        names = _distinct(columns)
        codes: list[NDArray[np.int32]] = []
        values: list[list[str]] = []
        for column in cells:
            coder = _Coder()
            coder.add(column[:_LOOKED_AT_ROWS])
            coder.add(column[_LOOKED_AT_ROWS:])
            of_column, texts = coder.finish()
            codes.append(of_column)
            values.append(texts)
        if not codes or len(codes) != len(names):
            raise ValueError("one sequence of cells is needed for each column, and at least one column")
        if len(set(map(len, codes))) > 1:
            raise ValueError("all columns need the same number of cells")
        return cls(names, np.stack(codes).T, tuple(values))

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return int(self.codes.shape[0])

    def lengths(self) -> tuple[NDArray[np.int64], ...]:
        """Per column, (m,) int64: the characters of each distinct cell."""
        return tuple(np.fromiter(map(len, texts), np.int64, len(texts)) for texts in self.values)

    def take(self, rows: NDArray[np.intp]) -> Table:
        """The table of some of the rows, in the order given; it shares `values`."""
        return Table(self.columns, np.asfortranarray(self.codes[rows]), self.values)

    def select(self, columns: Sequence[str]) -> Table:
        """The same rows with some of the columns, in the order given; it shares `values`."""
        if tuple(columns) == self.columns:
            return self
        order = [self.columns.index(name) for name in columns]
        return Table(tuple(columns), np.asfortranarray(self.codes[:, order]), tuple(self.values[j] for j in order))

    def beside(self, other: Table) -> Table:
        """The same rows with the columns of another table of as many behind their own; it shares `values`.

        Raises:
            QueryError: Two columns have the same name.
        """
        codes = np.asfortranarray(np.hstack([self.codes, other.codes]))
        return Table(_distinct([*self.columns, *other.columns]), codes, (*self.values, *other.values))

    def cells(self) -> Iterator[tuple[str, ...]]:
        """Each row's cells, in column order."""
        if not self.columns:
            return iter([()] * self.rows)
        return zip(
            *(map(texts.__getitem__, self.codes[:, j].tolist()) for j, texts in enumerate(self.values)),
            strict=True,
        )

    def labels(self) -> list[str]:
        """Per column, what stands before its cell in a rendered row: the name as JSON, a colon, a space."""
        return [json.dumps(name, ensure_ascii=False) + ": " for name in self.columns]


def _distinct(columns: Sequence[str]) -> tuple[str, ...]:
    """Check that no column name comes twice: a JSON object could hold only one of the two."""
    name, count = Counter(columns).most_common(1)[0] if columns else ("", 1)
    if count > 1:
        raise QueryError(
            f'the rows have {count} columns named "{name}"',
            hint="Give each column a name of its own, with AS.",
        )
    return tuple(columns)


class _Building:
    """A table to which rows are added some at a time, so that hardly a cell is held that another one equals."""

    def __init__(self, columns: tuple[str, ...]) -> None:
        self.columns = columns
        self._coders = [_Coder() for _ in columns]

    def add(self, rows: Sequence[tuple[str, ...]]) -> None:
        """Add rows of cells; `_CHUNK_ROWS` of them, but for the last ones."""
        if rows and self.columns:
            for coder, cells in zip(self._coders, zip(*rows, strict=True), strict=True):
                coder.add(cells)

    def table(self, rows: int) -> Table:
        """The table, once all of so many rows have been added."""
        codes = np.empty((rows, len(self.columns)), np.int32, order="F")
        values = []
        for j, coder in enumerate(self._coders):
            codes[:, j], of_column = coder.finish()
            values.append(of_column)
        return Table(self.columns, codes, tuple(values))


class _Coder:
    """Numbers the cells of one column, chunk by chunk.

    A dict does it, except where hardly any cell comes twice: a dict of a million texts fits into no cache and is never
    asked for the same one again.
    """

    def __init__(self) -> None:
        self._chunks: list[NDArray[np.int32]] = []
        self._done = 0
        self._code_of = defaultdict[str, int](count().__next__)  # gives each text it has not seen the next number
        self._kept: list[str] | None = None  # all cells, where hardly any comes twice

    def add(self, cells: Sequence[str]) -> None:
        """Number the next cells; a chunk ends at `_LOOKED_AT_ROWS` if there are more."""
        if self._kept is not None:
            self._kept += cells
            return
        self._done += len(cells)
        self._chunks.append(np.fromiter(map(self._code_of.__getitem__, cells), np.int32, len(cells)))
        if self._done == _LOOKED_AT_ROWS and len(self._code_of) >= _HARDLY_REPEATED * self._done:
            known = list(self._code_of)
            self._kept = [known[code] for chunk in self._chunks for code in chunk.tolist()]
            self._code_of.clear()

    def finish(self) -> tuple[NDArray[np.int32], list[str]]:
        """The codes of all cells that were added, and the distinct ones in order of first appearance."""
        if self._kept is not None:
            return _code_distinct(self._kept)
        return np.concatenate(self._chunks) if self._chunks else np.empty(0, np.int32), list(self._code_of)


def _code_distinct(cells: list[str]) -> tuple[NDArray[np.int32], list[str]]:
    """(n,) int32, the cells' codes, and the distinct cells: as a dict does it, which is asked only about equal hashes.

    >>> codes, values = _code_distinct(["b", "a", "b", "c"])
    >>> codes.tolist(), values
    ([0, 1, 0, 2], ['b', 'a', 'c'])
    """
    hashes = np.fromiter(map(hash, cells), np.int64, len(cells))
    ordered = np.sort(hashes)
    equal = ordered[1:][ordered[1:] == ordered[:-1]]
    if not equal.size:
        return np.arange(len(cells), dtype=np.int32), cells
    asked = np.flatnonzero(equal[np.minimum(np.searchsorted(equal, hashes), len(equal) - 1)] == hashes)
    first_at: dict[str, int] = {}
    first = np.array([first_at.setdefault(cells[i], i) for i in asked.tolist()])
    is_first = np.ones(len(cells), np.bool_)
    is_first[asked] = first == asked
    codes = np.cumsum(is_first, dtype=np.int32) - np.int32(1)
    codes[asked] = codes[first]
    return codes, list(compress(cells, is_first.tolist()))
