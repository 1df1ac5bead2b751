"""The prompts of a run that wait for room: made portion by portion, numbered as they are pulled.

In: an iterator of portions. Out: prompts in their order, first those that were put back. It sends nothing and knows no
engine: it is told how many there is room for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from pg_bridge.engine.records import Numbered, Portion


class PromptQueue:
    """The prompts that wait for room, numbered as they are pulled."""

    def __init__(self, portions: Iterator[Portion]) -> None:
        self._portions = portions
        self._made: deque[Iterator[str]] = deque()
        self._put_back: Numbered = []
        self._index = 0
        self.waiting = 0
        self.is_ahead = False
        self.ended = False

    def make_more(self) -> None:
        """Make the next portion, which may take long."""
        portion = next(self._portions, None)
        if portion is None:
            self.ended = True
        else:
            self._made.append(portion.prompts)
            self.waiting += portion.size
            self.is_ahead = portion.is_ahead

    def pull(self, most: int) -> Numbered:
        """Take at most so many of the prompts that wait; first those that were put back, and no others with them."""
        if self._put_back:
            batch, self._put_back = self._put_back[:most], self._put_back[most:]
            self.waiting = max(0, self.waiting - len(batch))
            return batch
        batch = []
        while self._made and len(batch) < most:
            prompt = next(self._made[0], None)
            if prompt is None:
                self._made.popleft()
            else:
                batch.append((self._index, prompt))
                self._index += 1
        self.waiting = max(0, self.waiting - len(batch)) if self._made else 0
        return batch

    def put_back(self, batch: Numbered) -> None:
        """Let prompts that were pulled wait again, before all others."""
        self._put_back[:0] = batch
        self.waiting += len(batch)

    @property
    def is_stopped(self) -> bool:
        """Whether prompts wait that were to be sent already."""
        return bool(self._put_back)

    @property
    def is_dry(self) -> bool:
        """Whether no portion is left that may have a prompt."""
        return not (self._made or self._put_back)

    def is_ready(self, most: int, eager: bool) -> bool:
        """Whether prompts should be sent now; where all will be asked, requests are filled."""
        whole = not eager or self.ended or self.is_ahead or self.is_stopped or self.waiting >= most
        return whole and not self.is_dry
