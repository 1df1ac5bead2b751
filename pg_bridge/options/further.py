"""What a request may carry besides what pg_bridge says itself: further keys of its body, and headers.

In: JSON texts of catalogs and calls. Out: what they hold, checked: no key and no header that pg_bridge owns passes, and
no header that ends where another begins. What an error names is a key or a header's name, never a value.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from pg_bridge.errors import OptionError

MOST_CHARS = 1 << 16
"""Of request options: they go along with every request."""

DEEPEST = 100

Headers = tuple[tuple[str, str | None], ...]
"""Names and values; None for a value that stands in the user mapping."""

_FORM = "the form of an answer is said by llm.is_true, llm.classify, llm.score or llm.extract, or by choices"
_ONE_ANSWER = "each row has one answer, which is read when it is whole"
_PROMPT = "the prompt and system_prompt say what is asked"
_DOCUMENTS = "a query is sent with documents, and of each must be told how relevant it is"
_EMBEDDING = "the option dimensions says how long an embedding is, and llm.embed reads the form that it asks for"
_OWNED: Mapping[str, str] = {
    "model": "the server's option model says it",
    "messages": _PROMPT,
    "system": _PROMPT,
    "prompt": _PROMPT,
    "prompt_embeds": _PROMPT,
    "prompt_token_ids": _PROMPT,
    "input_ids": _PROMPT,
    "input": _PROMPT,
    "query": _DOCUMENTS,
    "documents": _DOCUMENTS,
    "top_n": _DOCUMENTS,
    "dimensions": _EMBEDDING,
    "encoding_format": _EMBEDDING,
    "embed_dtype": _EMBEDDING,
    "endianness": _EMBEDDING,
    "echo": _PROMPT,
    "suffix": _PROMPT,
    "stream": _ONE_ANSWER,
    "stream_options": _ONE_ANSWER,
    "n": _ONE_ANSWER,
    "best_of": _ONE_ANSWER,
    "request_id": "no two requests have one",
    "rid": "no two requests have one",
    "max_tokens": "the option max_tokens says it",
    "max_completion_tokens": "the option max_tokens says it",
    "temperature": "the option temperature says it",
    "priority": "the option priority says it",
    "cache_salt": "the server's option cache_salt makes one",
    "structured_outputs": _FORM,
    "response_format": _FORM,
    "regex": _FORM,
    "ebnf": _FORM,
    "json_schema": _FORM,
    "grammar": _FORM,
    "guided_choice": _FORM,
    "guided_regex": _FORM,
    "guided_json": _FORM,
    "guided_grammar": _FORM,
}

# Of the connection, of how a body travels, of what is sent anyway, and of who a request is from: RFC 9110 and 9112.
_OWN_HEADERS = frozenset(
    {
        "accept",
        "accept-encoding",
        "authorization",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "x-data-parallel-rank",
    }
)
_NAME = r"\"[A-Za-z0-9!#$%&'*+.^_`|~-]+\""
_TEXT = r"\"([\u0020\u0021\u0023-\u005b\u005d-\u007e]|\\[\"\\/])*\""


def _object_of(value: str) -> str:
    pair = rf"\s*{_NAME}\s*:\s*{value}\s*"
    return rf"\s*\{{({pair}(,{pair})*|\s*)\}}\s*"


HEADERS_PATTERN = _object_of(f"({_TEXT}|null)")
SECRET_HEADERS_PATTERN = _object_of(_TEXT)


def read_request_options(text: str) -> str:
    """Check further keys of a body.

    Returns:
        The same as JSON text that is equal where the keys and values are.

    Raises:
        ValueError: It is no such object.
        OptionError: It has a key that pg_bridge owns.

    >>> read_request_options('{"top_p": 0.5, "seed": 7}')
    '{"seed": 7, "top_p": 0.5}'
    """
    if len(text) > MOST_CHARS:
        raise ValueError("too long")
    try:
        options = json.loads(text, parse_constant=_refuse)
        if not isinstance(options, dict) or _depth(options) > DEEPEST:
            raise ValueError("no object, or one of too many levels")
        found = json.dumps(options, sort_keys=True, ensure_ascii=False, allow_nan=False)
        found.encode()  # UnicodeEncodeError, a ValueError, for half a surrogate pair
    except RecursionError:
        raise ValueError("too many levels") from None
    if "\0" in "".join(_texts(options)):
        raise ValueError("a NUL")
    for name in options:
        if name in _OWNED:
            raise OptionError(f'request_options has the key "{name}", which pg_bridge sets', hint=f"{_capital(name)}.")
    return found


def merge(*given: str | None) -> dict[str, Any]:
    """Further keys of a body as several places say them, the later over the earlier, key by key.

    >>> merge('{"seed": 7, "top_p": 1}', None, '{"seed": 8}')
    {'seed': 8, 'top_p': 1}
    """
    merged: dict[str, Any] = {}
    for text in given:
        if text:
            merged |= json.loads(text)
    return merged


def read_headers(text: str) -> Headers:
    """Check headers that have the form of the patterns above.

    Raises:
        ValueError: A name comes twice.
        OptionError: A header is pg_bridge's own.
    """
    pairs: list[tuple[str, str | None]] = json.loads(text, object_pairs_hook=list)
    names = [name.lower() for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError("a name comes twice")
    for name, _ in pairs:
        if name.lower() in _OWN_HEADERS:
            raise OptionError(
                f'the header "{name}" is pg_bridge\'s own',
                hint="An API key is the user mapping's option api_key; what else it sends is not to be changed.",
            )
    return tuple(pairs)


def fill_headers(server: str, headers: Headers, secret: Headers) -> dict[str, str]:
    """The headers of a server with the values that one user mapping has for them.

    Args:
        server: The server's name.
        headers: Of the server.
        secret: Of the user mapping.

    Raises:
        OptionError: The user mapping has a header that the server leaves to nobody, or lacks one that it does.
    """
    values = {name.lower(): value for name, value in secret}
    left = [name for name, value in headers if value is None]
    for name in _not_in(secret, left):
        raise OptionError(
            f'secret_headers has "{name}", which server "{server}" does not ask for',
            hint=f"""Who owns the server says which headers there are: its option headers, '{{"{name}": null}}'.""",
        )
    for name in left:
        if name.lower() not in values:
            raise OptionError(
                f'server "{server}" asks for the header "{name}", and nobody has said its value',
                hint=f"""Say it in secret_headers of your user mapping, '{{"{name}": "…"}}'; """
                "beside the database in PG_BRIDGE_SECRET_HEADERS.",
            )
    filled = {name: values[name.lower()] if value is None else value for name, value in headers}
    return {name: value for name, value in filled.items() if value is not None}


def _not_in(headers: Headers, names: Iterable[str]) -> Iterable[str]:
    known = {name.lower() for name in names}
    return [name for name, _ in headers if name.lower() not in known]


def _capital(owned: str) -> str:
    hint = _OWNED[owned]
    return hint[0].upper() + hint[1:]


def _depth(value: object) -> int:
    deepest, level = 0, [value]
    while level:
        deepest += 1
        inner = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)]
        level = [part for each in inner for part in each]
    return deepest


def _texts(value: object) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
