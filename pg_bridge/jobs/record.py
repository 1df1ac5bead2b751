"""What a job is: a record of what is read, what is asked about each row, and where the answers go.

In: nothing. Out: the record, and the interfaces of the two sides that `running` reads from and writes to. Who makes a
record (a command line, a table of jobs) and who runs it need not know each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from json import dumps, loads
from typing import NamedTuple, Protocol

from pg_bridge.asking.inquiry import context_of
from pg_bridge.asking.prompt import Question
from pg_bridge.errors import OptionError
from pg_bridge.options import Call, Server

DIGEST_BYTES = 16
MOST_PARTS = 1000
ANSWER, MODEL, DIGEST, ANSWERED_AT, ERROR = "answer", "model", "digest", "answered_at", "error"
BESIDES = (MODEL, DIGEST, ANSWERED_AT, ERROR)
"""The columns that stand beside a key and its answer."""


@dataclass(frozen=True, slots=True)
class Part:
    """Which of a query's rows are a job's own, where several jobs share them out.

    Attributes:
        number: Which part, from 1.
        of: How many parts there are.
        by: Rows that are equal in these columns are of one part; empty for the key's.

    Raises:
        OptionError: There is no such part.
    """

    number: int = 1
    of: int = 1
    by: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check it."""
        if not 1 <= self.number <= self.of <= MOST_PARTS:
            raise OptionError(
                f"there is no part {self.number} of {self.of}", hint=f"Parts are counted from 1, up to {MOST_PARTS}."
            )
        if self.by and self.of == 1:
            raise OptionError("columns that keep rows together are of no use with one part")


WHOLE = Part()


@dataclass(frozen=True, slots=True)
class JobRecord:
    """One job.

    Attributes:
        source: A query, or a file's path.
        is_file: Whether the source is a file.
        key: The columns that tell the rows apart; may be empty where the target is a file.
        prompt: The question.
        target: A table's name, as SQL has it, or a file's path.
        into_file: Whether the target is a file.
        type: The type of the answers, one of `answers.TYPES`; empty for what the target's column has.
        schema: The JSON schema of an answer, as JSON text; empty for none.
        answer_column: The column for the answers.
        options: Those of a `Call`.
        part: Which of the query's rows.
        beside: The columns, of a table, for what is written beside an answer.
    """

    source: str
    prompt: str
    target: str
    key: tuple[str, ...] = ()
    is_file: bool = False
    into_file: bool = False
    type: str = ""
    schema: str = ""
    answer_column: str = ANSWER
    options: Mapping[str, object] = field(default_factory=dict)
    part: Part = WHOLE
    beside: tuple[str, ...] = ()


def options_of(text: str) -> dict[str, object]:
    """The options of a job, as a table has them: a role may have written them by hand.

    Raises:
        OptionError: They are no object, or none that Python reads.
    """
    try:
        options = loads(text)
    except (RecursionError, ValueError):  # nested too deep, or a number of more digits than it takes
        options = None
    if not isinstance(options, dict):
        raise OptionError("the options of a job are an object of names and values")
    return options


class Item(NamedTuple):
    """A row that is read.

    Attributes:
        key: The key's values as text.
        text: The columns that are sent, a JSON object.
        row: All columns, a JSON object; empty where the writing side has no use for them.
        digest: Of what is asked about it.
        beside: What is written beside its answer.
    """

    key: tuple[str, ...]
    text: str
    row: str
    digest: str
    beside: tuple[str, ...] = ()


class Done(NamedTuple):
    """A row that is answered.

    Attributes:
        key: As in its `Item`.
        digest: Likewise.
        answer: The text of a value of the answer's type; None where `error` is set.
        error: Why there is none.
        beside: As in its `Item`.
    """

    key: tuple[str, ...]
    digest: str
    answer: str | None
    error: str | None
    beside: tuple[str, ...] = ()


class Reading(Protocol):
    """The side that rows come from.

    Attributes:
        columns: The columns of its rows.
        expected_rows: About how many there are; None where that is not known.
    """

    @property
    def columns(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def expected_rows(self) -> int | None: ...  # noqa: D102

    def begin(self, sent: Sequence[str], context: bytes) -> None:
        """Read from the first row on.

        Args:
            sent: The columns that are sent, in the order in which a text has them.
            context: Of the question, for digests.
        """

    def fetch(self) -> list[Item]:
        """The next rows, as many as are read at one time; none at the end only."""


class Writing(Protocol):
    """The side that answers go to."""

    def begin(self) -> None:
        """Be ready for all rows from the first one on."""

    def unknown(self, items: Sequence[Item]) -> list[Item]:
        """Those of some rows, which come in their order, that have no answer to what is asked now."""

    def write(self, done: Sequence[Done]) -> None:
        """Write answers; they stay, whatever comes, when this returns."""

    def finish(self) -> None:
        """All rows have been read, and none of their answers is missing that can be had."""

    def close(self) -> None:
        """Let go of it; may be called at any time, also twice."""


def context_digest(question: Question, call: Call, server: Server) -> bytes:
    """A digest of all that an answer depends on besides the row and who answers: of the prompt and its options."""
    return blake2b(dumps(context_of(question, call, server)).encode(), digest_size=DIGEST_BYTES).digest()


def digest_of(context: bytes, text: str) -> str:
    """A digest of what is asked about a row.

    Args:
        context: As `context_digest` makes it.
        text: The row's columns that are sent, always in the same order.
    """
    return blake2b(text.encode(errors="surrogatepass"), digest_size=DIGEST_BYTES, key=context).hexdigest()
