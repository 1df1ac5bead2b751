"""One option: a row of the table, written as a field of the record that it is parsed into.

In: records with fields that are made by `option`. Out: their `Option`s, and options parsed by them. Which options there
are, `records` says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, Literal, get_args

from pg_bridge.errors import OptionError
from pg_bridge.options.values import Value

Catalog = Literal["server", "user mapping", "table", "column"]
Function = Literal[
    "map",
    "complete",
    "is_true",
    "is_true_confidence",
    "classify",
    "classify_confidence",
    "classify_many",
    "score",
    "score_confidence",
    "extract",
    "embed",
    "relevance",
    "translate",
    "sentiment",
    "redact",
    "fix_grammar",
    "refine",
    "rank",
    "map_with_tools",
    "evaluate",
    "tune",
    "cascade",
    "cascade_labels",
    "share",
    "mean",
    "resolve",
    "clusters",
]
Where = Catalog | Function | Literal["aggregate"]
Needs = Literal["superuser", "pg_read_server_files"]
"""Where an option may stand: in the OPTIONS of a catalog object, or as an argument of a function of schema `llm`."""

SERVER: frozenset[Where] = frozenset({"server"})
MAPPING: frozenset[Where] = frozenset({"user mapping"})
TABLE: frozenset[Where] = frozenset({"table"})
COLUMN: frozenset[Where] = frozenset({"column"})
EVERY_CALL: frozenset[Where] = frozenset(get_args(Function))
CASCADES: frozenset[Where] = frozenset({"cascade", "cascade_labels"})
POLLS: frozenset[Where] = frozenset({"share", "mean"})
SAMPLES: frozenset[Where] = CASCADES | POLLS
"""Of functions over a query that ask about some of its rows, drawn by chance."""
SCORES: frozenset[Where] = frozenset({"score", "score_confidence", "mean"})
LABELS: frozenset[Where] = frozenset({"classify", "classify_confidence", "classify_many", "cascade_labels"})
EMBEDS: frozenset[Where] = frozenset({"embed"})
QUESTIONS: frozenset[Where] = EVERY_CALL - EMBEDS - {"relevance"}
"""Those that a model answers in words."""
TUNE: frozenset[Where] = frozenset({"tune"})
"""Of llm.tune and llm.tune_estimate, which look for a better prompt."""
TRIALS: frozenset[Where] = TUNE | {"evaluate"}
"""Of those whose answers are compared with known ones."""
OVER_ALL: frozenset[Where] = frozenset({"map", "rank", "map_with_tools", "resolve", "clusters"})
EACH_ROW: frozenset[Where] = QUESTIONS - TRIALS - SAMPLES - OVER_ALL
"""Those that are asked about one row each, and may stand anywhere in a query."""
RANK: frozenset[Where] = frozenset({"rank"})
"""Of llm.rank and llm.rank_estimate, which ask about lists of rows."""
TOOLS: frozenset[Where] = frozenset({"map_with_tools"})
RESOLVE: frozenset[Where] = frozenset({"resolve"})
CLUSTERS: frozenset[Where] = frozenset({"clusters"})
EACH_PROMPT: frozenset[Where] = EVERY_CALL - RANK - TRIALS - SAMPLES - RESOLVE - CLUSTERS
"""Those whose prompts hold rows as they are in the query, all of them, and whose answers come back with them."""
AGGREGATE: frozenset[Where] = frozenset({"aggregate"})
"""Of llm.aggregate and llm.summarize, which have the options of llm.map besides, in a JSON object."""
NOWHERE: frozenset[Where] = frozenset()
CONDITIONS: frozenset[Where] = frozenset({"is_true"})
SURE_CALLS: frozenset[Where] = frozenset({"is_true", "classify", "score"})
"""Those of whose answers another function tells how sure the model was."""
FREE_CALLS: frozenset[Where] = frozenset({"map", "complete", "map_with_tools", "evaluate", "tune"})
"""Those whose answers have no form yet."""

REQUIRED = MISSING


@dataclass(frozen=True, slots=True)
class Option:
    """One option.

    Attributes:
        name: As written in `OPTIONS (…)` or before `=>`.
        value: What it may be.
        places: Where it may stand; empty where only the extension itself sets it.
        meaning: For the reference page, in Markdown; empty for what nobody has a use for.
        default: In Python; REQUIRED for none.
        defaults: Where it is another in some places.
        is_built_in: Whether the default is a text too long to be shown; in SQL it is NULL then.
        is_listed: Whether hints name it.
        needs: Whose rights it takes to set it to anything but its default: a superuser's, or those of a role.
    """

    name: str
    value: Value
    places: frozenset[Where]
    meaning: str
    default: object = REQUIRED
    defaults: Mapping[Where, object] | None = None
    is_built_in: bool = False
    is_listed: bool = True
    needs: Needs | None = None

    def default_in(self, place: Where) -> object:
        """The default in a place."""
        return (self.defaults or {}).get(place, self.default)

    @property
    def harmless(self) -> str | None:
        """The text that anybody may set it to who may set options there; None for none, or where all may be set."""
        return str(self.default).lower() if self.needs and isinstance(self.default, bool) else None


def option(
    default: object,
    value: Value,
    places: frozenset[Where],
    meaning: str,
    *,
    defaults: Mapping[Where, object] | None = None,
    is_built_in: bool = False,
    is_listed: bool = True,
    is_secret: bool = False,
    needs: Needs | None = None,
) -> Any:  # noqa: ANN401 - what a dataclass takes for a field; its type is the one that is written before it
    """A field that is an option, whose name is the option's; a secret is not shown by repr."""
    about = required(value, places, meaning)
    about |= {"defaults": defaults, "is_built_in": is_built_in, "is_listed": is_listed, "needs": needs}
    return field(default=default, repr=not is_secret, metadata=about)


