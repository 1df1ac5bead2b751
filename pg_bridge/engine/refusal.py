"""What an engine's refusal is about, as far as its status and its words tell.

In: a status and a body. Out: its own words, and what kind it is. Engines put a `code` or a `type` beside their words,
each its own; where neither tells, the words do. They may repeat a prompt, so nothing here is fit to be shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from pg_bridge.engine.untrusted import parse_json
from pg_bridge.errors import Reason
from pg_bridge.rows.media import Illustrated

RETRIED_STATUSES = frozenset({429, 500, 502, 503, 504, 529})
LATER_STATUSES = frozenset({429, 503, 529})
"""An engine that is overloaded, or starting; 529 is Anthropic's."""
DENIED_STATUSES = frozenset({401, 403})
OWN_MERITS_STATUSES = frozenset({400, 413, 422})
OF_ARGUMENTS_STATUSES = OWN_MERITS_STATUSES | {403}
"""With which arguments are refused; by 403 OpenAI says of a model that it tells nobody log-probabilities."""
NO_ENDPOINT_STATUSES = frozenset({404, 405, 501})

TOO_LONG = "Send fewer columns or shorter ones, or lower max_tokens: prompt and answer share the model's context."
FILTERED = "The engine's content filter decides what it takes: leave such rows out."
OF_MEDIA = (
    "Not every model takes pictures or recordings, nor these: docs/media.md has which engines may. Or leave it out."
)

_PAYMENT_REQUIRED = 402
_USED_UP_CODES = frozenset(
    {
        "billing_error",
        "billing_hard_limit_reached",
        "billing_not_active",
        "insufficient_balance",
        "insufficient_credits",
        "insufficient_quota",
    }
)
_USED_UP = re.compile(r"credit balance is too low|insufficient (balance|credits|funds|quota)|billing hard limit", re.I)
_TOO_LONG_CODES = frozenset(("context_length_exceeded", "string_above_max_length", "exceed_context_size_error"))
_TOO_LONG = re.compile(
    r"(maximum|max|model'?s?) context (length|window|size)|context (length|window|size) (is|of|exceeded)"
    r"|(exceeds?|longer than|larger than) the (available|maximum|model'?s?|max) (context|model|input|length)"
    r"|(prompt|input|request) (is|was) too (long|large)|max_model_len",
    re.I,
)
_FILTERED_CODES = frozenset(("content_filter", "content_policy_violation", "responsibleaipolicyviolation"))
_FILTERED = re.compile(r"content (management |usage )?policy|content filter", re.I)
_EXPIRED = re.compile(r"expired", re.I)


class Refused(Exception):  # a message between rooms of the engine, not an error for users
    """The engine answered with a status that is neither success nor worth a retry.

    Attributes:
        status: The HTTP status.
        body: The answer's body, as received.
    """

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"HTTP status {status}")
        self.status = status
        self.body = body


def message_of(body: bytes) -> str:
    """The engine's own words in a refusal, as they are; empty where there are none."""
    answer = _parsed(body)
    for key in ("error", "message", "detail"):
        if isinstance(answer, dict) and key in answer:
            answer = answer[key]
    return answer if isinstance(answer, str) else ""


def is_used_up(status: int, body: bytes, prompts: Sequence[str] = ()) -> bool:
    """Whether the account has nothing left, which no waiting mends.

    Args:
        status: The HTTP status.
        body: The refusal's.
        prompts: What it may repeat: words that stand in one of them tell nothing.

    >>> is_used_up(429, b'{"error": {"message": "Slow down", "code": "rate_limit_exceeded"}}')
    False
    >>> is_used_up(429, b'{"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}')
    True
    """
    if status == _PAYMENT_REQUIRED:
        return True
    if not _USED_UP_CODES.isdisjoint(_codes(body)):
        return True
    return bool(_USED_UP.search(message_of(body))) and not any(map(_USED_UP.search, prompts))


def has_expired(refused: Refused) -> bool:
    """Whether a key was refused because it has expired."""
    return any(map(_EXPIRED.search, (message_of(refused.body), *_codes(refused.body))))


def explained(reason: str, refused: Refused, prompt: str, too_long: str = TOO_LONG) -> str:
    """The reason for refusing one prompt, with what can be done about it where that is known.

    Args:
        reason: In words that are fit to be shown.
        refused: The refusal.
        prompt: The prompt: words that stand in it tell nothing.
        too_long: What can be done about one that is too long.
    """
    codes, said = set(_codes(refused.body)), message_of(refused.body)
    if codes & _TOO_LONG_CODES or (_TOO_LONG.search(said) and not _TOO_LONG.search(prompt)):
        return Reason(reason, too_long, "54000")
    if codes & _FILTERED_CODES or (_FILTERED.search(said) and not _FILTERED.search(prompt)):
        return Reason(reason, FILTERED)
    return Reason(reason, OF_MEDIA) if isinstance(prompt, Illustrated) else reason


def _codes(body: bytes) -> Iterator[str]:
    """What stands beside an engine's words to tell what they are about."""
    answer = _parsed(body)
    inner = answer.get("error") if isinstance(answer, dict) else None
    for part in (answer, inner):
        if isinstance(part, dict):
            yield from (part[key].lower() for key in ("code", "type") if isinstance(part.get(key), str))


def _parsed(body: bytes) -> object:
    try:
        return parse_json(body)
    except ValueError:
        return None
