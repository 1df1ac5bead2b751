"""When an engine wants to be asked again, by the headers of its answer.

In: an answer's headers. Out: seconds. `Retry-After` stands in a refusal, as a number of seconds or as a date;
`x-ratelimit-remaining-…` and `x-ratelimit-reset-…` stand in any answer of OpenAI and of what speaks like it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?")
_PART = re.compile(rf"({_NUMBER.pattern})(ms|[smhd])")
_LONGEST_HEADER = 100


def told_to_wait_s(headers: Mapping[str, str]) -> float:
    """How long a refusal asks to wait; 0 if it does not.

    >>> told_to_wait_s({"Retry-After": "1.5"}), told_to_wait_s({"Retry-After": "soon"}), told_to_wait_s({})
    (1.5, 0.0, 0.0)
    >>> date = {"Date": "Wed, 21 Oct 2026 07:28:00 GMT", "Retry-After": "Wed, 21 Oct 2026 07:28:20 GMT"}
    >>> told_to_wait_s(date)  # whatever the time is here
    20.0
    """
    text = headers.get("Retry-After", "").strip()[:_LONGEST_HEADER]
    if _NUMBER.fullmatch(text):
        asked_s = float(text)
    else:
        at, now = _timestamp(text), _timestamp(headers.get("Date", "").strip()[:_LONGEST_HEADER])
        asked_s = 0.0 if at is None else at - (time.time() if now is None else now)
    return max(asked_s, used_up_s(headers), 0.0)


def used_up_s(headers: Mapping[str, str]) -> float:
    """How long there is nothing left of a limit that an answer tells of; 0 if there is.

    >>> used_up_s({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"})
    360.0
    >>> used_up_s({"x-ratelimit-remaining-tokens": "7", "x-ratelimit-reset-tokens": "6m0s"})
    0.0
    """
    longest_s = 0.0
    for what in ("requests", "tokens"):
        if headers.get(f"x-ratelimit-remaining-{what}", "").strip() == "0":
            longest_s = max(longest_s, read_duration_s(headers.get(f"x-ratelimit-reset-{what}", "")))
    return longest_s


def read_duration_s(text: str) -> float:
    """Read a duration; 0 for what is none.

    >>> [read_duration_s(text) for text in ("1s", "6m0s", "20ms", "1h2m3.5s", "17", "yesterday", "-5s")]
    [1.0, 360.0, 0.02, 3723.5, 17.0, 0.0, 0.0]
    """
    text = text.strip()[:_LONGEST_HEADER]
    if _NUMBER.fullmatch(text):
        return float(text)
    if not re.fullmatch(f"({_PART.pattern})+", text):
        return 0.0
    return sum(float(part[1]) * _UNITS_S[part[3]] for part in _PART.finditer(text))


def _timestamp(text: str) -> float | None:
    """The Unix time of an HTTP date."""
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