def required(value: Value, places: frozenset[Where], meaning: str) -> dict[str, Any]:
    """The metadata of a field that is an option without a default, which type checkers believe of `field` alone."""
    return {"value": value, "places": places, "meaning": meaning}


def options_of(record: type) -> tuple[Option, ...]:
    """The options among a record's fields, in their order."""
    own: tuple[Field[Any], ...] = fields(record)
    return tuple(Option(name=each.name, default=each.default, **each.metadata) for each in own if each.metadata)


def valid_names(options: Iterable[Option]) -> str:
    """A hint."""
    return f"Valid options are: {', '.join(option.name for option in options if option.is_listed)}."


def parse_texts(known: Iterable[Option], given: Mapping[str, str]) -> dict[str, Any]:
    """Parse option texts of a catalog.

    Args:
        known: The options that may stand there.
        given: Option name to text.

    Raises:
        OptionError: An option is unknown or malformed.
    """
    by_name = {option.name: option for option in known}
    values: dict[str, Any] = {}
    for name, text in given.items():
        if name not in by_name:
            raise OptionError(f'invalid option "{name}"', hint=valid_names(by_name.values()))
        try:
            values[name] = by_name[name].value.of_text(text)
        except ValueError:
            raise invalid_value(name, by_name[name].value.expects) from None
    return values


def parse_values(
    known: Iterable[Option], given: Mapping[str, Any], called: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Parse named arguments of a function; None stands for a default, and is left out.

    Args:
        known: The options that it has.
        given: Option name to JSON value.
        called: What options are called in errors, where that is another name.

    Raises:
        OptionError: An argument is unknown or its value is not valid.
    """
    by_name = {option.name: option for option in known}
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in by_name:
            raise OptionError(f'invalid option "{name}"', hint=valid_names(by_name.values()))
        if value is None:
            continue
        try:
            values[name] = by_name[name].value.of_json(value)
        except ValueError:
            raise invalid_value((called or {}).get(name, name), by_name[name].value.expects) from None
    return values


def invalid_value(name: str, expects: str) -> OptionError:
    """The error for a value that is not valid."""
    return OptionError(f'invalid value for option "{name}"', hint=f"It must be {expects}.")
