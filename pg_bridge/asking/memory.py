"""What the questions of one statement have been answered, so that nothing is asked twice.

In: a question under its options, and rows. Out: what is known of them. A row is known by a digest of its cells,
whatever their order, so that the memory holds answers and no rows. The oldest answers are forgotten first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import count

from pg_bridge.asking.prompt import Question, parse_question
from pg_bridge.asking.run import Run
from pg_bridge.engine import Completion, Sampling
from pg_bridge.options import Call
from pg_bridge.ordering import Sent
from pg_bridge.rows.table import Table

REMEMBERED_ANSWERS = 100_000

Outcome = tuple[str | None, str | None]
"""The answer's text, and why there is none: one of the two is None."""

_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_DIGEST_BYTES = 16
_NUMBERS = count()


@dataclass(frozen=True, slots=True)
class Ask:
    """A prompt and the options to ask it with."""

    prompt: str | None
    call: Call


@dataclass(slots=True, eq=False)
class Inquiry:
    """One question under one set of options.

    Attributes:
        question: The parsed prompt.
        call: The options.
        sampling: What they say of the answers.
        outcomes: By the row's digest, the oldest first.
    """

    question: Question
    call: Call
    sampling: Sampling
    outcomes: dict[bytes, Outcome] = field(default_factory=dict)

    def forget(self) -> None:
        """Keep the latest outcomes only."""
        while len(self.outcomes) > REMEMBERED_ANSWERS:
            del self.outcomes[next(iter(self.outcomes))]


@dataclass(slots=True)
class Memory:
    """One statement's memory.

    Attributes:
        run: What all its questions did.
        nodes: What those of each plan node did.
        sent: What has been sent, by what prompts begin with: the questions' identities and the columns.
    """

    run: Run = field(default_factory=Run)
    nodes: dict[int, Run] = field(default_factory=dict)
    sent: dict[tuple[tuple[int, ...], tuple[str, ...]], Sent] = field(default_factory=dict)
    _inquiries: dict[Ask, Inquiry] = field(default_factory=dict)
    _samplings: dict[Call, Sampling] = field(default_factory=dict)

    def inquiry(self, ask: Ask) -> Inquiry:
        """What is known of a question.

        Raises:
            TemplateError: Its prompt does not parse.
        """
        if ask not in self._inquiries:
            # Prompts of one and the same sampling can share a request.
            sampling = self._samplings.setdefault(ask.call, sampling_of(ask.call))
            self._inquiries[ask] = Inquiry(parse_question(ask.prompt), ask.call, sampling)
        return self._inquiries[ask]


def digest_rows(table: Table, *, dedup: bool = True) -> list[bytes]:
    """A digest of each row's columns and cells, whatever their order.

    PostgreSQL's text has no NUL, so joined cells cannot be taken for others.

    Args:
        table: The rows.
        dedup: Whether equal rows are one; if not, no digest comes twice, in this table or any other.
    """
    names = sorted(table.columns)
    key = blake2b("\0".join(names).encode(errors="surrogatepass"), digest_size=_DIGEST_BYTES).digest()
    digests = [
        blake2b("\0".join(cells).encode(errors="surrogatepass"), digest_size=_DIGEST_BYTES, key=key).digest()
        for cells in table.select(names).cells()
    ]
    return digests if dedup else [digest + next(_NUMBERS).to_bytes(8) for digest in digests]


def outcome_of(completion: Completion) -> Outcome:
    """What an answer says; one that PostgreSQL could not hold is its row's failure."""
    text = completion.text or ""
    if "\0" not in text and (text.isascii() or not _HALF_CHARACTER.search(text)):
        return completion.text, completion.error
    return None, "the answer holds a character that PostgreSQL's text type cannot"


def sampling_of(call: Call) -> Sampling:
    """How the engine is to answer the prompts of a call."""
    return Sampling(call.max_tokens, call.temperature, call.system_prompt, call.choices, call.pattern, call.schema)
