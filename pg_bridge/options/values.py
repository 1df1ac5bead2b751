"""What the values of options are: how they are written in SQL, checked and read.

In: a text of PostgreSQL's catalogs, or a value of a call's JSON object. Out: a Python value, or ValueError. An
expression of a value is in the syntax that Python and PostgreSQL share, because PostgreSQL's validator checks it too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from pg_bridge.options.further import HEADERS_PATTERN, SECRET_HEADERS_PATTERN, read_headers, read_request_options

Reorder = Literal["rows and columns", "rows", "none"]
Place = Literal["planned", "question first", "row first"]
OnError = Literal["fail", "null"]
OnBudget = Literal["fail", "null"]
Pairs = Literal["each", "listed", "blocks", "auto"]
OnNull = Literal["ask", "null"]
Api = Literal["chat", "completions"]
DialectName = Literal[
    "auto",
    "vllm",
    "sglang",
    "llama.cpp",
    "ollama",
    "tgi",
    "transformers",
    "litellm",
    "openai",
    "anthropic",
    "openai-compatible",
]
Cache = Literal["off", "transaction", "persistent"]
CacheScope = Literal["server", "role"]
CacheSalt = Literal["off", "role"]
Reasoning = Literal["off", "low", "medium", "high", "model"]
Gives = Literal["answer", "confidence"]
Kind = Literal[
    "text",
    "label",
    "labels",
    "boolean",
    "number",
    "integer",
    "date",
    "timestamp",
    "timestamptz",
    "json",
    "embedding",
    "relevance",
]

REORDER: tuple[Reorder, ...] = get_args(Reorder)
CACHES: tuple[Cache, ...] = get_args(Cache)
"""From the least that is kept to the most."""

YES_OR_NO = ("yes", "no")
_DATE = "[0-9]{4}-[01][0-9]-[0-3][0-9]"
_TIME = "[0-2][0-9]:[0-5][0-9]:[0-5][0-9]"
PATTERNS: dict[Kind, str] = {
    "number": r"-?[0-9]{1,15}(\.[0-9]{1,9})?",
    "integer": "-?[0-9]{1,18}",
    "date": _DATE,
    "timestamp": f"{_DATE}T{_TIME}",
    "timestamptz": rf"{_DATE}T{_TIME}(Z|[+-](0[0-9]|1[0-5]):[0-5][0-9])",  # PostgreSQL knows no zone beyond
}


@dataclass(frozen=True, slots=True)
class Value:
    """What an option's value may be.

    Attributes:
        pattern: A regular expression for the whole text.
        expects: What the value must be, in words, for the error message.
        parse: From the text to the Python value; ValueError where the pattern does not tell that it is wrong.
        sql: The type of a SQL argument.
        json: The types that it may have in a call's JSON object.
    """

    pattern: str
    expects: str
    parse: Callable[[str], Any] = str
    sql: str = "text"
    json: tuple[type, ...] = (str,)

    def of_text(self, text: str) -> Any:  # noqa: ANN401 - each option has a type of its own
        """Read a text of a catalog.

        >>> TOKENS.of_text("20")
        20
        """
        if not re.fullmatch(self.pattern, text):
            raise ValueError
        return self.parse(text)

    def of_json(self, value: object) -> Any:  # noqa: ANN401
        """Read a value of a call's JSON object, where more types than text are told apart.

        >>> TOKENS.of_json(20), LABELS.of_json(["yes", "no"])
        (20, ('yes', 'no'))
        """
        if not isinstance(value, self.json) or (isinstance(value, bool) and bool not in self.json):
            raise ValueError
        try:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        except RecursionError:
            raise ValueError from None
        return self.of_text(text)


def _one_of(values: tuple[str, ...]) -> Value:
    return Value("|".join(values), "one of " + ", ".join(f"'{value}'" for value in values))


def _is_true(text: str) -> bool:
    return text == "true"


def _read_part(text: str) -> float:
    if not 0 < float(text) <= 1:
        raise ValueError
    return float(text)


def _read_chance(text: str) -> float:
    if not 0 < float(text) < 1:
        raise ValueError
    return float(text)


def _read_margin(text: str) -> float:
    if not 0 < float(text) < float("inf"):
        raise ValueError
    return float(text)


def _read_proxy(text: str) -> str:
    """The URL without a slash; ValueError for brackets or a port that make it none."""
    url = text.rstrip("/")
    if not urlsplit(url).hostname or urlsplit(url).port == 0:
        raise ValueError
    return url


def _read_endpoints(text: str) -> str:
    """The base URLs, parted by commas; ValueError for one that is there twice, or is none.

    >>> _read_endpoints("http://one:8000/v1/, http://two:8000 http://three:8000")
    'http://one:8000,http://two:8000,http://three:8000'
    """
    urls = [re.sub(r"(?<=[^/:])/*(/v1)?/*$", "", url) for url in re.split("[, ]+", text)]
    if len(set(map(_place_of, urls))) < len(urls):
        raise ValueError
    return ",".join(urls)


def _place_of(url: str) -> tuple[str, str, int, str]:
    """Whither a URL leads, however it is spelt; ValueError for brackets that hold no address.

    >>> _place_of("http://One/") == _place_of("http://one:80")
    True
    """
    parts = urlsplit(url)
    return (
        parts.scheme,
        parts.hostname or "",
        parts.port or (443 if parts.scheme == "https" else 80),
        parts.path.rstrip("/"),
    )


def _read_labels(text: str) -> tuple[str, ...]:
    """Labels parted by commas, spaces around them left out, or a JSON array."""
    labels = json.loads(text) if text.lstrip().startswith("[") else [label.strip() for label in text.split(",")]
    if not (all(isinstance(label, str) and label for label in labels) and len(set(labels)) == len(labels)):
        raise ValueError
    return tuple(labels)


def _read_descriptions(text: str) -> tuple[tuple[str, str], ...]:
    """Labels, each with what it means, in one line; empty where that is not said."""
    said = json.loads(text)
    if not all(label and isinstance(means, str | None) for label, means in said.items()):
        raise ValueError
    return tuple((label, " ".join((means or "").split())) for label, means in said.items())


def _read_some_labels(text: str) -> tuple[str, ...]:
    labels = _read_labels(text)
    if not labels:
        raise ValueError
    return labels


def _in_required_order(text: str) -> str:
    """A schema with its properties in the order in which it requires them, which is that of the answer.

    As jsonb they came in another, shorter names first; so a reason that is to be thought of first would come last.

    >>> _in_required_order('{"properties": {"a": {}, "why": {}}, "required": ["why", "a"]}')
    '{"properties": {"why": {}, "a": {}}, "required": ["why", "a"]}'
    """
    try:
        schema = json.loads(text)
    except RecursionError:
        raise ValueError from None
    properties, required = schema.get("properties"), schema.get("required")
    if not isinstance(properties, dict) or not isinstance(required, list):
        return text
    named = [name for name in required if isinstance(name, str) and name in properties]
    ordered = list(dict.fromkeys([*named, *properties]))
    if ordered == list(properties):
        return text
    return json.dumps(schema | {"properties": {name: properties[name] for name in ordered}}, ensure_ascii=False)


_POSITIVE = r"[1-9][0-9]{0,8}"
_TO_A_MILLION = r"[1-9][0-9]{0,5}|1000000"
_CONTROL = r"\u0001-\u001f\u007f"  # in brackets
_LINE = f"[^{_CONTROL}]+"  # what ends up in an HTTP header or in a log
_ANY = r"(.|\n)+"
_OBJECT = r"\s*\{[^\u0001]*"  # a repeated group would take a hundred bytes for each character

_TO_65535 = "[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]"
_HOST = rf"(\[[^]\s{_CONTROL}?#@,;/]+]|[^][\s{_CONTROL}?#@,;/:]+)"
_URL = rf"https?://{_HOST}(:({_TO_65535}))?(/[^\s{_CONTROL}?#@,;]*)?"

URL = Value(_URL, "an http:// or https:// URL without a user or a query")
ENDPOINT = Value(
    rf"{_URL}(( *, *| +){_URL})*",
    "an http:// or https:// URL without a user or a query, or several, each once, parted by commas or spaces",
    _read_endpoints,
)
MODEL = Value(_LINE, "the name of a model that the engine serves, one line")
API = Value("chat|completions", "chat or completions")
PROMPTS = Value(_POSITIVE, "a positive number of prompts", int)
BYTES = Value(_POSITIVE, "a positive number of bytes", int)
PER_MINUTE = Value(_POSITIVE, "a positive number a minute", int)
SECONDS = Value(r"(?=.*[1-9])[0-9]{1,6}(\.[0-9]{1,6})?", "a positive number of seconds", float)
PRICE = Value(r"[0-9]{1,9}(\.[0-9]{1,9})?", "a price in decimals, 0.15 for example", float)
PATIENCE = Value(r"[0-9]{1,6}(\.[0-9]{1,6})?", "a number of seconds, 0 for none", float)
RANKS = Value(r"[1-9][0-9]{0,3}", "a number of ranks from 1 to 9999", int)
RETRIES = Value(r"[0-9]{1,9}", "a number of retries, 0 for none", int)
FILE = Value(_LINE, "the path of a file")
PROXY = Value(
    rf"https?://[^\s{_CONTROL}?#@/]+/?", "the http:// or https:// URL of a proxy, without a user or a path", _read_proxy
)
PROXY_USER = Value(f"[^{_CONTROL}:]+", "a name at the proxy, without colons, line breaks or control characters")
PROXY_PASSWORD = Value(_LINE, "a password at the proxy, without line breaks or control characters")
API_KEY = Value(_LINE, "the engine's API key, without line breaks or control characters")
HOST = Value(r"\S+", "a host name, an address or a socket's folder")
PORT = Value(_POSITIVE, "a port number", int)
ROLE = Value(".+", "the role that reads the rows of foreign tables")
PASSWORD = Value(".+", "that role's password")
TRUTH = Value("true|false", "true or false", _is_true, "boolean", (bool,))
RELATION = Value(".+", "the name of a table or view")
SELECT = Value(_ANY, "one SELECT")
KEY = Value(".+", "the name of a column that tells the source's rows apart")
OWN_RELATION = Value("rowset|result|connection|state|desk", "rowset, result, connection, state or desk")
QUESTION = Value(_ANY, "a question; {column} names a column of the row")
LABELS = Value(_ANY, "labels parted by commas, or a JSON array of them", _read_some_labels, "text[]", (list, tuple))
CHOICES = Value(_ANY, "distinct, non-empty texts", _read_labels, "text[]", (list, tuple))
DESCRIPTIONS = Value(
    _OBJECT, 'a JSON object: {"good": "what good means", …}', _read_descriptions, "jsonb", json=(dict,)
)
SCHEMA = Value(_OBJECT, "a JSON schema, an object", json.loads)
SCHEMA_TEXT = Value(_OBJECT, "a JSON schema, an object", _in_required_order, "jsonb", (dict,))
NAME = Value(r"(.|\n)*", "a text")
INSTRUCTION = Value(r"(.|\n)*", "an instruction, empty for none")
TOKENS = Value(_TO_A_MILLION, "between 1 and 1000000", int, "integer", (int,))
ROWS = TOKENS
CALLS = Value(r"[1-9][0-9]?|100", "between 1 and 100", int, "integer", (int,))
ROWS_PER_PROMPT = Value(r"[1-9][0-9]?|100", "between 1 and 100", int, "integer", (int,))
LIST_ROWS = Value(r"[2-9]|[1-9][0-9]|100", "between 2 and 100", int, "integer", (int,))
CHECKED = Value(r"[0-9]{1,4}|10000", "between 0 and 10000", int, "integer", (int,))
CANDIDATES = Value(r"[1-9][0-9]?|100", "between 1 and 100", int, "integer", (int,))
# The last is how PostgreSQL and Python write what is nearly nothing.
COSINE = Value(
    r"-?(0(\.[0-9]+)?|1(\.0+)?|[0-9](\.[0-9]+)?e-[0-9]{1,3})",
    "between -1 and 1",
    float,
    "double precision",
    (str, int, float),
)
DIMENSIONS = Value(rf"{_TO_65535}|65536", "between 1 and 65536", int, "integer", (int,))
PRIORITY = Value(r"-?[0-9]{1,9}", "an integer of at most nine digits", int, "integer", (int,))
WHOLE = Value(r"-?[0-9]{1,10}", "a whole number", int, "integer", (int,))
# The last is how PostgreSQL and Python write what is less than 0.0001. JSON has no NaN, so SQL hands over a text.
TEMPERATURE = Value(
    r"[01](\.[0-9]+)?|2(\.0+)?|[0-9](\.[0-9]+)?e-[0-9]{1,3}",
    "between 0 and 2",
    float,
    "double precision",
    (str, int, float),
)
_DECIMAL = r"[0-9]{1,12}(\.[0-9]{1,20})?|[0-9](\.[0-9]{1,20})?e[-+]?[0-9]{1,3}"  # as above
COUNT = Value(r"[0-9]{1,15}", "a number of at most fifteen digits, 0 for none", int, "bigint", (int,))
DURATION = Value(_DECIMAL, "a number of seconds", float, "double precision", (str, int, float))
AMOUNT = Value(
    _DECIMAL, "an amount in the currency of the server's prices", float, "double precision", (str, int, float)
)
DISTANCE = Value(_DECIMAL, "a number, 0 or more", float, "double precision", (str, int, float))
FEW = Value(r"[0-9]|[1-9][0-9]|100", "between 0 and 100", int, "integer", (int,))
PART = Value(_DECIMAL, "greater than 0 and at most 1", _read_part, "double precision", (str, int, float))
CHANCE = Value(_DECIMAL, "greater than 0 and less than 1", _read_chance, "double precision", (str, int, float))
MARGIN = Value(_DECIMAL, "a number greater than 0", _read_margin, "double precision", (str, int, float))
SEED = Value(r"[0-9]{1,9}", "a whole number of at most nine digits", int, "integer", (int,))
AGE = Value(r"[0-9]{1,10}(\.[0-9]{1,6})?", "a number of seconds", float, "double precision", (str, int, float))
REORDERING = _one_of(REORDER)
PLACEMENT = _one_of(get_args(Place))
ON_ERROR = _one_of(get_args(OnError))
ON_NULL = _one_of(get_args(OnNull))
ON_BUDGET = _one_of(get_args(OnBudget))
PAIRS = _one_of(get_args(Pairs))
DIALECT = _one_of(get_args(DialectName))
CACHE = _one_of(get_args(Cache))
CACHE_SCOPE = _one_of(get_args(CacheScope))
CACHE_SALT = _one_of(get_args(CacheSalt))
REASONING = _one_of(get_args(Reasoning))
REQUEST_OPTIONS = Value(
    _OBJECT, "a JSON object of at most 65536 characters", read_request_options, "jsonb", (str, dict)
)
HEADERS = Value(
    HEADERS_PATTERN, 'a JSON object of header names with plain ASCII texts or null: {"X-Team": "a"}', read_headers
)
SECRET_HEADERS = Value(SECRET_HEADERS_PATTERN, "a JSON object of header names with plain ASCII texts", read_headers)
KIND = _one_of(get_args(Kind))
GIVES = _one_of(get_args(Gives))


def exactly(text: str, expects: str) -> Value:
    """A value that can only be this."""
    return Value(re.escape(text), expects)
