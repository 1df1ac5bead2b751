"""Rows of a foreign table that have no answer: which failure ends a scan, and what is noted of each.

In: failures of questions, and the rows that were asked about. Out: the scan's error, and notes for `llm.last_errors()`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pg_bridge.asking.failures import MOST_FAILURES
from pg_bridge.asking.inquiry import Inquiry
from pg_bridge.asking.memory import Memory
from pg_bridge.asking.together import Failed, find_failed
from pg_bridge.engine import UNFIT
from pg_bridge.errors import AnswerError
from pg_bridge.foreign.definition import ModelColumn
from pg_bridge.rows.table import Table

NOT_OF_THE_TYPE = "the answer is no value of the column's type"
WORTH_ANOTHER_TRY = UNFIT | {NOT_OF_THE_TYPE}

KeyOf = Callable[[int], str | None]
"""The key of the row at a place of the window."""


def no_key(_: int) -> None:
    """No key is known."""


class Failing:
    """The failures of one scan.

    Args:
        memory: Of the statement.
        columns: The columns that are asked about.

    Attributes:
        server_name: Of the server that is asked.
        key_of: The keys of the window at hand.
    """

    def __init__(self, memory: Memory, columns: Sequence[ModelColumn]) -> None:
        self.server_name = ""
        self.key_of: KeyOf = no_key
        self._memory = memory
        self._columns = columns

    def ends(self, inquiry: Inquiry, reason: str | None) -> bool:
        """Whether a question without an answer ends the scan, and is not asked once more."""
        if inquiry.call.on_error == "null":
            return False
        return reason not in WORTH_ANOTHER_TRY or inquiry is self._memory.inquiry(self._column_of(inquiry).again)

    def error_ahead(self, failed: Failed) -> AnswerError:
        """Note a failure of a row whose window is still being read, and make the scan's error of it."""
        column = self._column_of(failed.inquiry)
        self._note(column, failed.prompt, failed.reason)
        return AnswerError(column.name, failed.reason)

    def error(self, failed: Failed, table: Table, places: NDArray[np.intp]) -> AnswerError:
        """Note which of some rows a failure is about, and make the scan's error of it; arguments as for `note`."""
        column = self._column_of(failed.inquiry)
        prompts = find_failed(self._memory, [column.again, column.ask], table)
        self.note(column, table, places, {i: failed.reason for i, prompt in enumerate(prompts) if prompt is not None})
        return AnswerError(column.name, failed.reason)

    def note(self, column: ModelColumn, table: Table, places: NDArray[np.intp], reasons: Mapping[int, str]) -> None:
        """Note why some rows have no answer.

        Args:
            column: The column that has none.
            table: The rows that were asked about, with all columns that were sent.
            places: Their places in the window.
            reasons: By the row in the table.
        """
        rows = list(reasons)[-MOST_FAILURES:]
        prompts = find_failed(self._memory, [column.again, column.ask], table.take(np.array(rows, np.intp)))
        for i, prompt in zip(rows, prompts, strict=True):
            self._note(column, prompt, reasons[i], self.key_of(int(places[i])))

    def _note(self, column: ModelColumn, prompt: str | None, reason: str, key: str | None = None) -> None:
        self._memory.run.failures.add(self.server_name, prompt, f'column "{column.name}": {reason}', key=key)

    def _column_of(self, inquiry: Inquiry) -> ModelColumn:
        """Whose question it is, at the first attempt or the second."""
        asks = ((column, ask) for column in self._columns for ask in (column.ask, column.again))
        return next(column for column, ask in asks if self._memory.inquiry(ask) is inquiry)
