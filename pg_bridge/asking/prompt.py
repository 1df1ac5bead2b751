"""From a prompt with `{column}` in it and an ordering to the user messages that are sent.

In: the prompt as the user wrote it, a `Table`, an `Ordering`. Out: one text a row: the question, which is the
same for every row and so one shared prefix, then the row as a JSON object with its cells in planned order.
Names stand beside the values, so the order of the cells carries no meaning (the paper's prompt, its
appendix). Several questions about the same rows may stand behind the row instead, where that is cheaper.

It never puts a cell into the question, never counts tokens and holds no system prompt.
"""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, pairwise
from os.path import commonprefix
from typing import Literal

import numpy as np

from pg_bridge.errors import NullPrompt, RepeatedColumn, TemplateError, UnknownColumn
from pg_bridge.options import Place
from pg_bridge.ordering import Ordering
from pg_bridge.rows.cutting import UNKNOWN, VALUE
from pg_bridge.rows.joined import BETWEEN
from pg_bridge.rows.media import Illustrated, media_of
from pg_bridge.rows.table import Table

_BRACES = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_BRACES_HINT = "Write {column} to name a column; write '{{' and '}}' where you mean the braces themselves."
_NO_INPUT_HINT = "Pass it behind the prompt."
_TWICE_HINT = "A brace that names no column is written twice."
_VALUE_HINT = "Write {} to name it. Pass a row by its table's alias, a JSON object with a cast: '{\"a\": 1}'::jsonb."
_LISTED_COLUMNS = 20
_CHUNK_ROWS = 1024

First = Literal["question", "row"]


@dataclass(frozen=True, slots=True)
class Question:
    """A parsed prompt.

    Attributes:
        text: What is sent: `{review}` has become `review`, `{{` a brace.
        columns: The named columns, in order of first mention, each once; empty where none is named.
        names_value: Whether `{}` stands in it, for an input that is a single value.
        pieces: Of what is no question, but a text for a pooling model: words, and between them the named columns, whose
            cells stand there as they are; empty for a question.
    """

    text: str
    columns: tuple[str, ...]
    names_value: bool = False
    pieces: tuple[str, ...] = field(default=(), repr=False)


EMBEDDED = Question("", (VALUE,), names_value=True, pieces=("", VALUE, ""))
"""In the place of a question where there is none, and texts are embedded."""

RERANKED = Question("", ("query", "document"), pieces=("", "query", BETWEEN, "document", ""))
"""In the place of a question where there is none, and documents are compared with queries."""


def parse_question(prompt: str | None) -> Question:
    """Resolve a prompt's braces.

    A name is everything between the braces, spaces included; a column whose name holds a brace cannot be
    named. `{}` names an input that is a single value.

    Raises:
        NullPrompt: The prompt is NULL.
        TemplateError: A brace stands alone.

    >>> parse_question("Is {review} kind? Answer {{yes}} or {{no}}.")
    Question(text='Is review kind? Answer {yes} or {no}.', columns=('review',), names_value=False)
    >>> parse_question("Is {} kind?")
    Question(text='Is input kind?', columns=('input',), names_value=True)
    """
    if prompt is None:
        raise NullPrompt("the prompt is NULL", hint="Pass the question as text; {column} names a column of the rows.")
    named: dict[str, None] = {}

    def resolve(match: re.Match[str]) -> str:
        braces = match[0]
        if match[1] is not None:
            name = match[1] or VALUE
            named[name] = None
            return name
        if len(braces) == 2:
            return braces[0]
        raise TemplateError(f"unbalanced '{braces}' at character {match.start() + 1} of the prompt", hint=_BRACES_HINT)

    text = _BRACES.sub(resolve, prompt)
    return Question(text, tuple(named), any(match[0] == "{}" for match in _BRACES.finditer(prompt)))


def parse_text(prompt: str | None) -> Question:
    """Resolve the braces of a text that is no question: each stands for the cell of its column, as it is.

    Raises:
        NullPrompt: The text is NULL.
        TemplateError: A brace stands alone, or it names no column.

    >>> parse_text("query: {review} {{}}").pieces
    ('query: ', 'review', ' {}')
    """
    question = parse_question(prompt)
    if not question.columns:
        raise TemplateError("the text names no column, so that it would be the same for every row", hint=_BRACES_HINT)
    pieces = [""]
    end = 0
    for match in _BRACES.finditer(prompt or ""):
        pieces[-1] += (prompt or "")[end : match.start()]
        end = match.end()
        if match[1] is None:
            pieces[-1] += match[0][0]
        else:
            pieces += [match[1] or VALUE, ""]
    pieces[-1] += (prompt or "")[end:]
    return replace(question, text="", pieces=tuple(pieces))


