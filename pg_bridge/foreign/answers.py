"""What a column's type demands of a model's answer, and how the answer becomes a value of that type.

In: a column's type and its options. Out: an `AnswerType`: the kind of answer to hold the engine to, a check of what
came back, and the text that PostgreSQL's input function reads. A model that was held to a form may still say the 31st
of February, so every answer is checked.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import NoReturn

from pg_bridge.errors import TableError
from pg_bridge.options import Kind

BOOL, INT8, INT2, INT4, TEXT, JSON, FLOAT4, FLOAT8 = 16, 20, 21, 23, 25, 114, 700, 701
TEXT_ARRAY, BPCHAR, VARCHAR, DATE, TIMESTAMP, TIMESTAMPTZ, NUMERIC = 1009, 1042, 1043, 1082, 1114, 1184, 1700
UUID, JSONB = 2950, 3802
INTEGERS = {INT2: 2**15, INT4: 2**31, INT8: 2**63}
TEXTS = (TEXT, VARCHAR, BPCHAR)
TIMES = {DATE: "date", TIMESTAMP: "timestamp", TIMESTAMPTZ: "timestamptz"}

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_TYPMOD_HEADER = 4  # of varchar, char and numeric


@dataclass(frozen=True, slots=True)
class ColumnType:
    """A column's type as the catalog has it.

    Attributes:
        oid: Of the type.
        typmod: Its modifier; -1 for none.
        name: As PostgreSQL prints it, modifier included.
    """

    oid: int
    typmod: int
    name: str


@dataclass(frozen=True, slots=True)
class AnswerType:
    """How answers of a column look.

    Attributes:
        kind: What the engine is held to.
        choices: The only answers allowed, if `kind` is `label`.
        schema: The JSON schema of an answer, if `kind` is `json`.
        value: From an answer to the text of a value; raises ValueError for an answer that is none.
        reminder: What an answer must be, for a second attempt.
    """

    kind: Kind
    value: Callable[[str], str]
    reminder: str
    choices: tuple[str, ...] = ()
    schema: object = None


def answer_type(
    type_: ColumnType, labels: tuple[str, ...], schema: object, enum_labels: Callable[[int], Sequence[str]]
) -> AnswerType:
    """Tell how a column is answered.

    Args:
        type_: The column's type.
        labels: The option `labels`; empty if there is none.
        schema: The option `schema`; None if there is none.
        enum_labels: From a type's oid to its labels, empty where it is no enum.

    Raises:
        TableError: A model cannot answer with this type, or an option does not go with it.
    """
    oid = type_.oid
    if schema is not None and oid not in (JSON, JSONB):
        raise TableError('the option "schema" is for columns of type jsonb or json', hint="Leave it out.")
    if oid in TEXTS:
        return _text(type_, labels)
    if oid == TEXT_ARRAY:
        return _array(labels)
    if labels_of_enum := tuple(enum_labels(oid)):
        return _enum(labels, labels_of_enum)
    if labels:
        raise TableError('the option "labels" is for columns of type text, text[] or an enum', hint="Leave it out.")
    if oid in (JSON, JSONB):
        return AnswerType("json", _json, "Answer with JSON alone.", schema=schema or {"type": "object"})
    simple = {
        BOOL: AnswerType("boolean", _boolean, "Answer yes or no."),
        NUMERIC: AnswerType("number", _numeric(type_.typmod), "Answer with a number alone."),
        FLOAT4: AnswerType("number", _plain, "Answer with a number alone."),
        FLOAT8: AnswerType("number", _plain, "Answer with a number alone."),
        DATE: AnswerType("date", _date, "Answer with a date such as 2024-03-31."),
        TIMESTAMP: AnswerType("timestamp", _timestamp, "Answer with a time such as 2024-03-31T17:45:00."),
        TIMESTAMPTZ: AnswerType("timestamptz", _timestamp, "Answer with a time such as 2024-03-31T17:45:00Z."),
        **{
            integer: AnswerType("integer", _integer(limit), "Answer with a whole number alone.")
            for integer, limit in INTEGERS.items()
        },
    }
    if oid not in simple:
        raise TableError(
            f"a model cannot answer with a value of type {type_.name}",
            hint="It can with text, boolean, integer, bigint, numeric, double precision, date, timestamp, jsonb, "
            "text[] and enums.",
        )
    return simple[oid]


def _text(type_: ColumnType, labels: tuple[str, ...]) -> AnswerType:
    most = type_.typmod - _TYPMOD_HEADER if type_.typmod >= 0 and type_.oid != TEXT else None

    def value(answer: str) -> str:
        if most is not None and len(answer) > most:
            raise ValueError
        return answer

    if labels:
        if most is not None and any(len(label) > most for label in labels):
            raise TableError(f"a label is longer than {type_.name}", hint="Shorten it, or use text.")
        return AnswerType("label", value, f"Answer with one of: {', '.join(labels)}.", labels)
    return AnswerType("text", value, f"Answer in at most {most} characters." if most else "Answer in plain text.")


def _enum(labels: tuple[str, ...], of_type: tuple[str, ...]) -> AnswerType:
    unknown = [label for label in labels if label not in of_type]
    if unknown:
        raise TableError(f'"{unknown[0]}" is no label of the enum', hint=f"Its labels are: {', '.join(of_type)}.")
    allowed = labels or of_type
    return AnswerType("label", _plain, f"Answer with one of: {', '.join(allowed)}.", allowed)


def _array(labels: tuple[str, ...]) -> AnswerType:
    item = {"enum": list(labels)} if labels else {"type": "string"}

    def value(answer: str) -> str:
        items = json.loads(answer)
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            raise ValueError
        if (labels and not set(items) <= set(labels)) or not _storable(items):
            raise ValueError
        return array_literal(items)

    return AnswerType("json", value, "Answer with a JSON array of texts.", schema={"type": "array", "items": item})


def array_literal(items: Iterable[str]) -> str:
    """Write texts as PostgreSQL reads an array."""
    return "{" + ",".join('"' + re.sub(r'(["\\])', r"\\\1", item) + '"' for item in items) + "}"


def _plain(answer: str) -> str:
    return answer


def _boolean(answer: str) -> str:
    return {"yes": "t", "no": "f"}[answer]


def _integer(limit: int) -> Callable[[str], str]:
    def value(answer: str) -> str:
        number = int(answer)
        if not -limit <= number < limit:
            raise ValueError
        return str(number)

    return value


def _numeric(typmod: int) -> Callable[[str], str]:
    if typmod < 0:
        return _plain
    precision, scale = (typmod - _TYPMOD_HEADER) >> 16 & 0xFFFF, (typmod - _TYPMOD_HEADER) & 0x7FF
    scale = (scale ^ 1024) - 1024  # eleven bits, signed

    def value(answer: str) -> str:
        if abs(round(Decimal(answer), scale)) >= Decimal(10) ** (precision - scale):
            raise ValueError
        return answer

    return value


def _date(answer: str) -> str:
    return date.fromisoformat(answer).isoformat()


def _timestamp(answer: str) -> str:
    moment = datetime.fromisoformat(answer)
    # From Python 3.14 on, hour 24 is read, as the next day's hour 0.
    if moment.date() not in _days(answer):
        raise ValueError
    return moment.isoformat()


def _days(text: str) -> Iterator[date]:
    for length in (10, 8, 7):  # 2024-02-29, 20240229 or 2024-W09, 2024W09
        with contextlib.suppress(ValueError):
            yield date.fromisoformat(text[:length])


def _json(answer: str) -> str:
    try:
        storable = _storable(json.loads(answer, parse_constant=_refuse))
    except RecursionError:
        storable = False
    if not storable:
        raise ValueError
    return answer


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _storable(value: object) -> bool:
    """Whether PostgreSQL can hold a JSON value's texts: it has no NUL character and no half of a surrogate pair."""
    return not any(_UNSTORABLE.search(text) for text in _texts(value))


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        yield from value
        for item in value.values():
            yield from _texts(item)
