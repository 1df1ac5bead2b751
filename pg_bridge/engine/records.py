"""The small records that stand between asking and the engine.

`Sampling` goes in once a run, prompts in `Portion`s, `Completion` comes out once a prompt, `Usage` holds the engine's
own figures of the run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import NamedTuple

from pg_bridge.options import Reasoning

Numbered = list[tuple[int, str]]
"""Prompts with their numbers: 0-based places in the order in which they were made."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How every prompt of one run is answered.

    Attributes:
        max_tokens: Most tokens of one answer.
        temperature: 0 picks the likeliest token every time.
        system_prompt: Instruction before every prompt; empty for none.
        choices: The only answers allowed; empty for free text.
        pattern: A regular expression for the whole answer; empty for free text.
        schema: The JSON schema of the answer, as JSON text; empty for free text.
        priority: Whose turn it is at an engine that goes by it, the lowest first; None leaves it to the engine.
        reasoning: Whether the model reasons before it answers; None leaves it to the server.
        max_reasoning_tokens: Most tokens of thoughts before one answer; None leaves it to the server.
        request_options: Further keys of the body, as JSON text, over those of the server; None for none.
        embeds: Whether prompts are texts to embed, to which nothing is answered.
        dimensions: How many numbers an embedding shall have; None leaves it to the model.
        low: The least number allowed, if there are a least and a greatest.
        high: The greatest.
        confidence: Whether the engine is to tell how sure the model was of an answer.
        reranks: Whether prompts are queries with documents, to which nothing is answered but how relevant these are.
        of_rows: Whether the schema is of an object with an answer for each of several rows, of which some may be right
            though others are not.
    """

    max_tokens: int
    temperature: float
    system_prompt: str
    choices: tuple[str, ...] = ()
    pattern: str = ""
    schema: str = ""
    priority: int | None = None
    reasoning: Reasoning | None = None
    max_reasoning_tokens: int | None = None
    request_options: str | None = None
    embeds: bool = False
    dimensions: int | None = None
    low: int | None = None
    high: int | None = None
    confidence: bool = False
    reranks: bool = False
    of_rows: bool = False

    @property
    def is_pooled(self) -> bool:
        """Whether prompts are answered by numbers, without a word."""
        return self.embeds or self.reranks


class Sure(str):
    """An answer of which the engine told how sure the model was.

    Attributes:
        confidence: The probability of this answer among those that were allowed, 0 to 1.
    """

    __slots__ = ("confidence",)
    confidence: float

    def __new__(cls, text: str, confidence: float) -> Sure:
        """Make one."""
        sure = super().__new__(cls, text)
        sure.confidence = confidence
        return sure


class Model(NamedTuple):
    """Which model answers.

    Attributes:
        name: As the engine names it.
        revision: What the engine tells of where it comes from, so that another one of the same name is another; else
            empty.
        context_tokens: The most tokens of a prompt and its answer together; None where the engine does not tell.
    """

    name: str
    revision: str = ""
    context_tokens: int | None = None


class Portion(NamedTuple):
    """Prompts that are made together.

    Attributes:
        prompts: In the order in which to send them; each is soon made.
        size: How many they are; 0 if nobody knows.
        is_ahead: Whether the next portion takes a while to make, so that these are sent even if they fill no request.
    """

    prompts: Iterator[str]
    size: int = 0
    is_ahead: bool = False


NOTHING_YET = Portion(iter(()), is_ahead=True)
"""Says that more prompts may follow, which depend on what those that were sent are answered."""


@dataclass(slots=True)  # not frozen: that would cost half a microsecond a prompt
class Completion:
    """The engine's answer to one prompt, or why there is none.

    Attributes:
        index: 0-based place of its prompt in the iterator handed to `Engine.complete`.
        text: The answer, a `Sure` where it was asked for with its confidence and has one; None where `error` is set.
        error: Why this prompt failed on its own merits; holds no prompt text and no key.
    """

    index: int
    text: str | None
    error: str | None


class Stages(NamedTuple):
    """Where prompts were while an engine had them, each from when it was queued to its last token.

    Attributes:
        queue_s: Seconds waited for a place among those that are computed.
        prefill_s: Seconds from then to the first token.
        decode_s: Seconds from then to the last.
    """

    queue_s: float
    prefill_s: float
    decode_s: float


@dataclass(slots=True)
class Usage:
    """One run's figures. Token counts, and the seconds of stages, are the engine's own, None where it does not say.

    Attributes:
        requests: HTTP requests sent that carried prompts, repeated ones included.
        retries: How many of them were repeats.
        prompt_tokens: Tokens of all answered prompts.
        cached_tokens: Those of them that came from the prefix cache. Known once `Engine.complete` is
            exhausted; see `pg_bridge.engine.metrics` for when it can be told.
        completion_tokens: Tokens of all answers.
        reasoning_tokens: Those of them that are thoughts; known where each request tells.
        wait_s: Seconds spent on the engine, sending and receiving included.
        idle_s: Those of them in which there was nothing to do but to wait.
        answered: Prompts that have been answered.
        flight_s: Seconds from when each of them was sent until its answer was read, summed.
        unread_s: Those of them in which the answer may have lain here unread, summed.
        queue_s: Those in which it waited in the engine's queue, summed; see `pg_bridge.engine.stages` for when the
            engine tells.
        prefill_s: Those until its first token, summed.
        decode_s: Those until its last, summed.
        busy_s: Seconds in which any prompt was in flight.
        prompt_s: The same, for each that was.
        engines: The same of each engine, by its base URL, where the server has several.
    """

    requests: int = 0
    retries: int = 0
    prompt_tokens: int | None = 0
    cached_tokens: int | None = 0
    completion_tokens: int | None = 0
    reasoning_tokens: int | None = 0
    wait_s: float = 0.0
    idle_s: float = 0.0
    answered: int = 0
    flight_s: float = 0.0
    unread_s: float = 0.0
    queue_s: float | None = 0.0
    prefill_s: float | None = 0.0
    decode_s: float | None = 0.0
    busy_s: float = 0.0
    prompt_s: float = 0.0
    engines: dict[str, Usage] = field(default_factory=dict)

    @property
    def stages(self) -> Stages | None:
        """The engine's stages, summed over the prompts; None where it does not tell."""
        if self.queue_s is None or self.prefill_s is None or self.decode_s is None:
            return None
        return Stages(self.queue_s, self.prefill_s, self.decode_s)

    @stages.setter
    def stages(self, stages: Stages | None) -> None:
        self.queue_s, self.prefill_s, self.decode_s = stages or (None, None, None)

    def add(self, other: Usage) -> None:
        """Count in the figures of another run; what is not known of one is not known of both."""
        for each in _FIGURES:
            mine, its = getattr(self, each), getattr(other, each)
            setattr(self, each, None if mine is None or its is None else mine + its)
        for endpoint, usage in other.engines.items():
            self.engines.setdefault(endpoint, Usage()).add(usage)

    def sum_up(self, crowd: Usage) -> None:
        """Add up those of its engines; `crowd` knows when prompts were with any of them."""
        for each in _FIGURES:
            parts = [getattr(usage, each) for usage in self.engines.values()]
            setattr(self, each, None if None in parts else sum(parts))
        self.busy_s, self.prompt_s = crowd.busy_s, crowd.prompt_s


_FIGURES = [each.name for each in fields(Usage) if each.name != "engines"]
