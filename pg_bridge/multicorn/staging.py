"""Row sets staged inside one transaction of one backend.

In: rows as JSON text, one by one, by INSERT. Out: `RowSet`s by name. What a subtransaction staged goes when it is
rolled back, everything goes with the transaction, and no other session can see any of it; nor can another role of the
same session, for a SECURITY DEFINER function stages rows that its caller may not read.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pg_bridge.backend.rowsets import RowSet

Name = tuple[int, str]
"""A row set's name: the oid of the role that stages it, and what that role calls it."""


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
        """Mark where each row set stands; `level` is PostgreSQL's nesting level, 2 for the outermost.

        Each foreign table that rows go in by tells of every subtransaction: the first that does so counts.
        """
        if level not in self._marks:
            self._marks[level] = {name: len(rowset) for name, rowset in self.rowsets.items()}

    def commit_subtransaction(self, level: int) -> None:
        """Forget the mark: the rows are the parent's now."""
        self._marks.pop(level, None)

    def abort_subtransaction(self, level: int) -> None:
        """Go back to the mark; one of the foreign tables has done so already where there is none."""
        kept = self._marks.pop(level, None)
        if kept is None:
            return
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
