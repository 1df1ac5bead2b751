"""Whose fault a refusal is, the row's or the request's, and what it may cost to find out.

In: prompts that were answered or refused, under one sampling. Out: how many requests may be under way, into which
pieces a refused one is cut, or the error of a run that the engine refuses altogether.

A request that is refused with a 400 is refused for one of its rows, or for what all of them have in common: an argument
that the engine does not know, a template, `max_tokens`. So one question is asked besides that has nothing of any row
in it, in the very same way. If that is refused with the same words, no row is to blame, and the run ends with them;
they cannot repeat a row, for the engine was told none. Else the rows that are to blame are found, and it is asked again
when many requests were refused one after another. The reasoning stands in docs/decisions/0048.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from pg_bridge.engine.failures import QUOTED, refused_altogether, refused_run
from pg_bridge.engine.loop import TurnLoop
from pg_bridge.engine.refusal import OWN_MERITS_STATUSES, Refused, message_of
from pg_bridge.options import Server

CONTROL_PROMPT = "This is a test. Answer with OK."

UNPROVEN_REQUESTS = 4
"""Under way before anything is known of their like; one where other engines are asked at the same time."""

UNPROVEN_S = 1.0
"""So long; who needs longer to refuse a request works on it."""

DOUBTFUL_IN_A_ROW = 12
"""Requests refused one after another: then what all have in common may be the reason by now."""

_ALONE_SHARE = 0.25
_REMEMBERED = 64  # prompts by which the share of those that are refused is told
_ECHOED_CHARS = 12
_NUMBER = re.compile(r"[0-9a-f-]*[0-9][0-9a-f-]*")  # or an identifier


class Trial:
    """Requests of one sampling: on trial until one of them has been answered.

    Args:
        server: The server that they go to.
        turns: The loop that they run in.
        ask: Sends one prompt more, and returns when it is answered; raises `Refused` where it is not.
        has_others: Whether other engines are asked the same at the same time.
    """

    def __init__(
        self,
        server: Server,
        turns: TurnLoop,
        ask: Callable[[str], Coroutine[Any, Any, None]],
        *,
        has_others: bool = False,
    ) -> None:
        self._server = server
        self._turns = turns
        self._ask = ask
        self._most_unproven = 1 if has_others else UNPROVEN_REQUESTS
        self._proven = asyncio.Event()
        self._under_way = 0
        self._queue: deque[asyncio.Future[None]] = deque()  # of who waits to be under way
        self._until_s: float | None = None  # by the loop's clock
        self._control: asyncio.Task[Refused | None] | None = None
        self._answered = self._refused = 0  # of the latest prompts
        self._in_a_row = 0
        self._doubtful = DOUBTFUL_IN_A_ROW

    @property
    def goes_alone(self) -> bool:
        """Whether so many prompts are refused that one with others is as good as asked twice."""
        return self._refused > _ALONE_SHARE * (self._answered + self._refused + 4)

    async def admit(self) -> None:
        """Wait until one request more may be sent."""
        if self._proven.is_set():
            return
        loop = asyncio.get_running_loop()
        if self._until_s is None:
            self._until_s = loop.time() + UNPROVEN_S
        if self._under_way < self._most_unproven:
            self._under_way += 1
            return
        turn = loop.create_future()
        self._queue.append(turn)
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._until_s):
                await turn
        if self._control is not None and not self._proven.is_set():
            await self._proven.wait()  # or for ever: the run ends

    def withdraw(self) -> None:
        """A request that was admitted has told nothing: its path does not exist."""
        self._under_way -= 1
        while self._queue and self._under_way < self._most_unproven:
            self._under_way += self._let_in()

    def _let_in(self) -> bool:
        turn = self._queue.popleft()
        if turn.done():
            return False
        turn.set_result(None)
        return True

    def _prove(self) -> None:
        self._proven.set()
        while self._queue:
            self._let_in()

    def answered(self, prompts: int) -> None:
        """So many prompts were answered."""
        self._prove()
        self._count(prompts, 0)
        self._in_a_row, self._doubtful = 0, DOUBTFUL_IN_A_ROW

    async def refused(self, prompts: Sequence[str], refused: Refused) -> None:
        """A request was refused with a status that speaks of its own merits.

        Raises:
            EngineError: Not for its prompts.
        """
        self._in_a_row += 1
        if len(prompts) == 1:
            self._count(0, 1)
        if self._proven.is_set() and self._in_a_row < self._doubtful:
            return
        if self._control is None:
            self._control = self._turns.start(self._ask_control())
        control = self._control
        other = await asyncio.shield(control)
        if other is not None and _is_alike(other, [CONTROL_PROMPT], refused, prompts):
            raise refused_altogether(self._server, other, CONTROL_PROMPT)
        self._prove()
        if self._control is control:
            self._control = None
            self._doubtful *= 2 if self._in_a_row >= self._doubtful else 1

    async def _ask_control(self) -> Refused | None:
        try:
            await self._ask(CONTROL_PROMPT)
        except Refused as refused:
            if refused.status in OWN_MERITS_STATUSES:
                return refused
            raise refused_run(self._server, refused) from None
        return None

    def pieces(self, size: int, *, was_cut: bool) -> list[slice]:
        """Into what a refused request is cut: as many pieces as each has prompts, or each prompt alone.

        Args:
            size: How many prompts it has.
            was_cut: Whether it was a piece itself.
        """
        piece = 1 if was_cut or self.goes_alone else math.isqrt(size)
        return [slice(start, start + piece) for start in range(0, size, piece)]

    def _count(self, answered: int, refused: int) -> None:
        self._answered += answered
        self._refused += refused
        while self._answered + self._refused > _REMEMBERED:
            self._answered //= 2
            self._refused //= 2


def _is_alike(one: Refused, of_one: Sequence[str], other: Refused, of_other: Sequence[str]) -> bool:
    return (one.status, _gist(one, of_one)) == (other.status, _gist(other, of_other))


def _gist(refused: Refused, prompts: Sequence[str]) -> str:
    r"""What a refusal says, without what may differ from one prompt to another: numbers, quotations, the prompt itself.

    >>> told = b'{"error": {"message": "no more than 10 tokens, not 12, in \'one two\'"}}'
    >>> _gist(Refused(400, told), ["three four"])
    'no more than tokens, not , in'
    """
    said = message_of(refused.body)
    for prompt in prompts:
        if len(prompt) >= _ECHOED_CHARS:
            said = said.replace(prompt, " ")
    return " ".join(_NUMBER.sub(" ", QUOTED.sub(" ", said.lower())).split())
