"""The table of engines and what they can do, as it stands in docs/engines.md between two marks."""

from __future__ import annotations

import datetime
import re

from tests.engines.features import FEATURES
from tests.engines.started import CHECKOUT

FILE = CHECKOUT / "docs/engines.md"
BEGIN, END = "<!-- written by `make test-engines` -->", "<!-- end -->"

_BLOCK = re.compile(f"(?<={re.escape(BEGIN)}\n).*?(?={re.escape(END)})", re.S)


class Table:
    """What was found so far, engine by engine.

    An engine that was not asked this time keeps the row that it has in the file.
    """

    def __init__(self) -> None:
        self._versions: dict[str, str] = {}
        self._found: dict[str, dict[str, str]] = {}

    def add(self, engine: str, version: str, feature: str, found: str) -> None:
        self._versions[engine] = version
        self._found.setdefault(engine, {})[feature] = found

    def is_empty(self) -> bool:
        return not self._found

    def text(self) -> str:
        kept = _rows(FILE.read_text()) if FILE.exists() else {}
        new = {engine: self._row(engine, list(FEATURES)) for engine in self._found}
        head = ["", *FEATURES, "versions", "asked on"]
        lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        rows = {**kept, **new}
        return "\n".join([*lines, *(rows[engine] for engine in sorted(rows, key=str.casefold))])

    def _row(self, engine: str, features: list[str]) -> str:
        found = self._found[engine]
        cells = [engine, *(found.get(name, "?") for name in features), self._versions[engine]]
        return "| " + " | ".join([*cells, datetime.datetime.now(datetime.UTC).date().isoformat()]) + " |"

    def write(self) -> None:
        """Write the table into the file; a row that says the same as before keeps its day."""
        page = FILE.read_text()
        lines = self.text().splitlines()
        before = {_undated(line): line for line in page.splitlines()}
        block = "\n".join(before.get(_undated(line), line) for line in lines)
        FILE.write_text(_BLOCK.sub(lambda _: f"\n{block}\n\n", page))


def _undated(line: str) -> str:
    return re.sub(r"\d{4}-\d\d-\d\d \|$", "", line)


def _rows(page: str) -> dict[str, str]:
    block = _BLOCK.search(page)
    lines = block[0].splitlines() if block else []
    return {line.split("|")[1].strip(): line for line in lines if line.startswith("| ") and line.split("|")[1].strip()}
