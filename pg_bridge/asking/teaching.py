"""What is said to a model that is to write a better prompt, and what it says.

In: a prompt, rows that it got wrong with the answers that are known. Out: the columns of one question for each lesson;
from an answer a prompt that can be asked, or why it cannot. It asks nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from pg_bridge.asking.inquiry import Ask
from pg_bridge.asking.labelled import Labelled
from pg_bridge.asking.prompt import Question, escape, parse_question
from pg_bridge.asking.tuning import Lesson, Proposal
from pg_bridge.errors import PgBridgeError
from pg_bridge.options import YES_OR_NO, Call
from pg_bridge.rows.cutting import object_of
from pg_bridge.rows.table import Table

SYSTEM_PROMPT = "You write prompts for a language model. Reply with JSON alone."
MOST_TOKENS = 1024
"""Of an answer: a prompt, and what it is for."""

_TASK = """A prompt asks a language model the same question about each row of a table. About some rows the answer was \
wrong: they stand in "wrong", each with the answer that was given and the right one. Say in a sentence what the prompt \
leaves unsaid, then write a better one, by which these rows and others like them would be answered right. State what \
tells the right answers from the wrong ones, as a rule, and do not copy rows. A word in braces names a column of the \
row: keep every one as it is. The model's answer must have the form that "answers" says."""
_WAYS = (
    "Keep the prompt, and add a rule behind it.",
    "Write it anew, and begin with what tells the answers apart.",
    "Say for each answer when it is the right one.",
    "Say what to do in cases that are not clear.",
    "Make it short and exact.",
)
_SCHEMA = {
    "type": "object",
    "properties": {"mistake": {"type": "string"}, "prompt": {"type": "string"}},
    "required": ["mistake", "prompt"],
    "additionalProperties": False,
}
_MOST_SHOWN_CHARS = 2000  # of a row or an answer
_MOST_PROMPT_CHARS = 8000
_NOT_FOR_POSTGRES = re.compile("[\0\ud800-\udfff]")


def ask_for(call: Call) -> Ask:
    """What is asked, under the options of a call that says of what form answers are."""
    return Ask(escape(_TASK), call)


def options_for_json() -> dict[str, object]:
    """What a call for a lesson says besides where it is asked and how much it may take."""
    return {
        "kind": "json",
        "schema": _SCHEMA,
        "system_prompt": SYSTEM_PROMPT,
        "max_tokens": MOST_TOKENS,
        "reorder": "rows",
    }


def lessons_table(prompt: str, call: Call, lessons: Sequence[Lesson], rows: Sequence[Labelled]) -> Table:
    """The rows of a question that is asked once for each lesson.

    Args:
        prompt: The prompt that was asked.
        call: How.
        lessons: At least one.
        rows: Those that lessons are about.
    """
    columns = {
        "prompt": [json.dumps(prompt, ensure_ascii=False)] * len(lessons),
        "answers": [json.dumps(_form_of(call), ensure_ascii=False)] * len(lessons),
        "how": [json.dumps(_WAYS[lesson.way % len(_WAYS)]) for lesson in lessons],
        "wrong": [f"[{', '.join(_mistake(rows[row], answer) for row, answer in each.mistakes)}]" for each in lessons],
    }
    return Table.from_cells(list(columns), columns.values())


def _form_of(call: Call) -> str:
    if call.choices:
        return f"one of: {', '.join(call.choices)}"
    return "a number" if call.kind == "number" else "a text"


def _mistake(row: Labelled, answer: str | None) -> str:
    given = "null" if answer is None else _shortened(json.dumps(answer, ensure_ascii=False))
    right = json.dumps(answer_text(row.answer), ensure_ascii=False)
    return object_of([("row", _shortened(row.row)), ("answer", given), ("right", right)])


def _shortened(cell: str) -> str:
    return cell if len(cell) <= _MOST_SHOWN_CHARS else json.dumps(f"{cell[:_MOST_SHOWN_CHARS]} …", ensure_ascii=False)


def answer_text(cell: str) -> str:
    """A known answer as a model would give it.

    >>> [answer_text(cell) for cell in ("true", '"Good"', "4.50")]
    ['yes', 'Good', '4.50']
    """
    if cell in ("true", "false"):
        return YES_OR_NO[cell == "false"]
    return str(json.loads(cell, strict=False)) if cell.startswith('"') else cell


def with_examples(system_prompt: str, rows: Sequence[Labelled]) -> str:
    """A system prompt that shows rows with their known answers.

    >>> print(with_examples("Answer.", [Labelled('{"a": 1}', "true")]))
    Answer.
    <BLANKLINE>
    Examples:
    {"a": 1}
    yes
    """
    shown = "\n".join(f"{row.row}\n{answer_text(row.answer)}" for row in rows)
    return f"{system_prompt}\n\nExamples:\n{shown}".strip()


def read_proposal(answer: str | None, error: str | None, question: Question) -> Proposal:
    """The prompt in an answer, or why it is none that can be asked.

    Args:
        answer: JSON.
        error: Why there is none.
        question: The first prompt's, whose columns it must name.
    """
    try:
        prompt = json.loads(answer or "null")["prompt"].strip()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return Proposal(None, error or "the answer has no prompt")
    if not prompt or len(prompt) > _MOST_PROMPT_CHARS or _NOT_FOR_POSTGRES.search(prompt):
        return Proposal(None, "the answer's prompt is empty, too long, or no text that PostgreSQL could hold")
    try:
        named = parse_question(prompt).columns
    except PgBridgeError as wrong:
        return Proposal(prompt, wrong.message)
    if set(named) != set(question.columns):
        names = ", ".join(named) or "none"
        return Proposal(prompt, f"it must name the columns that the first prompt does, and names {names}")
    return Proposal(prompt)
