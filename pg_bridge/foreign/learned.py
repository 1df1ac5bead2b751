"""What questions cost and how many rows their answers leave: guessed at first, then learnt as rows go by.

In: a model column, its quals, what windows showed. Out: rates and rough costs, by which a scan decides what to ask
first and EXPLAIN estimates. It asks nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pg_bridge.foreign.definition import ModelColumn
from pg_bridge.foreign.quals import COMPARISONS, IS_NOT_NULL, IS_NULL, Qual
from pg_bridge.options import Kind

CHARS_PER_TOKEN = 4
_ANSWER_WORTH = 4  # an answer's token takes about as long as so many of a prompt
_ANSWER_TOKENS: Mapping[Kind, int] = {"text": 40, "json": 60, "label": 3, "boolean": 1, "number": 4, "integer": 4}
_DATE_TOKENS = 10


@dataclass(slots=True)
class _Counts:
    asked: int = 0
    passed: int = 0
    questions: int = 0


@dataclass(slots=True)
class Learned:
    """What earlier windows and scans of a foreign table have shown of its predicates; kept as long as the session.

    Attributes:
        seen: By the predicates on a column.
    """

    seen: dict[tuple[Qual, ...], _Counts] = field(default_factory=dict)

    def pass_rate(self, quals: tuple[Qual, ...], column: ModelColumn) -> float:
        """The share of rows that satisfy them: as seen, beginning with a guess that counts as much as four rows."""
        seen = self.seen.get(quals, _Counts())
        return (seen.passed + 4 * _guess(quals, column)) / (seen.asked + 4)

    def distinct_rate(self, quals: tuple[Qual, ...]) -> float:
        """Questions a row."""
        seen = self.seen.get(quals, _Counts())
        return (seen.questions + 4) / (seen.asked + 4)

    def add(self, quals: tuple[Qual, ...], asked: int, passed: int, questions: int) -> None:
        """Note what a window showed."""
        if quals not in self.seen and len(self.seen) >= 1000:
            del self.seen[next(iter(self.seen))]
        seen = self.seen.setdefault(quals, _Counts())
        seen.asked += asked
        seen.passed += passed
        seen.questions += questions


def _guess(quals: tuple[Qual, ...], column: ModelColumn) -> float:
    rate = 1.0
    for qual in quals:
        if qual.operator in (IS_NOT_NULL, "<>"):
            rate *= 0.9
        elif qual.operator == IS_NULL:
            rate *= 0.1
        elif qual.operator == "=":
            choices = len(column.ask.call.choices) or 10
            rate *= min(1.0, len(qual.values) / choices)
        else:
            rate *= 0.3 if qual.operator in COMPARISONS else 0.2
    return max(rate, 0.001)


def cost_tokens(column: ModelColumn, row_chars: float) -> float:
    """A rough price of one question, in tokens of a prompt."""
    answer = min(_ANSWER_TOKENS.get(column.answer.kind, _DATE_TOKENS), column.ask.call.max_tokens)
    return (len(column.ask.prompt or "") + row_chars) / CHARS_PER_TOKEN + _ANSWER_WORTH * answer
