"""What aggregates have gathered: the values of groups, until the transaction ends.

In: a group's values, one after the other, as JSON texts. Out: a state: where they are and how many there are. It
stays true while more are added, as a window function needs it. All groups of a role share one row set, which goes to an
unnamed temporary file from 32 MB on: what stays in memory of a row is where it is.

Anybody can write a state by hand, and a role's groups may be of rows that a view hides from it. So a state is not to be
guessed: its number is by chance, and one that is wrong takes all others with it.
"""

from __future__ import annotations

import secrets
from array import array
from dataclasses import dataclass, field

from pg_bridge.backend import postgres
from pg_bridge.backend.rowsets import RowSet
from pg_bridge.backend.transaction import call_at_end_of_transaction
from pg_bridge.errors import OptionError

_NUMBER_BITS, _COUNT_BITS = 32, 31
_COUNT_MASK = (1 << _COUNT_BITS) - 1
_FETCHED = 1000


@dataclass(slots=True)
class Gathered:
    """One group.

    Attributes:
        instruction: What is asked about it; None for a summary.
        options: JSON, or None.
        is_one: Whether all rows had the same instruction and options.
        count: How many values there are.
        runs: Where they are: the place of a first one, and how many follow it, in turn.
    """

    instruction: str | None
    options: str | None
    is_one: bool = True
    count: int = 0
    runs: array[int] = field(default_factory=lambda: array("Q"))


class Gatherings:
    """The groups of one role."""

    def __init__(self) -> None:
        self._rows = RowSet()
        self._groups: dict[int, Gathered] = {}

    def add(self, state: int | None, instruction: str | None, options: str | None, value: str) -> int:
        """Add a value to a group, or to a new one; returns the group's state.

        Raises:
            OptionError: There is no such group.
        """
        if state is None:
            number = secrets.randbits(_NUMBER_BITS)
            while number in self._groups:
                number = secrets.randbits(_NUMBER_BITS)
            group = self._groups[number] = Gathered(instruction, options)
        else:
            number, group = state >> _COUNT_BITS, self._group(state)
        if group.instruction != instruction or group.options != options:
            group.is_one = False
        place, runs = len(self._rows), group.runs
        self._rows.extend([value])
        if runs and runs[-2] + runs[-1] == place:
            runs[-1] += 1
        else:
            runs.extend((place, 1))
        group.count += 1
        return number << _COUNT_BITS | group.count

    def find(self, state: int) -> tuple[Gathered, list[str]]:
        """A group, and the values that it had in a state.

        Raises:
            OptionError: There is no such group.
        """
        group, left = self._group(state), state & _COUNT_MASK
        values: list[str] = []
        for place in range(0, len(group.runs), 2):
            start, wanted = group.runs[place], min(left, group.runs[place + 1])
            for first in range(start, start + wanted, _FETCHED):
                rows = self._rows.fetch(first, min(_FETCHED, start + wanted - first))
                values += [row for row in rows if row is not None]
            left -= wanted
            if not left:
                break
        return group, values

    def _group(self, state: int) -> Gathered:
        group = self._groups.get(state >> _COUNT_BITS)
        if group is None or not 0 < state & _COUNT_MASK <= group.count:
            self.close()
            raise OptionError(
                "an aggregate of pg_bridge was called with a state that it has not made",
                hint="Call llm.aggregate or llm.summarize as an aggregate.",
            )
        return group

    def close(self) -> None:
        """Forget all."""
        self._groups.clear()
        self._rows.close()
        self._rows = RowSet()


_OF_ROLES: dict[int, Gatherings] = {}


def gatherings() -> Gatherings:
    """Those of the current role, in the current transaction."""
    role = postgres.current_role_oid()
    if role not in _OF_ROLES:
        if not _OF_ROLES:
            call_at_end_of_transaction(_forget)
        _OF_ROLES[role] = Gatherings()
    return _OF_ROLES[role]


def _forget() -> None:
    for each in _OF_ROLES.values():
        each.close()
    _OF_ROLES.clear()
