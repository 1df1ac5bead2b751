"""Whether more may be sent to a server now: what holds beyond one run is somebody else's to say.

In: how much a run would like to send. Out: how much of it may go now. An engine knows no other sessions; whoever makes
it gives it a `Gate` that does (`pg_bridge.ledger.running`). Nothing here waits: what may not go now is asked for again
at one of the next turns of the engine's loop.
"""

from __future__ import annotations

import time
from typing import Protocol

LONGEST_WAIT_S = 60.0
"""No engine keeps anybody from asking for longer by one word; it may say it again."""


class Gate(Protocol):
    """What an engine asks before it sends prompts, and tells of what became of them."""

    def take(self, prompts: int, requests: int, tokens_each: int) -> tuple[int, float]:
        """Ask to send prompts now.

        Args:
            prompts: How many, at least one.
            requests: In how many HTTP requests.
            tokens_each: How many tokens each will take, prompt and answer, as far as anybody can tell.

        Returns:
            How many may be sent now, the first ones; and the seconds after which to ask again for the others.
        """

    def spend(self, requests: int) -> None:
        """Count requests that are sent beyond what was asked for: a request sent again, or cut in halves."""

    def give_back(self, prompts: int, tokens: int = 0) -> None:
        """Tell that prompts are no longer in flight.

        Args:
            prompts: How many.
            tokens: How many more tokens they took than was thought, all together; negative for fewer.
        """

    def slow_down(self, seconds: float) -> None:
        """Tell that the engine asks not to be sent anything for so long."""

    def shut_s(self) -> float:
        """Seconds for which nothing may be sent, because the engine asked for it; 0 for none."""

    def tend(self) -> None:
        """Do what is due; called once a turn, so it takes next to no time."""

    def leave(self) -> None:
        """Give back all that is held: the run is over. Another may begin."""


class OpenGate:
    """Lets a run send whatever it likes, except where the engine asked for patience."""

    def __init__(self) -> None:
        self._shut_until_s = 0.0

    def take(self, prompts: int, requests: int, tokens_each: int) -> tuple[int, float]:
        """See `Gate`."""
        wait_s = self.shut_s()
        return (0, wait_s) if wait_s > 0 else (prompts, 0.0)

    def spend(self, requests: int) -> None:
        """See `Gate`."""

    def give_back(self, prompts: int, tokens: int = 0) -> None:
        """See `Gate`."""

    def slow_down(self, seconds: float) -> None:
        """See `Gate`."""
        self._shut_until_s = max(self._shut_until_s, time.monotonic() + min(seconds, LONGEST_WAIT_S))

    def shut_s(self) -> float:
        """See `Gate`."""
        return max(0.0, self._shut_until_s - time.monotonic())

    def tend(self) -> None:
        """See `Gate`."""

    def leave(self) -> None:
        """See `Gate`."""
