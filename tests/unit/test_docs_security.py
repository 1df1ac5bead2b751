"""docs/security.md: each of its claims names the test that holds it, and that test is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
CLAIM = re.compile(r"^- (?:.*\n(?:  .*\n)*)", re.M)


def test_every_claim_names_a_test_that_exists() -> None:
    text = (ROOT / "docs" / "security.md").read_text()
    claims = CLAIM.findall(text)
    assert len(claims) > 40
    without = [claim for claim in claims if not NAMED.search(claim)]
    assert without == []
    for path, name in NAMED.findall(text):
        assert re.search(rf"^def {name}\(", (ROOT / path).read_text(), re.M), f"{path}::{name}"
