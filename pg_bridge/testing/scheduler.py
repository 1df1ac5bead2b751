"""A scheduler in steps, as vLLM has it, in virtual time: what `pg_bridge.testing.fast_engine` has behind API servers.

In: prompts, each at a moment, by their number of tokens and the keys of their blocks. Out: when each is answered. It
has no clock: who calls it says when a step begins.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pg_bridge.asking.prefix_cache import PrefixCache, block_keys
from pg_bridge.testing.speeds import EngineSpeed

Tokens = Sequence[int] | NDArray[np.integer[Any]]

_WAITING_WEIGHT = 4  # of a waiting prompt beside a running one where vLLM balances ranks


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt: how many tokens it has, and a key for each of its whole blocks, as `block_keys` makes them."""

    tokens: int
    keys: Sequence[int]

    @classmethod
    def of(cls, tokens: Tokens, block_size: int) -> Prompt:
        """Make one of token ids."""
        return cls(len(tokens), block_keys(tokens, block_size))


@dataclass(eq=False, slots=True)
class Request:
    """Prompts that were sent together.

    Attributes:
        prompts: Each of them.
        came_s: When they came.
        server: Which API server has them.
        rank: Which rank they are for; None for whichever has the least to do.
        rendered: How many of them are rendered.
        admitted: How many have reached the scheduler.
        computed: Of how many the scheduler has made the answer.
        done_s: When all were answered; None before.
        cached_tokens: Tokens of each prompt that were found in the cache, in the order of the prompts.
        aborted: Whether the client went away.
    """

    prompts: Sequence[Prompt]
    came_s: float
    server: int
    rank: int | None
    rendered: int = 0
    admitted: int = 0
    computed: int = 0
    done_s: float | None = None
    cached_tokens: list[int] = field(default_factory=list)
    aborted: bool = False


@dataclass(slots=True)
class Times:
    """What prompts that are answered have waited for, summed over them, in s.

    Attributes:
        prompts: How many they are.
        queue_s: From the scheduler's queue into the first step.
        prefill_s: From there to the first token of the answer.
        decode_s: From there to its last.
    """

    prompts: int = 0
    queue_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0

    def add(self, sequence: Sequenced, done_s: float) -> None:
        """Add a prompt that is answered now."""
        self.prompts += 1
        self.queue_s += sequence.began_s - sequence.queued_s
        self.prefill_s += sequence.first_token_s - sequence.began_s
        self.decode_s += done_s - sequence.first_token_s


@dataclass(eq=False, slots=True)
class Sequenced:
    """A prompt of a request in the scheduler, and how far it is."""

    request: Request
    index: int
    prompt: Prompt
    queued_s: float
    to_compute: int = -1  # tokens of the prompt that no step has had yet; -1 before the cache was asked
    blocks: int = 0  # that it takes for itself
    made: int = 0  # tokens of its answer
    in_step: bool = False
    began_s: float = 0.0
    first_token_s: float = 0.0


class Rank:
    """A scheduler with its cache and its GPU.

    Attributes:
        cache: Its prefix cache.
        waiting: What is rendered and has no place.
        running: What has one.
        ends_s: When the step that is on ends; None if none is.
        ended_s: When the last step that has begun ends, or has ended.
        busy_s: Seconds of all steps that have begun.
        steps: How many they are.
        computed_tokens: Tokens of prompts in them.
        times: What the prompts that are answered have waited for.
    """

    def __init__(self, speed: EngineSpeed) -> None:
        self.cache = PrefixCache(speed.block_size, speed.cache_blocks)
        self.waiting: deque[Sequenced] = deque()
        self.running: list[Sequenced] = []
        self.ends_s: float | None = None
        self.ended_s = 0.0
        self.busy_s = 0.0
        self.steps = 0
        self.computed_tokens = 0
        self.times = Times()
        self._speed = speed
        self._blocks = 0  # held by those that run

    @property
    def load(self) -> int:
        """What vLLM balances ranks by."""
        return _WAITING_WEIGHT * len(self.waiting) + len(self.running)

    def add(self, sequence: Sequenced) -> None:
        """Let a prompt wait."""
        self.waiting.append(sequence)

    def begin_step(self, now_s: float) -> None:
        """Begin a step unless one is on or there is nothing to do."""
        if self.ends_s is not None or not (self.running or self.waiting):
            return
        speed = self._speed
        room, computed = speed.max_num_batched_tokens, 0
        for sequence in self.running:
            taken = min(sequence.to_compute, room) if sequence.to_compute else min(1, room)
            sequence.in_step = taken > 0
            room -= taken
            if sequence.to_compute:
                sequence.to_compute -= taken
                computed += taken
        while self.waiting and room and len(self.running) < speed.max_num_seqs:
            sequence = self.waiting[0]
            if sequence.to_compute < 0:
                self._look_up(sequence)
            if self.running and self._blocks + sequence.blocks > speed.cache_blocks:
                break
            self.waiting.popleft()
            self.running.append(sequence)
            self._blocks += sequence.blocks
            sequence.began_s = now_s
            sequence.in_step = True
            taken = min(sequence.to_compute, room)
            sequence.to_compute -= taken
            room -= taken
            computed += taken
        took_s = (
            speed.step_s
            + speed.sequence_s * sum(sequence.in_step for sequence in self.running)
            + computed / speed.tokens_per_s
        )
        self.steps += 1
        self.computed_tokens += computed
        self.busy_s += took_s
        self.ends_s = self.ended_s = now_s + took_s

    def end_step(self) -> list[Sequenced]:
        """End the step that is on; returns the sequences that are answered."""
        assert self.ends_s is not None  # noqa: S101 - the caller saw it
        now_s, self.ends_s = self.ends_s, None
        for sequence in self.running:
            if not sequence.in_step or sequence.to_compute:
                continue
            sequence.made += 1
            if sequence.made == 1:
                sequence.first_token_s = now_s
        ended = [each for each in self.running if each.request.aborted or each.made >= self._speed.answer_tokens]
        answered = [sequence for sequence in ended if not sequence.request.aborted]
        for sequence in answered:
            self.times.add(sequence, now_s)
        self._leave(ended)
        return answered

    def drop(self, request: Request) -> None:
        """Forget a request's prompts; those in the step that is on leave at its end."""
        self.waiting = deque(sequence for sequence in self.waiting if sequence.request is not request)
        if self.ends_s is None:
            self._leave([sequence for sequence in self.running if sequence.request is request])

    def _leave(self, gone: list[Sequenced]) -> None:
        if gone:
            self._blocks -= sum(sequence.blocks for sequence in gone)
            leaving = set(map(id, gone))
            self.running = [sequence for sequence in self.running if id(sequence) not in leaving]

    def _look_up(self, sequence: Sequenced) -> None:
        prompt, size = sequence.prompt, self._speed.block_size
        hits = self.cache.look_up(prompt.keys, prompt.tokens) if self._speed.prefix_caching else 0
        sequence.request.cached_tokens[sequence.index] = hits
        sequence.to_compute = max(prompt.tokens - hits, 1)
        sequence.blocks = -(-(sequence.to_compute + self._speed.answer_tokens) // size)
