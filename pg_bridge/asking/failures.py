"""Why questions have no answer, for `llm.last_errors()`: the latest of them that a role has met in a session.

In: questions that failed. Out: which, when and why. No prompt is in it, only a digest; of a row its number or key.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from hashlib import blake2b

from pg_bridge.errors import Reason

MOST_FAILURES = 1000
_DIGEST_BYTES = 16
_TOO_LONG = "54000"


@dataclass(frozen=True, slots=True)
class Failure:
    """A question without an answer, or a row of it where rows can be told apart.

    Attributes:
        at: When it was known, in seconds since 1970.
        server: The name of the server that was asked.
        question: The digest of its prompt, as `digest_prompt` makes it; None where that is not known any more.
        row_id: The row's place in the query of `llm.map`, from 1.
        key: The value of the foreign table's key, for who has read it himself.
        reason: What the engine said, or what is wrong with its answer.
    """

    at: float
    server: str
    question: str | None
    row_id: int | None
    key: str | None
    reason: str


@dataclass(slots=True)
class Failures:
    """The latest failures."""

    latest: deque[Failure] = field(default_factory=lambda: deque(maxlen=MOST_FAILURES))

    def add(
        self, server: str, question: str | None, reason: str, *, row_id: int | None = None, key: str | None = None
    ) -> None:
        """Note one; arguments as for `Failure`."""
        self.latest.append(Failure(time.time(), server, question, row_id, key, reason))


def digest_prompt(prompt: str) -> str:
    """A digest of a prompt, in hexadecimal digits."""
    return blake2b(prompt.encode(errors="surrogatepass"), digest_size=_DIGEST_BYTES).hexdigest()


def is_too_long(reason: str | None) -> bool:
    """Whether a question has no answer because it is longer than the model's context."""
    return isinstance(reason, Reason) and reason.sqlstate == _TOO_LONG
