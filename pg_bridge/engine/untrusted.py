r"""Nothing that an engine says is taken on trust: what it says is read, counted and shown through this room.

In: what came over the wire, and the server with its key. Out: parsed JSON or ValueError, counts that are sane or None,
and text fit for an error, a log or a row's error column: one line, of bounded length, and without the key.

An engine, or a proxy before it, that repeats the request's headers in a message would else show the key of the user
mapping to whoever may ask. One that wants to betray its key can spell it in a way that nobody foresees; it has it.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn
from urllib.parse import quote, quote_plus

from pg_bridge.options import Server

MOST_TOKENS = 1_000_000_000
"""More than any one request has; a thousand million requests of it are still a bigint."""

MOST_MILLISECONDS = 1_000_000_000
"""More than any one request takes."""

DEEPEST_JSON = 1000
LARGEST_EXPONENT = 5000

_CUT = "…"
_SHORTEST_CODED = 8  # letters: a shorter piece of base64 would stand in many words
_STRING = re.compile(r'"(?:\\.|[^"\\])*"', re.S)
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def parse_json(text: str | bytes) -> Any:  # noqa: ANN401 - whatever an engine says
    """Parse JSON.

    Raises:
        ValueError: It is no JSON, or nested deeper than can be read.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def parse_jsonb(text: str) -> Any:  # noqa: ANN401 - as above
    """Parse JSON that PostgreSQL's jsonb can hold.

    Raises:
        ValueError: It is no JSON, or JSON with what jsonb has not: NaN, a NUL, half a surrogate pair, a number out of
            all proportion, or thousands of levels.
    """
    if _NUL.search(text):
        raise ValueError("a NUL")
    if text.count("[") + text.count("{") > DEEPEST_JSON and _depth(text) > DEEPEST_JSON:
        raise ValueError("nested too deeply")
    try:
        value = json.loads(text, parse_constant=_refuse, parse_float=_float)
        json.dumps(value, ensure_ascii=False).encode()  # UnicodeEncodeError, a ValueError, for half a surrogate pair
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _float(text: str) -> float:
    exponent = text.lower().partition("e")[2]
    if len(text) > LARGEST_EXPONENT or abs(int(exponent or 0)) > LARGEST_EXPONENT:
        raise ValueError("a number out of all proportion")
    return float(text)


def _depth(text: str) -> int:
    depth = deepest = 0
    for each in _STRING.sub("", text):
        depth += (each in "[{") - (each in "]}")
        deepest = max(deepest, depth)
    return deepest


def token_count(value: object) -> int | None:
    """A number of tokens, None where it is no sane one.

    >>> token_count(7), token_count(10**30), token_count(-1), token_count(True), token_count("7")
    (7, None, None, None, None)
    """
    sane = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS
    return value if sane else None  # type: ignore[return-value]  # sane ones are integers


def seconds(milliseconds: object) -> float | None:
    """A duration in seconds, None where it is no sane one.

    >>> seconds(7), seconds(1.5), seconds(float("nan")), seconds(-1), seconds(True), seconds(10**400)
    (0.007, 0.0015, None, None, None, None)
    """
    sane = isinstance(milliseconds, int | float) and not isinstance(milliseconds, bool)
    return milliseconds / 1000 if sane and 0 <= milliseconds <= MOST_MILLISECONDS else None  # type: ignore[operator]


def hide_key(text: str, server: Server) -> str:
    """Text of the engine's without the secrets of the server, in the spellings that a message may have them in.

    >>> hide_key("no such key: Bearer SK-123456", Server("vllm", "http://engine", api_key="sk-123456"))
    'no such key: Bearer …'
    """
    if not server.secrets:
        return text
    spelt = sorted({each for secret in server.secrets for each in _spellings(secret)}, key=len, reverse=True)
    return re.sub("|".join(map(re.escape, spelt)), _CUT, text, flags=re.IGNORECASE)


def make_printable(text: str) -> str:
    r"""Text that PostgreSQL can hold and a terminal can show.

    >>> make_printable("a\0b\x1b[2J \ud800")
    'a�b�[2J �'
    """
    return "".join(each if each.isprintable() else "�" for each in text)


def _spellings(key: str) -> Iterator[str]:
    """The key as it may stand in a message: plain, quoted for JSON, for Python or for a URL, in base64."""
    yield key
    yield json.dumps(key)[1:-1]
    yield json.dumps(key)[1:-1].replace("/", "\\/")
    yield repr(key)[1:-1]
    yield quote(key, safe="")
    yield quote(key)
    yield quote_plus(key)
    for before in range(3):  # bytes that stand before it, "Bearer " or "user:" say, move it by so many
        plain = bytes(before) + key.encode(errors="replace")
        skipped, whole = (0, 2, 3)[before], len(plain) * 8 // 6
        for coded in (base64.b64encode(plain), base64.urlsafe_b64encode(plain)):
            piece = coded.decode()[skipped:whole]  # the letters that nothing beside it has a part in
            if len(piece) >= _SHORTEST_CODED:
                yield piece
