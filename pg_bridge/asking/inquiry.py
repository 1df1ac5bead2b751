"""One question under its options, and what it has been answered about which rows.

In: a prompt and a call; rows. Out: what is known of them. A row is known by a digest of its cells, whatever their
order, so that what is held is answers and no rows.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import count
from operator import itemgetter

from pg_bridge.asking.confidence import part_of, with_confidence
from pg_bridge.asking.prompt import EMBEDDED, RERANKED, Question, parse_question, parse_text
from pg_bridge.engine import Completion, Sampling, array_text, dimensions_of
from pg_bridge.options import Call, Server
from pg_bridge.options.further import merge
from pg_bridge.rows.table import Table

REMEMBERED_ANSWERS = 100_000
REMEMBERED_NUMBERS = 1 << 24
"""Of embeddings, 90 MB."""

Outcome = tuple[str | None, str | None]
"""The answer's text, and why there is none: one of the two is None."""


class NotAsked(str):
    """Why a question was not asked, in the place of an error: that is no failure of it."""

    __slots__ = ()


_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_DIGEST_BYTES = 20  # nobody finds two rows of one digest, not even who chooses the rows
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
        failed: The digests of the prompts that failed, by the row's digest.
        context: A digest of all that its answers depend on, but for the row, if they are kept in the ledger.
        dimensions: How many numbers each embedding has; None while nobody has said and none has come.
        alone: That of the answers alone, of a question that is asked together with their confidence.
        surer: The same question as asked together with its confidence, in the same statement: its answers do, too.
    """

    question: Question
    call: Call
    sampling: Sampling
    outcomes: dict[bytes, Outcome] = field(default_factory=dict)
    failed: dict[bytes, str] = field(default_factory=dict)
    context: bytes | None = None
    dimensions: int | None = None
    alone: bytes | None = None
    surer: Inquiry | None = None

    def forget(self) -> None:
        """Keep the latest outcomes only."""
        most = REMEMBERED_NUMBERS // (self.dimensions or 1) if self.call.embeds else REMEMBERED_ANSWERS
        while len(self.outcomes) > most:
            oldest = next(iter(self.outcomes))
            del self.outcomes[oldest]
            self.failed.pop(oldest, None)

    def recall(self, answers: Mapping[bytes, str]) -> int:
        """Learn earlier answers, by the row's digest; of embeddings those that most agree with. Returns how many."""
        if self.call.embeds and answers:
            found = {key: dimensions_of(answer) for key, answer in answers.items()}
            self.dimensions = self.dimensions or max(Counter(found.values()).items(), key=itemgetter(1, 0))[0]
            answers = {key: answer for key, answer in answers.items() if found[key] == self.dimensions}
        self.outcomes |= {key: (answer, None) for key, answer in answers.items()}
        return len(answers)

    def judge(self, completion: Completion) -> Outcome:
        """What an answer says; an embedding of other dimensions than those before could not be compared with them."""
        text, error = outcome_of(completion, self.call)
        if self.call.embeds and text is not None:
            found = dimensions_of(text)
            self.dimensions = self.dimensions or found
            if found != self.dimensions:
                return None, f"the engine's embedding has {found} dimensions and not {self.dimensions}"
        return text, error


def digest_rows(table: Table, *, remembered: bool = True) -> list[bytes]:
    """A digest of each row's columns and cells, whatever their order.

    PostgreSQL's text has no NUL, so joined cells cannot be taken for others.

    Args:
        table: The rows.
        remembered: Whether equal rows are one; if not, no digest comes twice, in this table or any other.
    """
    names = sorted(table.columns)
    key = blake2b("\0".join(names).encode(errors="surrogatepass"), digest_size=_DIGEST_BYTES).digest()
    digests = [
        blake2b("\0".join(cells).encode(errors="surrogatepass"), digest_size=_DIGEST_BYTES, key=key).digest()
        for cells in table.select(names).cells()
    ]
    return digests if remembered else [digest + next(_NUMBERS).to_bytes(8) for digest in digests]


def question_of(ask: Ask) -> Question:
    """The question, with what its options have it say of the answers.

    Raises:
        TemplateError: The prompt does not parse.
    """
    if ask.call.reranks:
        return RERANKED
    if ask.call.embeds:
        return EMBEDDED if ask.prompt in ("{}", None) else parse_text(ask.prompt)
    question, told = parse_question(ask.prompt), ask.call.told
    return replace(question, text=f"{question.text}\n{told}") if told else question


def outcome_of(completion: Completion, call: Call) -> Outcome:
    """What an answer says; one that PostgreSQL could not hold is its row's failure."""
    text = completion.text or ""
    if "\0" not in text and (text.isascii() or not _HALF_CHARACTER.search(text)):
        whole = completion.text is not None and call.confidence
        return with_confidence(completion.text) if whole else completion.text, completion.error
    return None, "the answer holds a character that PostgreSQL's text type cannot"


def shown(call: Call, answers: Sequence[str | None]) -> Sequence[str | None]:
    """Answers as SQL has them, of each what the call wants; equal ones are one text."""
    if call.confidence:
        return [part_of(answer, call) for answer in answers]
    if not call.embeds:
        return answers
    arrays = {answer: array_text(answer) for answer in set(answers) if answer is not None}
    return [None if answer is None else arrays[answer] for answer in answers]


def context_of(question: Question, call: Call, server: Server) -> list[object]:
    """What the answers to a question depend on besides who answers and the row."""
    if call.embeds:
        words = question.pieces if any(question.pieces[::2]) else ()
        further = merge(server.request_options, call.request_options)
        return ["embedding", call.dimensions, further, *([words] if words else [])]
    if call.reranks:
        return ["relevance", merge(server.request_options, call.request_options)]
    further = call.further_at(server)
    return [
        question.text,
        call.placement,
        call.max_tokens,
        call.temperature,
        call.system_prompt,
        call.choices,
        call.pattern,
        call.schema,
        *([further] if further else []),
        *(["confidence"] if call.confidence else []),
        *([["rows per prompt", call.rows_per_prompt]] if call.packs else []),
    ]


def sampling_of(call: Call) -> Sampling:
    """How the engine is to answer the prompts of a call."""
    return Sampling(
        call.max_tokens,
        call.temperature,
        call.system_prompt,
        call.choices,
        call.pattern,
        call.schema,
        call.priority,
        call.reasoning,
        call.max_reasoning_tokens,
        call.request_options,
        call.embeds,
        call.dimensions,
        call.low,
        call.high,
        call.confidence,
        call.reranks,
    )
