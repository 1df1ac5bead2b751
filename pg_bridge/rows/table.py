r"""A row set as columns of codes: what the planner computes on.

In: rows as the JSON objects that PostgreSQL's `row_to_json` prints. Out: a `Table`, which keeps each column's
distinct cells once, as JSON text, and one integer code per cell. A cell's text is cut out of the row, not
parsed and printed again: `12.50`, `1e400`, a forty-digit number and a json column's own spacing stay as they
are.

It never reads a database, never changes a cell and never looks at a cell's meaning.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress, count, islice
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from pg_bridge.errors import QueryError

_NULL = "null"
_CHUNK_ROWS = 1 << 10
_LOOKED_AT_ROWS = 1 << 14  # by which a column is judged; whole chunks
_HARDLY_REPEATED = 0.99  # of them distinct
_COMPILE_ROWS = 128  # compiling costs about what splitting this many rows does
_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_SCALAR = rf"(?:{_STRING}|-?[0-9][0-9.eE+-]*+|true|false|null)"
_FLAT = rf'[\[{{](?:[^"\[\]{{}}]++|{_STRING})*+[\]}}]'
_NESTED = rf'[\[{{](?:[^"\[\]{{}}]++|{_STRING}|{_FLAT})*+[\]}}]'
_CELL = rf"(?:{_SCALAR}|{_NESTED})"

_OPEN = re.compile(r"\s*\{\s*(\}\s*\Z)?")
_KEY = re.compile(rf"({_STRING})\s*:\s*")
_SCALAR_AT = re.compile(_SCALAR)
_NEXT = re.compile(r"\s*(?:,\s*|(\}\s*\Z))")
_BRACKET_OR_STRING = re.compile(rf"[\[\]{{}}]|{_STRING}")


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
    def from_json(cls, rows: Sequence[str | None], columns: Sequence[str]) -> Table:
        """Cut rows of JSON text into cells.

        Args:
            rows: Each the text of one JSON object; None is a row whose cells are all null. Keys may stand in
                any order and there may be more of them than `columns`; a missing key is null.
            columns: The columns to keep, in the order to keep them.

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
        codes = np.empty((len(rows), len(names)), np.int32, order="F")
        coders = [_Coder(column) for column in codes.T]
        if names:
            cut = _cut(rows, names)
            for _ in range(0, len(rows), _CHUNK_ROWS):  # so that hardly a cell is held that another one equals
                for coder, cells in zip(coders, zip(*islice(cut, _CHUNK_ROWS), strict=True), strict=True):
                    coder.add(cells)
        return cls(names, codes, tuple(coder.values() for coder in coders))

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
        codes: NDArray[np.int32] | None = None
        values: list[list[str]] = []
        for j, column in enumerate(cells):
            if codes is None:
                codes = np.empty((len(column), len(names)), np.int32, order="F")
            if len(column) != len(codes):
                raise ValueError("all columns need the same number of cells")
            coder = _Coder(codes[:, j])
            coder.add(column[:_LOOKED_AT_ROWS])
            coder.add(column[_LOOKED_AT_ROWS:])
            values.append(coder.values())
        if codes is None or len(values) != len(names):
            raise ValueError("one sequence of cells is needed for each column, and at least one column")
        return cls(names, codes, tuple(values))

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

    def by_name(self) -> Table:
        """The same table with its columns sorted by their names; it shares `values`."""
        order = sorted(range(len(self.columns)), key=self.columns.__getitem__)
        columns = tuple(self.columns[j] for j in order)
        return Table(columns, self.codes[:, order], tuple(self.values[j] for j in order))

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


def layouts(rows: Sequence[str | None]) -> Iterator[tuple[str, ...] | None]:
    """Tell the columns of each row, in the row's order; None for a row that is None.

    Raises:
        ValueError: A row is not the text of a JSON object.

    >>> list(layouts(['{"a":1,"b":2}', '{"b":3}', None]))
    [('a', 'b'), ('b',), None]
    """
    first: tuple[str, ...] | None = None
    is_first: Callable[[str], tuple[str, ...] | None] = _no_layout
    for row in rows:
        if row is None:
            yield None
        elif first is not None and is_first(row) is not None:
            yield first
        else:
            columns = tuple(_split(row))
            if first is None:
                first = columns
                is_first = _layout(list(columns), columns) if len(rows) >= _COMPILE_ROWS else _no_layout
            yield columns


def _distinct(columns: Sequence[str]) -> tuple[str, ...]:
    """Check that no column name comes twice: a JSON object could hold only one of the two."""
    name, count = Counter(columns).most_common(1)[0] if columns else ("", 1)
    if count > 1:
        raise QueryError(
            f'the rows have {count} columns named "{name}"',
            hint="Give each column a name of its own, with AS.",
        )
    return tuple(columns)


