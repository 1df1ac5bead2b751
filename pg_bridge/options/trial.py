"""How prompts are compared with known answers: the options of `llm.evaluate` and `llm.tune` besides those of a call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from pg_bridge.options import values
from pg_bridge.options.option import TRIALS, TUNE, option, options_of, parse_values


@dataclass(frozen=True, slots=True)
class Trial:
    """On which rows prompts are compared, when an answer is right, and how other prompts are found."""

    sample: int | None = option(
        None,
        values.ROWS,
        TRIALS,
        "most rows that are asked about, taken by chance; of `llm.tune` different ones; without it all",
        defaults={"tune": 200},
    )
    seed: int = option(0, values.WHOLE, TRIALS, "another number, another sample, and another half to learn from")
    within: float = option(
        0.0, values.DISTANCE, TRIALS, "by how much a number may differ from the known one and be right"
    )
    teacher: str | None = option(
        None, values.NAME, TUNE, "the foreign server that writes other prompts; without it `server` does"
    )
    rounds: int = option(3, values.FEW, TUNE, "how often other prompts are written for what the best one got wrong")
    proposals: int = option(4, values.FEW, TUNE, "how many prompts are written each time, 0 to 100")
    examples: int = option(
        4,
        values.FEW,
        TUNE,
        "how many rows with their known answers one candidate has in its system prompt; 0 for no such candidate",
    )

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> Self:
        """Check named arguments; None stands for an option's default.

        Raises:
            OptionError: An argument is unknown or its value is not valid.
        """
        return cls(**parse_values(options_of(cls), arguments))