def escape(text: str) -> str:
    """A text as a prompt has it that names no column.

    >>> parse_question(escape("{a}")).text
    '{a}'
    """
    return text.replace("{", "{{").replace("}", "}}")


def rename_columns(prompt: str, columns: Sequence[str]) -> str:
    """A prompt in which some columns are no columns any more, but words.

    >>> rename_columns("Does {review} concern {name}, {{or not}}?", ["name"])
    'Does {review} concern name, {{or not}}?'
    """
    return _BRACES.sub(lambda match: match[1] if match[1] in columns else match[0], prompt)


def resolve_columns(question: Question, columns: Sequence[str | None]) -> tuple[str, ...]:
    """Pick the columns to send.

    Args:
        question: The parsed prompt.
        columns: The rows' columns. With `UNKNOWN` among them they have whatever is named besides.

    Returns:
        The named columns in the row's order, whatever the order of mention: one question asked in two
        wordings then plans the same way. All columns where none is named.

    Raises:
        UnknownColumn: A named column is not available.
        RepeatedColumn: One of those to send is there more than once.
        TemplateError: `{}` stands in the question, and there is not a single value for it.
    """
    available = tuple([name for name in columns if name is not UNKNOWN])
    if UNKNOWN in columns:
        available += tuple([name for name in question.columns if name not in available])
    _check_named(question, available)
    named = set(question.columns or available)
    sent = tuple(name for name in available if name in named)
    if len(set(sent)) < len(sent):
        name = Counter(sent).most_common(1)[0][0]
        hint = f"Rename one in a subquery: (SELECT {name} AS other_{name}, … FROM …) AS t."  # noqa: S608 - a hint
        if not question.columns:
            hint += " Or name in the prompt what is to be sent."
        raise RepeatedColumn(f'the input has more than one column named "{name}"', hint=hint)
    return sent


