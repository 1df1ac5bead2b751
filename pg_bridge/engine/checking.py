"""Whether an answer is of the form that it was to have: a label, a text of a pattern, JSON of a schema.

In: a text and how it was to be answered. Out: the answer, or why it is none.
"""

from __future__ import annotations

import json
import re
from typing import Any

from pg_bridge.engine.records import Sampling
from pg_bridge.engine.shape import is_of
from pg_bridge.engine.untrusted import parse_jsonb

NOT_A_CHOICE = "the engine did not keep to the choices"
NOT_OF_THE_PATTERN = "the engine's answer is not of the form that was asked for"
NOT_OF_THE_SCHEMA = "the engine's answer is not JSON of the schema"

Answer = tuple[str | None, str | None]
"""(text, error), one of the two None."""


class Form:
    """The form of the answers of a sampling.

    Args:
        sampling: How prompts are answered.

    Attributes:
        choices: The only answers allowed; empty for others.
        pattern: For the whole answer; None for others.
        schema: Of the answer; None for others.
    """

    def __init__(self, sampling: Sampling) -> None:
        self.choices = frozenset(sampling.choices)
        self.pattern = re.compile(sampling.pattern) if sampling.pattern else None
        self.schema: dict[str, Any] | None = json.loads(sampling.schema) if sampling.schema else None
        self._needed = any if sampling.of_rows else all  # of what an object holds, to be of its form

    def check(self, text: str) -> Answer:
        """The answer, without what some chat templates put around it, or why it is none."""
        if self.pattern:
            return (text.strip(), None) if self.pattern.fullmatch(text.strip()) else (None, NOT_OF_THE_PATTERN)
        if self.schema is not None:
            return (text, None) if self._fits(text, self.schema) else (None, NOT_OF_THE_SCHEMA)
        if not self.choices or text in self.choices:
            return text, None
        stripped = text.strip()  # some chat templates begin every answer with a space
        return (stripped, None) if stripped in self.choices else (None, NOT_A_CHOICE)

    def _fits(self, text: str, schema: dict[str, Any]) -> bool:
        """Whether a text is JSON that jsonb can hold, and an object with all that must be there if one is asked for.

        The engine is held to the whole schema; this tells one that ignores it, and what would be no value of a column.
        """
        try:
            value = parse_jsonb(text)
        except ValueError:
            return False
        if schema.get("type") != "object":
            return True
        if not isinstance(value, dict) or not value.keys() >= set(schema.get("required", ())):
            return False
        properties = schema.get("properties")
        if not isinstance(properties, dict):
            return True
        return self._needed(is_of(value.get(name), properties.get(name)) for name in value)
