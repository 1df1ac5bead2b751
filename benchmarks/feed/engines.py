"""Which engines are fed, and how many rows of which table each of them is asked about.

A slow engine is asked about fewer rows: it is not waited for, and rows are no use to it. Few rows share less, so its
ratios are not those of a whole table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pg_bridge.testing.speeds import EIGHT_H100_8B, H100_1B, H100_8B, L4_8B, EngineSpeed

WHOLE = {"movies": 4000, "products": 4000, "bird": 4000}
"""Tables that the verdicts are about, and their rows."""
REST = {"pdmx": 300, "beer": 2000, "fever": 250, "squad": 250}
LEAST_VIRTUAL = 2000
"""Rows of every table, at least, where nobody has to wait for the engine."""


@dataclass(frozen=True, slots=True)
class FedEngine:
    """An engine.

    Attributes:
        name: As printed.
        speed: Its constants.
        rows: Rows to ask about, by table.
    """

    name: str
    speed: EngineSpeed
    rows: Mapping[str, int]

    def fewer(self, most_rows: int | None) -> FedEngine:
        """The same with at most so many rows of each table."""
        return replace(self, rows={table: min(rows, most_rows or rows) for table, rows in self.rows.items()})

    def whole(self) -> FedEngine:
        """The same about as many rows as in virtual time."""
        return replace(self, rows={table: WHOLE.get(table, LEAST_VIRTUAL) for table in self.rows})

    def only(self, tables: Sequence[str] | None) -> FedEngine:
        """The same about some of its tables; None are all."""
        return replace(self, rows={name: rows for name, rows in self.rows.items() if tables is None or name in tables})


_AS_ON_AN_L4 = L4_8B.cache_blocks
"""The cache that 8B leaves on the paper's card, and that the runs on a GPU were given. The tables have some quarter of
the paper's rows; ten times the cache would hold what the original order loses."""

MAIN = FedEngine("H100, 8B, 4 API servers", replace(H100_8B, api_servers=4, cache_blocks=_AS_ON_AN_L4), WHOLE | REST)
"""The one that most verdicts and the picture are about."""
ONE_B = FedEngine("H100, 1B, 8 API servers", replace(H100_1B, api_servers=8), WHOLE)

ENGINES = {
    "h100-8b": MAIN,
    "h100-8b-1": FedEngine("H100, 8B, 1 API server", replace(H100_8B, cache_blocks=_AS_ON_AN_L4), {"movies": 4000}),
    "h100-1b": ONE_B,
    "8xh100-8b": FedEngine("8 H100, 8B, 8 API servers", EIGHT_H100_8B, WHOLE),
    "l4-8b": FedEngine("L4, 8B, 1 API server", L4_8B, {"movies": 120, "products": 120, "bird": 50}),
}
"""By the names that `--engines` takes."""
