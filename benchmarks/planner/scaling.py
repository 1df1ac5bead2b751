"""What planning costs: every strategy at the tables' size, and the planner as rows grow.

In: tables. Out: `Measured` figures, each of a process of its own, one after another, so that none disturbs another.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.paper_tables import PaperTable, make
from benchmarks.planner.fresh import OURS, STRATEGIES, Form, Measured, Task, measure
from benchmarks.planner.results import Size
from benchmarks.planner.tables import widened

SIZES = (("beer", 30_000), ("pdmx", 10_000), ("beer+1", 10_000), ("beer+1", 100_000), ("beer+1", 1_000_000))
"""Tables and rows; `beer+1` are the beers with one column more."""

FORMS: tuple[Form, ...] = ("rows", "columns")


def write_texts(made: PaperTable, form: Form, path: Path) -> int:
    """Write a table's text for `fresh` to read; returns its size in UTF-8 bytes."""
    texts = made.rows() if form == "rows" else made.cells
    path.write_text(json.dumps([made.columns, texts]), encoding="ascii")
    sequences: Sequence[Sequence[str]] = [made.rows()] if form == "rows" else made.cells
    return sum(len(text.encode(errors="surrogatepass")) for sequence in sequences for text in sequence)


def costs(made: PaperTable, folder: Path) -> tuple[dict[str, Measured], dict[str, str]]:
    """Plan one table by every strategy.

    Returns:
        By strategy what it cost, and the file of its ordering.
    """
    texts = folder / f"{made.name}.json"
    write_texts(made, "columns", texts)
    files = {strategy: str(folder / f"{made.name} {strategy}.npz") for strategy in STRATEGIES}
    measured = {
        strategy: measure(Task(str(texts), "columns", strategy, ordering=file)) for strategy, file in files.items()
    }
    return measured, files


def sizes(chosen: Sequence[str], most_rows: int | None, seed: int, folder: Path) -> Iterator[Size]:
    """Plan ever more rows.

    Args:
        chosen: The tables of the run; only sizes of these are planned.
        most_rows: No more than so many rows; tables grown in steps keep their steps.
        seed: Of the tables.
        folder: For their texts.
    """
    for name, promised_rows in SIZES:
        base = name.partition("+")[0]
        if base not in chosen:
            continue
        rows = promised_rows
        if most_rows is not None:
            share = most_rows / max(number for other, number in SIZES if other == name)
            rows = max(1, min(rows, round(rows * share)))
        made = make(base, rows, seed)
        made = made if name == base else widened(made)
        text_bytes: dict[str, int] = {}
        by_form: dict[str, Measured] = {}
        for form in FORMS:
            path = folder / f"{name} {rows} {form}.json"
            text_bytes[form] = write_texts(made, form, path)
            by_form[form] = measure(Task(str(path), form, OURS))
            path.unlink()
        yield Size(name, promised_rows, rows, len(made.columns), text_bytes, by_form)
