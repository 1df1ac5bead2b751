"""Row sets staged inside one transaction of one backend, for the Multicorn host.

In: rows as JSON text, one by one, by INSERT. Out: the same rows, by position. Small row sets stay in memory, large
ones go to an unnamed temporary file, so that a million rows cost their offsets only. What a subtransaction staged
goes when it is rolled back, everything goes with the transaction, and no other session can see any of it; nor can
another role of the same session, for a SECURITY DEFINER function stages rows that its caller may not read.
"""

from __future__ import annotations

import json
import tempfile
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, islice

from pg_bridge.errors import OptionError

SPILL_BYTES = 32 * 1024 * 1024

Name = tuple[int, str]
"""A row set's name: the oid of the role that stages it, and what that role calls it."""


class RowSet:
    """Rows of JSON text, appended at the end and read by position."""

    def __init__(self) -> None:
        self.columns: list[str] | None = None
        # The file lives as long as the row set; close() or garbage collection ends both.
        self._file = tempfile.SpooledTemporaryFile(max_size=SPILL_BYTES)  # noqa: SIM115
        self._ends = array("Q")

    def __len__(self) -> int:
        return len(self._ends)

    @property
    def spilled(self) -> bool:
        """Whether the rows have moved from memory to a file."""
        return self._file._rolled  # type: ignore[attr-defined, no-any-return]  # the library offers no other way to ask

    def extend(self, rows: Sequence[str | None]) -> None:
        """Add rows; None is a NULL row."""
        end = self._ends[-1] if self._ends else 0
        texts = [b"" if row is None else row.encode() for row in rows]
        self._file.write(b"".join(texts))
        self._ends.extend(islice(accumulate(map(len, texts), initial=end), 1, None))

    def fetch(self, position: int, count: int) -> list[str | None]:
        """Read at most `count` rows from `position`, a 0-based place."""
        ends = self._ends[position : position + count]
        if not ends:
            return []
        start = self._ends[position - 1] if position else 0
        self._file.seek(start)
        text = self._file.read(ends[-1] - start)
        self._file.seek(0, 2)
        rows: list[str | None] = []
        begin = start
        for end in ends:
            rows.append(text[begin - start : end - start].decode() if end > begin else None)
            begin = end
        return rows

    def truncate(self, count: int) -> None:
        """Keep the first `count` rows."""
        del self._ends[count:]
        self._file.seek(self._ends[-1] if self._ends else 0)
        self._file.truncate()

    def column_names(self) -> list[str] | None:
        """The columns as staged, else the keys of the first row; None where that is a NULL row.

        Raises:
            OptionError: The first row is not a JSON object.
        """
        if self.columns is not None:
            return self.columns
        first = self.fetch(0, 1)
        if first == [None]:
            return None
        value = json.loads(first[0]) if first and first[0] is not None else {}
        if not isinstance(value, dict):
            raise OptionError(
                "a staged row is not a JSON object", hint="Insert row_to_json(alias) as the input of llm.rowset."
            )
        return list(value)

    def close(self) -> None:
        """Give the memory and the file back."""
        self._file.close()
        self._ends = array("Q")


@dataclass(slots=True)
class Staging:
    """The row sets of the current transaction, by name, with a mark for each open subtransaction."""

    rowsets: dict[Name, RowSet] = field(default_factory=dict)
    _marks: dict[int, dict[Name, int]] = field(default_factory=dict)

    def rowset(self, name: Name) -> RowSet:
        """The row set of that name, made now if it is new."""
        if name not in self.rowsets:
            self.rowsets[name] = RowSet()
        return self.rowsets[name]

    def rowsets_of(self, role: int) -> list[tuple[str, RowSet]]:
        """The row sets that a role has staged, by what it calls them."""
        return [(name, rowset) for (owner, name), rowset in self.rowsets.items() if owner == role]

    def drop(self, name: Name) -> None:
        """Forget a row set."""
        rowset = self.rowsets.pop(name, None)
        if rowset is not None:
            rowset.close()

    def begin_subtransaction(self, level: int) -> None:
        """Mark where each row set stands; `level` is PostgreSQL's nesting level, 2 for the outermost."""
        self._marks[level] = {name: len(rowset) for name, rowset in self.rowsets.items()}

    def commit_subtransaction(self, level: int) -> None:
        """Forget the mark: the rows are the parent's now."""
        self._marks.pop(level, None)

    def abort_subtransaction(self, level: int) -> None:
        """Go back to the mark."""
        kept = self._marks.pop(level, {})
        for name in list(self.rowsets):
            if name not in kept:
                self.drop(name)
            elif kept[name] < len(self.rowsets[name]):
                self.rowsets[name].truncate(kept[name])

    def end_transaction(self) -> None:
        """Forget everything."""
        for name in list(self.rowsets):
            self.drop(name)
        self._marks.clear()
