"""A random sample of what a query or a file gives, in its order, by reading it through once.

In: the reading side of a job. Out: rows, and how many there are in all. It holds no more than the sample.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from random import Random
from typing import Any

from pg_bridge.errors import OptionError
from pg_bridge.jobs.record import Reading

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sample:
    """Some rows.

    Attributes:
        columns: Of them.
        rows: The rows, by column; numbers as they were written.
        total: How many rows there are, of which these are some.
    """

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    total: int


def take_sample(reading: Reading, count: int, seed: int) -> Sample:
    """Read everything, and keep some of it, each row as likely as any other.

    Args:
        reading: What is read, opened; its items must have all columns of their rows.
        count: Rows to keep at most.
        seed: The same rows and the same seed give the same sample.

    Raises:
        OptionError: There is no row.
    """
    chance = Random(seed)
    kept: list[tuple[int, str]] = []
    total = 0
    reading.begin(reading.columns, b"")
    while items := reading.fetch():
        for item in items:
            if total < count:
                kept.append((total, item.row))
            elif (place := chance.randrange(total + 1)) < count:
                kept[place] = (total, item.row)
            total += 1
    if not total:
        raise OptionError("there is no row to ask about")
    rows = [json.loads(text, parse_float=Decimal) for _, text in sorted(kept)]
    return Sample(tuple(reading.columns), tuple(rows), total)
