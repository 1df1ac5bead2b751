"""Which prompt answers best, found by trying: the course of it, and who is chosen at the end.

In: a prompt, how many rows there are to learn from and to judge by; what asks a prompt about some of them, and what
writes other prompts for the rows that one got wrong. Out: all prompts that were tried, of which one is chosen. It asks
nothing itself and sees no row: rows are numbers, first those to learn from, then those that are held out.

    first prompt → rows to learn from → mistakes → other prompts → the best of them, if better → … → rows held out

How many questions that takes follows from the numbers alone: `questions_of` tells the most beforehand, whatever is
answered. Only the first prompt and the best one are asked about the rows held out, so that the test at the end is one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pg_bridge.asking import halving
from pg_bridge.asking.agreement import SURE, by_chance
from pg_bridge.errors import OptionError

SHOWN_MISTAKES = 4
"""Rows that are shown to who writes one other prompt."""
LEAST_HELD_OUT = 5
"""With fewer no prompt can be shown to be better, though it were right about all of them."""
_EXAMPLES_OF = 4  # one of so many rows to learn from is an example, at most


@dataclass(frozen=True, slots=True)
class Wording:
    """What is asked.

    Attributes:
        prompt: The prompt.
        shows_examples: Whether some rows with their known answers stand in front.
    """

    prompt: str
    shows_examples: bool = False


@dataclass(frozen=True, slots=True)
class Judged:
    """An answer about a row.

    Attributes:
        answer: Its text; None where there is none.
        is_right: Whether it is the known one.
    """

    answer: str | None
    is_right: bool


@dataclass(frozen=True, slots=True)
class Lesson:
    """What one other prompt is to be written for.

    Attributes:
        mistakes: Numbers of rows, each with what was answered.
        way: A number by which one way to go about it is told from another.
    """

    mistakes: tuple[tuple[int, str | None], ...]
    way: int


@dataclass(frozen=True, slots=True)
class Proposal:
    """A prompt that was written, and why it is not to be tried, if so; without a prompt none was."""

    prompt: str | None
    error: str | None = None


@dataclass(slots=True, eq=False)
class Tried:
    """A prompt, and how it did.

    Attributes:
        round: When it was proposed; 0 for the first.
        parent: The number of the one that it was made of; None for the first.
        wording: What is asked; None where there is nothing that could be.
        error: Why it was not tried; None if it was.
        learnt: What it answered about rows to learn from, as many as it was asked about.
        held_out: The same of rows held out; empty if it was not asked about them.
        chance: How likely it is by chance to be better than the first by so much; None where that was not looked at.
        is_chosen: Whether it is the one to take.
    """

    round: int
    parent: int | None
    wording: Wording | None
    error: str | None = None
    learnt: list[Judged] = field(default_factory=list)
    held_out: list[Judged] = field(default_factory=list)
    chance: float | None = None
    is_chosen: bool = False

    @property
    def right(self) -> int:
        """How many rows to learn from it was right about."""
        return sum(judged.is_right for judged in self.learnt)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is tried on how many rows.

    Attributes:
        rounds: How often other prompts are written.
        proposals: How many of them each time.
        examples: Rows that are shown as examples, by a candidate of each round.
        learning: Rows to learn from.
        held_out: Rows to judge by.
    """

    rounds: int
    proposals: int
    examples: int
    learning: int
    held_out: int

    @classmethod
    def of(cls, rows: int, rounds: int, proposals: int, examples: int) -> Plan:
        """Split so many different rows.

        Raises:
            OptionError: They are too few.

        >>> Plan.of(200, 3, 4, 4)
        Plan(rounds=3, proposals=4, examples=4, learning=96, held_out=100)
        """
        half = rows // 2
        if half < LEAST_HELD_OUT:
            raise OptionError(
                f"there are {rows} different rows with a known answer, and at least {2 * LEAST_HELD_OUT} are needed",
                hint="Half of them are held out to judge by. With fewer nothing could be shown to be better.",
            )
        examples = min(examples, half // _EXAMPLES_OF)
        return cls(rounds, proposals, examples, half - examples, rows - half)

    @property
    def contenders(self) -> int:
        """The candidates of a round, at most."""
        return self.proposals + bool(self.examples)

    @property
    def questions(self) -> int:
        """Questions about rows, at most.

        >>> Plan.of(200, 3, 4, 4).questions
        872
        """
        of_round = halving.questions_of(self.contenders, self.learning)
        return self.learning + self.rounds * of_round + 2 * self.held_out

    @property
    def lessons(self) -> int:
        """Prompts that are asked for, at most."""
        return self.rounds * self.proposals


TryOut = Callable[[Sequence[Wording], range], Sequence[Sequence[Judged]]]
"""Asks each of some wordings about each of some rows."""
Propose = Callable[[Wording, Sequence[Lesson]], Sequence[Proposal]]
"""Writes one other prompt for each lesson."""


def tune(prompt: str, plan: Plan, try_out: TryOut, propose: Propose) -> list[Tried]:
    """Find a better prompt, if there is one.

    Args:
        prompt: The first.
        plan: What is tried.
        try_out: Asks.
        propose: Writes.

    Returns:
        All that was tried or refused, the first first; one of them is chosen.
    """
    first = best = Tried(0, None, Wording(prompt))
    tried = [first]
    _ask([first], range(plan.learning), try_out)
    for number in range(1, plan.rounds + 1):
        if best.right == plan.learning:
            break
        new = _new(best, tried, number, plan, propose)
        tried += new
        winner = _best_of([each for each in new if each.error is None], plan.learning, try_out)
        if winner is not None and winner.right > best.right:
            best = winner
    finalists = [first] if best is first else [first, best]
    wordings = [each.wording for each in finalists if each.wording is not None]
    rows = range(plan.learning, plan.learning + plan.held_out)
    for each, judged in zip(finalists, try_out(wordings, rows), strict=True):
        each.held_out += judged
    if best is not first:
        best.chance = _by_chance(best, first)
    chosen = best if best.chance is not None and best.chance <= 1 - SURE else first
    chosen.is_chosen = True
    return tried


def _new(best: Tried, tried: Sequence[Tried], number: int, plan: Plan, propose: Propose) -> list[Tried]:
    """The candidates of a round, refused ones among them."""
    parent, own = tried.index(best), best.wording
    if own is None:
        return []
    known = {each.wording: place for place, each in enumerate(tried) if each.error is None}
    new: list[Tried] = []
    with_examples = Wording(own.prompt, shows_examples=True)
    if plan.examples and with_examples not in known:
        known[with_examples] = len(tried)
        new.append(Tried(number, parent, with_examples))
    for proposal in propose(own, lessons_of(best.learnt, number, plan.proposals)):
        wording = None if proposal.prompt is None else Wording(proposal.prompt, own.shows_examples)
        error = proposal.error
        if error is None and wording in known:
            error = f"it is the same as candidate {known[wording]}"
        elif error is None:
            known[wording] = len(tried) + len(new)
        new.append(Tried(number, parent, wording, error))
    return new


def lessons_of(learnt: Sequence[Judged], number: int, count: int) -> list[Lesson]:
    """What other prompts are written for: each for other mistakes, as far as there are enough.

    Args:
        learnt: What was answered.
        number: Of the round, so that a prompt which stays the best is not shown the same again.
        count: How many.
    """
    wrong = [(row, judged.answer) for row, judged in enumerate(learnt) if not judged.is_right]
    lessons = []
    for way in range((number - 1) * count, number * count):
        places = (way * SHOWN_MISTAKES + place for place in range(min(SHOWN_MISTAKES, len(wrong))))
        lessons.append(Lesson(tuple(wrong[place % len(wrong)] for place in places), way))
    return lessons


def _best_of(contenders: Sequence[Tried], rows: int, try_out: TryOut) -> Tried | None:
    if not contenders:
        return None
    race = halving.Halving(range(len(contenders)), rows)
    while (some := race.next_rows()) is not None:
        _ask([contenders[number] for number in race.left], some, try_out)
        race.take({number: contenders[number].right for number in race.left})
    return contenders[race.left[0]]


def _ask(candidates: Sequence[Tried], rows: range, try_out: TryOut) -> None:
    wordings = [each.wording for each in candidates if each.wording is not None]
    for each, judged in zip(candidates, try_out(wordings, rows) if rows else [[]] * len(wordings), strict=True):
        each.learnt += judged


def _by_chance(best: Tried, first: Tried) -> float:
    pairs = [(one.is_right, other.is_right) for one, other in zip(best.held_out, first.held_out, strict=True)]
    return by_chance(pairs.count((True, False)), pairs.count((False, True)))
