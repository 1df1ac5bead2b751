"""The SQL that is written from the table of options, when the extension is installed.

In: a script with marks such as `@complete.arguments@`, and options. Out: the script with arguments, lists and the
validator's table in their places. It adds no option and knows none by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import get_args

from pg_bridge.options import Catalog, Function, Option, Where

_MARK = re.compile(r"@(?P<place>\w+)\.(?P<form>\w+)@")

_LISTS: Mapping[str, Callable[[Option], str]] = {
    "arrays": lambda option: f"{option.name} json[]",
    "names": lambda option: option.name,
    "named": lambda option: f"{option.name} => {option.name}",
    "types": lambda option: option.value.sql,
}


_OF_THE_ANSWER = {"server", "max_tokens", "temperature", "system_prompt"}


def fill(script: str, options: Sequence[Option]) -> str:
    """Put the options of functions where a script has marks for them."""

    def text(mark: re.Match[str]) -> str:
        place = mark["place"]
        if place not in get_args(Function):
            raise ValueError(f"unknown function {place}")
        own = [option for option in options if place in option.places]
        match mark["form"]:
            case "arguments":
                return _arguments(own, place)  # type: ignore[arg-type]
            case "optional":
                return ",\n    ".join(f"{option.name:<13} {option.value.sql:<16} DEFAULT NULL" for option in own)
            case "values":
                return ",\n        ".join(f"'{option.name}', {_json_value(option)}" for option in own)
            case "besides":  # for who judges the answer
                return ", ".join(_LISTS["named"](option) for option in own if option.name not in _OF_THE_ANSWER)
            case form if form in _LISTS:
                return ", ".join(map(_LISTS[form], own))
            case form:
                raise ValueError(f"unknown mark {place}.{form}")

    return _MARK.sub(text, script)


def _arguments(options: Sequence[Option], place: Where) -> str:
    return ",\n    ".join(
        f"{option.name:<13} {option.value.sql:<16} DEFAULT {default_in_sql(option, place)}" for option in options
    )


def _json_value(option: Option) -> str:
    # JSON has no NaN, which would be an error of PostgreSQL's here; as a text it becomes one that names the option.
    return f"{option.name}::pg_catalog.text" if option.value.sql == "double precision" else option.name


def default_in_sql(option: Option, place: Where) -> str:
    """An option's default as SQL writes it; NULL for none, and for one that is too long to be shown.

    >>> from pg_bridge.options import OPTIONS
    >>> by_name = {option.name: option for option in OPTIONS}
    >>> [default_in_sql(by_name[name], "map") for name in ("server", "temperature", "dedup", "choices")]
    ["'vllm'", '0', 'true', 'NULL']
    >>> default_in_sql(by_name["max_tokens"], "extract")
    '1024'
    """
    default = option.default_in(place)
    if default in (None, ()) or option.is_built_in:
        return "NULL"
    if isinstance(default, bool):
        return str(default).lower()
    return literal(default) if isinstance(default, str) else f"{default:.15g}"


def validator_rows(options: Sequence[Option]) -> str:
    """Write the table of `llm._validate`.

    Each row is (catalog, name, pattern, what is expected, whether hints leave it out, whose rights it takes to set it,
    the text that takes none).
    """
    rows = [
        (
            place,
            option.name,
            option.value.pattern,
            option.value.expects,
            not option.is_listed,
            option.needs,
            option.harmless,
        )
        for option in options
        for place in get_args(Catalog)
        if place in option.places
    ]
    return ", ".join(f"({', '.join(map(_cell, row))})" for row in rows)


def _cell(cell: str | bool | None) -> str:
    if cell is None:
        return "NULL"
    return literal(cell) if isinstance(cell, str) else str(cell).lower()


def literal(text: str) -> str:
    """A SQL string literal; backslashes are plain under standard_conforming_strings."""
    return "'" + text.replace("'", "''") + "'"
