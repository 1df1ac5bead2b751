"""`pg-bridge plan`: plan a CSV file without a database or an engine, and say what planning is worth.

In: a CSV file. Out: hit rates, bounds and more on standard output, as text or as JSON; the plan as JSON and the prefix
tree as a picture where asked for. It sends nothing and changes no file but those it was told to write.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pg_bridge.analysis.drawing import MOST_ROWS, draw
from pg_bridge.analysis.figures import Figures
from pg_bridge.analysis.measures import (
    MOST_COMPARED_CELLS,
    MOST_NEIGHBOUR_ROWS,
    MOST_ORDERINGS,
    TokenOptions,
    measure,
)
from pg_bridge.analysis.report import as_json, as_text
from pg_bridge.analysis.tokenizer import load_tokenizer
from pg_bridge.asking.prompt import Question, parse_question
from pg_bridge.cli.csv_table import read_table
from pg_bridge.errors import OptionError
from pg_bridge.ordering import Ordering, plan
from pg_bridge.rows.dedup import UniqueRows, dedup

_BLOCK_SIZE = 16

_DESCRIPTION = """\
Plan a CSV file as a query's rows would be planned, and print what share of the prompts the engine could reuse from
earlier ones: in the file's own order, in the planned order, by each strategy, and at most."""

