"""The figures of `pg-bridge plan` as text: for a reader, or as one JSON document.

In: `Figures`. Out: text. It counts nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from pg_bridge.analysis.figures import (
    BoundFigures,
    Figures,
    PlacementFigures,
    StatisticsFigures,
    TokenFigures,
    points,
)

_LABEL_CHARS = 17
_LONGEST_NAME = 32


def as_json(figures: Figures) -> str:
    """One JSON document; its keys are the attributes of `Figures` and of what is inside it."""
    return json.dumps(asdict(figures), ensure_ascii=False, indent=2)


def as_text(figures: Figures) -> str:
    """A report to read, lines of at most 120 characters as a rule."""
    return "\n".join(_lines(figures))


def _lines(figures: Figures) -> Iterator[str]:
    yield _label("rows", f"{figures.rows:,}")
    yield _label("unique rows", f"{figures.unique_rows:,}")
    yield _label("columns", f"{len(figures.columns):,}")
    yield _label("characters", f"{figures.chars:,}")
    yield _label("strategy", f"{figures.strategy}: {figures.reason}")
    own_order = "in the file's own order" + (", one question after another" if len(figures.questions) > 1 else "")
    yield _label("hit rate before", f"{_percent(figures.hit_rate_before)}  all rows, {own_order}")
    yield _label("hit rate after", f"{_percent(figures.hit_rate_after)}  all rows as planned, equal ones side by side")
    yield _label("hit rate sent", f"{_percent(figures.hit_rate_sent)}  unique rows as planned: what is asked")
    yield _label("seconds", f"{figures.plan_s:.3f} planning, {figures.read_s:.3f} reading")
    yield ""
    yield from _strategies(figures)
    if figures.placement is not None:
        yield ""
        yield from _placement(figures.placement, len(figures.questions))
    if figures.tokens is not None:
        yield ""
        yield from _tokens(figures.tokens)
    if figures.statistics is not None:
        yield ""
        yield from _statistics(figures.statistics, figures.unique_rows)
    yield ""
    yield from _notes(figures)


def _strategies(figures: Figures) -> Iterator[str]:
    yield "Strategies and bounds, unique rows:"
    rows = [("", "", "hit rate", "seconds")]
    rows += [
        ("*" if each.chosen else "", each.strategy, _percent(each.hit_rate), f"{each.plan_s:.3f}")
        for each in figures.strategies
    ]
    if not figures.strategies:
        rows.append(("*", figures.strategy, _percent(figures.hit_rate_sent), f"{figures.plan_s:.3f}"))
    rows += [("", f"bound: {name}", _percent(rate), "") for name, rate in _named(figures.bounds)]
    yield from _table(rows, left=2)
    if figures.strategies_left_out:
        yield f"The other strategies are left out: {figures.strategies_left_out}."
    yield from figures.bounds.left_out
    yield f"Left to gain: {points(figures.bounds.remaining)} at most."


def _named(bounds: BoundFigures) -> Iterator[tuple[str, float]]:
    yield "every repeated cell shared", bounds.cells
    if bounds.neighbours is not None:
        yield "every row after its most alike", bounds.neighbours
    if bounds.groups is not None:
        yield "every row several ways in parts", bounds.groups
    if bounds.optimum is not None:
        yield "all orderings tried", bounds.optimum


def _placement(placement: PlacementFigures, questions: int) -> Iterator[str]:
    yield f"Where the {questions} questions stand, unique rows, what is left to compute:"
    in_tokens = placement.question_first_tokens is not None
    rows = [("", "", "characters", "tokens" if in_tokens else "")]
    for first, chars, tokens in (
        ("question", placement.question_first_chars, placement.question_first_tokens),
        ("row", placement.row_first_chars, placement.row_first_tokens),
    ):
        mark = "*" if first == placement.first else ""
        rows.append((mark, f"{first} first", f"{chars:,}", f"{tokens:,}" if tokens is not None else ""))
    yield from _table(rows, left=2)


def _tokens(tokens: TokenFigures) -> Iterator[str]:
    if tokens.tokenizer is None:
        yield f"ESTIMATE: every 4 characters taken for a token, in whole blocks of {tokens.block_size}:"
    else:
        yield f"Tokens of {tokens.tokenizer}, in whole blocks of {tokens.block_size}:"
    bounded = tokens.cache_blocks is not None
    rows = [("", "tokens", "hit rate", f"in {tokens.cache_blocks:,} blocks" if bounded else "")]
    for name, each in (
        ("before, all rows", tokens.before),
        ("after, all rows", tokens.after),
        ("sent, unique rows", tokens.sent),
    ):
        rate = _percent(each.bounded_hit_rate) if each.bounded_hit_rate is not None else ""
        rows.append((name, f"{each.tokens:,}", _percent(each.hit_rate), rate))
    yield from _table(rows, left=1)


def _statistics(statistics: StatisticsFigures, rows: int) -> Iterator[str]:
    yield f"Columns of the {rows:,} unique rows:"
    table = [("", "distinct", "mean chars", "median", "most", "repeated", "entropy bits")]
    table += [
        (
            _name(each.column),
            f"{each.cardinality:,}",
            f"{each.mean_chars:,.1f}",
            f"{each.median_chars:,}",
            f"{each.most_chars:,}",
            _percent(each.repeated_share),
            f"{each.entropy_bits:.2f}",
        )
        for each in statistics.columns
    ]
    yield from _table(table, left=1)
    yield ""
    yield "Functional dependencies (those of constant columns and of unique ones are left out):"
    if not statistics.dependencies:
        yield "  none"
    for each in statistics.dependencies:
        text = f"  {_name(each.determinant)} → {_name(each.dependent)}"
        if each.exceptions:
            text += f"  approximate: {each.exceptions:,} exceptions, {_percent(each.exceptions_share)} of the rows"
        yield text


def _notes(figures: Figures) -> Iterator[str]:
    yield "A hit rate is what prompts share with the prompt before, of all their characters, the question included."
    if len(figures.questions) > 1:
        yield "With several questions that is the prompt before with the same question, or about the same row."
    if figures.tokens is None:
        yield "Characters stand in for tokens here: an engine counts tokens, in whole blocks. See --tokenizer."
    else:
        yield "In tokens it is what a prefix cache finds, of all earlier prompts; the last block is computed anew."
    yield "Prompts are user messages, without the model's chat template."


def _label(label: str, text: str) -> str:
    return label.ljust(_LABEL_CHARS) + text


def _percent(rate: float) -> str:
    return f"{100 * rate:.1f} %"


def _name(column: str) -> str:
    """A column's name on one line of its own, shortened."""
    escaped = json.dumps(column, ensure_ascii=False)[1:-1]
    return escaped if len(escaped) <= _LONGEST_NAME else escaped[: _LONGEST_NAME - 1] + "…"


def _table(rows: Sequence[Sequence[str]], *, left: int) -> Iterator[str]:
    """Align cells: the first `left` columns to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.ljust(w) if j < left else cell.rjust(w) for j, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        yield ("  " + "  ".join(cells)).rstrip()
