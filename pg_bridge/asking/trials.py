"""Candidates asked about rows whose answers are known: how often each agrees, and which prompt is best.

In: rows and their known answers, candidates, a statement's memory and what asks. Out: for each candidate a tally; or
the prompts that were tried. What is asked of a row is made of the row without its known answer: `labelled` keeps the
two apart. It knows neither PostgreSQL nor HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from pg_bridge.asking.agreement import Known, Tally
from pg_bridge.asking.inquiry import Ask, NotAsked, Outcome
from pg_bridge.asking.labelled import Labelled
from pg_bridge.asking.memory import Memory
from pg_bridge.asking.prompt import parse_question
from pg_bridge.asking.teaching import ask_for, lessons_table, read_proposal, with_examples
from pg_bridge.asking.together import Failed, Round, answer_columns
from pg_bridge.asking.tuning import Judged, Lesson, Plan, Proposal, Tried, Wording, tune
from pg_bridge.asking.windows import rounds_of
from pg_bridge.errors import CallError
from pg_bridge.options import Call
from pg_bridge.rows.table import Table

Begin = Callable[[str, int], Round]
"""Begins what asks a server, by its name; what it does counts for a number."""


def evaluate(
    asks: Sequence[Ask], rows: Sequence[Labelled], columns: Sequence[str], within: float, memory: Memory, begin: Begin
) -> list[Tally]:
    """Count how often each of some candidates agrees with what is known.

    Args:
        asks: The candidates; what each took stands under its number in `memory.nodes`.
        rows: The rows.
        columns: Theirs.
        within: How far a number may be from the one that is known.
        memory: Of the statement.
        begin: Begins what asks.

    Raises:
        CallError: A question has no answer, and `on_error` is `fail`.
        BudgetExceeded: More would have to be asked than a budget allows, and `on_budget` is `fail`.
        EngineError: An engine failed as a whole.
    """
    known = [row.known for row in rows]
    tallies = [Tally() for _ in asks]
    for number, (ask, tally) in enumerate(zip(asks, tallies, strict=True)):
        answers = (each[0] for each in _ask([ask], rows, columns, memory, lambda: begin(ask.call.server, number)))  # noqa: B023
        for truth, (answer, error) in zip(known, answers, strict=True):
            if not isinstance(error, NotAsked):
                tally.count(truth, answer, within)
    return tallies


def _ask(
    asks: Sequence[Ask], rows: Sequence[Labelled], columns: Sequence[str], memory: Memory, begin: Callable[[], Round]
) -> Iterator[tuple[Outcome, ...]]:
    """The outcomes of some questions, row by row; as many rows together as may be in memory: all, as a rule."""
    for some in rounds_of(rows, lambda row: len(row.row)):
        table = Table.from_json([row.row for row in some], columns)
        asking = begin()
        try:
            outcomes = answer_columns(memory, asks, table, asking)
        except Failed as failed:
            raise CallError(failed.reason) from None
        finally:
            asking.close()
        yield from zip(*outcomes, strict=True)


@dataclass(frozen=True, slots=True)
class Lessons:
    """What a prompt is tuned on.

    Attributes:
        plan: How many rows are for what.
        rows: Different ones, in an order of chance: those to learn from first, some of which are examples.
        columns: Theirs.
        examples: Numbers of those that are.
    """

    plan: Plan
    rows: Sequence[Labelled]
    columns: Sequence[str]
    examples: Sequence[int]

    @property
    def shown(self) -> list[Labelled]:
        """The rows that are examples."""
        return [self.rows[number] for number in self.examples]

    @property
    def tried(self) -> list[Labelled]:
        """The rows that are asked about, in the order of `Plan`."""
        examples = set(self.examples)
        return [row for number, row in enumerate(self.rows) if number not in examples]


@dataclass(frozen=True, slots=True)
class Tuner:
    """Asks about rows, and for prompts.

    Attributes:
        prompt: The first prompt.
        call: How it is asked.
        teacher: How other prompts are asked for.
        lessons: What it is tuned on.
        within: How far a number may be from the one that is known.
        memory: Of the statement.
        begin: Begins what asks.
    """

    prompt: str
    call: Call
    teacher: Call
    lessons: Lessons
    within: float
    memory: Memory
    begin: Begin

    def tune(self) -> list[Tried]:
        """Find a better prompt; raises as `evaluate` does."""
        rows = self.lessons.tried
        known = [row.known for row in rows]
        return tune(
            self.prompt,
            self.lessons.plan,
            lambda wordings, some: self._try_out(wordings, rows, known, some),
            lambda wording, lessons: self._propose(wording, lessons, rows),
        )

    def system_prompt(self, wording: Wording) -> str:
        """The system prompt that goes with a wording."""
        own = self.call.system_prompt
        return with_examples(own, self.lessons.shown) if wording.shows_examples else own

    def _try_out(
        self, wordings: Sequence[Wording], rows: Sequence[Labelled], known: Sequence[Known], some: range
    ) -> list[list[Judged]]:
        asks = [Ask(each.prompt, replace(self.call, system_prompt=self.system_prompt(each))) for each in wordings]
        asked = rows[some.start : some.stop]
        found = _ask(asks, asked, self.lessons.columns, self.memory, lambda: self.begin(self.call.server, 0))
        judged: list[list[Judged]] = [[] for _ in wordings]
        for truth, outcomes in zip(known[some.start : some.stop], found, strict=True):
            for of_wording, (answer, _) in zip(judged, outcomes, strict=True):
                is_right = answer is not None and truth.agrees(answer, self.within)
                of_wording.append(Judged(answer, is_right))
        return judged

    def _propose(self, wording: Wording, lessons: Sequence[Lesson], rows: Sequence[Labelled]) -> list[Proposal]:
        if not lessons:
            return []
        table = lessons_table(wording.prompt, self.call, lessons, rows)
        asking = self.begin(self.teacher.server, 0)
        try:
            (outcomes,) = answer_columns(self.memory, [ask_for(self.teacher)], table, asking)
        except Failed as failed:
            raise CallError(failed.reason) from None
        finally:
            asking.close()
        question = parse_question(self.prompt)
        return [read_proposal(answer, error, question) for answer, error in outcomes]
