"""An engine double's speed: one queue, first come, first served, and how long nothing stood in it.

In: when prompts came, how many tokens they are, how many tokens a second are computed. Out: when they are done, and
the time in between in which there was nothing to do. It has no clock and waits for nothing: what it says depends on the
times of arrival alone, however late the double comes to answer.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Queue:
    """All that came is computed, one after another, what was aborted meanwhile included. Times are of one clock, in s.

    Attributes:
        began_s: When the first prompts came; None before.
        free_s: When all that came so far is done.
        busy_s: Seconds of work.
        idle_s: Seconds without work between the first arrival and the latest.
        tokens: Prompt tokens that came.
    """

    began_s: float | None = None
    free_s: float = 0.0
    busy_s: float = 0.0
    idle_s: float = 0.0
    tokens: int = 0

    def take(self, now_s: float, tokens: int, tokens_per_s: float) -> float:
        """Let prompts join the queue; returns when they are done. A speed of 0 is no limit.

        >>> queue = Queue()
        >>> queue.take(10.0, 100, 100), queue.take(10.5, 100, 100), queue.take(12.5, 50, 100)
        (11.0, 12.0, 13.0)
        >>> queue.busy_s, queue.idle_s
        (2.5, 0.5)
        """
        if self.began_s is None:
            self.began_s = self.free_s = now_s
        self.idle_s += max(now_s - self.free_s, 0.0)
        work_s = tokens / tokens_per_s if tokens_per_s else 0.0
        self.free_s = max(now_s, self.free_s) + work_s
        self.busy_s += work_s
        self.tokens += tokens
        return self.free_s
