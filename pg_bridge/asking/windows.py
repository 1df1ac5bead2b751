"""How many rows are read before some of them are asked about: the one window loop.

In: a function that fetches rows, and whether every row will be taken. Out: windows of rows, to be planned together.
Where the statement may stop early, windows are small at first and double. Where it takes every row, one window holds
all of them, as far as memory allows, and some are asked about ahead, so that the engine has work while they are read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from pg_bridge.asking.run import Run

FIRST_WINDOW_ROWS = 32
LAST_SMALL_WINDOW_ROWS = 1024  # who has taken as many rows as these windows hold is expected to take all
WINDOW_CHARS = 128_000_000
FETCHED_ROWS = 1024
FETCHED_CHARS = 16_000_000  # about: the first time nobody knows how long rows are, and fewer are fetched
_FIRST_FETCHED_ROWS = 64
AHEAD_AFTER_S = 0.25

Row = TypeVar("Row")


@dataclass(slots=True, eq=False)
class Window(Generic[Row]):
    """Rows that are planned together.

    Attributes:
        first_row_id: The row_id of `rows[0]`.
        rows: The rows as they came.
        ahead_of: If they come again, in a later window, and some of them may be asked about now: how many rows have
            been read for that one. 0 for a window proper.
        is_small: Whether more would have been read for it if the statement surely took every row.
    """

    first_row_id: int
    rows: list[Row]
    ahead_of: int = 0
    is_small: bool = False


class Lookout:
    """Tells when rows of a window are to be asked about while more come: each time when they are twice as many.

    Not before reading has taken a while: such rows share little with those that come later, and computing forty of them
    can take an engine longer than all its waiting for some thousand rows.
    """

    def __init__(self) -> None:
        self._looked_at = 0
        self._began_s: float | None = None

    def latest(self, rows: int) -> int:
        """Of how many of the latest of so many rows some are to be asked about now; 0 for none."""
        now_s = time.perf_counter()
        self._began_s = now_s if self._began_s is None else self._began_s
        if rows < max(1, 2 * self._looked_at) or now_s - self._began_s < AHEAD_AFTER_S:
            return 0
        self._looked_at = rows
        return min(rows, max(FETCHED_ROWS, rows // 8))


def rounds_of(
    rows: Iterable[Row], chars_of: Callable[[Row], int], most_chars: int = WINDOW_CHARS, most_rows: int | None = None
) -> Iterator[list[Row]]:
    """Rows that are there already, as many together as may be asked about at one time: all, as a rule."""
    some: list[Row] = []
    chars = 0
    for row in rows:
        some.append(row)
        chars += chars_of(row)
        if chars >= most_chars or len(some) == most_rows:
            yield some
            some, chars = [], 0
    if some:
        yield some


def read_windows(
    fetch: Callable[[int], list[Row]],
    chars_of: Callable[[Row], int],
    run: Run,
    *,
    every_row: bool,
    most_rows: int,
    work: Callable[[], None] = lambda: None,
    ahead: bool = True,
) -> Iterator[Window[Row]]:
    """Read rows in windows.

    Args:
        fetch: Gives at most so many more rows, fewer at the end only.
        chars_of: The characters of a row that count.
        run: Seconds are counted there.
        every_row: Whether every row will be taken.
        most_rows: Rows of a window at most.
        work: Called between two fetches.
        ahead: Whether rows can be asked about ahead, while more are read.

    Yields:
        Windows; each row stands in one that is not ahead.
    """
    size = most_rows if every_row else FIRST_WINDOW_ROWS
    first_row_id, is_last, fetched_rows = 1, False, _FIRST_FETCHED_ROWS
    while not is_last:
        rows: list[Row] = []
        chars, lookout = 0, Lookout()
        size = min(size, most_rows)
        while len(rows) < size and chars < WINDOW_CHARS and not is_last:
            started, waited_s = time.perf_counter(), run.usage.wait_s
            wanted = min(size - len(rows), fetched_rows)
            fetched = fetch(wanted)
            is_last = len(fetched) < wanted
            chars += sum(map(chars_of, fetched))
            rows += fetched
            fetched_rows = max(1, min(FETCHED_ROWS, FETCHED_CHARS * len(rows) // max(1, chars)))
            work()
            run.read_s += time.perf_counter() - started - (run.usage.wait_s - waited_s)
            if size > LAST_SMALL_WINDOW_ROWS and ahead and not is_last and (latest := lookout.latest(len(rows))):
                yield Window(first_row_id, rows[-latest:], ahead_of=len(rows))
        if rows:
            yield Window(first_row_id, rows, is_small=size < most_rows and not is_last)
        first_row_id += len(rows)
        size = most_rows if every_row or size >= LAST_SMALL_WINDOW_ROWS else 2 * size
