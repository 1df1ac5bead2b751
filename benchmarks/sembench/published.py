"""What SemBench's paper tells of four systems with Gemini 2.5 Flash: dollars, quality, seconds; means of five runs."""

from __future__ import annotations

from typing import NamedTuple


class Line(NamedTuple):
    """One system's line for one question."""

    dollars: float
    quality: float
    seconds: float


LOTUS, PALIMPZEST, THALAMUSDB, BIGQUERY = "LOTUS", "Palimpzest", "ThalamusDB", "BigQuery"
SYSTEMS = (LOTUS, PALIMPZEST, THALAMUSDB, BIGQUERY)

PUBLISHED: dict[str, tuple[Line | None, Line | None, Line | None, Line | None]] = {
    "1": (Line(0.09, 1.00, 33), Line(0.001, 1.00, 4), Line(0.0004, 0.95, 4), Line(0.05, 1.00, 26)),
    "2": (Line(0.01, 1.00, 2), Line(0.01, 1.00, 30), Line(0.002, 0.92, 2), Line(0.003, 1.00, 10)),
    "3": (Line(0.005, 0.64, 2), Line(0.01, 0.64, 5), Line(0.002, 0.74, 3), Line(0.003, 0.64, 11)),
    "4": (Line(0.005, 0.64, 3), Line(0.02, 0.74, 4), Line(0.002, 0.74, 4), Line(0.003, 0.64, 11)),
    "5": (Line(2.38, 0.59, 537), Line(0.01, 0.39, 2), Line(0.001, 1.00, 2), Line(1.01, 0.89, 55)),
    "6": (Line(1.81, 0.67, 432), Line(0.01, 0.83, 2), Line(0.0009, 0.84, 2), Line(1.00, 0.69, 55)),
    "7": (Line(1.81, 0.21, 432), Line(7.72, 0.68, 1056), Line(0.15, 0.57, 637), Line(3.31, 0.70, 198)),
    "8": (Line(0.004, 0.93, 2), Line(0.02, 0.86, 4), Line(0.005, 0.83, 7), Line(0.003, 0.76, 11)),
    "9": (Line(0.02, 0.75, 5), Line(0.05, 0.78, 6), None, Line(0.02, 0.78, 13)),
    "10": (Line(0.13, 0.40, 31), Line(0.38, 0.42, 39), None, Line(0.13, 0.44, 32)),
}