_EPILOG = f"""\
The file is UTF-8 with one header line; every cell counts as text. Equal rows are asked once.

What is counted. A hit rate is what prompts share with the prompt before, of all their characters, the question
included. Characters stand in for tokens: an engine counts tokens, and reuses whole blocks of them. --tokenizer counts
those, in a cache of unlimited size and, with --cache-tokens, in one that drops what was used longest ago. With
--block-size or --cache-tokens but no --tokenizer every 4 characters are taken for a token: an estimate. Prompts are
user messages; the model's chat template, which all of them begin with, is left out.

What takes time. Each strategy is run once more by itself, for tables of up to {MOST_COMPARED_CELLS:,} cells; for larger
ones with --all. --bound compares all pairs of rows, up to {MOST_NEIGHBOUR_ROWS:,} rows; weighs all groups of rows that
have cells in common, which takes a minute for some 10,000 rows and is left out where there are too many; and tries all
orderings, up to {MOST_ORDERINGS:,} of them. --statistics looks at every pair of columns.

Several questions. All are about the same rows, so the columns are those that any of them names, or all if one names
none. The questions stand before the rows, or the rows before the questions, whichever computes less.

The plan in OUT.json, for a file whose second and third data rows are equal:

  {{"columns": ["title", "review"],            the columns that are sent
   "row_order": [1, 2, 0],                    data rows in sending order, counted from 0; all of them, equal
                                              ones side by side (one request answers them)
   "column_order": [[0, 1], [0, 1], [1, 0]]}}  for each sent row the order of its cells, as places in "columns"

The document of --json; rates are fractions, and what was not asked for is null:

  rows, unique_rows, columns, questions       what was read; columns and questions are lists of texts
  chars                                       characters of all rows' prompts
  strategy, reason                            the strategy chosen, and why
  hit_rate_before, hit_rate_after             all rows: in the file's own order, and as planned
  hit_rate_sent                               the unique rows as planned: what an engine is asked
  strategies                                  a list, by itself over the unique rows: strategy, hit_rate, plan_s, chosen
  strategies_left_out                         why that list is empty
  bounds                                      cells, neighbours, groups, optimum: hit rates that no ordering of the
                                              unique rows exceeds; remaining: the least of them less hit_rate_sent;
                                              left_out: why
  placement                                   of several questions: first ("question" or "row"), and what is left to
                                              compute: question_first_chars, row_first_chars, question_first_tokens,
                                              row_first_tokens
  tokens                                      tokenizer (null: an estimate), block_size, cache_blocks; before, after,
                                              sent: each tokens, hit_rate, bounded_hit_rate
  statistics                                  columns: column, cardinality, mean_chars, median_chars, most_chars,
                                              repeated_share, entropy_bits; dependencies: determinant, dependent,
                                              exceptions, exceptions_share
  plan_s, read_s                              seconds

examples:
  pg-bridge plan reviews.csv
  pg-bridge plan reviews.csv --question 'Is {{review}} about {{title}} kind?' --output plan.json
  pg-bridge plan reviews.csv --columns title,review --bound --statistics
  pg-bridge plan reviews.csv --question 'Is it kind?' --question 'Is it funny?' --json
  pg-bridge plan reviews.csv --tokenizer Qwen3-0.6B/tokenizer.json --block-size 32 --cache-tokens 200000
  pg-bridge plan six_rows.csv --tree tree.svg"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `plan` command."""
    parser = subparsers.add_parser(
        "plan",
        help="plan a CSV file and print the hit rates before and after",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE.csv", type=Path, help="the rows")
    parser.add_argument("--output", metavar="OUT.json", type=Path, help="write the plan to this file")
    parser.add_argument("--tree", metavar="OUT.svg", type=Path, help=f"draw the prefix tree, of up to {MOST_ROWS} rows")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a report to read")
    parser.add_argument(
        "--columns",
        metavar="a,b",
        help="send these columns only, in the file's order; quote a name that holds a comma",
    )
    parser.add_argument(
        "--question",
        metavar="TEXT",
        action="append",
        default=[],
        help="the prompt: {column} picks a column as in llm.map, and its text counts; may be given several times",
    )
    parser.add_argument("--bound", action="store_true", help="also the bounds that take long, on small tables")
    parser.add_argument("--all", action="store_true", help="run every strategy by itself, however large the table")
    parser.add_argument("--statistics", action="store_true", help="also cardinalities, lengths, dependencies")
    parser.add_argument(
        "--tokenizer", metavar="PATH", type=Path, help="count tokens: a tokenizer.json, or a directory that has one"
    )
    parser.add_argument(
        "--block-size", metavar="TOKENS", type=int, help=f"of the engine's cache (default: {_BLOCK_SIZE})"
    )
    parser.add_argument("--cache-tokens", metavar="TOKENS", type=int, help="also count with a cache of this size")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Plan the file, print the figures, write the plan.

    Raises:
        OptionError: The file cannot be read or is not a CSV file, an option's value is not valid, or a file cannot be
            written.
        TemplateError: A question's braces do not parse, or a column is unknown.
    """
    questions = _parse_questions(arguments.question)
    tokens = _token_options(arguments)
    started = time.perf_counter()
    table = read_table(arguments.file, _parse_columns(arguments.columns), questions)
    read = time.perf_counter()
    unique = dedup(table)
    if arguments.tree is not None and unique.table.rows > MOST_ROWS:
        raise OptionError(
            f"--tree draws up to {MOST_ROWS} unique rows, and {arguments.file} has {unique.table.rows:,}",
            hint="Give it a file of a few rows, for example head -n 20 of this one.",
        )
    ordering = plan(unique.table)
    planned = time.perf_counter()
    placed = place_duplicates(unique, ordering)
    figures = measure(
        table,
        unique,
        ordering,
        replace(ordering, row_order=placed.row_order, column_order=placed.column_order),
        questions,
        plan_s=planned - read,
        read_s=read - started,
        bound=arguments.bound,
        statistics=arguments.statistics,
        every_strategy=arguments.all,
        tokens=tokens,
    )
    if arguments.output is not None:
        _write(arguments.output, _as_document(table.columns, placed))
    if arguments.tree is not None:
        _write(arguments.tree, _picture(unique, ordering, questions, figures))
    print(as_json(figures) if arguments.json else as_text(figures))
    return 0


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """A plan of all input rows.

    Attributes:
        row_order: (n,) intp; `row_order[i]` is the input row sent i-th; equal rows side by side, ascending.
        column_order: (n, k) int16; the columns of the row sent i-th, in order.
    """

    row_order: NDArray[np.intp]
    column_order: NDArray[np.int16]


def place_duplicates(unique: UniqueRows, ordering: Ordering) -> Placed:
    """Extend a plan of the unique rows to all input rows: each duplicate stands right after its twin.

    No such plan shares less than the input in its own order. There, between one row and the next new one,
    stand m duplicates and m + 1 common prefixes; all but the shortest of these fit each into a duplicate of
    its own, which here shares its whole length, and the shortest is no longer than what the two rows share.
    """
    sent = np.empty(len(ordering.row_order), np.intp)
    sent[ordering.row_order] = np.arange(len(sent))
    place = sent[unique.inverse]
    row_order = np.argsort(place, kind="stable").astype(np.intp, copy=False)
    return Placed(row_order, ordering.column_order[place[row_order]])


def _parse_questions(prompts: Sequence[str]) -> list[Question]:
    questions = [parse_question(prompt) for prompt in prompts]
    text, count = Counter(question.text for question in questions).most_common(1)[0] if questions else ("", 1)
    if count > 1:
        raise OptionError(f'--question "{text}" is given {count} times', hint="Ask each question once.")
    return questions


def _parse_columns(text: str | None) -> list[str] | None:
    return None if text is None else next(csv.reader([text], skipinitialspace=True), [])


def _token_options(arguments: argparse.Namespace) -> TokenOptions | None:
    """How to count in tokens; None where no option asks for it."""
    path, block_size, cache_tokens = arguments.tokenizer, arguments.block_size, arguments.cache_tokens
    if path is None and block_size is None and cache_tokens is None:
        return None
    block_size = _BLOCK_SIZE if block_size is None else block_size
    if block_size < 1:
        raise OptionError(f"--block-size is {block_size}", hint="Give it in tokens, 1 or more; vLLM's default is 16.")
    if cache_tokens is not None and cache_tokens < block_size:
        raise OptionError(
            f"--cache-tokens is {cache_tokens}, not even one block of {block_size} tokens",
            hint="vLLM prints the size of its cache in tokens when it starts.",
        )
    return TokenOptions(
        tokenizer=str(path) if path is not None else None,
        tokenize=load_tokenizer(path) if path is not None else None,
        block_size=block_size,
        cache_blocks=cache_tokens // block_size if cache_tokens is not None else None,
    )


def _as_document(columns: Sequence[str], placed: Placed) -> str:
    document = {
        "columns": list(columns),
        "row_order": placed.row_order.tolist(),
        "column_order": placed.column_order.tolist(),
    }
    return json.dumps(document, ensure_ascii=False)


def _picture(unique: UniqueRows, ordering: Ordering, questions: Sequence[Question], figures: Figures) -> str:
    members_from, members = unique.fan_out()
    first_of = members[members_from[:-1]].tolist()  # each unique row's first input row
    question = questions[0].text if len(questions) == 1 else ""
    return draw(unique.table, ordering, row_numbers=first_of, question=question, hit_rate=figures.hit_rate_sent)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise OptionError(f"cannot write {path}: {error.strerror}") from error
