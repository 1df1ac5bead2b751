"""A fast engine in virtual time: vLLM with a GPU as seen from outside, to be fed by a client or served by the double.

In: requests of prompts (as token ids), each at a moment of one clock, in s. Out: which are answered by a later moment,
how many prompts run and wait, and how long the engine worked. There is no clock, no network, no model and no random
number in it: what comes out depends on what was submitted, and when, alone.

A request's way:

1. An API server renders its prompts (chat template and tokenizer), one after another. Requests that one server has at
   the same time take turns, a prompt each, as coroutines do. Not before its last prompt is rendered does any of a
   request reach the scheduler.
2. A scheduler works in steps. A step takes the sequences that run (one token of their answers each, or what is left of
   their prompts) and then those that wait, first come, first served, as long as there are places, tokens of the step
   and blocks of the cache; a prompt may be cut in the middle, cached blocks are computed by nobody. With the step in
   which a prompt ends its answer begins.
3. A request is answered when the last of its prompts is.

With several ranks (data parallelism) each has a scheduler and a cache of its own, and a prompt goes to the one with
the least to do unless the request names one.

What it leaves out: attention's cost of long contexts, GPU clocks that sink under load, speculative work, preemption.
`benchmarks/feed/fit.py` compares it with what was measured.
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


@dataclass(eq=False, slots=True)
class _Sequence:
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


class _Server:
    """An API server: one thing at a time. Requests take turns, a prompt each while they are rendered, then whole."""

    def __init__(self, speed: EngineSpeed) -> None:
        self.busy_s = 0.0
        self.unrendered = 0
        self.ends_s: float | None = None
        self._speed = speed
        self._turns: deque[Request] = deque()  # the first is being worked on

    def add(self, request: Request, now_s: float) -> None:
        """Take a request to render, or one whose answers are made."""
        self._turns.append(request)
        self.unrendered += len(request.prompts) - request.rendered
        if self.ends_s is None:
            self._begin(now_s)

    @property
    def first(self) -> Request:
        """The request that is being worked on."""
        return self._turns[0]

    def end_one(self, now_s: float) -> None:
        """End what is being done."""
        request = self._turns[0]
        count = len(request.prompts)
        if request.rendered < count:
            request.rendered += 1
            self.unrendered -= 1
            if request.rendered < count:
                self._turns.rotate(-1)
        elif request.admitted < count:
            request.admitted += 1
            if request.admitted == count:
                self._turns.popleft()
        else:
            self._turns.popleft()
            request.done_s = now_s
        self._begin(now_s)

    def drop(self, request: Request) -> None:
        """Do no more for a request that was aborted; what is being done for it is ended."""
        if request in self._turns and self._turns[0] is not request:
            self._turns.remove(request)
            self.unrendered -= len(request.prompts) - request.rendered

    def _begin(self, now_s: float) -> None:
        while self._turns and self._turns[0].aborted:
            gone = self._turns.popleft()
            self.unrendered -= len(gone.prompts) - gone.rendered
        self.ends_s = None
        if self._turns:
            work_s = self._work_s(self._turns[0])
            self.busy_s += work_s
            self.ends_s = now_s + work_s

    def _work_s(self, request: Request) -> float:
        speed, count = self._speed, len(request.prompts)
        if request.rendered < count:
            return speed.render_s + speed.render_token_s * request.prompts[request.rendered].tokens
        return speed.admit_s if request.admitted < count else speed.answer_s * count


class _Rank:
    """A scheduler with its cache and its GPU."""

    def __init__(self, speed: EngineSpeed) -> None:
        self.cache = PrefixCache(speed.block_size, speed.cache_blocks)
        self.waiting: deque[_Sequence] = deque()
        self.running: list[_Sequence] = []
        self.ends_s: float | None = None
        self.busy_s = 0.0
        self.steps = 0
        self.computed_tokens = 0
        self._speed = speed
        self._blocks = 0  # held by those that run

    @property
    def load(self) -> int:
        return _WAITING_WEIGHT * len(self.waiting) + len(self.running)

    def add(self, sequence: _Sequence) -> None:
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
        self.ends_s = now_s + took_s

    def end_step(self) -> list[_Sequence]:
        """End the step that is on; returns the sequences that are answered."""
        assert self.ends_s is not None  # noqa: S101 - the caller saw it
        now_s, self.ends_s = self.ends_s, None
        done = []
        for sequence in self.running:
            if not sequence.in_step or sequence.to_compute:
                continue
            sequence.made += 1
            if sequence.made == 1:
                sequence.first_token_s = now_s
            if sequence.made >= self._speed.answer_tokens:
                done.append(sequence)
        self._leave([each for each in self.running if each.request.aborted or each.made >= self._speed.answer_tokens])
        return [sequence for sequence in done if not sequence.request.aborted]

    def drop(self, request: Request) -> None:
        """Forget a request's prompts; those in the step that is on leave at its end."""
        self.waiting = deque(sequence for sequence in self.waiting if sequence.request is not request)
        if self.ends_s is None:
            self._leave([sequence for sequence in self.running if sequence.request is request])

    def _leave(self, gone: list[_Sequence]) -> None:
        if gone:
            self._blocks -= sum(sequence.blocks for sequence in gone)
            leaving = set(map(id, gone))
            self.running = [sequence for sequence in self.running if id(sequence) not in leaving]

    def _look_up(self, sequence: _Sequence) -> None:
        prompt, size = sequence.prompt, self._speed.block_size
        hits = self.cache.look_up(prompt.keys, prompt.tokens) if self._speed.prefix_caching else 0
        sequence.request.cached_tokens[sequence.index] = hits
        sequence.to_compute = max(prompt.tokens - hits, 1)
        sequence.blocks = -(-(sequence.to_compute + self._speed.answer_tokens) // size)


class FastEngine:
    """An engine of a certain speed. Moments must not go back.

    Attributes:
        speed: Its constants.
        times: What the prompts that are answered have waited for.

    >>> engine = FastEngine(EngineSpeed(tokens_per_s=100, step_s=0.5, sequence_s=0.0, render_s=1.0, answer_tokens=1))
    >>> request = engine.submit(0.0, [Prompt.of(range(50), 16)])  # rendered at 1, computed in 1/2 + 1/2 second
    >>> engine.advance(1.5), engine.running, engine.next_event_s()
    ([], 1, 2.0)
    >>> engine.advance(3.0) == [request], request.done_s, engine.busy_s
    (True, 2.0, 1.0)
    """

    def __init__(self, speed: EngineSpeed) -> None:
        self.speed = speed
        self.times = Times()
        self._servers = [_Server(speed) for _ in range(speed.api_servers)]
        self._ranks = [_Rank(speed) for _ in range(speed.ranks)]
        self._workers: list[_Server | _Rank] = [*self._servers, *self._ranks]
        self._done: list[Request] = []
        self._now_s = 0.0
        self._began_s: float | None = None

    def submit(self, now_s: float, prompts: Sequence[Prompt], *, server: int = 0, rank: int | None = None) -> Request:
        """Let a request come.

        Args:
            now_s: When it comes.
            prompts: At least one.
            server: The API server that its connection belongs to.
            rank: Which rank is to have it (vLLM's header X-data-parallel-rank).
        """
        if not prompts:
            raise ValueError("a request needs one prompt at least")
        self._advance(now_s)
        if self._began_s is None:
            self._began_s = now_s
        request = Request(prompts, now_s, server, rank, cached_tokens=[0] * len(prompts))
        self._servers[server].add(request, now_s)
        return request

    def abort(self, now_s: float, request: Request) -> None:
        """Let a request's client go away: what a step is working on is ended, nothing else is begun."""
        self._advance(now_s)
        if request.done_s is not None:
            return
        request.aborted = True
        self._servers[request.server].drop(request)
        for rank in self._ranks:
            rank.drop(request)

    def advance(self, now_s: float) -> list[Request]:
        """Let time go on to a moment; returns the requests that are answered by then and were not returned before."""
        self._advance(now_s)
        done, self._done = self._done, []
        return done

    def next_event_s(self) -> float | None:
        """When something happens next if nothing comes; None if nothing will."""
        if self._done:
            return self._now_s
        return min((each.ends_s for each in self._workers if each.ends_s is not None), default=None)

    def least_busy_server(self) -> int:
        """The API server with the fewest prompts to render."""
        return min(range(len(self._servers)), key=lambda number: self._servers[number].unrendered)

    @property
    def running(self) -> int:
        """Prompts that have a place in the scheduler."""
        return sum(len(rank.running) for rank in self._ranks)

    @property
    def waiting(self) -> int:
        """Prompts that are rendered and have none."""
        return sum(len(rank.waiting) for rank in self._ranks)

    @property
    def unrendered(self) -> int:
        """Prompts that have come and are not rendered."""
        return sum(server.unrendered for server in self._servers)

    @property
    def computed_tokens(self) -> int:
        """Prompt tokens that steps have computed, or begun to."""
        return sum(rank.computed_tokens for rank in self._ranks)

    @property
    def busy_s(self) -> float:
        """Seconds of all steps that have begun, the mean of the ranks."""
        return sum(rank.busy_s for rank in self._ranks) / len(self._ranks)

    @property
    def render_busy_s(self) -> float:
        """Seconds of rendering that have begun, the mean of the API servers."""
        return sum(server.busy_s for server in self._servers) / len(self._servers)

    @property
    def steps(self) -> int:
        """Steps that have begun, in all ranks."""
        return sum(rank.steps for rank in self._ranks)

    @property
    def began_s(self) -> float | None:
        """When the first request came; None before."""
        return self._began_s

    @property
    def queried_tokens(self) -> int:
        """Tokens looked up in the caches."""
        return sum(rank.cache.queried_tokens for rank in self._ranks)

    @property
    def hit_tokens(self) -> int:
        """Those of them that were found."""
        return sum(rank.cache.hit_tokens for rank in self._ranks)

    def _advance(self, now_s: float) -> None:
        if now_s < self._now_s:
            raise ValueError(f"time goes back, from {self._now_s} to {now_s}")
        while True:
            ends = [(each.ends_s, number) for number, each in enumerate(self._workers) if each.ends_s is not None]
            if not ends or min(ends)[0] > now_s:
                break
            at_s, number = min(ends)
            self._now_s = at_s
            worker = self._workers[number]
            if isinstance(worker, _Server):
                self._end_work(worker, at_s)
            else:
                self._end_step(worker, at_s)
        self._now_s = now_s

    def _end_work(self, server: _Server, at_s: float) -> None:
        request, admitted = server.first, server.first.admitted
        server.end_one(at_s)
        if request.aborted:
            return
        if request.done_s is not None:
            self._done.append(request)
        elif request.admitted > admitted:
            rank = min(self._ranks, key=lambda each: each.load) if request.rank is None else self._ranks[request.rank]
            rank.add(_Sequence(request, admitted, request.prompts[admitted], at_s))
            rank.begin_step(at_s)

    def _end_step(self, rank: _Rank, at_s: float) -> None:
        for sequence in rank.end_step():
            self.times.prompts += 1
            self.times.queue_s += sequence.began_s - sequence.queued_s
            self.times.prefill_s += sequence.first_token_s - sequence.began_s
            self.times.decode_s += at_s - sequence.first_token_s
            request = sequence.request
            request.computed += 1
            if request.computed == len(request.prompts):
                self._servers[request.server].add(request, at_s)
        rank.begin_step(at_s)
