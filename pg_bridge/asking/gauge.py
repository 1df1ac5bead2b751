"""How many tokens prompts have, and where in a prompt each begins, by counting some of them.

In: rows that are planned, and a tokenizer or none. Out: a `Gauge`: tokens of what all prompts begin and end with, and
for each column tokens a character. A sample is counted, so that a hundred thousand rows are not a hundred thousand
calls: the question with all that stands around it, some cells of each column, and some whole prompts, by which the rest
is set right. Without a tokenizer four characters are a token, as they are in most English text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pg_bridge.asking.prefix_cache import CHARS_PER_TOKEN
from pg_bridge.asking.prompt import First, Question, render
from pg_bridge.engine import Sampling
from pg_bridge.options import Api
from pg_bridge.ordering import Ordering
from pg_bridge.rows.table import Table

SAMPLED_PROMPTS = 256
SAMPLED_CELLS = 64  # of a column
SAMPLED_CHARS = 50_000  # of a column's cells together

# What chat templates put around texts, where nobody tells: those of Llama 3, Qwen and their kin differ little.
MESSAGE_TOKENS = 5
ANSWER_TOKENS = 3  # the beginning of the answer

_SEPARATOR = ", "

CountedBy = Literal["by_tokenizer", "by_characters"]


class Tokenizer(Protocol):
    """Cuts texts into tokens; None where it cannot."""

    def prompts(self, prompts: Sequence[str]) -> list[list[int]] | None:
        """The token ids of whole prompts, with all that is sent around them."""

    def texts(self, texts: Sequence[str]) -> list[list[int]] | None:
        """The token ids of texts alone."""


@dataclass(frozen=True, slots=True, eq=False)
class Planned:
    """Rows in the order in which they are sent.

    Attributes:
        table: The rows.
        ordering: Their order, and that of each one's cells.
        is_ahead: Whether they go ahead, in requests of their own.
    """

    table: Table
    ordering: Ordering
    is_ahead: bool


@dataclass(frozen=True, slots=True, eq=False)
class Gauge:
    """How long prompts of one question are.

    Attributes:
        head_tokens: Of what all begin with: template, system prompt, question.
        tail_tokens: Of what all end with.
        tokens_per_char: (k,) float64, of each column's label and cell.
        counted_by: How it came about.
    """

    head_tokens: float
    tail_tokens: float
    tokens_per_char: NDArray[np.float64]
    counted_by: CountedBy


def head_of(question: Question, columns: Sequence[str], first: First = "question") -> str:
    """The text that all user messages of a question begin with."""
    if not columns or question.pieces:
        return question.text
    return "{" if first == "row" else question.text + "\n{"


def _tail_of(question: Question, columns: Sequence[str], first: First) -> str:
    """The text that they end with, where it is more than a brace."""
    return "}\n" + question.text if columns and first == "row" else ""


class Pieces:
    """How many characters each cell of some planned rows takes in its prompt: its label, itself, and the separator."""

    def __init__(self, planned: Planned) -> None:
        table = planned.table
        self._planned = planned
        self._chars = [
            lengths + len(label) + len(_SEPARATOR)
            for lengths, label in zip(table.lengths(), table.labels(), strict=True)
        ]

    def chars(self, start: int = 0, count: int | None = None) -> NDArray[np.int64]:
        """(count, k) int64: of so many rows from a place in the order of sending, in each one's order of columns."""
        ordering = self._planned.ordering
        end = None if count is None else start + count
        columns = ordering.column_order[start:end]
        codes = self._planned.table.codes[ordering.row_order[start:end]]
        chars = np.zeros(columns.shape, np.int64)
        for j, of_column in enumerate(self._chars):
            chars[columns == j] = of_column[codes[:, j]]  # every row has every column once
        return chars


