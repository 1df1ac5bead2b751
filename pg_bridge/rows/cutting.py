r"""Rows of JSON text cut into cells, which stay as they are spelled.

In: rows as the JSON objects that PostgreSQL's `row_to_json` prints, and which columns to keep. Out: a tuple of cells a
row. A cell's text is cut out of the row, not parsed and printed again: `12.50`, `1e400`, a forty-digit number and a
json column's own spacing stay as they are; of a picture stands in its cell what stands for it. A single value becomes a
row of one column first, and several rows side by side, as SQL's `llm.row` puts them, are one: `{"":[{"a":1}, {"b":2}]}`
has the columns a and b.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from operator import itemgetter

from pg_bridge.errors import OptionError
from pg_bridge.rows.media import is_medium, joined, lift, may_hold_media

NULL = "null"
VALUE = "input"
"""The only column of a row that a single value becomes, named as the functions' argument is."""
UNKNOWN = None
"""Stands in the place of columns that nobody knows the names of: those of a row that is NULL among several."""

Columns = tuple[str | None, ...]
"""A row's columns, in its own order, with repetitions; `UNKNOWN` may be among them."""

_DEEPEST = 32  # llm.row in llm.row: the text is looked through once for each
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
_OPEN_ARRAY = re.compile(r"\[\s*(\]\Z)?")
_NEXT_ELEMENT = re.compile(r"\s*(?:,\s*|(\]\Z))")
_BEGIN_SEVERAL, _END_SEVERAL = '{"":[', "]}"
_BRACKET_OR_STRING = re.compile(rf"[\[\]{{}}]|{_STRING}")

Choose = Callable[[Columns | None], tuple[str, ...]]
"""From a row's columns, in its own order, to those to keep, each once; None are those of a row that is None."""


_Named = list[tuple[str, str]]
"""Names and cells, in their order."""
_Cells = tuple[str, ...]


def as_row(value: str | None) -> str | None:
    """A JSON text as that of an object: a value that is none, or is a picture, is its only cell; None stays None.

    >>> as_row('{"a":1}'), as_row('"Heat"'), as_row("[1, 2]")
    ('{"a":1}', '{"input": "Heat"}', '{"input": [1, 2]}')
    """
    if value is None or ((value.startswith("{") or value.lstrip().startswith("{")) and not is_medium(value)):
        return value
    return f'{{"{VALUE}": {value}}}'


