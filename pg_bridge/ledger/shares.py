"""What each engine of a server had of the work, where there are several.

In: figures of each, by its base URL. Out: their sums, and rows of JSON as SQL functions show them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class Share:
    """What one engine had. Tokens are its own figures, None where it does not tell.

    Attributes:
        requests: HTTP requests, repeated ones included.
        retries: How many of them were repeats.
        answered: Prompts that it has answered.
        prompt_tokens: Of all of these.
        cached_tokens: Those of them that came from its prefix cache.
        completion_tokens: Of all its answers.
    """

    requests: int = 0
    retries: int = 0
    answered: int = 0
    prompt_tokens: int | None = 0
    cached_tokens: int | None = 0
    completion_tokens: int | None = 0

    def plus(self, other: Share, sign: int = 1) -> Share:
        """Both together, or the difference; what is not known of one is not known of both."""
        sums: dict[str, Any] = {}
        for name in NAMES:
            mine, its = getattr(self, name), getattr(other, name)
            sums[name] = None if mine is None or its is None else mine + sign * its
        return Share(**sums)

    def known(self) -> Share:
        """With 0 for what it does not tell."""
        return Share(*(getattr(self, name) or 0 for name in NAMES))


NAMES = [each.name for each in fields(Share)]

Shares = dict[str, Share]


def plus(these: Mapping[str, Share], others: Mapping[str, Share], sign: int = 1) -> Shares:
    """The sums of both, or the differences.

    >>> plus({"one": Share(3)}, {"one": Share(1), "two": Share(2)})["one"].requests
    4
    """
    sums = dict(these)
    for endpoint, share in others.items():
        sums[endpoint] = sums.get(endpoint, Share()).plus(share, sign)
    return sums


def rows(shares: Mapping[str, Share]) -> list[dict[str, object]] | None:
    """As a SQL function shows them; None where there is one engine.

    >>> rows({}), rows({"http://one": Share(3)})[0]["requests"]
    (None, 3)
    """
    return [{"endpoint": endpoint, **asdict(share)} for endpoint, share in shares.items()] or None
