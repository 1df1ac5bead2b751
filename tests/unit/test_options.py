"""The table of options: one more row is one more argument, list entry, rule and line of the reference page."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any, get_args

import pytest

from pg_bridge.cli import option_sql
from pg_bridge.cli.install import extension_files
from pg_bridge.errors import OptionError
from pg_bridge.options import OPTIONS, Call, Function, Server, TableOptions, options_of, parse_options
from tests.more_options import MORE, MoreCall
from tests.scripts import load_script

ROOT = Path(__file__).parents[2]
option_tables = load_script("option_tables")
FUNCTIONS = get_args(Function)
PROMPTS = {
    "translate",
    "sentiment",
    "redact",
    "fix_grammar",
    "refine",
}  # over the others, in whose words they are written
OTHERS = {
    "_classify_many",
    "_embed",
    "_relevance_of",
    "_validate",
    "estimate",
    "rank_estimate",
    "tune_estimate",
    "submit",
    "keep",
    "extract_columns",
}
# FROM is where they stand, and they have no batches.
OVER_QUERIES = {
    *("map", "rank", "map_with_tools", "evaluate", "tune", "resolve", "clusters"),
    *("cascade", "cascade_labels", "share", "mean"),
}
# By the planner: what is asked is a function of its own.
PUT_IN_PLACE = {"classify_many": "_classify_many", "embed": "_embed", "relevance": "_relevance_of"}


def functions_with(name: str, script: str) -> dict[str, list[str]]:
    """What each function of a script says of an option: the lines that hold its name."""
    found: dict[str, list[str]] = {}
    for made in re.split(r"(?=^CREATE FUNCTION )", script, flags=re.M)[1:]:
        function = re.match(r"CREATE FUNCTION llm\.(\w+)", made)
        lines = [line.strip() for line in made.split("\nCOMMENT")[0].splitlines() if re.search(rf"\b{name}\b", line)]
        if function and lines:
            found.setdefault(function[1], []).extend(lines)
    return found


def _batch_of(name: str) -> str:
    return f"_{PUT_IN_PLACE.get(name, name).lstrip('_')}_batch"


def test_one_more_line_is_one_more_option_everywhere() -> None:
    script = extension_files(MORE)["pg_bridge--0.2.sql"]
    found = functions_with("top_p", script)
    calls = set(FUNCTIONS)
    batch_of = {name: _batch_of(name) for name in calls - OVER_QUERIES - PROMPTS}
    assert found.keys() == calls | set(batch_of.values()) | OTHERS
    for name, estimate in (("map", "estimate"), ("rank", "rank_estimate"), ("tune", "tune_estimate")):
        assert len(found[estimate]) == len(found[name])
        assert found[estimate][0] == found[name][0]
    for name in calls:
        forms = 1 if name in {"relevance", *OVER_QUERIES - {"map"}, *PROMPTS} else 2
        argument = re.compile(r"top_p +double precision DEFAULT 0\.9")
        assert sum(bool(argument.match(line)) for line in found[name]) == forms
        asked = found[PUT_IN_PLACE.get(name, name)]
        is_put_in_place = name in PROMPTS or name in PUT_IN_PLACE
        assert sum("'top_p', top_p::pg_catalog.text" in line for line in asked) == (0 if name in PROMPTS else forms)
        assert sum("top_p => top_p" in line for line in found[name]) == (
            3 if name == "refine" else forms if is_put_in_place else 0
        )
        if name in batch_of:
            of_batch = " ".join(found[batch_of[name]])
            assert of_batch.count("top_p json[]") == 1
            assert len(re.findall(r"'{[^}]*\btop_p}', ARRAY\[[^]]*\btop_p]", of_batch)) == 1
    assert "('column', 'top_p', '0|1|0\\.[0-9]+', 'between 0 and 1', false, NULL, NULL)" in script
    assert "'table', 'top_p'" not in script

    page = option_tables.fill((ROOT / "docs/sql.md").read_text(), MORE)
    assert "| `top_p` | double precision | 0.9 | every call | how much of the likeliest is drawn from |" in page
    page = option_tables.fill((ROOT / "docs/foreign-tables.md").read_text(), MORE)
    assert page.count("| `top_p` | 0.9 | how much of the likeliest is drawn from |") == 1

    assert MoreCall.from_arguments({"top_p": "0.5"}).top_p == 0.5  # type: ignore[attr-defined]
    with pytest.raises(OptionError, match="top_p") as caught:
        MoreCall.from_arguments({"top_p": 2})
    assert caught.value.hint == "It must be between 0 and 1."
    with pytest.raises(OptionError, match="colour") as caught:
        MoreCall.from_arguments({"colour": "red"})
    assert "top_p" in caught.value.hint


def test_the_reference_pages_say_what_the_table_says() -> None:
    for name in option_tables.PAGES:
        page = (ROOT / name).read_text()
        assert option_tables.fill(page) == page, f"{name} is old: run .venv/bin/python scripts/option_tables.py"
    places = re.findall(
        r"<!-- options: ([\w ]+) -->", "".join((ROOT / name).read_text() for name in option_tables.PAGES)
    )
    assert sorted(places) == ["calls", "column", "server", "table", "user mapping"]


def test_every_function_has_all_its_marks() -> None:
    source = "".join((ROOT / "sql" / f"{name}.sql").read_text() for name in ("surface", "operators", "batching"))
    for name in FUNCTIONS:
        forms = ["arguments", "values"] if name in OVER_QUERIES else ["arguments", "values", "arrays", "names"]
        for form in ["arguments", "named"] if name in PROMPTS else forms:
            assert f"@{name}.{form}@" in source
    for wrong in ("@complet.names@", "@complete.nams@"):
        with pytest.raises(ValueError, match="unknown"):
            option_sql.fill(wrong, OPTIONS)
    for script in extension_files().values():
        assert not re.search(r"@\w+(\.\w+)?@", script)


def test_what_the_native_module_reads_are_options_of_a_table() -> None:
    read = set()
    for file in (ROOT / "native").glob("*.c"):
        read |= set(re.findall(r'strcmp\(option->defname, "(\w+)"\)', file.read_text()))
    assert read
    assert read <= {option.name for option in options_of(TableOptions)}


def test_a_place_knows_an_option_once() -> None:
    stands = [(place, option.name) for option in OPTIONS for place in option.places]
    assert len(stands) == len(set(stands))


def test_defaults_are_values() -> None:
    for option in options_of(Call):
        for place in option.places & set(FUNCTIONS):
            default = option.default_in(place)
            if default:
                assert option.value.of_json(default) == default


def test_null_is_the_default() -> None:
    assert Call.from_arguments(dict.fromkeys(field.name for field in dataclasses.fields(Call))) == Call()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"max_tokens": 1}, 1),
        ({"max_tokens": 1_000_000}, 1_000_000),
        ({"temperature": "1e-07"}, 1e-07),  # as PostgreSQL writes it
        ({"temperature": 1e-07}, 1e-07),
        ({"temperature": 2}, 2.0),
        ({"temperature": "2"}, 2.0),
        ({"dedup": False}, False),
        ({"choices": ["a, b", "c"]}, ("a, b", "c")),
        ({"choices": []}, ()),
        ({"system_prompt": ""}, ""),
        ({"schema": {"type": "object", "title": "Größe"}}, '{"type": "object", "title": "Größe"}'),
    ],
)
def test_arguments_of_a_call(given: dict[str, Any], expected: object) -> None:
    (name,) = given
    value = getattr(Call.from_arguments(given), name)
    assert (value, type(value)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("given", "name", "hint"),
    [
        ({"max_tokens": 0}, "max_tokens", "between 1 and 1000000"),
        ({"max_tokens": 1_000_001}, "max_tokens", "between 1 and 1000000"),
        ({"max_tokens": True}, "max_tokens", "between 1 and 1000000"),
        ({"max_tokens": "20"}, "max_tokens", "between 1 and 1000000"),
        ({"max_tokens": 20.0}, "max_tokens", "between 1 and 1000000"),
        ({"temperature": 2.1}, "temperature", "between 0 and 2"),
        ({"temperature": -0.1}, "temperature", "between 0 and 2"),
        ({"temperature": "NaN"}, "temperature", "between 0 and 2"),
        ({"temperature": float("nan")}, "temperature", "between 0 and 2"),
        ({"temperature": "1e400"}, "temperature", "between 0 and 2"),
        ({"dedup": "true"}, "dedup", "true or false"),
        ({"dedup": 1}, "dedup", "true or false"),
        ({"on_error": "ignore"}, "on_error", "one of 'fail', 'null'"),
        ({"on_error": 1}, "on_error", "one of 'fail', 'null'"),
        ({"placement": "first"}, "placement", "one of 'planned', 'question first', 'row first'"),
        ({"choices": ["a", "a"]}, "choices", "distinct, non-empty texts"),
        ({"choices": ["a", ""]}, "choices", "distinct, non-empty texts"),
        ({"choices": ["a", None]}, "choices", "distinct, non-empty texts"),
        ({"choices": ["a", "a"], "kind": "label"}, "labels", "distinct, non-empty texts"),
        ({"kind": "json"}, "schema", "a JSON schema, an object"),
        ({"schema": "{}"}, "schema", "a JSON schema, an object"),
        ({"server": 1}, "server", "a text"),
    ],
)
def test_arguments_that_are_refused(given: dict[str, Any], name: str, hint: str) -> None:
    with pytest.raises(OptionError) as caught:
        Call.from_arguments(given)
    assert (caught.value.message, caught.value.hint) == (f'invalid value for option "{name}"', f"It must be {hint}.")


def test_labels_that_are_nowhere() -> None:
    with pytest.raises(OptionError, match='invalid value for option "labels"') as caught:
        Call.from_arguments({"choices": [], "kind": "label"})
    assert "an array of at least one label" in caught.value.hint
    assert "compared by IN" in caught.value.hint


def test_an_option_of_another_place_is_unknown() -> None:
    with pytest.raises(OptionError, match='invalid option "prompt"') as caught:
        parse_options(("table",), {"prompt": "Is it?"})
    assert "source_query" in caught.value.hint
    assert "relation" not in caught.value.hint


def test_no_secret_is_shown() -> None:
    assert "sk-1" not in repr(Server.from_options("vllm", {"endpoint": "http://engine/v1/", "api_key": "sk-1"}))
