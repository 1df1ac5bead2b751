"""Every option of pg_bridge in one table, and the records that they are parsed into.

In: option texts as PostgreSQL's catalogs hold them, or a call's named arguments. Out: a `Server` (where the
engine is), a `Login` (how a foreign table's rows are reached) and a `Call` (how one prompt is asked). The SQL validator
is generated from `OPTIONS` when the extension is installed, so that a name or a pattern stands in one place only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from pg_bridge.errors import OptionError

Reorder = Literal["rows and columns", "rows", "none"]
Place = Literal["planned", "question first", "row first"]
OnError = Literal["fail", "null"]
Api = Literal["chat", "completions"]
Kind = Literal["text", "label", "boolean", "number", "integer", "date", "timestamp", "timestamptz", "json"]

REORDER: tuple[Reorder, ...] = ("rows and columns", "rows", "none")
PLACES: tuple[Place, ...] = get_args(Place)
ON_ERROR: tuple[OnError, ...] = ("fail", "null")
KINDS: tuple[Kind, ...] = get_args(Kind)

YES_OR_NO = ("yes", "no")
_DATE = "[0-9]{4}-[01][0-9]-[0-3][0-9]"
_TIME = "[0-2][0-9]:[0-5][0-9]:[0-5][0-9]"
PATTERNS: dict[Kind, str] = {
    "number": r"-?[0-9]{1,15}(\.[0-9]{1,9})?",
    "integer": "-?[0-9]{1,18}",
    "date": _DATE,
    "timestamp": f"{_DATE}T{_TIME}",
    "timestamptz": rf"{_DATE}T{_TIME}(Z|[+-][01][0-9]:[0-5][0-9])",
}

DEFAULT_SYSTEM_PROMPT = (
    "You answer a question about one row of a table. The row is a JSON object. Reply with the answer alone."
)


Where = Literal["server", "user mapping", "table", "column"]
"""The catalog object that carries an option."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a server, a user mapping, a foreign table or one of its columns.

    Attributes:
        name: As written in `OPTIONS (…)`.
        where: The catalog object that may carry it.
        pattern: A regular expression, in the syntax that Python and PostgreSQL share, for the whole value.
        expects: What the value must be, in words, for the error message.
        parse: From the option's text to its Python value.
    """

    name: str
    where: Where
    pattern: str
    expects: str
    parse: Callable[[str], Any] = str


def _one_of(values: tuple[str, ...]) -> str:
    return "one of " + ", ".join(f"'{value}'" for value in values)


def _is_true(text: str) -> bool:
    return text == "true"


def _labels(text: str) -> tuple[str, ...]:
    """Labels parted by commas, spaces around them left out, or a JSON array."""
    parted = json.loads(text) if text.lstrip().startswith("[") else [label.strip() for label in text.split(",")]
    if not (parted and all(isinstance(label, str) and label for label in parted) and len(set(parted)) == len(parted)):
        raise ValueError
    return tuple(parted)


_POSITIVE_INT = r"[1-9][0-9]{0,8}"
_COUNT = r"[0-9]{1,9}"
_POSITIVE_SECONDS = r"(?=.*[1-9])[0-9]{1,6}(\.[0-9]{1,6})?"

_ANY = r"(.|\n)+"
_CONTROL = r"\u0001-\u001f\u007f"  # in brackets
_LINE = f"[^{_CONTROL}]+"  # what ends up in an HTTP header or in a log
_URL = rf"https?://[^\s{_CONTROL}?#@]+"
_BOOLEAN = r"true|false"

MULTICORN_WRAPPER = "pg_bridge.multicorn.wrapper.Wrapper"

OPTIONS: tuple[Option, ...] = (
    # Where the engine is.
    Option("endpoint", "server", _URL, "an http:// or https:// URL without a user or a query"),
    Option("model", "server", _LINE, "the name of a model that the engine serves, one line"),
    Option("api", "server", r"chat|completions", "chat or completions"),
    Option("max_in_flight", "server", _POSITIVE_INT, "a positive number of prompts", int),
    Option("connect_timeout_s", "server", _POSITIVE_SECONDS, "a positive number of seconds", float),
    Option("request_timeout_s", "server", _POSITIVE_SECONDS, "a positive number of seconds", float),
    Option("max_retries", "server", _COUNT, "a number of retries, 0 for none", int),
    Option("wrapper", "server", re.escape(MULTICORN_WRAPPER), f"{MULTICORN_WRAPPER} (Multicorn only)"),
    Option("api_key", "user mapping", _LINE, "the engine's API key, without line breaks or control characters"),
    # Where a foreign table's rows are; a connection back to this database.
    Option("host", "server", r"\S+", "a host name, an address or a socket's folder"),
    Option("port", "server", _POSITIVE_INT, "a port number", int),
    Option("user", "user mapping", r".+", "the role that reads the rows of foreign tables"),
    Option("password", "user mapping", r".+", "that role's password"),
    Option("password_required", "user mapping", _BOOLEAN, "true or false", _is_true),
    # What a foreign table shows.
    Option("source", "table", r".+", "the name of a table or view"),
    Option("source_query", "table", _ANY, "one SELECT"),
    Option("security_invoker", "table", _BOOLEAN, "true or false", _is_true),
    Option("key", "table", r".+", "the name of a column that tells the source's rows apart"),
    Option("reorder", "table", "|".join(REORDER), _one_of(REORDER)),
    Option("placement", "table", "|".join(PLACES), _one_of(PLACES)),
    Option("dedup", "table", _BOOLEAN, "true or false", _is_true),
    Option("window_rows", "table", _POSITIVE_INT, "a positive number of rows", int),
    # What a model is asked, and how it answers.
    Option("prompt", "column", _ANY, "a question; {column} names a column of the row"),
    Option("labels", "column", _ANY, "labels parted by commas, or a JSON array of them", _labels),
    Option("schema", "column", r"\s*\{(.|\n)*", "a JSON schema, an object", json.loads),
    Option("max_tokens", "column", _POSITIVE_INT, "a positive number of tokens", int),
    Option("temperature", "column", r"[0-9]+(\.[0-9]+)?", "between 0 and 2", float),
    Option("system_prompt", "column", r"(.|\n)*", "an instruction, empty for none"),
    Option("on_error", "column", "|".join(ON_ERROR), _one_of(ON_ERROR)),
)


def parse_options(where: tuple[Where, ...], options: Mapping[str, str]) -> dict[str, Any]:
    """Parse option texts that stand in some places of a catalog.

    Args:
        where: The places; options of other places are not valid here.
        options: Option name to text.

    Raises:
        OptionError: An option is unknown or malformed.
    """
    known = {option.name: option for option in OPTIONS if option.where in where}
    values: dict[str, Any] = {}
    for key, text in options.items():
        if key not in known:
            raise OptionError(f'invalid option "{key}"', hint=f"Valid options are: {', '.join(known)}.")
        option = known[key]
        try:
            if not re.fullmatch(option.pattern, text):
                raise ValueError
            values[key] = option.parse(text)
        except ValueError:
            raise OptionError(f'invalid value for option "{key}"', hint=f"It must be {option.expects}.") from None
    return values


@dataclass(frozen=True, slots=True)
class Server:
    """Where an engine is and how to talk to it: the options of one server and one user mapping.

    Attributes:
        name: The foreign server's name, for messages.
        endpoint: The engine's base URL, without `/v1`.
        model: The model's name; None means the first that the engine lists.
        api: Which of the engine's interfaces to use.
        max_in_flight: Prompts that may await an answer at one time.
        connect_timeout_s: Longest time without a connection before the run fails, in seconds.
        request_timeout_s: Longest silence of the engine while requests are in flight, in seconds.
        max_retries: How often one request is sent again after 429 or 5xx.
        api_key: The secret of the user mapping; never shown by repr.
    """

    name: str
    endpoint: str
    model: str | None = None
    api: Api = "chat"
    max_in_flight: int = 256
    connect_timeout_s: float = 5.0
    request_timeout_s: float = 300.0
    max_retries: int = 4
    api_key: str | None = field(default=None, repr=False)

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, str]) -> Server:
        """Parse the options of a server and a user mapping.

        Args:
            name: The server's name.
            options: Option name to text, server and user mapping together.

        Raises:
            OptionError: An option is unknown, malformed, or `endpoint` is missing.
        """
        if "endpoint" not in options:
            raise OptionError(
                f'server "{name}" has no endpoint',
                hint=f"ALTER SERVER {name} OPTIONS (ADD endpoint 'http://host:8000');",
            )
        values = parse_options(("server", "user mapping"), options)
        values["endpoint"] = re.sub(r"(/v1)?/*$", "", values["endpoint"])
        own = cls.__dataclass_fields__.keys()  # the others say where a foreign table's rows are
        return cls(name=name, **{key: value for key, value in values.items() if key in own})


@dataclass(frozen=True, slots=True)
class Login:
    """How a foreign table's rows are reached, from the options of its server and of the reader's user mapping.

    Attributes:
        user: The role that reads; None where the user mapping names none.
        password: Its password; never shown by repr.
        host: Where the server listens; None for the one at hand.
        port: Its port; None as for `host`.
        password_required: Whether a connection that needed no password is refused.
    """

    user: str | None = None
    password: str | None = field(default=None, repr=False)
    host: str | None = None
    port: int | None = None
    password_required: bool = True

    @classmethod
    def from_options(cls, options: Mapping[str, str]) -> Login:
        """Parse the options of a server and a user mapping.

        Raises:
            OptionError: An option is unknown or malformed.
        """
        values = parse_options(("server", "user mapping"), options)
        return cls(**{key: value for key, value in values.items() if key in cls.__dataclass_fields__})


# What a call's arguments are in JSON, where they are no texts; "temperature" is a text of a number, or one.
_ARGUMENTS: Mapping[str, tuple[type | tuple[type, ...], str]] = {
    "max_tokens": (int, "between 1 and 1000000"),
    "temperature": ((str, int, float), "between 0 and 2"),
    "dedup": (bool, "true or false"),
    "window_rows": (int, "between 1 and 1000000"),
    "choices": ((list, tuple), "distinct, non-empty texts"),
    "schema": (dict, "a JSON schema, an object"),
}


@dataclass(frozen=True, slots=True)
class Call:
    """How one prompt is asked about one row set: the named options of `llm.map`.

    Attributes:
        server: Name of the foreign server.
        max_tokens: Most tokens of one answer.
        temperature: 0 picks the likeliest token every time.
        system_prompt: Instruction before every question; empty for none.
        reorder: What the planner may move.
        placement: Where questions stand; what is planned depends on which others are asked about the same rows.
        dedup: Ask equal requests once.
        on_error: What a row's own failure does to the statement.
        window_rows: Most rows planned together.
        choices: The only answers allowed; empty for free text.
        kind: What an answer is: any text, one of the choices, yes or no, a number, a date or time as in ISO 8601, or
            JSON of a schema.
        schema: The JSON schema of an answer, as JSON text, if it is JSON.
    """

    server: str = "vllm"
    max_tokens: int = 128
    temperature: float = 0.0
    system_prompt: str = DEFAULT_SYSTEM_PROMPT
    reorder: Reorder = "rows and columns"
    placement: Place = "planned"
    dedup: bool = True
    on_error: OnError = "fail"
    window_rows: int = 16384
    choices: tuple[str, ...] = ()
    kind: Kind = "text"
    schema: str = ""

    @property
    def pattern(self) -> str:
        """A regular expression for the whole answer; empty for none."""
        return PATTERNS.get(self.kind, "")

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> Call:
        """Check a call's named arguments; None stands for an option's default.

        Raises:
            OptionError: An argument is unknown or its value is not valid.
        """
        if not isinstance(arguments, Mapping):
            raise OptionError("the options are not a JSON object", hint="""For example: {"server": "vllm"}""")
        given = {key: value for key, value in arguments.items() if value is not None}
        unknown = sorted(given.keys() - cls.__dataclass_fields__.keys())
        if unknown:
            raise OptionError(
                f'invalid option "{unknown[0]}"',
                hint=f"Valid options are: {', '.join(cls.__dataclass_fields__)}.",
            )
        for name, value in given.items():
            kind, expects = _ARGUMENTS.get(name, (str, "a text"))
            _require(isinstance(value, kind) and (kind is bool or not isinstance(value, bool)), name, expects)
        if "temperature" in given:  # SQL hands it over as text, for JSON has no NaN
            try:
                given["temperature"] = float(given["temperature"])
            except ValueError:
                _require(False, "temperature", "between 0 and 2")
        if "choices" in given:
            given["choices"] = tuple(given["choices"])
        if "schema" in given:
            given["schema"] = json.dumps(given["schema"], ensure_ascii=False)
        call = cls(**given)
        if call.kind == "boolean":
            call = replace(call, choices=YES_OR_NO)
        _require(call.kind in KINDS, "kind", _one_of(KINDS))
        _require(call.kind != "label" or bool(call.choices), "labels", "an array of at least one label")
        _require(call.kind != "json" or call.schema.startswith("{"), "schema", "a JSON schema, an object")
        _require(1 <= call.max_tokens <= 1_000_000, "max_tokens", "between 1 and 1000000")
        _require(0 <= call.temperature <= 2, "temperature", "between 0 and 2")
        _require(call.reorder in REORDER, "reorder", _one_of(REORDER))
        _require(call.placement in PLACES, "placement", _one_of(PLACES))
        _require(call.on_error in ON_ERROR, "on_error", _one_of(ON_ERROR))
        _require(1 <= call.window_rows <= 1_000_000, "window_rows", "between 1 and 1000000")
        _require(
            all(isinstance(choice, str) and choice for choice in call.choices)
            and len(set(call.choices)) == len(call.choices),
            "labels" if call.kind == "label" else "choices",
            "distinct, non-empty texts",
        )
        return call


def _require(valid: bool, name: str, expects: str) -> None:
    if not valid:
        raise OptionError(f'invalid value for option "{name}"', hint=f"It must be {expects}.")
