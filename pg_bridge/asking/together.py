"""The same road, all at once: rows in, all their answers out, for who waits for the whole window.

    rows of one window → Table → unique rows → Ordering → prompts → completions → answers in the rows' order

In: questions about rows, as a batch node's calls or a foreign table's columns ask them, a statement's memory and an
engine. Out: all answers at once; what the statement has been answered before, in any of its nodes, is not asked again.
It knows neither PostgreSQL nor HTTP.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack

from pg_bridge.asking.books import Books, telling
from pg_bridge.asking.budget import Budget
from pg_bridge.asking.inquiry import Ask, Inquiry, Outcome
from pg_bridge.asking.memory import Memory
from pg_bridge.asking.portions import Group, Portions
from pg_bridge.asking.prompt import resolve_columns
from pg_bridge.asking.pruned import Pruned
from pg_bridge.asking.run import PairsAsked, Run
from pg_bridge.engine import AHEAD_PROMPTS, Completion, Engine, Portion
from pg_bridge.ledger.account import Account
from pg_bridge.rows.table import Table


class Failed(Exception):  # a message to who asks, not an error for users
    """A question has no answer, and so the round has ended.

    Attributes:
        inquiry: The question.
        prompt: The digest of its prompt.
        reason: Why.
    """

    def __init__(self, inquiry: Inquiry, prompt: str, reason: str) -> None:
        super().__init__(reason)
        self.inquiry = inquiry
        self.prompt = prompt
        self.reason = reason


Fails = Callable[[Inquiry, str | None], bool]
"""Whether what asks ends where a question has no answer for a reason; None for what the engine refuses to answer."""


def fails_with_its_call(inquiry: Inquiry, _: str | None) -> bool:
    """Whether a question is of a call that fails where there is no answer."""
    return inquiry.call.on_error == "fail"


class Round:
    """Questions that are asked together; a few of them may go ahead, while the rows of the others are being read.

    Whoever makes one sees that it is closed.

    Args:
        memory: Of the statement.
        node: The plan node that asks.
        engine: Where the prompts go; closed at the end.
        account: The statement's with the ledger.
        fails: Whether it ends, at once, where a question has no answer.
        tells: Whether it tells how far it is, and which prompts have failed; else who asks does so.
    """

    def __init__(
        self,
        memory: Memory,
        node: int,
        engine: Engine,
        account: Account | None = None,
        *,
        fails: Fails = fails_with_its_call,
        tells: bool = False,
    ) -> None:
        self._memory = memory
        self._node = node
        self._engine = engine
        self._run = Run(usage=engine.usage)
        self._books = Books(account, engine, self._run)
        self._budget = Budget(account, self._run)
        self._portions = Portions(memory, self._run, self._books, self._budget, engine.work)
        self._ahead: deque[Portion] = deque()
        self._unanswered = 0  # of those that went ahead
        self._groups: list[Group] | None = None
        self._completions = engine.complete_portions(
            self._portions.with_repairs(self._made()),
            self._portions.sampling_of,
            eager=True,
            landed=self._portions.land,
            ends_run=self._ends_with,
        )
        self._fails = fails
        self._is_closed = False
        self._tells = tells
        self._telling = ExitStack()
        self._count = self._telling.enter_context(telling(account if tells else None))
        self._counted = 0

    def work(self) -> None:
        """Send what waits and receive what has come; for who reads or cuts rows meanwhile."""
        self._engine.work()

    def tell_pairs(self, pairs: PairsAsked) -> None:
        """Count how pairs are asked about."""
        self._run.pairs.add(pairs)

    def tell_pruned(self, pruned: Iterable[Pruned]) -> None:
        """Count pairs that were pruned; of their sample more may become known afterwards."""
        self._run.pruned += pruned

    def group(self, inquiries: Sequence[Inquiry], table: Table) -> Group:
        """Make a group of rows and the questions about them, as for `Group`."""
        return Group(inquiries, table, remembered=self._books.remembers(inquiries[0].call))

    def ask_ahead(self, make_group: Callable[[], Group], read: int) -> None:
        """Ask about a few rows of a group, of which more are still being read.

        Args:
            make_group: Makes the group of some rows that have been read.
            read: How many have been read so far.

        Raises:
            Failed: A question has no answer, and that ends it.
            EngineError: The engine failed as a whole.
        """
        self._count_rows(read)
        with self._run.planning():
            group = make_group()
        calls = [inquiry.call for inquiry in group.inquiries]
        self._budget.expect(calls)
        if any(map(self._budget.foresees, calls)):  # first it must be known what all of it takes
            return
        if any(call.packs for call in calls):  # few rows would be few to a prompt
            return
        if not self._books.remembers(group.call):  # else a row cannot be found again by what it is
            return
        # So that it is never waited for room: more would have to be answered first.
        room = (AHEAD_PROMPTS - 1 - self._unanswered) // len(group.inquiries)
        fresh = self._portions.fresh(group)
        if fresh and room > 0:
            portion, _ = self._portions.ahead(group, fresh, read, room)
            self._unanswered += portion.size
            self._ahead.append(portion)
            self._send()

    def ask(self, rows: int, make_groups: Callable[[], Iterator[Group]]) -> list[Group]:
        """Make groups, then ask what they have to ask; their outcomes are known afterwards.

        Args:
            rows: How many rows there are in all.
            make_groups: Makes the groups; called once.

        Raises:
            Failed: A question has no answer, and that ends it.
            BudgetExceeded: More would have to be asked than a budget allows, and `on_budget` of its call is `fail`.
            EngineError: The engine failed as a whole.
        """
        self._run.rows = rows
        self._count_rows(rows)
        try:
            with self._run.planning():
                self._groups = list(make_groups())
            for completion in self._completions:
                if completion is not None:
                    self._learn(completion)
            self._learn_held()
            self._budget.check()
        finally:
            self.close()
        return self._groups

    def close(self) -> None:
        """Abort what is in flight, and count what was done; may be called at any time, also twice."""
        if self._is_closed:
            return
        self._is_closed = True
        self._engine.close()
        self._portions.close()
        self._telling.close()
        self._memory.run.add(self._run)
        self._memory.nodes.setdefault(self._node, Run()).add(self._run)
        self._completions.close()

    def _send(self) -> None:
        """Have what goes ahead sent, and learn what has come."""
        is_made = False  # the first portion of all is sent at the next turn
        for completion in self._completions:
            if completion is not None:
                self._learn(completion)
                self._unanswered -= 1
            elif is_made:
                break
            else:
                is_made = not self._ahead
        self._learn_held()

    def _learn(self, completion: Completion) -> None:
        inquiry, known = self._portions.learn(completion)
        for key, (_, error) in known:
            if error is None:
                continue
            if self._tells:
                self._memory.run.failures.add(self._engine.server_name, inquiry.failed[key], error)
            if self._fails(inquiry, error):
                raise Failed(inquiry, inquiry.failed[key], error)

    def _ends_with(self, index: int) -> bool:
        """Whether it ends if the prompt of an index fails."""
        inquiry = self._portions.ends_with(index)
        return inquiry is not None and self._fails(inquiry, None)

    def _learn_held(self) -> None:
        self._unanswered -= sum(1 for _ in self._portions.learn_held())

    def _count_rows(self, read: int) -> None:
        self._count(max(0, read - self._counted))
        self._counted = max(read, self._counted)

    def _made(self) -> Iterator[Portion]:
        while self._groups is None:
            yield self._ahead.popleft() if self._ahead else Portion(iter(()), is_ahead=True)
        yield from self._portions.of_groups(self._groups)


def group_columns(memory: Memory, asks: Sequence[Ask], table: Table, asking: Round) -> list[tuple[list[int], Group]]:
    """Gather questions about the same rows that need the same columns: they share the work on them.

    Args:
        memory: Of the statement.
        asks: The questions.
        table: The rows, with all columns that a question may name.
        asking: What is going to ask.

    Returns:
        Numbers of questions, and what they ask about.

    Raises:
        TemplateError: A prompt does not parse or names an unknown column.
    """
    groups = []
    for together in groups_of(memory, asks, table.columns):
        inquiries = [memory.inquiry(asks[number]) for number in together]
        needed = resolve_columns(inquiries[0].question, table.columns)
        groups.append((together, asking.group(inquiries, table.select(needed))))
    return groups


def groups_of(memory: Memory, asks: Sequence[Ask], columns: Sequence[str | None]) -> list[list[int]]:
    """The numbers of the questions that go together: rows behind the same beginning, of the same columns.

    Raises:
        TemplateError: A prompt does not parse or names an unknown column.
    """
    numbers: dict[tuple[object, ...], list[int]] = {}
    for number, ask in enumerate(asks):
        needed, call = resolve_columns(memory.inquiry(ask).question, columns), ask.call
        alike = (needed, call.reorder, call.dedup, call.cache, call.system_prompt)
        numbers.setdefault(alike, []).append(number)
    return list(numbers.values())


def answer_columns(memory: Memory, asks: Sequence[Ask], table: Table, asking: Round) -> list[list[Outcome]]:
    """Ask several questions about the same rows.

    Args:
        memory: Of the statement.
        asks: The questions.
        table: The n rows, with all columns that a question may name.
        asking: What asks; ended by it.

    Returns:
        For each question (n,) outcomes.

    Raises:
        Failed: A question has no answer, and that ends the round.
        TemplateError: A prompt does not parse or names an unknown column.
        BudgetExceeded: More would have to be asked than a budget allows, and `on_budget` of its call is `fail`.
        EngineError: The engine failed as a whole.
    """
    numbers: list[list[int]] = []

    def make_groups() -> Iterator[Group]:
        for together, group in group_columns(memory, asks, table, asking):
            numbers.append(together)
            yield group

    answers: list[list[Outcome]] = [[] for _ in asks]
    groups = asking.ask(table.rows, make_groups)
    for group, together in zip(groups, numbers, strict=True):
        for place, number in enumerate(together):
            answers[number] = group.outcomes(place)
    forget(groups)
    return answers


def find_known(
    memory: Memory, ask: Ask, table: Table, engine: Engine, account: Account | None = None
) -> list[Outcome | None]:
    """Tell what a question about some rows has been answered before; None where it has not been asked.

    Args:
        memory: Of the statement.
        ask: The question.
        table: The n rows, with all columns that it may name.
        engine: Tells which model would answer; closed at the end.
        account: The statement's with the ledger.
    """
    inquiry = memory.inquiry(ask)
    run = Run(usage=engine.usage)
    books = Books(account, engine, run)
    if not books.remembers(ask.call):
        return [None] * table.rows
    needed = table.select(resolve_columns(inquiry.question, table.columns))
    group = Group([inquiry], needed, remembered=True)
    try:
        books.recall(inquiry, group.keys)
    finally:
        engine.close()
        books.close()
        memory.run.add(run)
    return group.known()


def find_failed(memory: Memory, asks: Sequence[Ask], table: Table) -> list[str | None]:
    """Tell which prompts about some rows have failed.

    Args:
        memory: Of the statement.
        asks: Questions that need the same columns; the first that failed for a row counts.
        table: The n rows, with all columns that they may name.

    Returns:
        (n,) digests of the prompts; None where none is known.
    """
    found: list[str | None] = [None] * table.rows
    for inquiry in map(memory.inquiry, reversed(asks)):
        needed = table.select(resolve_columns(inquiry.question, table.columns))
        failed = Group([inquiry], needed, remembered=True).failed()
        found = [digest or known for digest, known in zip(failed, found, strict=True)]
    return found


def outcomes_at(groups: Sequence[Group], places: Iterable[Sequence[int]], count: int) -> list[Outcome]:
    """The outcomes of groups of one question each, by the places of their rows; the groups are done with.

    Args:
        groups: What was asked.
        places: For each group where its rows stand.
        count: Of all rows.
    """
    outcomes: list[Outcome] = [(None, None)] * count
    for group, of_group in zip(groups, places, strict=True):
        for place, outcome in zip(of_group, group.outcomes(0), strict=True):
            outcomes[place] = outcome
    forget(groups)
    return outcomes


def forget(groups: Sequence[Group]) -> None:
    """Keep the latest outcomes of the groups' questions only."""
    for group in groups:
        for inquiry in group.inquiries:
            inquiry.forget()
