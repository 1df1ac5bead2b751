"""What the card did, as nvidia-smi tells while a benchmark runs.

In: a file for its lines. Out: samples. It counts nothing of what was asked.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

QUERY = "timestamp,utilization.gpu,power.draw,clocks.sm"
"""What nvidia-smi is asked for, every `SAMPLE_MS`, without headers and units. Its clock is set to UTC."""

SAMPLE_MS = 200


@dataclass(frozen=True, slots=True)
class Sample:
    """What the card did at a moment.

    Attributes:
        at: Seconds since 1970.
        busy: Share of the time with a kernel on it, from 0 to 1.
        watts: What it draws.
    """

    at: float
    busy: float
    watts: float


def samples(told: str) -> list[Sample]:
    """Read what nvidia-smi told; a line that it was writing when it was ended, or that says N/A, is left out."""
    found = []
    for line in told.splitlines():
        try:
            when, busy, watts, _ = (word.strip() for word in line.split(","))
            at = datetime.strptime(when, "%Y/%m/%d %H:%M:%S.%f").replace(tzinfo=UTC).timestamp()
            found.append(Sample(at, float(busy) / 100, float(watts)))
        except ValueError:
            continue
    return found


def between(taken: Iterable[Sample], began: float, ended: float) -> list[Sample]:
    """The samples of a run, without those that still tell of the time before it."""
    own = [sample for sample in taken if began <= sample.at <= ended]
    return [sample for sample in own if sample.at - began >= SAMPLE_MS / 1000] or own


@contextmanager
def sampling(path: Path) -> Iterator[None]:
    """Let nvidia-smi write samples of the first card into a file."""
    command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader,nounits", "-lms", str(SAMPLE_MS), "-i", "0"]
    environment = os.environ | {"TZ": "UTC"}
    with path.open("w") as file, subprocess.Popen(command, stdout=file, env=environment) as process:
        try:
            yield
        finally:
            process.terminate()
