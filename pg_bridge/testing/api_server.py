"""An API server in virtual time: what renders prompts in front of the schedulers of `pg_bridge.testing.fast_engine`.

In: requests, each at a moment. Out: which prompt reaches the scheduler when, and when an answer is written. It has no
clock: who calls it says when its work ends.
"""

from __future__ import annotations

from collections import deque

from pg_bridge.testing.scheduler import Request
from pg_bridge.testing.speeds import EngineSpeed


class ApiServer:
    """An API server: one thing at a time. Requests take turns, a prompt each while they are rendered, then whole."""

    def __init__(self, speed: EngineSpeed) -> None:
        self.busy_s = 0.0
        self.unrendered = 0
        self.ends_s: float | None = None
        self._speed = speed
        self._turns: deque[Request] = deque()  # the first is being worked on

    def add(self, request: Request, now_s: float) -> None:
        """Take a request to render, or one whose answers are made."""
        self._turns.append(request)
        self.unrendered += len(request.prompts) - request.rendered
        if self.ends_s is None:
            self._begin(now_s)

    @property
    def first(self) -> Request:
        """The request that is being worked on."""
        return self._turns[0]

    def end_one(self, now_s: float) -> None:
        """End what is being done."""
        request = self._turns[0]
        count = len(request.prompts)
        if request.rendered < count:
            request.rendered += 1
            self.unrendered -= 1
            if request.rendered < count:
                self._turns.rotate(-1)
        elif request.admitted < count:
            request.admitted += 1
            if request.admitted == count:
                self._turns.popleft()
        else:
            self._turns.popleft()
            request.done_s = now_s
        self._begin(now_s)

    def drop(self, request: Request) -> None:
        """Do no more for a request that was aborted; what is being done for it is ended."""
        if request in self._turns and self._turns[0] is not request:
            self._turns.remove(request)
            self.unrendered -= len(request.prompts) - request.rendered

    def _begin(self, now_s: float) -> None:
        while self._turns and self._turns[0].aborted:
            gone = self._turns.popleft()
            self.unrendered -= len(gone.prompts) - gone.rendered
        self.ends_s = None
        if self._turns:
            work_s = self._work_s(self._turns[0])
            self.busy_s += work_s
            self.ends_s = now_s + work_s

    def _work_s(self, request: Request) -> float:
        speed, count = self._speed, len(request.prompts)
        if request.rendered < count:
            begun_s = 0.0 if request.rendered else speed.request_s
            return begun_s + speed.render_s + speed.render_token_s * request.prompts[request.rendered].tokens
        return speed.admit_s if request.admitted < count else speed.answer_s * count
