"""What EXPLAIN shows of a scan, and what the planner is told of its size and cost. No model is asked for either.

A source that fails, or that its reader may not read, makes no error of either: it is guessed.

In: a `Scan` and what was learnt of its predicates. Out: lines of text; rows, bytes and a cost. The source's own planner
estimates its part; what would be asked is worked out from the first rows that the source gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from pg_bridge.asking.distinct import count_left
from pg_bridge.asking.outline import Outline, Rows, chars_of
from pg_bridge.asking.prompt import Question, parse_question, place_questions, resolve_columns
from pg_bridge.asking.seen import NOTHING_SEEN, Seen
from pg_bridge.errors import SourceError
from pg_bridge.foreign.definition import ModelColumn
from pg_bridge.foreign.learned import CHARS_PER_TOKEN, Learned, cost_tokens
from pg_bridge.foreign.scan import Scan
from pg_bridge.options import Call, Server
from pg_bridge.ordering import plan
from pg_bridge.rows.dedup import dedup
from pg_bridge.rows.table import Table

SAMPLE_ROWS = 1000
COST_PER_TOKEN = 2.0  # in the planner's units; some 100 tokens cost about what llm.complete does
_GUESSED_ROW_CHARS = 400.0
_GUESSED_SIZE = (1000, 64)  # rows and bytes a row of a source that cannot be looked at


def size(scan: Scan, learned: Learned) -> tuple[int, int, float]:
    """Estimate a scan: (rows, bytes a row, cost of a row's answers in the planner's units)."""
    source_rows, width = scan.relation.size(scan.statement) if scan.relation.sql else _GUESSED_SIZE
    predicates = scan.predicates
    share, cost = 1.0, 0.0
    for column in scan.in_turn(learned, _GUESSED_ROW_CHARS):
        cost += share * cost_tokens(column, _GUESSED_ROW_CHARS)
        share *= learned.pass_rate(predicates[column.name], column)
    for column in scan.asked:
        if column.name not in predicates:
            cost += share * cost_tokens(column, _GUESSED_ROW_CHARS)
    rows = max(1, round(source_rows * share))
    return rows, width, cost * COST_PER_TOKEN * source_rows / rows


def _nobody_knows(_server: Server, _question: Question, _call: Call) -> int | None:
    """No ledger is at hand."""
    return None


@dataclass(frozen=True, slots=True)
class Asked:
    """Who would be asked.

    Attributes:
        server: His options.
        seen: What his engine did lately.
        count_kept: Tells how many of his answers to a question are kept; None where nobody knows.
        readable: The source columns of whose values the reader may know how many there are; None for all.
    """

    server: Server
    seen: Seen = NOTHING_SEEN
    count_kept: Callable[[Server, Question, Call], int | None] = _nobody_knows
    readable: frozenset[str] | None = None


def estimates(scan: Scan, learned: Learned, asked: Asked) -> Iterator[str]:
    """What a scan would ask and take, as far as the source's planner knows; its rows are not read.

    Yields:
        Lines such as `Estimated Questions: 1000 at most`; none where nothing is asked, or the source not looked at.
    """
    if not scan.asked or not scan.relation.sql:
        return
    predicates, outline, share = scan.predicates, Outline(), 1.0
    filters = scan.in_turn(learned, _GUESSED_ROW_CHARS)
    others = [column for column in scan.asked if column.name not in predicates]
    model = scan.relation.definition.model
    quals = [qual for qual in scan.quals if qual.column not in model]
    rows, _ = scan.relation.expect(scan.sent, quals)
    widths: dict[str, float] = {name: scan.relation.expect([name], quals)[1] for name in scan.sent}
    distinct: dict[tuple[str, ...], int | None] = {}
    for column in [*filters, *others]:
        question, call = parse_question(column.ask.prompt), column.ask.call
        sent = resolve_columns(question, scan.sent)
        if sent not in distinct:
            may_know = asked.readable is None or asked.readable.issuperset(sent)
            distinct[sent] = scan.relation.expect_distinct(sent, quals) if may_know else None
        of_sent = distinct[sent]
        expected = Rows(
            rows * share,
            chars_of({name: widths[name] for name in sent}),
            None if of_sent is None else count_left(of_sent, rows, rows * share),
            asked.count_kept(asked.server, question, call),
        )
        outline.add(question, call, expected, asked.server, asked.seen)
        if column.name in predicates:
            share *= learned.pass_rate(predicates[column.name], column)
    yield from outline.lines(asked.server, asked.seen)


def lines(
    scan: Scan, learned: Learned, *, verbose: bool, sample: bool = True, asked: Asked | None = None
) -> Iterator[str]:
    """Describe a scan.

    Args:
        scan: The scan.
        learned: Of its foreign table.
        verbose: Whether to show what is sent.
        sample: Whether the source's rows may be looked at and counted: the first of them, for what would be asked.
        asked: Who would be asked, where what it would take is to be told, too.

    Yields:
        Lines such as `Source SQL: SELECT …`.
    """
    definition, predicates = scan.relation.definition, scan.predicates
    yield f"Source: {definition.source or 'query'}"
    filters = scan.in_turn(learned, _GUESSED_ROW_CHARS)
    for column in filters:
        quals = predicates[column.name]
        rate = learned.pass_rate(quals, column)
        yield f"Model Filter: {' AND '.join(map(str, quals))} (keeps about {rate:.0%} of the rows)"
    columns = [column for column in scan.asked if column.name not in predicates]
    if columns:
        yield f"Model Columns: {', '.join(column.name for column in columns)}"
    if sample and asked is not None:
        with suppress(SourceError):  # as below
            yield from list(estimates(scan, learned, asked))
    if not verbose or not scan.relation.sql:
        return
    statement = scan.statement
    yield f"Source SQL: {statement.sql}"
    if statement.parameters:
        listed = ", ".join(f"${i} = '{value}'" for i, value in enumerate(statement.parameters, 1))
        yield f"Source Parameters: {listed}"
    if sample and scan.asked:
        with suppress(SourceError):  # whoever is asked may lack rights, or the query fail
            yield from list(_describe_questions(scan, [*filters, *columns], len(filters)))


def _describe_questions(scan: Scan, columns: list[ModelColumn], filters: int) -> Iterator[str]:
    """What is asked, in the order of asking, and what it comes to for the first rows."""
    statement = scan.statement
    expected, _ = scan.relation.size(statement)
    with scan.relation.source.rows(statement.sql, statement.parameters) as source:
        rows = [cells[-1] for cells in source.fetch(SAMPLE_ROWS)]
    yield f"Sample: {len(rows)} of about {expected} source rows"
    by_columns: dict[tuple[str, ...], list[ModelColumn]] = {}
    for number, column in enumerate(columns, 1):
        question = parse_question(column.ask.prompt)
        sent = resolve_columns(question, scan.sent)
        table = dedup(Table.from_json(rows, sent), enabled=column.ask.call.dedup).table
        ordering = plan(table, reorder=column.ask.call.reorder)
        if number > filters:
            by_columns.setdefault(sent, []).append(column)
        head = len(column.ask.call.system_prompt) + len(question.text)
        total = table.rows * head + ordering.total_chars
        shared = max(0, table.rows - 1) * head + ordering.shared_chars
        yield f"{number}. {column.name} {column.type.name}: {column.ask.prompt}"
        yield (
            f"{number}. {column.name}: {table.rows} unique prompts of {len(rows)} rows, about "
            f"{total // CHARS_PER_TOKEN} prompt tokens, prefix hit rate {shared / max(1, total):.0%}, "
            f"order: {ordering.strategy}"
        )
    for sent, together in by_columns.items():
        if len(together) > 1:
            table = dedup(Table.from_json(rows, sent)).table
            placement = place_questions(
                [parse_question(column.ask.prompt) for column in together], plan(table), together[0].ask.call.placement
            )
            names = ", ".join(column.name for column in together)
            yield f"Asked Together: {names}; the {placement.first} stands first"
