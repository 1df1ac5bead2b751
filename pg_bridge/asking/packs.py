"""The packs of one run: which are out, what their answers said, and what is asked in the place of those without one.

In: packs as they are sent, completions as they land. Out: outcomes of rows, and packs to be sent. A run is not at its
end while a pack is out: its answer may be none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from pg_bridge.asking.inquiry import Inquiry, Outcome
from pg_bridge.asking.packing import Pack, Packing
from pg_bridge.asking.run import RowsTogether
from pg_bridge.engine import Completion, Sampling
from pg_bridge.options import Call


class Landed(NamedTuple):
    """What an answer about a pack said.

    Attributes:
        inquiry: The question.
        prompt: Its prompt.
        outcomes: Of its rows that have one, by their digests.
        reason: Why others have none, and are asked about again; None where all have one.
    """

    inquiry: Inquiry
    prompt: str
    outcomes: list[tuple[bytes, Outcome]]
    reason: str | None


@dataclass(slots=True)
class Packs:
    """The packs of a run.

    Attributes:
        context_tokens: What a prompt and its answer may have together, by the call.
        told: Counts them.
    """

    context_tokens: Callable[[Call], int]
    told: RowsTogether
    _packings: dict[Inquiry, Packing] = field(default_factory=dict)
    _out: dict[int, tuple[Packing, Pack, str]] = field(default_factory=dict)  # by the number of the prompt
    _landed: dict[int, Landed] = field(default_factory=dict)  # as above; not taken yet
    _again: list[tuple[Packing, Pack]] = field(default_factory=list)
    _making: int = 0

    def packing(self, inquiry: Inquiry) -> Packing:
        """What puts the rows of a question together."""
        if inquiry not in self._packings:
            self._packings[inquiry] = Packing(inquiry, self.context_tokens(inquiry.call))
        return self._packings[inquiry]

    @property
    def are_due(self) -> bool:
        """Whether any may have to be sent yet."""
        return bool(self._making or self._out or self._again)

    def making(self, prompts: Iterator[str]) -> Iterator[str]:
        """The same prompts; until the last has been made, more may be due."""
        self._making += 1
        return self._made(prompts)

    def _made(self, prompts: Iterator[str]) -> Iterator[str]:
        yield from prompts
        self._making -= 1

    def send(self, number: int, packing: Packing, pack: Pack, prompt: str) -> None:
        """Count a pack as sent."""
        self._out[number] = packing, pack, prompt
        self.told.count(pack.size, is_repair=pack.is_repair)

    def asked_by(self, number: int) -> tuple[Inquiry, Pack] | None:
        """Which pack the prompt of a number asks about; None where it is none's."""
        found = self._out.get(number)
        return None if found is None else (found[0].inquiry, found[1])

    def sampling_of(self, number: int) -> Sampling | None:
        """How the prompt of a number is to be answered; None where it is no pack's."""
        found = self._out.get(number)
        return None if found is None else found[0].sampling(found[1].size)

    def land(self, completion: Completion) -> Landed | None:
        """Read an answer; None where it is about no pack."""
        found = self._out.pop(completion.index, None)
        if found is None:
            return None
        packing, pack, prompt = found
        outcomes, again = packing.read(pack, completion)
        self._again += [(packing, each) for each in again]
        known = [(key, outcome) for key, outcome in zip(pack.keys, outcomes, strict=True) if outcome is not None]
        reason = (completion.error or "the answer does not tell of each row") if again else None
        landed = self._landed[completion.index] = Landed(packing.inquiry, prompt, known, reason)
        return landed

    def take(self, number: int) -> Landed | None:
        """What has landed of a pack, once; None where that was none."""
        return self._landed.pop(number, None)

    def take_again(self) -> Iterable[tuple[Packing, list[Pack]]]:
        """What is to be sent in the place of packs without an answer, once."""
        again, self._again = self._again, []
        by_question: dict[Packing, list[Pack]] = {}
        for packing, pack in again:
            by_question.setdefault(packing, []).append(pack)
        return by_question.items()
