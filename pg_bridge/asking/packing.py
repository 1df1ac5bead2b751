r"""Several rows of one question in one prompt, and an answer for each of them out of the model's.

    rows, in the order of sending → packs → prompts → JSON objects of numbers and answers → an outcome a row
              cut off, or too long for the model → halves
              nonsense, or a refusal → each row by itself

In: a question and its rows. Out: packs; their prompts and how those are answered; outcomes, and packs to ask instead of
one that has no answer. A row by itself is asked as if there were no packs. Each pack that takes the place of another is
smaller, so that there are at most twice as many questions as rows, whatever the engine says. No token is counted:
lengths are bytes of UTF-8, and what is too long all the same is asked in halves.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pg_bridge.asking.failures import is_too_long
from pg_bridge.asking.inquiry import Inquiry, Outcome
from pg_bridge.asking.prompt import write
from pg_bridge.asking.reduction import BYTES_PER_TOKEN, TEMPLATE_TOKENS
from pg_bridge.engine import Completion, Form, Sampling, is_cut_off
from pg_bridge.errors import PgBridgeError
from pg_bridge.options import DEFAULT_SYSTEM_PROMPT, Call
from pg_bridge.rows.cutting import cells_of

SYSTEM_PROMPT = (
    "You answer a question about rows of a table, about each by itself. They are numbered JSON objects. "
    "Reply with the answers alone."
)
ALL = "all rows"
"""What stands in a prompt for the number of a row, with the cells that all of its rows have in common."""

TASK = (
    "The rows are numbered. Answer for each of them, whatever stands in the others, with a JSON object of all numbers "
    'and their answers: {"1": …, "2": …}.'
)
_TASK_OF_ALIKE = f'{TASK} What "{ALL}" has is so in each row.'
_TASK_BYTES = len(_TASK_OF_ALIKE.encode())
TOKENS_OF_NUMBER = 12  # of an answer, with all that stands around it in the object
_LONGEST_VALUE = 32  # tokens of a number, a date or a time
_AROUND_ROW = 12  # bytes
_TYPES: Mapping[str, object] = {"number": {"type": "number"}, "integer": {"type": "integer"}}

Pieces = tuple[str, ...]
"""A row as it is sent: `"name": value` of each of its cells, in their order."""


@dataclass(frozen=True, slots=True)
class Pack:
    """Rows that are asked about in one prompt.

    Attributes:
        keys: Their digests.
        rows: The rows.
        is_repair: Whether it takes the place of another that has no answer.
    """

    keys: tuple[bytes, ...]
    rows: tuple[Pieces, ...]
    is_repair: bool = False

    @property
    def size(self) -> int:
        """How many rows it has."""
        return len(self.rows)

    def halves(self) -> list[Pack]:
        """The same in two."""
        middle = self.size // 2
        return [self.part(range(middle)), self.part(range(middle, self.size))]

    def part(self, places: Iterable[int]) -> Pack:
        """Some of its rows."""
        chosen = list(places)
        return Pack(tuple([self.keys[i] for i in chosen]), tuple([self.rows[i] for i in chosen]), is_repair=True)


class Packing:
    """Puts rows of one question together.

    Args:
        inquiry: The question; its call says how many rows a prompt may have.
        context_tokens: What a prompt and its answer may have together.
    """

    def __init__(self, inquiry: Inquiry, context_tokens: int) -> None:
        self.inquiry = inquiry
        self._context_tokens = context_tokens
        self._form = Form(inquiry.sampling)
        self._answer_schema = _schema_of(inquiry.call, inquiry.sampling)
        self._answer_tokens = TOKENS_OF_NUMBER + _most_tokens(inquiry.call)
        self._samplings = {1: inquiry.sampling}
        told = _told_of_several(inquiry.sampling.system_prompt) + inquiry.question.text
        self._said_bytes = len(told.encode(errors="surrogatepass")) + _TASK_BYTES

    @property
    def most_rows(self) -> int:
        """Of a prompt, at most; what refers to other parts of a user's schema cannot be moved within another."""
        return 1 if self._answer_schema is None else self.inquiry.call.rows_per_prompt

    def pack(self, rows: Iterable[tuple[bytes, Sequence[str]]]) -> Iterator[Pack]:
        """Put rows together, in their order, as many as may be and there is room for.

        Args:
            rows: The digest of each, and its pieces.
        """
        keys: list[bytes] = []
        some: list[Pieces] = []
        shared: set[str] = set()
        length = 0  # of all, as if nothing were shared
        for key, pieces in rows:
            size = _bytes_of(pieces) + _AROUND_ROW
            common = shared.intersection(pieces)
            needed = length + size - len(some) * _bytes_of(common)
            if some and (len(some) == self.most_rows or needed > self._room(len(some) + 1)):
                yield Pack(tuple(keys), tuple(some))
                keys, some, common, length = [], [], set(pieces), 0
            keys.append(key)
            some.append(tuple(pieces))
            shared, length = common if len(some) > 1 else set(pieces), length + size
        if some:
            yield Pack(tuple(keys), tuple(some))

    def fitting(self, row_bytes: float) -> int:
        """How many rows of so many bytes have room in a prompt."""
        return max(
            (size for size in range(2, self.most_rows + 1) if size * (row_bytes + _AROUND_ROW) <= self._room(size)),
            default=1,
        )

    def write(self, pack: Pack) -> str:
        """The prompt."""
        question = self.inquiry.question
        if pack.size == 1:
            return write(question.text, pack.rows[0])
        alike = set(pack.rows[0]).intersection(*pack.rows)
        numbered = [
            f'"{number}": {_object_of(piece for piece in row if piece not in alike)}'
            for number, row in enumerate(pack.rows, 1)
        ]
        if alike:
            numbered.insert(0, f'"{ALL}": {_object_of(piece for piece in pack.rows[0] if piece in alike)}')
        return write(f"{question.text}\n{_TASK_OF_ALIKE if alike else TASK}", numbered)

    def sampling(self, size: int) -> Sampling:
        """How a prompt of so many rows is answered; one object for each size, so that they share requests."""
        if size not in self._samplings:
            numbers = [str(number) for number in range(1, size + 1)]
            schema = {
                "type": "object",
                "properties": dict.fromkeys(numbers, self._answer_schema),
                "required": numbers,
                "additionalProperties": False,
            }
            alone = self.inquiry.sampling
            self._samplings[size] = replace(
                alone,
                system_prompt=_told_of_several(alone.system_prompt),
                max_tokens=self._answer_tokens * size,
                schema=json.dumps(schema, ensure_ascii=False),
                of_rows=True,
                choices=(),
                pattern="",
                low=None,
                high=None,
            )
        return self._samplings[size]

    def read(self, pack: Pack, completion: Completion) -> tuple[list[Outcome | None], list[Pack]]:
        """What an answer says of each row, and what is to be asked instead where it says nothing."""
        if pack.size == 1:
            return [self.inquiry.judge(completion)], []
        found = None if completion.text is None else self._read(completion.text, pack.size, completion.index)
        if found is None:
            no_outcome: list[Outcome | None] = [None] * pack.size
            if is_too_long(completion.error) or is_cut_off(completion.error):
                return no_outcome, pack.halves()
            return no_outcome, [pack.part([place]) for place in range(pack.size)]
        return found, [pack.part([place]) for place, outcome in enumerate(found) if outcome is None]

    def _read(self, text: str, size: int, index: int) -> list[Outcome | None] | None:
        """The outcome of each row, None where its answer is of no form; None for all where the numbers are others."""
        try:
            named = cells_of(text.strip())
        except (ValueError, PgBridgeError):
            return None
        numbers = [str(number) for number in range(1, size + 1)]
        if named is None or sorted(name for name, _ in named) != sorted(numbers):
            return None
        cells = dict(named)
        return [self._outcome_of(cells[number], index) for number in numbers]

    def _outcome_of(self, cell: str, index: int) -> Outcome | None:
        text = self._text_of(cell)
        answer = None if text is None else self._form.check(text)[0]
        outcome = None if answer is None else self.inquiry.judge(Completion(index, answer, None))
        return None if outcome is None or outcome[1] is not None else outcome

    def _text_of(self, cell: str) -> str | None:
        """The answer that stands in JSON, as it would be if it stood alone."""
        call = self.inquiry.call
        if self._form.schema is not None:
            return cell
        try:
            value = json.loads(cell)
        except (ValueError, RecursionError):
            return None
        if isinstance(value, str):
            return value
        if call.any_of:
            return json.dumps(value, ensure_ascii=False)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return cell if self._form.pattern is not None and is_number else None

    def _room(self, size: int) -> int:
        """Bytes of so many rows in one prompt."""
        tokens = self._context_tokens - self._answer_tokens * size - TEMPLATE_TOKENS
        return tokens * BYTES_PER_TOKEN - self._said_bytes