class _Coder:
    """Numbers the cells of one column, chunk by chunk.

    A dict does it, except where hardly any cell comes twice: a dict of a million texts fits into no cache and is never
    asked for the same one again.

    Args:
        codes: (n,) int32; is filled with the cells' codes.
    """

    def __init__(self, codes: NDArray[np.int32]) -> None:
        self._codes = codes
        self._done = 0
        self._code_of = defaultdict[str, int](count().__next__)  # gives each text it has not seen the next number
        self._kept: list[str] | None = None  # all cells, where hardly any comes twice

    def add(self, cells: Sequence[str]) -> None:
        """Number the next cells; a chunk ends at `_LOOKED_AT_ROWS` if there are more."""
        if self._kept is not None:
            self._kept += cells
            return
        start, self._done = self._done, self._done + len(cells)
        self._codes[start : self._done] = np.fromiter(map(self._code_of.__getitem__, cells), np.int32, len(cells))
        if self._done == _LOOKED_AT_ROWS and len(self._code_of) >= _HARDLY_REPEATED * self._done:
            self._kept = list(map(list(self._code_of).__getitem__, self._codes[: self._done].tolist()))
            self._code_of.clear()

    def values(self) -> list[str]:
        """The distinct cells once all have been added, in order of first appearance."""
        if self._kept is None:
            return list(self._code_of)
        self._codes[:], values = _code_distinct(self._kept)
        return values


def _code_distinct(cells: list[str]) -> tuple[NDArray[np.int64], list[str]]:
    """(n,) int64, the cells' codes, and the distinct cells: as a dict does it, which is asked only about equal hashes.

    >>> codes, values = _code_distinct(["b", "a", "b", "c"])
    >>> codes.tolist(), values
    ([0, 1, 0, 2], ['b', 'a', 'c'])
    """
    hashes = np.fromiter(map(hash, cells), np.int64, len(cells))
    ordered = np.sort(hashes)
    equal = ordered[1:][ordered[1:] == ordered[:-1]]
    if not equal.size:
        return np.arange(len(cells)), cells
    asked = np.flatnonzero(equal[np.minimum(np.searchsorted(equal, hashes), len(equal) - 1)] == hashes)
    first_at: dict[str, int] = {}
    first = np.array([first_at.setdefault(cells[i], i) for i in asked.tolist()])
    is_first = np.ones(len(cells), np.bool_)
    is_first[asked] = first == asked
    codes = np.cumsum(is_first) - 1
    codes[asked] = codes[first]
    return codes, list(compress(cells, is_first.tolist()))


def _cut(rows: Sequence[str | None], columns: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Cut each row into the named cells.

    The rows of one query have one layout. From some rows on it pays to compile a pattern of the first row's layout:
    a match cuts a row some fifteen times as fast as splitting it key by key, which is left for rows of other layouts.
    """
    layout: Callable[[str], tuple[str, ...] | None] | None = None
    for row in rows:
        if row is None:
            yield (_NULL,) * len(columns)
            continue
        # An escape such as \u00e9 is a second spelling of the same text, so such a row is split.
        if layout is not None and "\\u" not in row and (matched := layout(row)) is not None:
            yield matched
            continue
        cells = _split(row)
        yield tuple([cells.get(name, _NULL) for name in columns])
        if layout is None:
            layout = _layout(list(cells), columns) if len(rows) >= _COMPILE_ROWS else _no_layout


def _layout(keys: list[str], columns: tuple[str, ...]) -> Callable[[str], tuple[str, ...] | None]:
    """Compile what cuts rows that have exactly these keys in this order; it returns None for other rows."""
    wanted = set(columns)
    named = [key for key in keys if key in wanted]
    if len(named) != len(columns):
        return _no_layout
    match = re.compile(
        r"\{"
        + ", ?".join(
            re.escape(json.dumps(key, ensure_ascii=False)) + ": ?" + (f"({_CELL})" if key in wanted else _CELL)
            for key in keys
        )
        + r"\}"
    ).fullmatch
    if tuple(named) == columns:
        return lambda row: found.groups() if (found := match(row)) is not None else None
    pick = itemgetter(*[named.index(name) + 1 for name in columns])  # two columns at least, so a tuple
    return lambda row: pick(found) if (found := match(row)) is not None else None


def _no_layout(_row: str) -> None:
    return None


def _split(row: str) -> dict[str, str]:
    """Split any JSON object into key and cell text; the last of equal keys counts, as in jsonb."""
    cells: dict[str, str] = {}
    match = _OPEN.match(row)
    while match is not None and match[1] is None:
        key = _KEY.match(row, match.end())
        if key is None:
            break
        start = key.end()
        end = _end_of_cell(row, start)
        cells[json.loads(key[1], strict=False)] = _canonical(row[start:end])
        match = _NEXT.match(row, end)
    else:
        if match is not None:
            return cells
    raise ValueError("a row is not the text of a JSON object")


def _end_of_cell(row: str, start: int) -> int:
    """Where the JSON value that begins at `start` ends; counts brackets, so that no nesting is too deep."""
    scalar = _SCALAR_AT.match(row, start)
    if scalar is not None:
        return scalar.end()
    depth = 0
    for token in _BRACKET_OR_STRING.finditer(row, start):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token[0], 0)
        if depth <= 0:
            return token.end()
    return start


def _canonical(cell: str) -> str:
    """Spell a string in one way: escapes only where JSON demands them."""
    if not (cell.startswith('"') and "\\u" in cell):
        return cell
    plain = json.dumps(json.loads(cell, strict=False), ensure_ascii=False)
    try:
        plain.encode()
    except UnicodeEncodeError:  # half a surrogate pair has no other spelling
        return cell
    return plain
