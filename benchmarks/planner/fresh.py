"""One strategy on one table in a process of its own: seconds on one core, and the memory they needed.

In: a file with a table's text, as JSON: whole columns, or rows as `row_to_json` prints them. Out: a `Measured`, and
the ordering in a file where one is asked for. What is measured begins with texts in memory and ends with an ordering:
reading the file is not part of it, encoding texts into codes is. As in the pipeline, Python's garbage collector rests.

Peak memory is the kernel's high-water mark over what the process held before it began, the table's text included. The
mark is that of /proc, which can be set back; `ru_maxrss` cannot, and a child inherits its parent's.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from benchmarks.ggr import ggr
from pg_bridge.ordering import Ordering, Strategy, order_by, plan
from pg_bridge.rows.dedup import dedup
from pg_bridge.rows.table import Table

GGR, OURS = "GGR", "pg_bridge"
STRATEGIES = ("original", "rows only", "v1", "greedy", GGR, OURS)
REPEATS = 3

_ENOUGH_S = 6.0  # no further repeat after so many seconds
_CLEAR_HIGH_WATER = "5"  # see proc(5), clear_refs

Form = Literal["columns", "rows"]


@dataclass(frozen=True, slots=True)
class Task:
    """What to measure.

    Attributes:
        texts: The file: column names, then columns or rows.
        form: What of the two.
        strategy: One of `STRATEGIES`.
        ordering: Where to write the ordering.
    """

    texts: str
    form: Form
    strategy: str
    ordering: str | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """Medians over the repeats; memory is the first one's.

    Attributes:
        seconds: Of everything.
        encode_s: Of encoding and deduplication.
        order_s: Of ordering.
        peak_bytes: Memory beyond the texts.
        chosen: The strategy that the planner chose; for any other its name.
        shared_chars: Of the rows, by the planner's own count; None for GGR, which counts nothing.
        total_chars: Of all rows, likewise.
    """

    seconds: float
    encode_s: float
    order_s: float
    peak_bytes: int
    chosen: str
    shared_chars: int | None
    total_chars: int | None


Arrays = tuple[NDArray[np.intp], NDArray[np.int16]]


def measure(task: Task) -> Measured:
    """Measure in a new process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.planner.fresh", json.dumps(asdict(task))]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return Measured(**json.loads(done.stdout))


def load_ordering(path: Path) -> Arrays:
    """Read what a task wrote: row_order (n,) intp, column_order (n, k) int16."""
    with np.load(path) as arrays:
        return arrays["row_order"], arrays["column_order"]


def main() -> None:
    """Do one task; its result goes to standard output."""
    task = Task(**json.loads(sys.argv[1]))
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    gc.disable()
    text = Path(task.texts).read_text(encoding="ascii")
    times: list[tuple[float, float, float]] = []
    peak_bytes = 0
    while len(times) < REPEATS and sum(total for total, _, _ in times) < _ENOUGH_S:
        columns, texts = json.loads(text)  # anew each time: a text remembers its hash
        held_bytes = _memory_bytes_from_now()
        seconds, ordering = _timed(_encoder(task.form, columns, texts), _orderer(task))
        peak_bytes = peak_bytes or _high_water_bytes() - held_bytes
        times.append(seconds)
    if task.ordering is not None:
        row_order, column_order = _arrays(ordering)
        np.savez(task.ordering, row_order=row_order, column_order=column_order)
    weighed = ordering if isinstance(ordering, Ordering) else None
    total_s, encode_s, order_s = (median(each) for each in zip(*times, strict=True))
    measured = Measured(
        seconds=total_s,
        encode_s=encode_s,
        order_s=order_s,
        peak_bytes=peak_bytes,
        chosen=weighed.strategy if weighed else task.strategy,
        shared_chars=weighed.shared_chars if weighed else None,
        total_chars=weighed.total_chars if weighed else None,
    )
    print(json.dumps(asdict(measured)))


def _timed(
    encode: Callable[[], Table], order: Callable[[Table], Ordering | Arrays]
) -> tuple[tuple[float, float, float], Ordering | Arrays]:
    """((seconds, of encoding, of ordering), the ordering)."""
    began = time.perf_counter()
    table = dedup(encode()).table
    encoded = time.perf_counter()
    ordering = order(table)
    ended = time.perf_counter()
    return (ended - began, encoded - began, ended - encoded), ordering


def _encoder(form: Form, columns: list[str], texts: list[Any]) -> Callable[[], Table]:
    if form == "rows":
        return lambda: Table.from_json(texts, columns)
    return lambda: Table.from_cells(columns, texts)


def _orderer(task: Task) -> Callable[[Table], Ordering | Arrays]:
    if task.strategy == GGR:
        return ggr
    if task.strategy == OURS:
        return plan
    return lambda table: order_by(cast("Strategy", task.strategy), table)


def _arrays(ordering: Ordering | Arrays) -> Arrays:
    return (ordering.row_order, ordering.column_order) if isinstance(ordering, Ordering) else ordering


def _memory_bytes_from_now() -> int:
    """Give back what is free, set the high-water mark back, and return it."""
    gc.collect()
    with suppress(OSError, AttributeError):  # a C library other than glibc
        ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text(_CLEAR_HIGH_WATER)
    return _high_water_bytes()


def _high_water_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0])


if __name__ == "__main__":
    main()
