"""What an engine double answers where it may have functions called: each of them once, then an answer.

In: a prompt with a row at its end, and the schema of `pg_bridge.asking.tools.schema_of`. Out: a call or an answer. An
argument that is called as a cell of the row has its value; any other is an example of its type.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

Example = Callable[[Mapping[str, Any]], object]
"""A value of a schema's types."""


def turns_of(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The schemas of what may come next; none where it is the schema of something else."""
    following = schema.get("properties", {}).get("next", {})
    turns: list[Mapping[str, Any]] = following.get("anyOf", [following] if following else [])
    return turns


def take_turn(prompt: str, turns: list[Mapping[str, Any]], example: Example) -> dict[str, Any]:
    """The first call that has not been made, if there is one."""
    row: dict[str, Any] = json.loads("{" + prompt.rpartition("\n{")[2]) if "\n{" in prompt else {}
    made = [cell["call"] for cell in row.values() if isinstance(cell, dict) and "call" in cell]
    for turn in turns:
        of = turn["properties"]
        if "call" in of and of["call"]["enum"][0] not in made:
            arguments = of["arguments"]["properties"]
            given = {name: row.get(name, example(each)) for name, each in arguments.items()}
            return {"next": {"call": of["call"]["enum"][0], "arguments": given}}
    return {"next": {"answer": example(turns[-1]["properties"]["answer"])}}
