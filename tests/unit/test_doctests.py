"""The examples in docstrings are true."""

import doctest
import importlib
from pathlib import Path

import pytest

import pg_bridge

ROOT = Path(pg_bridge.__file__).parent
MODULES = sorted(
    ".".join(("pg_bridge", *path.relative_to(ROOT).with_suffix("").parts))
    for path in ROOT.rglob("*.py")
    if ">>> " in path.read_text()
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_true(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
