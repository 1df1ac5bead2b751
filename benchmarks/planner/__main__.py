"""What the planner reaches beside every published one, and what it costs.

Seconds and memory are taken first, each of a process of its own, one at a time; then statements are run, and the hit
rates counted by two processes. At full size it takes some twenty minutes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

from benchmarks.machine import describe
from benchmarks.planner.contest import Entry, contest
from benchmarks.planner.fresh import GGR, OURS, STRATEGIES, Measured
from benchmarks.planner.kept import (
    COLUMNS,
    CONTROL,
    CONTROL_ROWS,
    PEAK_ROWS,
    PEAK_SHARE,
    ROWS,
    TOKENS_PER_S,
    kept,
    peaks,
)
from benchmarks.planner.lines import (
    kept_lines,
    quality_lines,
    sent_lines,
    size_lines,
    stand_in_lines,
    table_lines,
)
from benchmarks.planner.prefixes import BOUNDED_CACHE
from benchmarks.planner.prompts import TOKENIZER
from benchmarks.planner.results import Contest, Results
from benchmarks.planner.scaling import costs, sizes
from benchmarks.planner.sent import recorder
from benchmarks.planner.tables import TABLES, load, missing
from benchmarks.planner.verdicts import verdicts
from benchmarks.report import Report, parser_of
from pg_bridge.testing.cluster import Cluster

PROCESSES = 2

QUALITY = f"""
Hit rates in percent of whole prompts: system prompt, question and row as one text, equal rows asked once.
chars: characters that an unbounded cache holds. neighb: characters shared with the prompt before. b16, b32: tokens, in
an unbounded cache of blocks of 16 and 32. /10%: the same in a cache with room for {BOUNDED_CACHE:.0%} of the prompts' \
tokens,
least recently used blocks going first. bound: no ordering shares more characters (docs/decisions/0028). s: from whole
columns of text to an ordering; encode: of these until rows are encoded and distinct. MiB: peak memory beyond the text.
{GGR} is the paper's, which counts nothing; all others count what they share. In brackets what {OURS} chose.
"""
STAND_IN = """
Characters in place of tokens. likeness: correlation of the distinct cells' characters with their tokens. Then hit
rates in percent in an unbounded cache without blocks: of the same ordering in both units; in tokens, of orderings
planned by characters and by the tokens of each cell (the best of two fixed orders and two trees).
"""
SENT = """
What statements send, as an engine double got it; their rows stand in random order. Hit rates as above. - plan: points
of chars above the whole table's plan. Then the strategy of the whole table that shares more chars than what is sent.
"""
KEPT = f"""
{ROWS:,} beers of {COLUMNS} columns, an engine that computes {TOKENS_PER_S:,} prompt tokens/s. first: from the
statement's begin, in a session that has asked before, to the first prompt. busy, idle: with and without work, from the
first prompt to the last answer. {CONTROL}: {CONTROL_ROWS:,} prompts that were there before the first was sent. MiB:
peak of a backend that asks about {PEAK_ROWS:,} rows of 1 kB, one in {PEAK_SHARE} of them distinct.
"""
SCALING = """
Seconds on one core, from text in memory to an ordering, encoding included; a process for each line. from rows: the
JSON of row_to_json, as the product gets it; from columns: lists of cells. peak: memory beyond that text, and over its
size in UTF-8. rows hit: shared characters of the rows alone. beer+1: the beers and a tenth column, the alcohol by
volume, a number that the beer determines.
"""


def main() -> int:
    """Run the benchmark."""
    parser = parser_of("benchmarks.planner", __doc__)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES), metavar="TABLE", help=_names())
    parser.add_argument("--rows", type=int, help="at most so many of each table; cost is not judged then")
    parser.add_argument("--seed", type=int, default=0, help="of the tables that are made (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures to this file")
    arguments = parser.parse_args()
    if not Cluster().has_module:
        parser.error("this PostgreSQL has not the module pg_bridge; `pg-bridge install` builds it")
    report = Report(arguments)
    report.add(*describe(arguments), f"tokenizer: {TOKENIZER} of mistral-common {metadata.version('mistral-common')}")
    chosen = []
    for name in arguments.tables:
        reason = missing(name)
        if reason is None:
            chosen.append(name)
        else:
            report.add(reason)
    with tempfile.TemporaryDirectory() as folder:
        results = run(report, chosen, arguments, Path(folder))
    judged = verdicts(results)
    report.add("", *"\n".join(map(str, judged)).splitlines())
    if arguments.json is not None:
        document = {**asdict(results), "verdicts": [asdict(each) for each in judged]}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    return report.close()


def run(report: Report, chosen: Sequence[str], arguments: argparse.Namespace, folder: Path) -> Results:
    """Measure and print."""
    measured: dict[str, dict[str, Measured]] = {}
    orderings: dict[str, dict[str, str]] = {}
    for name in chosen:
        _say(f"{name}: seconds and memory")
        made = load(name, arguments.rows, arguments.seed)
        measured[name], orderings[name] = costs(made, folder)
    _say("scaling")
    grown = list(sizes(chosen, arguments.rows, arguments.seed, folder))
    _say("an engine with a speed, and memory")
    asked = list(kept(arguments.rows, arguments.seed, folder))
    held = list(peaks(arguments.rows, folder))
    entries = {}
    with recorder(folder) as record:
        for name in chosen:
            _say(f"{name}: what is sent")
            sent = record(load(name, arguments.rows, arguments.seed), arguments.seed)
            entries[name] = Entry(name, arguments.rows, arguments.seed, orderings[name], sent)
    contests = _contests(entries, measured, folder)
    if contests:
        report.add(*QUALITY.splitlines(), "", *table_lines(contests), "", *quality_lines(contests))
        report.add(*STAND_IN.splitlines(), "", *stand_in_lines(contests))
        report.add(*SENT.splitlines(), "", *sent_lines(contests))
    report.add(*KEPT.splitlines(), "", *kept_lines(asked, held))
    if grown:
        report.add(*SCALING.splitlines(), "", *size_lines(grown))
    return Results(contests, grown, asked, held)


def _contests(entries: dict[str, Entry], measured: dict[str, dict[str, Measured]], folder: Path) -> list[Contest]:
    """Count hit rates, of the longest tables first, for both processes to end together."""
    longest_first = sorted(entries, key=lambda name: -(folder / f"{name}.json").stat().st_size)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=context, max_tasks_per_child=1) as pool:
        waiting = {name: pool.submit(contest, entries[name]) for name in longest_first}
        contests = []
        for name in entries:
            contests.append(Contest(waiting[name].result(), measured[name]))
            _say(f"{name}: hit rates")
    return contests


def _names() -> str:
    return f"of {', '.join(TABLES)} (all); strategies are {', '.join(STRATEGIES)}"


def _say(text: str) -> None:
    print(f"[planner] {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
