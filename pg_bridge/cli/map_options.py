"""The arguments of `pg-bridge map` that are options of SQL: written from the one table of options.

In: the table. Out: arguments for argparse, and from what was given a `Server` and the options of a `Call`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from typing import Any

from pg_bridge.errors import OptionError
from pg_bridge.options import Call, Option, Server, options_of

WINDOW_ROWS = 100_000  # of which a process beside the database holds the texts

# Said by arguments of their own, or of no use where there is one engine and its answers are in the target.
_CALL_LEFT_OUT = {"server", "choices"}
_SERVER_LEFT_OUT = {"endpoint", "api_key", "patience_s", "cache", "cache_scope", "cache_prompts"}
_DEFAULTS: Mapping[str, object] = {"on_error": "null", "window_rows": WINDOW_ROWS}
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")


def call_options() -> list[Option]:
    """The options of `llm.map` that may be given."""
    return [option for option in options_of(Call) if "map" in option.places and option.name not in _CALL_LEFT_OUT]


def server_options() -> list[Option]:
    """The options of a server that may be given; its budgets are those of the call here."""
    of_call = {option.name for option in call_options()}
    return [
        option
        for option in options_of(Server)
        if "server" in option.places
        and option.name not in of_call | _SERVER_LEFT_OUT
        and not option.name.startswith("daily_")
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add an argument for each option."""
    groups = (("asking", "As in SQL (docs/sql.md).", call_options()), ("the engine", "", server_options()))
    for title, description, options in groups:
        group = parser.add_argument_group(title, description)
        for option in options:
            group.add_argument(
                f"--{option.name.replace('_', '-')}",
                metavar="VALUE",
                help=_help(option).replace("%", "%%"),
                dest=_destination(option),
            )


def call_arguments(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of the call that were given, and the defaults that are others than in SQL.

    Raises:
        OptionError: A value is not valid.
    """
    given = {**_DEFAULTS}
    for option in call_options():
        text = getattr(arguments, _destination(option))
        if text is not None:
            given[option.name] = _read(option, text)
    return given


def server_texts(arguments: argparse.Namespace) -> dict[str, str]:
    """The options of the server that were given, as texts."""
    given = {option.name: getattr(arguments, _destination(option)) for option in server_options()}
    return {name: text for name, text in given.items() if text is not None}


def _destination(option: Option) -> str:
    return f"option_{option.name}"


def _read(option: Option, text: str) -> object:
    try:
        return option.value.of_text(text)
    except ValueError:
        flag = option.name.replace("_", "-")
        raise OptionError(f"invalid value for --{flag}", hint=f"It must be {option.value.expects}.") from None


def _help(option: Option) -> str:
    meaning = _LINK.sub(r"\1", option.meaning).replace("`", "").removesuffix(": budgets")
    default = _DEFAULTS.get(option.name, option.default_in("map"))
    if default in (None, ()) or option.is_built_in or not isinstance(default, str | int | float):
        return meaning
    return f"{meaning} (default: {default})"
