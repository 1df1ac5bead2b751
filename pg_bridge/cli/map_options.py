"""The arguments of `pg-bridge map` that are options of SQL: written from the one table of options.

In: the table. Out: arguments for argparse, and from what was given a `Server` and the options of a `Call`.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pg_bridge.errors import OptionError
from pg_bridge.options import Call, Option, Server, options_of

WINDOW_ROWS = 100_000  # of which a process beside the database holds the texts

# Said by arguments of their own, or of no use where there is one engine and its answers are in the target.
_CALL_LEFT_OUT = {"server", "choices"}
_SERVER_LEFT_OUT = {"endpoint", "api_key", "patience_s", "cache", "cache_scope", "cache_prompts", "cache_salt"}
_DEFAULTS: Mapping[str, object] = {"on_error": "null", "window_rows": WINDOW_ROWS}
_IN_SQL = re.compile(r"(: (TLS|proxies))?(; only a superuser may set (true|it))?$|, in SQL of the database server")
_WAY = {"ca_file", "cert_file", "key_file", "no_verify", "proxy"}
PROXY_USER_VARIABLE, PROXY_PASSWORD_VARIABLE = "PG_BRIDGE_PROXY_USER", "PG_BRIDGE_PROXY_PASSWORD"
HEADERS_VARIABLE = "PG_BRIDGE_SECRET_HEADERS"
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


def way_options() -> list[Option]:
    """Those of them that say how an engine is reached."""
    return [option for option in server_options() if option.name in _WAY]


def way_secrets() -> dict[str, str]:
    """What the environment says of who asks, as options of a user mapping."""
    variables = {
        "proxy_user": PROXY_USER_VARIABLE,
        "proxy_password": PROXY_PASSWORD_VARIABLE,
        "secret_headers": HEADERS_VARIABLE,
    }
    return {name: value for name, variable in variables.items() if (value := os.environ.get(variable))}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add an argument for each option."""
    add_group(parser, "asking", "As in SQL (docs/sql.md).", call_options())
    add_group(parser, "the engine", "", server_options())


def add_group(parser: argparse.ArgumentParser, title: str, description: str, options: Sequence[Option]) -> None:
    """Add a group of arguments, one for each of some options; one that is off needs no value to be on."""
    group = parser.add_argument_group(title, description)
    for option in options:
        name, destination = f"--{option.name.replace('_', '-')}", _destination(option)
        text = _help(option).replace("%", "%%")
        if option.default is False:
            group.add_argument(name, metavar="VALUE", help=text, dest=destination, nargs="?", const="true")
        else:
            group.add_argument(name, metavar="VALUE", help=text, dest=destination)


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


def server_texts(arguments: argparse.Namespace, options: Sequence[Option]) -> dict[str, str]:
    """Those of some options of a server that were given, as texts."""
    given = {option.name: getattr(arguments, _destination(option)) for option in options}
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
    meaning = _IN_SQL.sub("", meaning).replace("user mappings, for everybody may read the rest", HEADERS_VARIABLE)
    default = _DEFAULTS.get(option.name, option.default_in("map"))
    if default in (None, ()) or default is False or option.is_built_in or not isinstance(default, str | int | float):
        return meaning
    return f"{meaning} (default: {default})"
