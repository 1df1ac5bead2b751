"""A window's conditions over pairs, from questions about several at once to an answer for each.

In: prompts, inputs, one call's options, and round by round the outcomes of what was asked. Out: what to ask next, and
what is left to be asked pair by pair.

    pairs → the nearest, if only they are asked about → blocks and lists → answers
              cut off, or too long for the model → halves, as long as that helps
              a block that is answered otherwise, or refused → lists
              a list → pair by pair

All questions of a level are one round. A pair is in one question of a round, and each round's questions are smaller, so
that there are hardly more of them than pairs, whatever the engine says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from pg_bridge.asking.failures import is_too_long
from pg_bridge.asking.inquiry import Ask, NotAsked, Outcome
from pg_bridge.asking.joint import Joint, Writer, call_about, read_yes, tokens_of_answer
from pg_bridge.asking.memory import Memory, YesShare
from pg_bridge.asking.nearest import Embed, Far, keep_nearest
from pg_bridge.asking.pair_plans import Terms, plan_pairs
from pg_bridge.asking.pairs import Matter, find_pairs
from pg_bridge.asking.run import PairsAsked
from pg_bridge.engine import is_cut_off
from pg_bridge.options import YES_OR_NO, Call


class Joining:
    """The pairs of one window's calls that have the same options.

    Args:
        prompts: (n,) the prompt of each.
        rows: (n,) the input of each.
        call: Their options.
        terms: Of the engine.
        memory: Of the statement.
        work: Called now and then.
        embed: What embeds texts, where only the nearest are asked about.

    Attributes:
        answers: Those that there are, by their places.
        uncounted: How many calls no question about several pairs was about.
        pruned: What is told of pairs that are far.
    """

    def __init__(
        self,
        prompts: Sequence[str | None],
        rows: Sequence[str | None],
        call: Call,
        terms: Terms,
        memory: Memory,
        work: Callable[[], None],
        embed: Embed,
    ) -> None:
        matters, alone = find_pairs(prompts, rows, work)
        self.answers: dict[int, str] = {}
        self._call, self._terms, self._memory = call, terms, memory
        self._writers = {matter: Writer(matter) for matter in matters}
        self._calls: dict[tuple[int, int], Call] = {}
        self._asks: dict[tuple[str, tuple[int, int]], Ask] = {}
        self._joints: list[Joint] = []
        self._alone = alone
        self._repaired: set[int] = set()
        self._far: list[tuple[Matter, Far]] = []
        for matter in matters:
            work()
            if call.nearest is not None and (far := keep_nearest(matter, call, embed, work)) is not None:
                self._far.append((matter, far))
                self.answers |= dict.fromkeys(far.places, YES_OR_NO[1])
                self._alone += [place for places in far.sample for place in places]
            plan = plan_pairs(matter, call, terms, self._share(matter).expected)
            self._joints += plan.joints
            self._alone += plan.alone
        self.uncounted = len(self._alone)
        self.pruned = [far.told for _, far in self._far]

    @property
    def is_asking(self) -> bool:
        """Whether questions about several pairs are left to be asked."""
        return bool(self._joints)

    @property
    def alone(self) -> list[int]:
        """The places of what is to be asked pair by pair, once there is nothing else to ask."""
        return sorted(self._alone)

    def ask(self) -> tuple[list[Ask], list[str], PairsAsked]:
        """What to ask next: questions, equal ones as one object, the row of each, and how many they are."""
        asks, rows = [], []
        for joint in self._joints:
            writer, shape = self._writers[joint.matter], joint.shape
            prompt = writer.prompt(joint)
            if (ask := self._asks.get((prompt, shape))) is None:
                if shape not in self._calls:
                    self._calls[shape] = call_about(self._call, *shape, self._terms.answer_tokens)
                ask = self._asks[prompt, shape] = Ask(prompt, self._calls[shape])
            asks.append(ask)
            rows.append(writer.row(joint))
        blocks = sum(joint.is_block for joint in self._joints)
        return asks, rows, PairsAsked(blocks=blocks, lists=len(asks) - blocks)

    def take(self, outcomes: Sequence[Outcome]) -> None:
        """Take the outcomes of what was to be asked, in its order."""
        joints, self._joints = self._joints, []
        for joint, (text, error) in zip(joints, outcomes, strict=True):
            yes = read_yes(text, *joint.shape)
            if yes is None:
                self._ask_otherwise(joint, error)
            else:
                self._learn(joint, yes)

    @property
    def pairs_alone(self) -> PairsAsked:
        """How many different pairs are to be asked by themselves, and how many of them because of what was answered."""
        places = {*self._alone}
        of_pairs = {first for matter in self._writers for first, *_ in matter.places.values()} & places
        return PairsAsked(alone=len(of_pairs), repairs=len(of_pairs & self._repaired))

    def judge(self, answers: Sequence[str | None]) -> None:
        """Tell of pairs that are far what the answers tell of them, once all are there."""
        yes = YES_OR_NO[0]
        for matter, far in self._far:
            sample = [answers[first] for first, *_ in far.sample]
            far.told.yes, far.told.unanswered = sample.count(yes), sample.count(None)
            far.told.found = sum(answers[first] == yes for first, *_ in matter.places.values())

    def _learn(self, joint: Joint, yes: set[tuple[int, int]]) -> None:
        share = self._share(joint.matter)
        for i, j, places in joint.pairs():
            is_yes = (i, j) in yes
            share.asked += 1
            share.yes += is_yes
            for place in places:
                self.answers[place] = YES_OR_NO[not is_yes]

    def _ask_otherwise(self, joint: Joint, error: str | None) -> None:
        if isinstance(error, NotAsked):  # nothing more is sent, or what is shorter
            self._alone += joint.places()
            return
        parts = joint.halves() if is_too_long(error) or (is_cut_off(error) and self._may_be_longer(joint)) else []
        if not parts and joint.is_block:
            parts = [replace(joint, rows=(row,)) for row in joint.rows]
        if not parts:
            self._repair(joint.places())
        for part in parts:
            lists, alone = ([part], []) if part.is_block else part.lists()
            self._joints += lists
            self._repair(alone)

    def _may_be_longer(self, joint: Joint) -> bool:
        """Whether an answer that says no more than it shall may need more tokens than there are for it."""
        return tokens_of_answer(*joint.shape) > self._calls[joint.shape].max_tokens

    def _repair(self, places: Sequence[int]) -> None:
        self._alone += places
        self._repaired.update(places)

    def _share(self, matter: Matter) -> YesShare:
        return self._memory.yes_shares.setdefault(Ask(matter.prompt, self._call), YesShare())
