"""What the questions of one statement have been answered, so that nothing is asked twice.

In: prompts and options. Out: inquiries, each with what it has been answered so far; the oldest answers are forgotten
first.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from pg_bridge.asking.inquiry import Ask, Inquiry, question_of, sampling_of
from pg_bridge.asking.run import Run
from pg_bridge.engine import Sampling
from pg_bridge.options import Call
from pg_bridge.ordering import Sent


@dataclass(slots=True)
class YesShare:
    """Of how many pairs of a condition a statement has learnt together, and for how many the answer was yes."""

    yes: int = 0
    asked: int = 0

    @property
    def expected(self) -> float:
        """The share of those to come; a tenth before the first."""
        return (self.yes + 1) / (self.asked + 10)


@dataclass(slots=True)
class Memory:
    """One statement's memory.

    Attributes:
        run: What all its questions did.
        nodes: What those of each plan node did.
        sent: What has been sent, by what prompts begin with: the questions' identities and the columns.
        yes_shares: What is known of conditions over pairs.
    """

    run: Run = field(default_factory=Run)
    nodes: dict[int, Run] = field(default_factory=dict)
    sent: dict[tuple[tuple[int, ...], tuple[str, ...]], Sent] = field(default_factory=dict)
    yes_shares: dict[Ask, YesShare] = field(default_factory=dict)
    _inquiries: dict[Ask, Inquiry] = field(default_factory=dict)
    _samplings: dict[Call, Sampling] = field(default_factory=dict)
    _counterparts: dict[Call, Call] = field(default_factory=dict)

    def inquiry(self, ask: Ask) -> Inquiry:
        """What is known of a question.

        Raises:
            TemplateError: Its prompt does not parse.
        """
        found = self._inquiries.get(ask)
        if found is None:
            found = self._inquiries[ask] = self._new(ask)
        return found

    def _new(self, ask: Ask) -> Inquiry:
        call = ask.call.asked
        if call is not ask.call:  # another part of the same answers
            return self.inquiry(Ask(ask.prompt, call))
        inquiry = Inquiry(question_of(ask), call, self._sampling(call), dimensions=call.dimensions)
        other = self._inquiries.get(Ask(ask.prompt, self._counterpart(call)))
        if other is not None:
            surer, plain = (inquiry, other) if call.confidence else (other, inquiry)
            plain.surer = surer
        return inquiry

    def _counterpart(self, call: Call) -> Call:
        """The call that asks the same with its confidence, or without."""
        if call not in self._counterparts:
            self._counterparts[call] = replace(call, confidence=not call.confidence)
        return self._counterparts[call]

    def _sampling(self, call: Call) -> Sampling:
        """One for all questions of a call: prompts of one and the same sampling can share a request."""
        return self._samplings.setdefault(call, sampling_of(call))
