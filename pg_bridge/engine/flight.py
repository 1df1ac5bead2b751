"""What is in flight: requests of several prompts, split where they fail, and the answers that have landed.

In: numbered prompts. Out: completions in `landed`, or an exception in `failure`. A request that fails on its
own merits is cut into pieces until the culprits are alone, unless a `Trial` finds that none of them is one; a missing
batch endpoint is noticed once and then done without. It pulls nothing and hands nothing over: that is the matter of
`pg_bridge.engine.engine`.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from pg_bridge.engine.checking import Answer
from pg_bridge.engine.client import Client, quietly
from pg_bridge.engine.dialects import UNTOLD
from pg_bridge.engine.estimate import Estimate
from pg_bridge.engine.failures import (
    OfTheStatement,
    Unreadable,
    is_about_priority,
    is_about_rank,
    malformed,
    no_priorities,
    no_such_rank,
    refused_run,
    safe_reason,
    unknown_model,
)
from pg_bridge.engine.further import thought_tokens
from pg_bridge.engine.gate import Gate
from pg_bridge.engine.loop import TurnLoop
from pg_bridge.engine.metrics import Tally, read_counters, read_load
from pg_bridge.engine.models import find_model, learn_dialect, list_models
from pg_bridge.engine.pace import Pace
from pg_bridge.engine.parts import Hold, objection, size_of
from pg_bridge.engine.payload import NOT_UNICODE, MalformedAnswer, Payload, Tokens, is_unicode
from pg_bridge.engine.records import Completion, Model, Numbered, Sampling
from pg_bridge.engine.refusal import NO_ENDPOINT_STATUSES, OWN_MERITS_STATUSES, Refused, explained, is_used_up
from pg_bridge.engine.speech import Speech
from pg_bridge.engine.stages import Traffic
from pg_bridge.engine.template import leaves_thoughts_open
from pg_bridge.engine.trial import CONTROL_PROMPT, Trial
from pg_bridge.engine.waiting import Acquaintance
from pg_bridge.errors import EngineUnreachable
from pg_bridge.options import Server
from pg_bridge.rows.joined import query_of
from pg_bridge.rows.media import Illustrated

METRICS_WITHIN_S = 2.0
SETTLE_WITHIN_S = 0.3
SETTLE_STEP_S = 0.02
FIRST_LOOK_S = 0.1  # at how full the engine is
LOOKS_EVERY_S = 0.5

SamplingOf = Callable[[int], Sampling]
"""How the prompt of an index is to be answered."""


@dataclass(slots=True)
class Landing:
    """What has come back of a run, from all of its flights.

    Attributes:
        landed: Completions nobody has taken yet, one list a request.
        count: How many they are.
        fresh: Completions nobody has been told of yet.
    """

    landed: deque[list[Completion]] = field(default_factory=deque)
    count: int = 0
    fresh: list[Completion] = field(default_factory=list)

    def add(self, completions: list[Completion]) -> None:
        """Take in the answers of a request."""
        self.count += len(completions)
        if any(completion.error is not None for completion in completions):
            self.landed.appendleft(completions)  # it may end the run
        else:
            self.landed.append(completions)
        self.fresh += completions

    def take(self) -> list[Completion]:
        """Take the completions of the request that landed first."""
        completions = self.landed.popleft()
        self.count -= len(completions)
        return completions


class Flight:
    """The requests of one call of `Engine.complete` to one engine.

    Args:
        server: Where the engine is.
        client: Its connections.
        turns: The loop that the requests run in.
        tally: Where the engine's own figures go.
        traffic: What is in flight, for how long.
        sampling_of: How each prompt is answered.
        gate: Is told what is no longer in flight, and what it took.
        estimate: What is known of the tokens that prompts take; learns from these.
        acquaintance: What is known of the engine; learns its dialect.
        has_batch_endpoint: False if an earlier flight noticed that there is none.
        ends_run: Whether the run ends if the prompt of an index fails: nothing is sent while that is likely.
        landing: Where answers go.
        eager: As for `Pace`.
        model: Which model is asked, if that is known already.
        has_others: Whether others can go on with what is in flight here, so that it is kept.

    Attributes:
        pace: How much to send.
        model: Which model is asked; None while that is not known.
        in_flight_of: Prompts sent to each rank and not landed.
        failure: What ended the run, if anything did.
    """

    def __init__(
        self,
        server: Server,
        client: Client,
        turns: TurnLoop,
        tally: Tally,
        traffic: Traffic,
        sampling_of: SamplingOf,
        gate: Gate,
        estimate: Estimate,
        acquaintance: Acquaintance,
        *,
        has_batch_endpoint: bool,
        ends_run: Callable[[int], bool],
        landing: Landing,
        eager: bool = False,
        model: Model | None = None,
        has_others: bool = False,
    ) -> None:
        self.pace = pace_of(server, eager)
        self.model = model
        self.in_flight_of = [0] * server.ranks
        self.failure: BaseException | None = None
        self.has_batch_endpoint = has_batch_endpoint
        self._server = server
        self._client = client
        self._turns = turns
        self._tally = tally
        self._traffic = traffic
        self._landing = landing
        self._sampling_of = sampling_of
        self._gate = gate
        self._estimate = estimate
        self._acquaintance = acquaintance
        self._dialect = UNTOLD
        self._speech = Speech(server, UNTOLD, "", acquaintance)  # until `prepare` has learnt whom it speaks to
        self._trials: dict[Sampling, Trial] = {}
        self._templates: dict[bytes, asyncio.Task[bool | None]] = {}  # what the engine's makes of a conversation
        self._finding_out: dict[Payload, asyncio.Task[None]] = {}  # what of it the engine does not take
        self._ends_run = ends_run
        self._rank_of: dict[int, int] = {}  # of the prompts in flight, where there are several
        self._kept: dict[int, str] | None = {} if has_others else None  # the prompts in flight
        self._asking: set[asyncio.Task[None]] = set()  # where they are kept
        self._suspects = 0  # prompts of refused requests, one of which is to blame and will end the run
        self._cleared = asyncio.Event()
        self._hold = Hold()

    @property
    def in_flight(self) -> int:
        """Prompts sent and not landed."""
        return self._traffic.in_flight

    async def prepare(self, *, many: bool) -> None:
        """Learn the model's name, what the engine understands, and the cache counters if many prompts are to come."""
        if self.model is None and self._server.model is not None:
            self.model = Model(self._server.model)
        if self.model is None:
            self.model = await find_model(self._server, self._client, self._acquaintance)
        self._dialect = await learn_dialect(self._server, self._client, self._acquaintance)
        self._speech = Speech(self._server, self._dialect, self.model.name, self._acquaintance)
        if not (self._dialect.has_batches if self._server.api == "chat" else self._dialect.has_lists):
            self.has_batch_endpoint = False
        page = await self._metrics() if many else ""
        self._tally.begin(read_counters(page))
        if read_load(page) is not None:
            self._turns.start(self._watch_load())

    def room(self, elsewhere: int = 0) -> int:
        """Prompts to send now, with so many in flight elsewhere."""
        return self.pace.room(self.in_flight, self._landing.count + elsewhere, time.monotonic())

    @property
    def is_suspicious(self) -> bool:
        """Whether an answer is awaited that is likely to end the run."""
        return self._suspects > 0

    def abandon(self) -> Numbered:
        """Stop, and return the prompts that have no answer, where they were kept."""
        for task in list(self._asking):
            task.cancel()
        unanswered = sorted((self._kept or {}).items())
        self._traffic.change(-self.in_flight, time.monotonic())
        self._suspects = 0  # whoever is asked next will find out
        return unanswered

    async def settle(self) -> None:
        """Learn from the counters what answers do not tell; they may lag a little behind the last answer."""
        until_s = time.monotonic() + SETTLE_WITHIN_S
        while not self._tally.settle(read_counters(await self._metrics())):
            if time.monotonic() >= until_s:
                return
            await asyncio.sleep(SETTLE_STEP_S)

    def cost(self, prompts: Numbered) -> tuple[int, int]:
        """How many requests it takes to send prompts, and how many tokens each of them will take on average.

        Where the server limits neither, nobody needs to know.
        """
        if self._server.requests_per_minute is None and self._server.tokens_per_minute is None:
            return 1, 0
        requests, tokens = 0, 0
        for part in self._alike(prompts):
            sampling = self._sampling_of(part[0][0])
            chars = sum(len(prompt) for _, prompt in part) + len(part) * len(sampling.system_prompt)
            most = sampling.max_tokens + thought_tokens(self._server, sampling)
            tokens += self._estimate.tokens(chars, 0) + len(part) * self._estimate.tokens(0, most)
            requests += len(part) if self._goes_alone(sampling) else 1
        return requests, tokens // len(prompts)

    def send(self, prompts: Numbered, tokens_each: int, rank: int = 0) -> None:
        """Put prompts in flight, as one request for all that are answered alike where that can be.

        Args:
            prompts: The prompts.
            tokens_each: What the gate has been told that each will take.
            rank: The engine's rank that is to have them, where it has several.
        """
        self._traffic.change(len(prompts), time.monotonic())
        self.in_flight_of[rank] += len(prompts)
        if self._kept is not None:
            self._kept |= prompts
        if len(self.in_flight_of) > 1:
            self._rank_of |= dict.fromkeys((index for index, _ in prompts), rank)
        for part in self._alike(prompts):
            self._start(part, tokens_each)

    def _alike(self, prompts: Numbered) -> list[Numbered]:
        """Prompts that are answered alike, together: of queries with documents those of one query, a picture alone."""
        alike: dict[object, Numbered] = {}  # by the sampling's identity: hashing it for every prompt would cost more
        alone: list[Numbered] = []
        for prompt in prompts:
            sampling = self._sampling_of(prompt[0])
            if isinstance(prompt[1], Illustrated):
                alone.append([prompt])
            else:
                same = (id(sampling), query_of(prompt[1])) if sampling.reranks else id(sampling)
                alike.setdefault(same, []).append(prompt)
        return alone + list(alike.values())

    def _goes_alone(self, sampling: Sampling) -> bool:
        """Whether each prompt has a request of its own."""
        return not self._takes_several(sampling) or self._trial_of(sampling).goes_alone

    def _takes_several(self, sampling: Sampling) -> bool:
        """Whether a request may have several prompts."""
        return self.has_batch_endpoint or sampling.is_pooled

    def _start(self, prompts: Numbered, tokens_each: int, *, is_piece: bool = False) -> None:
        is_alone = len(prompts) > 1 and self._goes_alone(self._sampling_of(prompts[0][0]))
        for part in [[prompt] for prompt in prompts] if is_alone else [prompts]:
            asking = self._turns.start(self._ask(part, tokens_each, is_piece=is_piece))
            if self._kept is not None:
                self._asking.add(asking)
                asking.add_done_callback(self._asking.discard)

    def _land(self, completions: list[Completion], more_tokens: int) -> None:
        """Take in answers, for which so many more tokens were used than the gate has been told."""
        self._gate.give_back(len(completions), more_tokens)
        self._traffic.change(-len(completions), time.monotonic())
        for completion in completions:
            self.in_flight_of[self._rank_of.pop(completion.index, 0)] -= 1
            if self._kept is not None:
                del self._kept[completion.index]
        self._landing.add(completions)

    async def _ask(self, prompts: Numbered, tokens_each: int, *, is_piece: bool = False) -> None:
        try:
            await self._ask_once(prompts, tokens_each, is_piece=is_piece)
        except Exception as error:
            self.failure = self.failure or error

    async def _ask_once(self, prompts: Numbered, tokens_each: int, *, is_piece: bool) -> None:
        sampling = self._sampling_of(prompts[0][0])
        reason = objection(  # what has media goes alone
            prompts[0][1], self._server, self._dialect, embeds=sampling.embeds
        )
        if reason is not None:
            self._fail_alone(prompts[0], reason, tokens_each)
            return
        async with self._hold.room(size_of(prompts)):
            await self._post(prompts, sampling, tokens_each, is_piece=is_piece)

    async def _post(self, prompts: Numbered, sampling: Sampling, tokens_each: int, *, is_piece: bool) -> None:
        size = len(prompts)
        trial = self._trial_of(sampling)
        await trial.admit()
        payload = self._speech.payload(sampling)  # not before: what earlier ones were refused for is not said again
        path = payload.path(size)
        if size > 1 and not self._takes_several(sampling):  # that came out meanwhile
            trial.withdraw()
            self._again([[prompt] for prompt in prompts], tokens_each, is_piece=is_piece)
            return
        while self._suspects and not is_piece:
            await self._cleared.wait()
        started_s = time.monotonic()
        try:
            body = payload.body([prompt for _, prompt in prompts])
            answer = await self._client.post(path, body, self._rank_of.get(prompts[0][0]))
            answers, tokens = payload.parse(answer, size)
            if payload.is_in_doubt:
                await self._clear_doubts(payload)
                answers, tokens = payload.parse(answer, size)
        except UnicodeEncodeError:
            trial.withdraw()
            self._leave_out_unreadable(prompts, tokens_each)
            return
        except Refused as refused:
            if await self._gives_way(payload, refused, [prompt for _, prompt in prompts]):
                trial.withdraw()
                self._again([prompts], tokens_each, is_piece=is_piece)
                return
            await self._refused(prompts, payload, path, refused, tokens_each, is_piece=is_piece)
            return
        except (MalformedAnswer, Unreadable) as error:
            raise malformed(self._server, error) from None
        trial.answered(size)
        if is_piece:
            self._clear(prompts)
        now_s = time.monotonic()
        took_s = now_s - started_s
        self._tally.add(size, tokens, took_s, self._turns.unread_s)
        self.pace.land(size, took_s, now_s)
        answers = await self._with_reminders(prompts, payload, answers)
        completions = [Completion(prompt[0], *answer) for prompt, answer in zip(prompts, answers, strict=True)]
        self._land(completions, self._more_than(size * tokens_each, prompts, tokens))

    async def _with_reminders(self, prompts: Numbered, payload: Payload, answers: list[Answer]) -> list[Answer]:
        """Answers, those asked for once more that are not of the form they must have."""
        places = self._speech.to_ask_again(payload, answers)
        reminder = self._speech.reminder(payload.sampling) if places else payload
        again = await asyncio.gather(*(self._remind(reminder, *prompts[place]) for place in places))
        better = {place: answer for place, answer in zip(places, again, strict=True) if answer is not None}
        return [better.get(place, answer) for place, answer in enumerate(answers)]

    async def _remind(self, reminder: Payload, index: int, prompt: str) -> Answer | None:
        """Ask once more, in words that say of which form the answer must be; None where there is none."""
        try:
            ((answer,), _) = await self._ask_one(reminder, reminder.reminding(prompt), self._rank_of.get(index))
        except Refused:  # it has become too long, say
            return None
        return answer

    async def _gives_way(self, payload: Payload, refused: Refused, prompts: list[str]) -> bool:
        """Whether something was refused that need not be said, or not so.

        Where prompts have its name in them, too, one is asked besides that has not.
        """
        if self._speech.gives_way(payload, refused, prompts):
            return True
        if self._speech.may_give_way(payload, refused):
            if payload not in self._finding_out:
                self._finding_out[payload] = self._turns.start(self._find_out(payload.sampling))
            await asyncio.shield(self._finding_out[payload])
        return self._speech.payload(payload.sampling) is not payload

    async def _find_out(self, sampling: Sampling) -> None:
        """Learn what an engine does not take, from a prompt that has nothing of any row in it."""
        while True:
            payload = self._speech.payload(sampling)
            try:
                await self._ask_one(payload, payload.body([CONTROL_PROMPT]))
            except Refused as refused:
                if self._speech.gives_way(payload, refused, [CONTROL_PROMPT]):
                    continue
            return

    async def _ask_besides(self, sampling: Sampling, prompt: str) -> None:
        """Ask what nobody waits for, and see whether there is an answer.

        Raises:
            Refused: There is none.
        """
        payload = self._speech.payload(sampling)
        await self._ask_one(payload, payload.body([prompt]))

    async def _ask_one(self, payload: Payload, body: bytes, rank: int | None = None) -> tuple[list[Answer], Tokens]:
        """Ask a question that the gate has not been told of.

        Raises:
            Refused: There is no answer.
        """
        started_s = time.monotonic()
        self._gate.spend(1)
        try:
            answers, tokens = payload.parse(await self._client.post(payload.path(1), body, rank), 1)
        except (MalformedAnswer, Unreadable) as error:
            raise malformed(self._server, error) from None
        self._tally.add(1, tokens, time.monotonic() - started_s, self._turns.unread_s)
        self._gate.give_back(0, (tokens.prompt or 0) + (tokens.completion or 0))
        return answers, tokens

    def _trial_of(self, sampling: Sampling) -> Trial:
        if sampling not in self._trials:
            ask_besides, has_others = partial(self._ask_besides, sampling), self._kept is not None
            self._trials[sampling] = Trial(self._server, self._turns, ask_besides, has_others=has_others)
        return self._trials[sampling]

    def _more_than(self, told: int, prompts: Numbered, tokens: Tokens) -> int:
        """How many more tokens than that an answered request took; learns from it."""
        if self._server.tokens_per_minute is None or tokens.prompt is None or tokens.completion is None:
            return 0
        system = len(self._sampling_of(prompts[0][0]).system_prompt)
        chars = sum(len(prompt) for _, prompt in prompts) + len(prompts) * system
        self._estimate.learn(chars, len(prompts), tokens.prompt, tokens.completion)
        return tokens.prompt + tokens.completion - told

    async def _refused(
        self, prompts: Numbered, payload: Payload, path: str, refused: Refused, tokens_each: int, *, is_piece: bool
    ) -> None:
        sampling = self._sampling_of(prompts[0][0])
        trial = self._trial_of(sampling)
        texts = [prompt for _, prompt in prompts]
        if is_used_up(refused.status, refused.body, texts):
            raise refused_run(self._server, refused)
        if refused.status in OWN_MERITS_STATUSES:
            if sampling.priority is not None and is_about_priority(refused, texts):
                raise no_priorities(self._server)
            if self._rank_of and is_about_rank(refused, texts):
                raise no_such_rank(self._server)
            if not is_piece:
                self._suspect(prompts)
            try:
                await trial.refused(texts, refused)
            except OfTheStatement:
                if (missing := payload.missing(self._server, refused, texts)) is not None:
                    raise missing from None
                raise
            if len(prompts) == 1:
                reason = safe_reason(refused.status, refused.body, texts[0], self._server)
                self._fail_alone(prompts[0], explained(reason, refused, texts[0], payload.too_long), tokens_each)
            else:
                pieces = trial.pieces(len(prompts), was_cut=is_piece)
                self._again([prompts[piece] for piece in pieces], tokens_each, is_piece=True)
        elif refused.status in NO_ENDPOINT_STATUSES:
            await self._see_what_is_missing(payload, path, refused)
            trial.withdraw()
            self._again([[prompt] for prompt in prompts], tokens_each, is_piece=is_piece)
        else:
            raise refused_run(self._server, refused)

    async def _see_what_is_missing(self, payload: Payload, path: str, refused: Refused) -> None:
        """Either the model or the path, as the list of models tells; of the paths only that for batches need not be."""
        if self.has_batch_endpoint or not path.endswith("/batch"):
            served = [model.name for model in await list_models(self._server, self._client, self._acquaintance)]
            if self._server.model is not None and self._server.model not in served:
                raise unknown_model(self._server, served)
        if (missing := payload.missing(self._server)) is not None:
            raise missing
        if not path.endswith("/batch"):
            raise refused_run(self._server, refused)
        self.has_batch_endpoint = False

    async def _clear_doubts(self, payload: Payload) -> None:
        """Learn whether texts begin within thoughts, of which one that was cut off tells nothing."""
        known = self._acquaintance.begins_in_thoughts
        asked = payload.templated()
        if asked not in known:
            if asked not in self._templates:
                asking = leaves_thoughts_open(self._client, payload, self._dialect)
                self._templates[asked] = self._turns.start(asking)
            told = await asyncio.shield(self._templates[asked])
            known[asked] = payload.further.reasons if told is None else told
        payload.begins_in_thoughts, payload.is_in_doubt = known[asked], False

    def _again(self, parts: Iterable[Numbered], tokens_each: int, *, is_piece: bool = False) -> None:
        """Send prompts again, in other requests."""
        for part in parts:
            self._gate.spend(1)
            self._start(part, tokens_each, is_piece=is_piece)

    def _suspect(self, prompts: Numbered) -> None:
        self._suspects += sum(self._ends_run(index) for index, _ in prompts)
        self._cleared.clear()

    def _clear(self, prompts: Numbered) -> None:
        self._suspects -= sum(self._ends_run(index) for index, _ in prompts)
        if not self._suspects:
            self._cleared.set()

    def _fail_alone(self, prompt: tuple[int, str], reason: str, tokens_each: int) -> None:
        self._land([Completion(prompt[0], None, reason)], -tokens_each)

    def _leave_out_unreadable(self, prompts: Numbered, tokens_each: int) -> None:
        """Send again those prompts that can be sent at all."""
        left = []
        for prompt in prompts:
            if is_unicode(prompt[1]):
                left.append(prompt)
            else:
                self._fail_alone(prompt, NOT_UNICODE, tokens_each)
        if left:
            self._again([left], tokens_each)

    async def _watch_load(self) -> None:
        """Tell the pace how full the engine is, every now and then while that could matter."""
        pause_s = FIRST_LOOK_S
        while True:
            await asyncio.sleep(pause_s)
            pause_s = LOOKS_EVERY_S
            if self.pace.wants_to_hear(self.in_flight, time.monotonic()):
                load = read_load(await self._metrics())
                if load is None or self.failure is not None:
                    return
                self.pace.hear(load, self.in_flight)

    async def _metrics(self) -> str:
        """The engine's page of figures; empty where there is none, or none to be had: no run fails for want of it."""
        try:
            reply = await quietly(self._client.glance("/metrics"), METRICS_WITHIN_S)
        except (Unreadable, EngineUnreachable):
            return ""
        return reply[1].decode(errors="replace") if reply is not None and reply[0] == 200 else ""


def pace_of(server: Server, eager: bool) -> Pace:
    """How a run asks a server."""
    return Pace(server.most_in_flight, eager, counted=server.requests_per_minute is not None)
