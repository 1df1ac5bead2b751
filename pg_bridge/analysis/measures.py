"""What planning a table is worth, counted.

In: a table, its plan, the questions. Out: `Figures`. In characters it counts what prompts share with the prompt before,
exactly; in tokens what a prefix cache would find. It prints nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pg_bridge.analysis.bound import (
    most_shared_by_groups,
    most_shared_by_neighbours,
    most_shared_chars,
    search_optimum,
    searchable,
)
from pg_bridge.analysis.dependencies import approximate_dependencies
from pg_bridge.analysis.figures import (
    BoundFigures,
    CacheFigures,
    ColumnFigures,
    DependencyFigures,
    Figures,
    PlacementFigures,
    StatisticsFigures,
    StrategyFigures,
    TokenFigures,
    points,
)
from pg_bridge.analysis.tokenizer import Tokenizer
from pg_bridge.asking.prefix_cache import PrefixCache, characters
from pg_bridge.asking.prompt import First, Question, place_questions, render
from pg_bridge.ordering import STRATEGIES, Ordering, order_by, plan
from pg_bridge.ordering.cells import Cells
from pg_bridge.rows.dedup import UniqueRows
from pg_bridge.rows.statistics import column_statistics
from pg_bridge.rows.table import Table

MOST_COMPARED_CELLS = 2_000_000  # of the unique rows, for every strategy to be run once more by itself
MOST_NEIGHBOUR_ROWS = 5_000  # for the bound that compares all pairs of rows
MOST_GROUP_CELLS = 1_000_000  # looked at in all groups of rows that share some, for the tightest bound; a minute or so
MOST_ORDERINGS = 100_000  # for the optimum to be searched with --bound
MOST_SEARCHED_CHARS = 200_000_000  # the same: orderings times characters; ten seconds or so
_FEW_ORDERINGS = 1_500  # for the optimum to be searched without being asked for


@dataclass(frozen=True, slots=True)
class TokenOptions:
    """How to count in tokens.

    Attributes:
        tokenizer: The tokenizer's file; None takes every 4 characters for a token.
        tokenize: The tokenizer; None as above.
        block_size: Tokens of a block.
        cache_blocks: Blocks of a bounded cache, to be counted too; None counts without a bound only.
    """

    tokenizer: str | None
    tokenize: Tokenizer | None
    block_size: int
    cache_blocks: int | None


def measure(
    table: Table,
    unique: UniqueRows,
    ordering: Ordering,
    placed: Ordering,
    questions: Sequence[Question],
    *,
    plan_s: float,
    read_s: float,
    bound: bool = False,
    statistics: bool = False,
    every_strategy: bool = False,
    tokens: TokenOptions | None = None,
) -> Figures:
    """Count everything that is reported.

    Args:
        table: All rows of the file.
        unique: Its unique rows.
        ordering: Their plan.
        placed: The plan of all rows: each duplicate beside its twin.
        questions: What is asked about every row; empty where nothing is asked.
        plan_s: Seconds that the plan took.
        read_s: Seconds that reading took.
        bound: Count the bounds that take long, where they do not take too long.
        statistics: Count statistics of the columns.
        every_strategy: Run every strategy by itself, however large the table.
        tokens: Count in tokens too.
    """
    messages = Messages.about(table, questions)
    before = plan(table, reorder="none")
    chars = messages.total_chars(before)
    sent_chars = messages.total_chars(ordering)
    computed = messages.computed_chars(ordering)
    left_out = ""
    strategies: tuple[StrategyFigures, ...] = ()
    if unique.table.rows * len(table.columns) <= MOST_COMPARED_CELLS or every_strategy:
        strategies = _compare(unique.table, messages, ordering, bound)
    else:
        left_out = f"more than {MOST_COMPARED_CELLS:,} cells; with --all each strategy is run once more by itself"
    bounds = _bounds(unique.table, messages, ordering, strategies, bound)
    return Figures(
        rows=table.rows,
        unique_rows=unique.table.rows,
        columns=table.columns,
        questions=tuple(question.text for question in questions),
        chars=chars,
        strategy=ordering.strategy,
        reason=_reason(unique.table, ordering, strategies, bounds),
        hit_rate_before=_share(chars - messages.computed_chars(before, "question"), chars),
        hit_rate_after=_share(chars - computed, chars),
        hit_rate_sent=_share(sent_chars - computed, sent_chars),
        strategies=strategies,
        strategies_left_out=left_out,
        bounds=bounds,
        placement=_placement(unique.table, messages, ordering, tokens),
        tokens=_tokens(table, unique, messages, (before, placed, ordering), tokens) if tokens is not None else None,
        statistics=_statistics(unique.table) if statistics else None,
        plan_s=plan_s,
        read_s=read_s,
    )


@dataclass(frozen=True, slots=True)
class Messages:
    """The user messages about rows: the rows' texts and what the questions add to them.

    Attributes:
        questions: At least one; a single empty one where nothing is asked.
        break_chars: 1 where a line break stands between question and row, 0 where one of the two is missing.
    """

    questions: tuple[Question, ...]
    break_chars: int

    @classmethod
    def about(cls, table: Table, questions: Sequence[Question]) -> Messages:
        """The messages that ask these questions, if any, about rows of the table's columns."""
        asked = any(question.text for question in questions)
        return cls(tuple(questions) or (Question("", ()),), int(asked and bool(table.columns)))

    def total_chars(self, ordering: Ordering) -> int:
        """Characters of all messages about the rows of a plan."""
        question_chars = sum(len(question.text) + self.break_chars for question in self.questions)
        return len(ordering.row_order) * question_chars + len(self.questions) * ordering.total_chars

    def computed_chars(self, ordering: Ordering, first: First | None = None) -> int:
        """Characters that no earlier message has in front; `first` None stands for the cheaper place."""
        place = place_questions(self.questions, ordering)
        missing = 1 - self.break_chars
        if not len(ordering.row_order):
            return 0
        if (first or place.first) == "question":
            return place.question_first_chars - missing * len(self.questions)
        return place.row_first_chars - missing * len(ordering.row_order)

    def texts(self, table: Table, ordering: Ordering, first: First) -> Iterator[str]:
        """The messages in the order in which to send them."""
        rendered = [render(question, table, ordering, first=first) for question in self.questions]
        in_order = chain.from_iterable(zip(*rendered, strict=True) if first == "row" else rendered)
        asked = any(question.text for question in self.questions)
        return in_order if asked else (text.strip("\n") for text in in_order)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _compare(table: Table, messages: Messages, ordering: Ordering, bound: bool) -> tuple[StrategyFigures, ...]:
    """Run every strategy by itself, and try all orderings where they are few."""
    runs: list[tuple[str, Callable[[Table], Ordering]]] = [(each, partial(order_by, each)) for each in STRATEGIES]
    if _searchable(table, ordering.total_chars, bound):
        runs.append(("optimum", search_optimum))
    found = []
    for strategy, run in runs:
        started = time.perf_counter()
        by_itself = run(table)
        took_s = time.perf_counter() - started
        total = messages.total_chars(by_itself)
        rate = _share(total - messages.computed_chars(by_itself), total)
        found.append(StrategyFigures(strategy, rate, took_s, strategy == ordering.strategy))
    return tuple(found)


