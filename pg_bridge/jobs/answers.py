"""The forms that a job's answers may have, and from an answer to the text of a value.

In: the type of the target's column, or its name. Out: the kind to hold the engine to, and what comes back as
`foreign.answers` reads it. An answer that is none of the type is its row's error.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pg_bridge.errors import OptionError, TableError, TargetError
from pg_bridge.foreign import answers
from pg_bridge.foreign.answers import AnswerType, ColumnType
from pg_bridge.jobs.record import JobRecord

_REALS = 1021
_EMBEDDING = AnswerType("embedding", str, "")  # whoever asks has made an array of it

TYPES = {
    "text": ColumnType(answers.TEXT, -1, "text"),
    "boolean": ColumnType(answers.BOOL, -1, "boolean"),
    "number": ColumnType(answers.FLOAT8, -1, "double precision"),
    "integer": ColumnType(answers.INT8, -1, "bigint"),
    "date": ColumnType(answers.DATE, -1, "date"),
    "timestamp": ColumnType(answers.TIMESTAMP, -1, "timestamp without time zone"),
    "timestamptz": ColumnType(answers.TIMESTAMPTZ, -1, "timestamp with time zone"),
    "json": ColumnType(answers.JSONB, -1, "jsonb"),
    "embedding": ColumnType(_REALS, -1, "real[]"),
}
"""What a new column of answers is made, by the name that a user gives it."""


class Form(NamedTuple):
    """What answers look like.

    Attributes:
        column: The type of the column that holds them.
        answer: How an answer becomes a value of it.
    """

    column: ColumnType
    answer: AnswerType

    def value(self, answer: str) -> tuple[str | None, str | None]:
        """The text of a value, and why there is none: one of the two is None."""
        try:
            return self.answer.value(answer), None
        except (ValueError, KeyError, ArithmeticError):
            return None, f"the answer is no value of type {self.column.name}"


def form_of(
    job: JobRecord,
    choices: Sequence[str],
    column: ColumnType | None = None,
    enum_labels: Callable[[int], Sequence[str]] = lambda _: (),
) -> Form:
    """Tell what a job's answers look like.

    Args:
        job: The job.
        choices: The only answers allowed; empty for any.
        column: The target's column, where there is one already.
        enum_labels: From a type's oid to its labels, empty where it is no enum.

    Raises:
        OptionError: An option does not go with the type.
        TargetError: The column cannot hold such answers.
    """
    schema = _parse_schema(job.schema)
    if job.type and job.type not in TYPES:
        raise OptionError(f'there is no type "{job.type}" of answers', hint=f"There are: {', '.join(TYPES)}.")
    wanted = job.type or ("json" if schema is not None else "text")
    named = column or TYPES[wanted]
    try:
        found = _answer_type(named, choices, schema, enum_labels)
    except TableError as error:
        if choices and "labels" in error.message:
            raise TargetError(f"choices do not go with a column of type {named.name}") from None
        raise TargetError(error.message, hint=error.hint) from None
    if column is not None and job.type:
        asked = _answer_type(TYPES[job.type], choices if job.type == "text" else (), None, enum_labels)
        if asked.kind != found.kind and (asked.kind, found.kind) != ("text", "label"):
            raise TargetError(
                f'the answers are to be of type {job.type}, and column "{job.answer_column}" is of type {column.name}',
                hint="Leave the type out, and the column says it; or name another column.",
            )
    return Form(named, found)


def _answer_type(
    column: ColumnType, choices: Sequence[str], schema: object, enum_labels: Callable[[int], Sequence[str]]
) -> AnswerType:
    """How a column is answered; one of reals holds embeddings, and no questions are asked for it."""
    if column.oid == _REALS and not choices and schema is None:
        return _EMBEDDING
    return answers.answer_type(column, tuple(choices), schema, enum_labels)


def _parse_schema(text: str) -> object:
    if not text:
        return None
    try:
        schema = json.loads(text)
    except ValueError:
        schema = None
    if not isinstance(schema, dict):
        raise OptionError("the schema is not a JSON schema, an object")
    return schema
