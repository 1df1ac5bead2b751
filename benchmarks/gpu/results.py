"""The lines of a run on a GPU: seconds beside the floor, the card's busy share, ratios beside the paper's.

In: the records that ask.py told, samples of nvidia-smi. Out: lines of text. `python -m benchmarks.gpu.results FOLDER`
makes them again from a run's files.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.gpu.card import Sample, between, samples
from benchmarks.paper.results import PUBLISHED, PUBLISHED_RATES, computed_of, saved_of, seconds_of
from benchmarks.paper.runs import Run
from benchmarks.paper.ways import GGR, ORIGINAL, OURS

HEAD = (
    f"{'way':<28} {'seconds':>8} {'spread':>7} {'floor s':>8} {'/ floor':>8} {'GPU busy':>9} {'watts':>6} "
    f"{'rows/s':>7} {'prompts':>8} {'computed':>9} {'saved':>7} {'original / it':>14} {'no cache / it':>14} "
    f"{'outside':>8}"
)


def lines(records: Sequence[Mapping[str, Any]], taken: Sequence[Sample]) -> Iterator[str]:
    """The tables, one for each engine and workload, and a line on where pg_bridge stands.

    Args:
        records: Of ask.py.
        taken: Samples of the card; none where there is no card.
    """
    for record in records:
        yield from record["lines"] if record["kind"] == "header" else []
        yield from [record["text"]] if record["kind"] == "note" else []
    measured = [record for record in records if record["kind"] in {"rate", "run"}]
    places = dict.fromkeys((record["engine"], record["workload"]) for record in measured)
    for place in places:
        here = [record for record in measured if (record["engine"], record["workload"]) == place]
        yield from ("", *_table(*place, here, taken))


def _table(engine: str, workload: str, here: Sequence[Mapping[str, Any]], taken: Sequence[Sample]) -> Iterator[str]:
    rates = [record["rate"] for record in here if record["kind"] == "rate"]
    found = sorted((record for record in here if record["kind"] == "run"), key=lambda record: str(record["way"]))
    by_way = {way: list(of) for way, of in groupby(found, key=lambda record: str(record["way"]))}
    runs = {way: [_run(record) for record in of] for way, of in by_way.items()}
    yield f"{engine}: {workload}, {here[0]['rows']} rows"
    if not rates:
        return
    tokens = max((run.prompt_tokens for of in runs.values() for run in of), default=0)
    yield f"{rates[0]:.0f} prompt tokens a second where nothing is shared: no cache {tokens / rates[0]:.2f} s"
    yield HEAD
    first = [str(record["way"]) for record in here if record["kind"] == "run"]
    for way in dict.fromkeys(first):
        yield _line(way, runs, by_way[way], rates[0], tokens, taken)
    if OURS in runs and ORIGINAL in runs:
        yield _beside_the_paper(workload, runs)


def _line(
    way: str,
    runs: Mapping[str, Sequence[Run]],
    records: Sequence[Mapping[str, Any]],
    rate: float,
    tokens: int,
    taken: Sequence[Sample],
) -> str:
    own = runs[way]
    seconds, computed = seconds_of(own), computed_of(own)
    spread = (max(run.seconds for run in own) - min(run.seconds for run in own)) / seconds
    of_card = [sample for record in records for sample in between(taken, record["began"], record["ended"])]
    busy = f"{mean(sample.busy for sample in of_card):.0%}" if of_card else ""
    watts = f"{mean(sample.watts for sample in of_card):.0f}" if of_card else ""
    floor = computed / rate
    original = f"{seconds_of(runs[ORIGINAL]) / seconds:.2f}" if ORIGINAL in runs else ""
    saved = f"{saved_of(own, 1.0, runs):.1%}" if ORIGINAL in runs else ""
    outside = "" if own[0].outside_share is None else f"{own[0].outside_share:.1%}"
    return (
        f"{way:<28} {seconds:>8.2f} {spread:>7.0%} {floor:>8.2f} {seconds / floor if floor else 0:>8.2f} "
        f"{busy:>9} {watts:>6} {records[0]['rows'] / seconds:>7.0f} {own[0].asked:>8} {round(computed):>9} "
        f"{saved:>7} {original:>14} {tokens / rate / seconds:>14.2f} {outside:>8}"
    )


def _beside_the_paper(workload: str, runs: Mapping[str, Sequence[Run]]) -> str:
    ratio = seconds_of(runs[ORIGINAL]) / seconds_of(runs[OURS])
    tokens = computed_of(runs[ORIGINAL]) / computed_of(runs[OURS])
    rates = PUBLISHED_RATES[workload.partition(",")[0]]
    said = f"original / pg_bridge: {ratio:.2f} by seconds, {tokens:.2f} by tokens"
    if GGR in runs:
        said += f"; GGR / pg_bridge: {seconds_of(runs[GGR]) / seconds_of(runs[OURS]):.2f}"
    said += f"; the paper's GGR: {PUBLISHED[workload]}, hit rates {rates[0]:.0f} -> {rates[1]:.0f}%"
    if GGR in runs:
        here = [runs[way][0].hit_rate for way in (ORIGINAL, GGR)]
        said += f", here {here[0]:.0%} -> {here[1]:.0%}"
    return said


def _run(record: Mapping[str, Any]) -> Run:
    return Run(**record["run"])


def read(folder: Path) -> tuple[list[dict[str, Any]], list[Sample]]:
    """Read a run's files: `records.jsonl`, and `samples.csv` where there was a card."""
    records = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    told = folder / "samples.csv"
    return records, samples(told.read_text()) if told.exists() else []


def main() -> int:
    """Print the lines of a run's files."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.results", description=__doc__)
    parser.add_argument("folder", type=Path)
    print("\n".join(lines(*read(parser.parse_args().folder))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