def _searchable(table: Table, chars: int, bound: bool) -> bool:
    """Whether the optimum is searched: when it takes no time, and with --bound when it takes seconds."""
    most = max(min(MOST_ORDERINGS, MOST_SEARCHED_CHARS // max(chars, 1)), _FEW_ORDERINGS) if bound else _FEW_ORDERINGS
    return searchable(table.rows, len(table.columns), most)


def _bounds(
    table: Table, messages: Messages, ordering: Ordering, strategies: Sequence[StrategyFigures], bound: bool
) -> BoundFigures:
    total = messages.total_chars(ordering)

    def rate(shared_chars: int) -> float:
        return _share(total - messages.computed_chars(replace(ordering, shared_chars=shared_chars)), total)

    coded = Cells(table)
    cells = rate(most_shared_chars(coded))
    optimum = next((each.hit_rate for each in strategies if each.strategy == "optimum"), None)
    neighbours = groups = None
    left_out = []
    if bound and table.rows <= MOST_NEIGHBOUR_ROWS:
        neighbours = rate(most_shared_by_neighbours(coded))
    elif bound:
        left_out.append(
            f"The bound by neighbours is left out: it compares all pairs of rows, "
            f"at most {MOST_NEIGHBOUR_ROWS:,} rows of the {table.rows:,}."
        )
    if bound:
        most = most_shared_by_groups(coded, MOST_GROUP_CELLS)
        groups = rate(most) if most is not None else None
        if groups is None:
            left_out.append("The bound by groups of rows is left out: too many groups of rows share some cells.")
    if bound and optimum is None:
        left_out.append(
            f"The optimum is left out: there are too many orderings to try them all "
            f"(at most {MOST_ORDERINGS:,}, and {MOST_SEARCHED_CHARS:,} characters)."
        )
    least = min(each for each in (cells, neighbours, groups, optimum) if each is not None)
    return BoundFigures(cells, neighbours, groups, optimum, least - rate(ordering.shared_chars), tuple(left_out))


def _reason(table: Table, ordering: Ordering, strategies: Sequence[StrategyFigures], bounds: BoundFigures) -> str:
    if table.rows < 2 or not table.columns:
        return "there is nothing to order"
    if not strategies:
        return "it shares most of all that were tried"
    chosen = next(each for each in strategies if each.chosen)
    if chosen.hit_rate == bounds.optimum:
        return "all orderings were tried, and none shares more"
    if bounds.remaining <= 0:
        return "it reaches a bound, so no ordering shares more"
    rivals = [each for each in strategies if not each.chosen and each.strategy != "optimum"]
    best = max(rivals, key=lambda each: each.hit_rate)
    if best.hit_rate == chosen.hit_rate:
        return f"no strategy shares more, and {best.strategy} shares as much"
    return f"it shares {points(chosen.hit_rate - best.hit_rate)} more than the next best, {best.strategy}"


def _placement(
    table: Table, messages: Messages, ordering: Ordering, tokens: TokenOptions | None
) -> PlacementFigures | None:
    if len(messages.questions) == 1:
        return None
    place = place_questions(messages.questions, ordering)
    found = PlacementFigures(place.first, place.question_first_chars, place.row_first_chars)
    if tokens is None:
        return found
    caches = []
    for first in ("question", "row"):
        cache = PrefixCache(tokens.block_size)
        for each in _tokenize(messages.texts(table, ordering, first), tokens):
            cache.query(each)
        caches.append(cache.queried_tokens - cache.hit_tokens)
    return replace(found, question_first_tokens=caches[0], row_first_tokens=caches[1])


def _tokens(
    table: Table,
    unique: UniqueRows,
    messages: Messages,
    orderings: tuple[Ordering, Ordering, Ordering],
    options: TokenOptions,
) -> TokenFigures:
    before, placed, ordering = orderings
    first = place_questions(messages.questions, ordering).first
    found_before = _look_up(messages.texts(table, before, "question"), options)
    found_after = _look_up(messages.texts(table, placed, first), options)
    found_sent = found_after
    if unique.table.rows < table.rows:
        found_sent = _look_up(messages.texts(unique.table, ordering, first), options)
    return TokenFigures(
        options.tokenizer, options.block_size, options.cache_blocks, found_before, found_after, found_sent
    )


def _look_up(texts: Iterable[str], options: TokenOptions) -> CacheFigures:
    cache = PrefixCache(options.block_size)
    bounded = PrefixCache(options.block_size, options.cache_blocks) if options.cache_blocks is not None else None
    for tokens in _tokenize(texts, options):
        cache.query(tokens)
        if bounded is not None:
            bounded.query(tokens)
    return CacheFigures(cache.queried_tokens, cache.hit_rate, bounded.hit_rate if bounded is not None else None)


def _tokenize(texts: Iterable[str], options: TokenOptions) -> Iterator[NDArray[np.integer[Any]]]:
    return options.tokenize(iter(texts)) if options.tokenize is not None else map(characters, texts)


def _statistics(table: Table) -> StatisticsFigures:
    found = column_statistics(table)
    columns = tuple(
        ColumnFigures(
            column=name,
            cardinality=int(found.cardinality[j]),
            mean_chars=float(found.mean_chars[j]),
            median_chars=int(found.median_chars[j]),
            most_chars=int(found.most_chars[j]),
            repeated_share=_share(int(found.repeated_chars[j]), round(float(found.mean_chars[j]) * found.rows)),
            entropy_bits=float(found.entropy_bits[j]),
        )
        for j, name in enumerate(table.columns)
    )
    dependencies = tuple(
        DependencyFigures(
            table.columns[each.determinant],
            table.columns[each.dependent],
            each.exceptions,
            _share(each.exceptions, table.rows),
        )
        for each in approximate_dependencies(table)
    )
    return StatisticsFigures(columns, dependencies)
