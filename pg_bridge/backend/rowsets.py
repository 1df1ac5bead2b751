"""A row set that waits: in memory while it is small, in a file when it is not.

In: rows as JSON text. Out: the same rows, by position. Large row sets go to an unnamed temporary file, so that a
million rows cost their offsets only.
"""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Sequence
from itertools import accumulate, islice

from pg_bridge.rows.cutting import columns_of

SPILL_BYTES = 32 * 1024 * 1024


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

    def column_names(self) -> Sequence[str | None] | None:
        """The columns as staged, else the keys of the first row, a JSON object; None where that is a NULL row."""
        if self.columns is not None:
            return self.columns
        first = self.fetch(0, 1)
        if first == [None]:
            return None
        return columns_of(first[0]) if first and first[0] is not None else ()

    def close(self) -> None:
        """Give the memory and the file back."""
        self._file.close()
        self._ends = array("Q")