def gauge_by_characters(
    question: Question, columns: Sequence[str], sampling: Sampling, api: Api, first: First = "question"
) -> Gauge:
    """Take every four characters for a token, and a usual chat template; what a pooling model is given has none."""
    if sampling.is_pooled:
        return Gauge(1.0, 1.0, np.full(len(columns), 1 / CHARS_PER_TOKEN), "by_characters")
    chars = len(sampling.system_prompt) + len(head_of(question, columns, first))
    head, tail = chars / CHARS_PER_TOKEN, 1.0 + len(_tail_of(question, columns, first)) / CHARS_PER_TOKEN
    if api == "chat":
        head += MESSAGE_TOKENS * (2 if sampling.system_prompt else 1)
        tail += ANSWER_TOKENS
    return Gauge(head, tail, np.full(len(columns), 1 / CHARS_PER_TOKEN), "by_characters")


def gauge_by_tokenizer(
    tokenizer: Tokenizer, question: Question, planned: Sequence[Planned], first: First = "question"
) -> Gauge | None:
    """Count some of the planned rows' prompts.

    Args:
        tokenizer: Counts.
        question: Of the prompts.
        planned: At least one row.
        first: What they begin with.

    Returns:
        None where the tokenizer cannot tell.
    """
    columns = planned[0].table.columns
    head, tail = head_of(question, columns, first), _tail_of(question, columns, first)
    around = tokenizer.prompts([head + "a" + tail, head + "7" + tail])
    if around is None:
        return None
    head_tokens, tail_tokens = _shared(*around), _shared(*(tokens[::-1] for tokens in around))
    sample = list(_sample(planned))
    rates = _rate_columns(tokenizer, sample)
    prompts = tokenizer.prompts(
        [text for each in sample for text in render(question, each.table, each.ordering, first=first)]
    )
    if rates is None or prompts is None:
        return None
    expected = sum(float((Pieces(each).chars() * rates[each.ordering.column_order]).sum()) for each in sample)
    counted = sum(map(len, prompts)) - len(prompts) * (head_tokens + tail_tokens)
    if columns and expected:
        rates *= max(counted, 0) / expected
    return Gauge(head_tokens, tail_tokens, rates, "by_tokenizer")


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two prompts begin with alike.

    >>> _shared([1, 2, 3], [1, 2, 4, 3])
    2
    """
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _sample(planned: Sequence[Planned]) -> Iterator[Planned]:
    """Some of the rows, each as likely as any other; the same ones every time."""
    ends = np.cumsum([len(each.ordering.row_order) for each in planned])
    rows = int(ends[-1])
    chosen = np.sort(np.random.default_rng(0).permutation(rows)[:SAMPLED_PROMPTS])
    for end, each in zip(ends.tolist(), planned, strict=True):
        start = end - len(each.ordering.row_order)
        own = chosen[(chosen >= start) & (chosen < end)] - start
        if own.size:
            order = each.ordering.row_order[own]
            columns = each.ordering.column_order[own]
            yield Planned(_cut(each.table, order), Ordering(np.arange(len(own)), columns, "", 0, 0), each.is_ahead)


def _cut(table: Table, rows: NDArray[np.intp]) -> Table:
    """The table of some rows, with no other cells than theirs."""
    codes = np.empty((len(rows), len(table.columns)), np.int32, order="F")
    values: list[list[str]] = []
    for j, texts in enumerate(table.values):
        used, codes[:, j] = np.unique(table.codes[rows, j], return_inverse=True)
        values.append([texts[code] for code in used.tolist()])
    return Table(table.columns, codes, tuple(values))


def _rate_columns(tokenizer: Tokenizer, sample: Sequence[Planned]) -> NDArray[np.float64] | None:
    """(k,) float64: tokens a character of each column's pieces, as some cells of sampled rows have them."""
    texts = []
    for j, label in enumerate(sample[0].table.labels()):
        cells = (label + each.table.values[j][code] for each in sample for code in each.table.codes[:, j].tolist())
        pieces: list[str] = []
        chars = 0
        for piece in cells:
            if len(pieces) == SAMPLED_CELLS or chars > SAMPLED_CHARS:
                break
            pieces.append(piece)
            chars += len(piece)
        texts.append(_SEPARATOR.join(pieces) + _SEPARATOR)
    counted = tokenizer.texts(texts)
    if counted is None:
        return None
    return np.array([len(tokens) / len(text) for tokens, text in zip(counted, texts, strict=True)], np.float64)