def _told_of_several(system_prompt: str) -> str:
    return SYSTEM_PROMPT if system_prompt == DEFAULT_SYSTEM_PROMPT else system_prompt


def _schema_of(call: Call, sampling: Sampling) -> Mapping[str, Any] | None:
    """The JSON schema of one answer within an object; None where it cannot stand there."""
    if sampling.schema:
        return None if '"$' in sampling.schema else json.loads(sampling.schema)  # "$ref", "$defs", "$id" and the like
    if sampling.choices:
        return {"type": "string", "enum": list(sampling.choices)}
    if call.any_of:
        return {"type": "array", "items": {"type": "string", "enum": list(call.any_of)}, "maxItems": len(call.any_of)}
    if call.low is not None and call.high is not None:
        return {"type": "integer", "minimum": call.low, "maximum": call.high}
    if call.kind in _TYPES:
        return _TYPES[call.kind]  # type: ignore[return-value]
    return {"type": "string", "pattern": f"^({sampling.pattern})$"} if sampling.pattern else {"type": "string"}


def _most_tokens(call: Call) -> int:
    """Of one answer: no token is shorter than a byte."""
    if call.choices:
        return min(call.max_tokens, max(len(choice.encode(errors="replace")) for choice in call.choices))
    is_long = call.kind in ("text", "json", "labels")
    return call.max_tokens if is_long else min(call.max_tokens, _LONGEST_VALUE)


def _object_of(pieces: Iterable[str]) -> str:
    return f"{{{', '.join(pieces)}}}"


def _bytes_of(pieces: Iterable[str]) -> int:
    return sum(len(piece.encode(errors="surrogatepass")) + len(", ") for piece in pieces)