def cut(rows: Sequence[str | None], choose: Choose) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Cut each row into the cells of the columns to keep; a missing cell is null, and so are all of a row that is None.

    The rows of one query have one layout. From some rows on it pays to compile a pattern of the first row's layout:
    a match cuts a row some fifteen times as fast as splitting it key by key, which is left for rows of other layouts.
    Media are lifted out of the cells.

    Yields:
        The columns kept, and the row's cells.

    Raises:
        ValueError: A row is not the text of a JSON object.
        OptionError: Of several rows side by side one is neither a row nor an object, or goes too deep.

    >>> list(cut(['{"a":1,"b":2}', '{"b":3}', None], lambda columns: columns or ("a",)))
    [(('a', 'b'), ('1', '2')), (('b',), ('3',)), (('a',), ('null',))]
    """
    chosen: dict[Columns | None, tuple[str, ...]] = {}
    columns: tuple[str, ...] = ()
    layout: Callable[[str], _Cells | None] | None = None
    for row in rows:
        # An escape such as \u00e9 is a second spelling of the same text, so such a row is split.
        if layout is not None and row is not None and "\\u" not in row and (matched := layout(row)) is not None:
            yield columns, _lifted(matched) if may_hold_media(row) else matched
            continue
        parts = [] if row is None else _parts(row)
        keys = None if row is None else _names(parts)
        if keys not in chosen:
            chosen[keys] = choose(keys)
        kept = chosen[keys]
        cells = dict(chain.from_iterable(part or () for part in parts))  # the last of equal names counts, as in jsonb
        of_row = tuple([cells.get(name, NULL) for name in kept])
        yield kept, _lifted(of_row) if row is not None and may_hold_media(row) else of_row
        if layout is None and row is not None and None not in parts:
            columns = kept
            layout = _layout(row, parts, columns) if len(rows) >= _COMPILE_ROWS else _no_layout


def object_of(named: Iterable[tuple[str, str]]) -> str:
    """Names and cells as the text of an object.

    >>> object_of([("a", "1.50"), ("b", '"x"')])
    '{"a": 1.50, "b": "x"}'
    """
    pieces = [piece for name, cell in named for piece in (", ", json.dumps(name, ensure_ascii=False), ": ", cell)]
    return joined("", ["{", *pieces[1:], "}"])


def _lifted(cells: _Cells) -> _Cells:
    return tuple([lift(cell) if cell.startswith(("{", "[")) else cell for cell in cells])


def columns_of(row: str) -> Columns:
    """A row's columns, in its own order, with repetitions.

    Raises:
        ValueError: It is not the text of a JSON object.
        OptionError: Of several rows side by side one is neither a row nor an object, or goes too deep.

    >>> columns_of('{"b":1,"a":[2],"b":3}'), columns_of('{"":[{"a":1}, {}, {"b":2}]}')
    (('b', 'a', 'b'), ('a', 'b'))
    """
    return _names(_parts(row))


def sides_of(row: str) -> list[str] | None:
    """The texts that stand side by side in one row, as SQL's `llm.row` was given them; None where it is a plain row.

    Raises:
        ValueError: It is not the text of a JSON object.

    >>> sides_of('{"":[{"a":1}, {"b":2}]}'), sides_of('{"a":1}')
    (['{"a":1}', '{"b":2}'], None)
    """
    if not row.startswith('{"":'):
        return None
    named = _split(row)
    return list(_elements(named[0][1])) if len(named) == 1 and named[0][1].startswith("[") else None


def cells_of(row: str) -> _Named | None:
    """The names and cells of a row; None where one of the rows that stand side by side in it is NULL.

    Raises:
        ValueError: It is not the text of a JSON object.
        OptionError: As for `cut`.
    """
    parts = _parts(row)
    return None if None in parts else [cell for part in parts for cell in part or ()]


def _names(parts: Sequence[_Named | None]) -> Columns:
    return tuple([name for part in parts for name, _ in ([(UNKNOWN, NULL)] if part is None else part)])


def _parts(row: str) -> list[_Named | None]:
    """The rows that stand side by side in one, which is mostly itself the only one; None for a NULL row."""
    return list(_side_by_side(row))


def _side_by_side(row: str, depth: int = 0) -> Iterator[_Named | None]:
    """The same; where one of the rows is what another llm.row has made, its rows stand there."""
    named = _split(row)
    if len(named) != 1 or named[0][0] or not named[0][1].startswith("["):
        yield named
        return
    if depth == _DEEPEST:
        raise OptionError(f"llm.row stands in itself more than {_DEEPEST} deep", hint="Give all rows to one llm.row.")
    for number, part in enumerate(_elements(named[0][1]), 1):
        if part == NULL:
            yield None
        elif part.startswith("{") and not is_medium(part):
            yield from _side_by_side(part, depth + 1)
        else:
            raise OptionError(
                f"argument {number} of llm.row is neither a row nor a JSON object",
                hint="Give it a name: jsonb_build_object('name', value).",
            )


def _layout(row: str, parts: Sequence[_Named | None], columns: tuple[str, ...]) -> Callable[[str], _Cells | None]:
    """Compile what cuts rows that are spelled like this one but for their cells; it returns None for other rows."""
    wanted = set(columns)
    named = [name for name in _names(parts) if name in wanted]
    if len(named) != len(columns):
        return _no_layout
    objects = ", ?".join(_pattern(part or [], wanted) for part in parts)
    if row.startswith(_BEGIN_SEVERAL):
        objects = re.escape(_BEGIN_SEVERAL) + objects + re.escape(_END_SEVERAL)
    match = re.compile(objects).fullmatch
    if tuple(named) == columns:
        return lambda row: found.groups() if (found := match(row)) is not None else None
    pick = itemgetter(*[named.index(name) + 1 for name in columns])  # two columns at least, so a tuple
    return lambda row: pick(found) if (found := match(row)) is not None else None


def _pattern(named: _Named, wanted: set[str]) -> str:
    """A regular expression for an object of these names, with groups for the cells that are wanted."""
    return (
        r"\{"
        + ", ?".join(
            re.escape(json.dumps(name, ensure_ascii=False)) + ": ?" + (f"({_CELL})" if name in wanted else _CELL)
            for name, _ in named
        )
        + r"\}"
    )


def _no_layout(_row: str) -> None:
    return None


def _split(row: str) -> _Named:
    """Split any JSON object into names and cells."""
    cells: _Named = []
    match = _OPEN.match(row)
    while match is not None and match[1] is None:
        key = _KEY.match(row, match.end())
        if key is None:
            break
        start = key.end()
        end = _end_of_cell(row, start)
        cells.append((json.loads(key[1], strict=False), _canonical(row[start:end])))
        match = _NEXT.match(row, end)
    else:
        if match is not None:
            return cells
    raise ValueError("a row is not the text of a JSON object")


def _elements(array: str) -> Iterator[str]:
    """The values of a JSON array."""
    match = _OPEN_ARRAY.match(array)
    while match is not None and match[1] is None:
        end = _end_of_cell(array, match.end())
        yield array[match.end() : end]
        match = _NEXT_ELEMENT.match(array, end)
    if match is None:
        raise ValueError("this is not the text of a JSON array")


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
