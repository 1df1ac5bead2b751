"""What was measured on a GPU: the lines that the model of a fast engine is fitted to, and compared with.

One NVIDIA H200, vLLM 0.26.0 with one API server, models of 8B and 1B shape with dummy weights in bf16 and eager mode,
the tables of `benchmarks.paper_tables` at seed 0, filters, answers of 4 tokens; pg_bridge at 7162f51. The cache held
40,000 tokens ("small") or more than the prompts have ("full").
"""

from __future__ import annotations

from dataclasses import dataclass

ROWS = {"movies": 4000, "products": 3000, "bird": 2000}
CACHE_BLOCKS = {"small": 2500, "full": 1_000_000}
REPEATED_WITHIN = 0.1
"""How far apart runs of one line were, as a share of their median: Movies by GGR took 14.8, 15.4 and 17.3 s."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One line.

    Attributes:
        table: One of `ROWS`.
        model: "8b" or "1b".
        cache: One of `CACHE_BLOCKS`; None for an engine that has its prefix cache off.
        in_flight: Prompts in flight at most.
        way: One of `benchmarks.feed.prompts.ORDERS`.
        seconds: Of the run, the median where there were several.
        outside_s: Of these, when nobody waited for the engine: planning, rows read and returned.
        rows: Of the table; fewer where a run was short.
        computed_tokens: By the engine's counters.
        busy: The share of time in which the GPU had work, by nvidia-smi.
    """

    table: str
    model: str
    cache: str | None
    in_flight: int
    way: str
    seconds: float
    outside_s: float
    computed_tokens: int
    busy: float
    rows: int = 0

    @property
    def name(self) -> str:
        """As printed."""
        return f"{self.table} {self.model} {self.cache or 'off'} {self.in_flight} {self.way}"


MEASURED = (
    Measured("movies", "8b", None, 256, "orig", 8.98, 0.04, 342_231, 1.000, 1200),
    Measured("movies", "8b", "small", 256, "orig", 19.45, 0.08, 764_574, 0.987),
    Measured("movies", "8b", "small", 256, "v1", 16.12, 0.07, 289_720, 0.451),
    Measured("movies", "8b", "small", 256, "ggr", 15.39, 0.06, 253_694, 0.357),
    Measured("movies", "8b", "small", 256, "ours", 13.84, 0.45, 185_723, 0.365),
    Measured("movies", "8b", "small", 1024, "ggr", 9.77, 0.07, 252_254, 0.774),
    Measured("movies", "8b", "small", 1024, "ours", 9.42, 0.46, 185_243, 0.626),
    Measured("movies", "8b", "full", 256, "orig", 18.04, 0.07, 662_526, 0.934),
    Measured("movies", "8b", "full", 256, "ours", 12.84, 0.32, 185_675, 0.286),
    Measured("movies", "8b", "full", 1024, "ours", 9.22, 0.40, 185_723, 0.584),
    Measured("products", "8b", None, 256, "orig", 9.13, 0.04, 340_325, 1.000, 900),
    Measured("products", "8b", "small", 256, "orig", 20.57, 0.08, 822_997, 1.000),
    Measured("products", "8b", "small", 256, "v1", 15.77, 0.08, 366_429, 0.588),
    Measured("products", "8b", "small", 256, "ggr", 13.42, 0.07, 316_245, 0.596),
    Measured("products", "8b", "small", 256, "ours", 15.06, 0.43, 291_665, 0.452),
    Measured("bird", "8b", None, 256, "orig", 9.81, 0.04, 359_911, 0.995, 500),
    Measured("bird", "8b", "small", 256, "orig", 27.89, 0.11, 1_117_722, 0.986),
    Measured("bird", "8b", "small", 256, "v1", 12.95, 0.05, 464_298, 0.937),
    Measured("bird", "8b", "small", 256, "ggr", 12.20, 0.05, 423_034, 0.916),
    Measured("bird", "8b", "small", 256, "ours", 12.33, 0.36, 417_962, 0.976),
    Measured("movies", "1b", "small", 256, "orig", 11.01, 0.07, 725_470, 0.308),
    Measured("movies", "1b", "small", 256, "ours", 9.79, 0.45, 185_723, 0.110),
    Measured("movies", "1b", "small", 1024, "orig", 8.70, 0.07, 726_238, 0.362),
    Measured("movies", "1b", "small", 1024, "ours", 7.88, 0.45, 185_723, 0.112),
)
