"""Writes the tables of options in the reference pages from the table in `pg_bridge.options`.

In: pages with a line `<!-- options: PLACE -->` before each table and `<!-- end of options -->` after it; the place is a
catalog's object, or `calls` for the functions' arguments. Out: the pages, with the tables written anew. Run it with the
environment's Python, `.venv/bin/python scripts/option_tables.py`; a test looks whether that would change anything.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

from pg_bridge.cli.option_sql import default_in_sql
from pg_bridge.options import EVERY_CALL, OPTIONS, REQUIRED, Catalog, Function, Option

PAGES = ("docs/sql.md", "docs/foreign-tables.md")
_REGION = re.compile(r"(?P<begin><!-- options: (?P<place>[\w ]+) -->\n).*?(?P<end><!-- end of options -->\n)", re.S)


def fill(page: str, options: Sequence[Option] = OPTIONS) -> str:
    """Return a page with its tables written anew."""

    def table(region: re.Match[str]) -> str:
        place = region["place"]
        lines = _calls(options) if place == "calls" else _catalog(options, place)  # type: ignore[arg-type]
        return region["begin"] + "".join(f"| {' | '.join(cells)} |\n" for cells in lines) + region["end"]

    return _REGION.sub(table, page)


def _catalog(options: Sequence[Option], place: Catalog) -> Iterator[tuple[str, ...]]:
    yield "option", "default", "meaning"
    yield "---", "---", "---"
    for option in options:
        if place in option.places and option.meaning:
            yield f"`{option.name}`", _in_catalog(option, place), option.meaning


def _calls(options: Sequence[Option]) -> Iterator[tuple[str, ...]]:
    yield "option", "type", "default", "of", "meaning"
    yield "---", "---", "---", "---", "---"
    for option in options:
        if EVERY_CALL & option.places:
            yield f"`{option.name}`", option.value.sql, _in_calls(option), _functions(option), option.meaning


def _in_calls(option: Option) -> str:
    default = default_in_sql(option, "map")
    others = [f"`llm.{place}`: {default_in_sql(option, place)}" for place in option.defaults or ()]
    shown = f"`{default}`" if default.startswith("'") else default
    return f"{shown} ({', '.join(others)})" if others else shown


def _functions(option: Option) -> str:
    own = EVERY_CALL & option.places
    if own == EVERY_CALL:
        return "every call"
    others = EVERY_CALL - own
    if len(others) <= 5:
        *names, last = (f"`llm.{name}`" for name in sorted(others))
        return f"every call but {', '.join(names)}{' and ' if names else ''}{last}"
    return ", ".join(f"`llm.{name}`" for name in get_args(Function) if name in own)


def _in_catalog(option: Option, place: Catalog) -> str:
    default = option.default_in(place)
    if default is REQUIRED:
        return "required"
    if default in (None, (), "") or option.is_built_in:
        return ""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default}`" if isinstance(default, str) else f"{default:.15g}"


def main() -> int:
    """Write the pages."""
    for name in PAGES:
        page = Path(__file__).parents[1] / name
        old = page.read_text()
        new = fill(old)
        if new != old:
            page.write_text(new)
            sys.stdout.write(f"{name}: written\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
