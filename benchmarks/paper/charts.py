"""Two pictures of the paper's table: how many times as fast as the original order, and the tokens saved.

In: runs. Out: PNG files.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

from benchmarks.paper.results import Runs, saved_of, seconds_of
from benchmarks.paper.ways import ORIGINAL, WAYS

_SHOWN = [way.name for way in WAYS if way.cached and not way.one_by_one]
_COLOURS = ["#9aa0a6", "#c7b8a1", "#e0c27a", "#8fb8de", "#5b8fc9", "#c0392b"]


def draw(runs: Runs, folder: Path, note: str) -> list[Path]:
    """Draw both; returns the files."""
    names = [name for name in runs if set(_SHOWN) <= set(runs[name])]
    ratios = {way: [seconds_of(runs[name][ORIGINAL]) / seconds_of(runs[name][way]) for name in names] for way in _SHOWN}
    rates = {way: [100 * saved_of(runs[name][way], 1.0, runs[name]) for name in names] for way in _SHOWN}
    return [
        _bars(names, ratios, "times as fast as the original order, cache on", note, folder / "paper_ratios.png"),
        _bars(names, rates, "prompt tokens that need not be computed, %", note, folder / "paper_hit_rates.png"),
    ]


def _bars(names: Sequence[str], values: dict[str, list[float]], label: str, note: str, path: Path) -> Path:
    figure, axes = plt.subplots(figsize=(max(8.0, 0.75 * len(names)), 4.6), dpi=110)
    width = 0.84 / len(values)
    for number, ((way, heights), colour) in enumerate(zip(values.items(), _COLOURS, strict=True)):
        places = [i + (number - len(values) / 2 + 0.5) * width for i in range(len(names))]
        axes.bar(places, heights, width, label=way, color=colour)
    axes.set_xticks(range(len(names)), [name.replace(", ", "\n") for name in names], fontsize=7, rotation=30)
    axes.set_ylabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, ncols=3, frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.16))
    figure.text(0.01, 0.005, note, fontsize=6, color="#666666")
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
    return path
