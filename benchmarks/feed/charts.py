"""A picture of the feed's benchmark: seconds by table and way, and the floor of each.

In: what was measured. Out: a PNG file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

from benchmarks.feed.runs import FED_WAYS, Fed

_COLOURS = ["#9aa0a6", "#8fb8de", "#5b8fc9", "#c0392b"]


def draw(fed: Sequence[Fed], folder: Path, note: str) -> Path:
    """Draw one engine's tables; returns the file."""
    tables = list(dict.fromkeys(each.table for each in fed))
    rows = {each.table: each.rows for each in fed}
    figure, axes = plt.subplots(figsize=(max(8.0, 1.3 * len(tables)), 4.6), dpi=110)
    width = 0.84 / len(FED_WAYS)
    for number, (way, colour) in enumerate(zip(FED_WAYS, _COLOURS, strict=True)):
        of_way = {each.table: each for each in fed if each.way == way.name}
        places = [i + (number - len(FED_WAYS) / 2 + 0.5) * width for i in range(len(tables))]
        axes.bar(places, [of_way[table].seconds for table in tables], width, label=way.name, color=colour)
        label = "_" if number else "what its tokens take at least"  # once in the legend
        floors = [of_way[table].floor_s for table in tables]
        left, right = ([place + side * width / 2 for place in places] for side in (-0.9, 0.9))
        axes.hlines(floors, left, right, colors="black", linewidth=1.4, label=label)
    axes.set_xticks(range(len(tables)), [f"{table}\n{rows[table]:,} rows" for table in tables], fontsize=8)
    axes.set_ylabel("seconds")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, ncols=3, frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.16))
    figure.text(0.01, 0.005, note, fontsize=6, color="#666666")
    figure.tight_layout()
    path = folder / "feed_seconds.png"
    figure.savefig(path)
    plt.close(figure)
    return path
