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

from collections.abc import Sequence

from pg_bridge.testing.api_server import ApiServer
from pg_bridge.testing.scheduler import Prompt, Rank, Request, Sequenced, Times
from pg_bridge.testing.speeds import EngineSpeed

__all__ = ["FastEngine", "Prompt", "Request", "Times"]


class FastEngine:
    """An engine of a certain speed. Moments must not go back.

    Attributes:
        speed: Its constants.
        servers: Its API servers.
        ranks: Its schedulers.
        began_s: When the first request came; None before.

    >>> engine = FastEngine(EngineSpeed(tokens_per_s=100, step_s=0.5, sequence_s=0.0, render_s=1.0, answer_tokens=1))
    >>> request = engine.submit(0.0, [Prompt.of(range(50), 16)])  # rendered at 1, computed in 1/2 + 1/2 second
    >>> engine.advance(1.5), engine.running, engine.next_event_s()
    ([], 1, 2.0)
    >>> engine.advance(3.0) == [request], request.done_s, engine.busy_s
    (True, 2.0, 1.0)
    """

    def __init__(self, speed: EngineSpeed) -> None:
        self.speed = speed
        self.began_s: float | None = None
        self.servers = [ApiServer(speed) for _ in range(speed.api_servers)]
        self.ranks = [Rank(speed) for _ in range(speed.ranks)]
        self._workers: list[ApiServer | Rank] = [*self.servers, *self.ranks]
        self._done: list[Request] = []
        self._now_s = 0.0

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
        if self.began_s is None:
            self.began_s = now_s
        request = Request(prompts, now_s, server, rank, cached_tokens=[0] * len(prompts))
        self.servers[server].add(request, now_s)
        return request

    def abort(self, now_s: float, request: Request) -> None:
        """Let a request's client go away: what a step is working on is ended, nothing else is begun."""
        self._advance(now_s)
        if request.done_s is not None:
            return
        request.aborted = True
        self.servers[request.server].drop(request)
        for rank in self.ranks:
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
        return min(range(len(self.servers)), key=lambda number: self.servers[number].unrendered)

    @property
    def running(self) -> int:
        """Prompts that have a place in the scheduler."""
        return sum(len(rank.running) for rank in self.ranks)

    @property
    def waiting(self) -> int:
        """Prompts that are rendered and have none."""
        return sum(len(rank.waiting) for rank in self.ranks)

    @property
    def unrendered(self) -> int:
        """Prompts that have come and are not rendered."""
        return sum(server.unrendered for server in self.servers)

    @property
    def computed_tokens(self) -> int:
        """Prompt tokens that steps have computed, or begun to."""
        return sum(rank.computed_tokens for rank in self.ranks)

    @property
    def busy_s(self) -> float:
        """Seconds of all steps that have begun, the mean of the ranks."""
        return sum(rank.busy_s for rank in self.ranks) / len(self.ranks)

    @property
    def render_busy_s(self) -> float:
        """Seconds of rendering that have begun, the mean of the API servers."""
        return sum(server.busy_s for server in self.servers) / len(self.servers)

    @property
    def steps(self) -> int:
        """Steps that have begun, in all ranks."""
        return sum(rank.steps for rank in self.ranks)

    @property
    def idle_s(self) -> float:
        """Seconds without a step, from the first request to the end of the last step that has begun, of a rank."""
        ended_s = max(rank.ended_s for rank in self.ranks)
        return max(ended_s - self.began_s, 0.0) - self.busy_s if self.began_s is not None else 0.0

    @property
    def times(self) -> Times:
        """What the prompts that are answered have waited for."""
        every = [rank.times for rank in self.ranks]
        return Times(
            sum(times.prompts for times in every),
            sum(times.queue_s for times in every),
            sum(times.prefill_s for times in every),
            sum(times.decode_s for times in every),
        )

    @property
    def queried_tokens(self) -> int:
        """Tokens looked up in the caches."""
        return sum(rank.cache.queried_tokens for rank in self.ranks)

    @property
    def hit_tokens(self) -> int:
        """Those of them that were found."""
        return sum(rank.cache.hit_tokens for rank in self.ranks)

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
            if isinstance(worker, ApiServer):
                self._end_work(worker, at_s)
            else:
                self._end_step(worker, at_s)
        self._now_s = now_s

    def _end_work(self, server: ApiServer, at_s: float) -> None:
        request, admitted = server.first, server.first.admitted
        server.end_one(at_s)
        if request.aborted:
            return
        if request.done_s is not None:
            self._done.append(request)
        elif request.admitted > admitted:
            rank = min(self.ranks, key=lambda each: each.load) if request.rank is None else self.ranks[request.rank]
            rank.add(Sequenced(request, admitted, request.prompts[admitted], at_s))
            rank.begin_step(at_s)

    def _end_step(self, rank: Rank, at_s: float) -> None:
        for sequence in rank.end_step():
            request = sequence.request
            request.computed += 1
            if request.computed == len(request.prompts):
                self.servers[request.server].add(request, at_s)
        rank.begin_step(at_s)