def _check_named(question: Question, available: Sequence[str]) -> None:
    known = set(available)
    is_value = known == {VALUE}
    if question.names_value and not is_value:
        is_what = "this one is a row" if available else "there is none"
        todo = f"Write {{column}} to name a column. {columns_hint(VALUE, available)}" if available else _NO_INPUT_HINT
        raise TemplateError(f"{{}} names an input that is a single value, and {is_what}", hint=f"{todo} {_TWICE_HINT}")
    for name in question.columns:
        if name not in known and is_value:
            raise UnknownColumn(f'column "{name}" does not exist: the input is a single value', hint=_VALUE_HINT)
        if name not in known:
            hint = f"{columns_hint(name, available)} {_TWICE_HINT}"
            raise UnknownColumn(f'column "{name}" does not exist in the rows', hint=hint)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where questions stand, and what either place costs.

    Attributes:
        first: What a message begins with.
        question_first_chars: Characters that no earlier prompt has in front, if each question goes before its rows.
        row_first_chars: The same, if each row goes before its questions.
    """

    first: First
    question_first_chars: int
    row_first_chars: int


def place_questions(questions: Sequence[Question], ordering: Ordering, place: Place = "planned") -> Placement:
    """Decide whether questions over the same rows stand before the rows or behind them.

    A question in front is computed once and its rows anew for every question; a row in front is computed once and all
    questions anew for every row. Whole blocks change nothing about it: either way each prompt computes, on the
    average, half a block more than what it does not share. A single question stands in front.

    Args:
        questions: At least one.
        ordering: The plan of the rows that all of them are asked about.
        place: What the user wants; the cheaper of the two if it is to be planned.
    """
    texts = sorted(question.text for question in questions)
    shared = sum(len(commonprefix(pair)) for pair in pairwise(texts))  # noqa: RUF071 - characters are meant
    asked = sum(map(len, texts)) - shared
    rows = ordering.total_chars - ordering.shared_chars
    question_first = asked + len(questions) * (1 + rows)  # 1 for the line break between question and row
    row_first = rows + len(ordering.row_order) * (1 + asked)
    wanted = "row first" if row_first < question_first else "question first"
    wanted = wanted if place == "planned" else place
    return Placement("row" if wanted == "row first" else "question", question_first, row_first)


def render_questions(
    questions: Sequence[Question], table: Table, ordering: Ordering, place: Place = "planned"
) -> Iterator[tuple[int, int, str]]:
    """Write the user messages of several questions over the same rows, placed as `place_questions` decides.

    Args:
        questions: At least one; the columns that they name are the table's.
        table: The rows that were planned.
        ordering: Their plan.
        place: As for `place_questions`.

    Yields:
        The place of the row in sending order, the number of the question, and the message; in the order in which to
        send them.
    """
    first = place_questions(questions, ordering, place).first
    messages = [render(question, table, ordering, first=first) for question in questions]
    if first == "row":
        for sent, of_row in enumerate(zip(*messages, strict=True)):
            yield from ((sent, number, text) for number, text in enumerate(of_row))
    else:
        for number, of_question in enumerate(messages):
            yield from ((sent, number, text) for sent, text in enumerate(of_question))


def render(question: Question, table: Table, ordering: Ordering, *, first: First = "question") -> Iterator[str]:
    r"""Write the user messages, one a sent row, in sending order.

    Args:
        question: The parsed prompt.
        table: The rows that were planned.
        ordering: Their plan.
        first: What a message begins with.

    Yields:
        The question, a newline and the row as a JSON object, or the other way round; for rows without columns the
        question alone, and of what is no question its pieces, in which a NULL is nothing.

    >>> from pg_bridge.ordering import plan
    >>> table = Table.from_json(['{"a":1,"b":"x"}'], ["a", "b"])
    >>> list(render(Question("Well?", ()), table, plan(table)))
    ['Well?\n{"a": 1, "b": "x"}']
    """
    if not table.columns:
        for _ in range(table.rows):
            yield question.text
        return
    media = media_of(chain.from_iterable(table.values))
    if question.pieces:
        cells = [(table.values[j], table.codes[:, j]) for j in map(table.columns.index, question.pieces[1::2])]
        for row in ordering.row_order.tolist():
            text = question.pieces[0]
            for (values, codes), words in zip(cells, question.pieces[2::2], strict=True):
                text += _bare(values[codes[row]]) + words
            yield Illustrated(text, media) if media and "\0" in text else text
        return
    head, tail = (question.text + "\n{", "}") if first == "question" else ("{", "}\n" + question.text)
    messages = (f"{head}{', '.join(pieces)}{tail}" for pieces in pieces_of(table, ordering))
    yield from (Illustrated(each, media) if "\0" in each else each for each in messages) if media else messages


def pieces_of(table: Table, ordering: Ordering) -> Iterator[tuple[str, ...]]:
    """The rows in sending order, each as `"name": value` of its cells in their order."""
    pieces: list[str] = []  # of every distinct cell, column after column
    offsets = np.zeros(len(table.columns), np.intp)
    for j, (label, texts) in enumerate(zip(table.labels(), table.values, strict=True)):
        offsets[j] = len(pieces)
        pieces += [label + text for text in texts]
    piece_of = pieces.__getitem__
    for start in range(0, table.rows, _CHUNK_ROWS):
        rows = ordering.row_order[start : start + _CHUNK_ROWS]
        columns = ordering.column_order[start : start + _CHUNK_ROWS]
        for chosen in (offsets[columns] + table.codes[rows[:, np.newaxis], columns]).tolist():
            yield tuple(map(piece_of, chosen))


def write(text: str, pieces: Sequence[str]) -> str:
    r"""A question and the row it is about, as `render` writes them with the question first.

    >>> write("Well?", ['"a": 1'])
    'Well?\n{"a": 1}'
    """
    return f"{text}\n{{{', '.join(pieces)}}}" if pieces else text


def _bare(cell: str) -> str:
    """A cell as the text that it is; of what is no text its JSON, and nothing of a NULL."""
    if cell == "null":
        return ""
    return str(json.loads(cell, strict=False)) if cell.startswith('"') else cell


def columns_hint(name: str, available: Sequence[str]) -> str:
    """Say which columns there are, and which of them `name` was likely meant to be."""
    if not available:
        return "The rows have no columns."
    folded = {column.strip().casefold(): column for column in reversed(available)}
    close = difflib.get_close_matches(name.strip().casefold(), list(folded), n=1)
    guess = f"Did you mean {{{folded[close[0]]}}}? " if close else ""
    listed = ", ".join(available[:_LISTED_COLUMNS])
    more = len(available) - _LISTED_COLUMNS
    rest = f" and {more} more" if more > 0 else ""
    return f"{guess}The columns are: {listed}{rest}."
