"""The figures of one run: what is printed, judged and written as JSON.

In: numbers. Out: the same numbers, under names. Rates are shares, 0 to 1; a point is a hundredth of one.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.planner.fresh import Measured
from benchmarks.planner.prefixes import Rates

MEASURES = {
    "chars": "chars",
    "neighbours": "neighb",
    "blocks_16": "b16",
    "bounded_16": "b16/10%",
    "blocks_32": "b32",
    "bounded_32": "b32/10%",
}
"""What the promises are about: attributes of `Rates`, and what their columns are called."""


@dataclass(frozen=True, slots=True)
class StandIn:
    """How good characters are in place of tokens.

    Attributes:
        chars_per_token: Over the distinct cells.
        likeness: Pearson's correlation of the cells' characters and tokens.
        by_chars: Share of the tokens that an unbounded cache holds, planned by characters.
        by_tokens: The same, planned by the tokens that each cell is.
    """

    chars_per_token: float
    likeness: float
    by_chars: float
    by_tokens: float


@dataclass(frozen=True, slots=True)
class Quality:
    """One table.

    Attributes:
        table: Its name.
        rows: Before deduplication.
        unique_rows: After it.
        columns: Of the table.
        tokens: Of all prompts, the rows as they came.
        instruction: Share of them in what is the same for all rows.
        bound: No ordering shares more characters of the prompts.
        rates: By strategy.
        stand_in: Characters against tokens.
        sent: By way in, what came to the engine.
    """

    table: str
    rows: int
    unique_rows: int
    columns: int
    tokens: int
    instruction: float
    bound: float
    rates: dict[str, Rates]
    stand_in: StandIn
    sent: dict[str, Rates]

    def rate(self, strategy: str, measure: str) -> float:
        """One rate."""
        value: float = getattr(self.rates[strategy], measure)
        return value


@dataclass(frozen=True, slots=True)
class Contest:
    """All strategies on one table.

    Attributes:
        quality: Their rates.
        costs: What planning took, by strategy.
    """

    quality: Quality
    costs: dict[str, Measured]


@dataclass(frozen=True, slots=True)
class Size:
    """Planning at one number of rows.

    Attributes:
        table: What it is.
        promised_rows: What the promise is about; `rows` unless the run is scaled.
        rows: Planned.
        columns: Of the table.
        text_bytes: By form of input, the text's size in UTF-8.
        costs: By form of input.
    """

    table: str
    promised_rows: int
    rows: int
    columns: int
    text_bytes: dict[str, int]
    costs: dict[str, Measured]


@dataclass(frozen=True, slots=True)
class Kept:
    """An engine of a given speed, while one statement asks it.

    Attributes:
        way: In which way the statement asks.
        rows: How many it asks about.
        prompts: How many came.
        busy_s: Seconds that the engine needs for them.
        idle_s: Seconds without work from the first prompt to the last answer.
        first_s: From the statement's begin to the first prompt.
    """

    way: str
    rows: int
    prompts: int
    busy_s: float
    idle_s: float
    first_s: float

    @property
    def idle_share(self) -> float:
        """Of the time from the first prompt to the last answer."""
        job_s = self.busy_s + self.idle_s
        return self.idle_s / job_s if job_s else 0.0


@dataclass(frozen=True, slots=True)
class Peak:
    """What one statement's backend held at most.

    Attributes:
        way: In which way the statement asks.
        rows: How many it asks about.
        peak_bytes: The backend's high-water mark.
    """

    way: str
    rows: int
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class Results:
    """Everything that was measured."""

    contests: list[Contest]
    sizes: list[Size]
    kept: list[Kept]
    peaks: list[Peak]
