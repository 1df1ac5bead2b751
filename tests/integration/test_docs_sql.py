"""The examples of the reference pages, run by psql: what stands in a text block is what the SQL before it prints."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from pg_bridge.testing.double import EngineDouble
from tests import tickets
from tests.conftest import Connect, Database, create_server

DOCS = Path(__file__).parents[2] / "docs"
PAGES = (
    "aggregates.md",
    "alike.md",
    "budgets.md",
    "cascades.md",
    "confidence.md",
    "embeddings.md",
    "estimate.md",
    "inputs.md",
    "ledger.md",
    "media.md",
    "operators.md",
    "rank.md",
    "rows-per-prompt.md",
    "tools.md",
    "search.md",
    "tuning.md",
)
_EXAMPLE = re.compile(r"```sql\n(.*?)```\n\n```text\n(.*?)```", re.DOTALL)


@pytest.mark.some(9)
@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("host", ["plpython"], indirect=True)
def test_examples_print_what_they_say(page: str, batching: Database, connect: Connect, engine: EngineDouble) -> None:
    if page == "tuning.md":  # where digests would show nothing
        engine.behaviour.answer, engine.behaviour.embedding = tickets.answer, tickets.embedding
    create_server(connect(), engine.url, cache="persistent")
    examples = _EXAMPLE.findall((DOCS / page).read_text())
    assert examples
    script = "\\set SHOW_CONTEXT never\n\\pset footer off\n" + "\n\\echo ~~~~\n".join(code for code, _ in examples)
    printed = subprocess.run(
        ["psql", "-X", "-q", "-f", "-"],
        input=script,
        env=batching.cluster.client_environment(batching.name) | {"PGCLIENTENCODING": "UTF8"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    ).stdout
    parts = re.sub(r"^psql:<stdin>:\d+: ", "", printed, flags=re.MULTILINE).split("~~~~\n")
    assert list(map(_lines, parts)) == [_lines(text) for _, text in examples]


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines() if line.strip()]
