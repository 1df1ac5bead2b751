"""From rows that questions have to be asked about to portions of prompts, in the order in which to send them.

    rows → Table → unique rows → those of which nothing is known → Ordering → prompts

In: a table and its questions. Out: portions. Of many rows a few go ahead, in an order that is quickly found, so that
the engine has work while the others are planned; which few they are makes hardly a prompt share less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from pg_bridge.asking.books import Books
from pg_bridge.asking.budget import Asked, Budget
from pg_bridge.asking.failures import digest_prompt
from pg_bridge.asking.inquiry import Inquiry, NotAsked, Outcome, digest_rows
from pg_bridge.asking.memory import Memory
from pg_bridge.asking.packing import Pack, Packing
from pg_bridge.asking.packs import Packs
from pg_bridge.asking.prompt import pieces_of, render_questions
from pg_bridge.asking.run import Run
from pg_bridge.engine import NOTHING_YET, Completion, Portion, Sampling
from pg_bridge.ordering import Ordering, Sent, plan
from pg_bridge.rows.dedup import dedup
from pg_bridge.rows.media import media_of
from pg_bridge.rows.table import Table

_LEAD_FROM_CELLS = 4096  # fewer are planned at once, in some hundredths of a second
_LEAD_SHARE = 8  # of so many rows one goes ahead: an engine that answers 1,500 in a second has work for as long
_MOST_LEAD_ROWS = 16_384
_AHEAD_SHARE = 128  # of so many rows that have been read, one is asked about while as many more are read
_LARGE_READ_ROWS = 1 << 15  # from here on one of half as many, for reading and cutting them all takes longer


class Group:
    """Rows that are asked the same questions, cut once.

    Args:
        inquiries: The questions; they agree in what may be reordered and left out.
        table: The rows, with the columns to send.
        remembered: Whether an answer may serve for equal rows of other groups.
    """

    def __init__(self, inquiries: Sequence[Inquiry], table: Table, *, remembered: bool) -> None:
        self.inquiries = list(inquiries)
        self.call = inquiries[0].call
        self._unique = dedup(table, enabled=self.call.dedup)
        self.table = self._unique.table
        self.keys = digest_rows(self.table, remembered=remembered)

    def failed(self) -> list[str | None]:
        """(n,) the digest of each input row's prompt if it failed, of the first question; None where none is known."""
        digests = list(map(self.inquiries[0].failed.get, self.keys))
        return [digests[u] for u in self._unique.inverse.tolist()]

    def fan_out(self) -> tuple[list[int], list[int]]:
        """(offsets, members): the input rows of unique row u are `members[offsets[u]:offsets[u + 1]]`."""
        offsets, members = self._unique.fan_out()
        return offsets.tolist(), members.tolist()

    def known(self, number: int = 0) -> list[Outcome | None]:
        """(n,) the outcome so far of each input row, of one of the questions."""
        outcomes = list(map(self.inquiries[number].outcomes.get, self.keys))
        return [outcomes[u] for u in self._unique.inverse.tolist()]

    def outcomes(self, number: int) -> list[Outcome]:
        """(n,) the outcome of each input row, of one of the questions."""
        outcomes = list(map(self.inquiries[number].outcomes.__getitem__, self.keys))
        return [outcomes[u] for u in self._unique.inverse.tolist()]


@dataclass(slots=True)
class Portions:
    """Makes the portions of one run, and knows which prompt asks what.

    Attributes:
        memory: Of the statement.
        run: Filled in as prompts are made.
        books: Know what need not be asked, and are told what lands.
        budget: Says what may be asked, and is told what lands.
        work: Called while portions are made; lets the engine work meanwhile.
    """

    memory: Memory
    run: Run
    books: Books
    budget: Budget
    work: Callable[[], None]
    _expected: dict[int, tuple[Inquiry, bytes, str]] = field(default_factory=dict)  # by the number of the prompt
    _ahead: set[tuple[Inquiry, bytes]] = field(default_factory=set)  # asked ahead, and not answered yet
    _number: int = 0  # of the next prompt
    _held: list[tuple[Inquiry, bytes]] = field(default_factory=list)  # what the budget did not allow
    _packs: Packs = field(init=False)

    def __post_init__(self) -> None:
        self._packs = Packs(self.books.context_tokens, self.run.together)

    def sampling_of(self, index: int) -> Sampling:
        """How the prompt of an index is to be answered."""
        return self._packs.sampling_of(index) or self._expected[index][0].sampling

    def ends_with(self, index: int) -> Inquiry | None:
        """Which question has no answer if the prompt of an index has none; None where it is asked otherwise then."""
        packed = self._packs.asked_by(index)
        if packed is None:
            return self._expected[index][0]
        inquiry, pack = packed
        return inquiry if pack.size == 1 else None

    def learn(self, completion: Completion) -> tuple[Inquiry, list[tuple[bytes, Outcome]]]:
        """Remember what an answer says; returns whose it is, too: of which question, and about which rows."""
        landed = self._packs.take(completion.index)
        if landed is None:
            inquiry, key, prompt = self._expected.pop(completion.index)
            self._ahead.discard((inquiry, key))
            found = [(key, inquiry.judge(completion))]
        else:
            inquiry, prompt, found, _ = landed
        known = [(key, inquiry.outcomes.setdefault(key, outcome)) for key, outcome in found]  # the first one holds
        for key, (_, error) in known:
            if error is not None:
                inquiry.failed[key] = digest_prompt(prompt)
        return inquiry, known

    def land(self, completions: Sequence[Completion]) -> None:
        """Write answers into the books, before anybody learns them."""
        self.budget.land(completions)
        self.books.land([each for completion in completions for each in self._landed(completion)], len(completions))

    def _landed(self, completion: Completion) -> Iterator[tuple[Inquiry, bytes, Outcome, str]]:
        landed = self._packs.land(completion)
        if landed is None:
            inquiry, key, prompt = self._expected[completion.index]
            yield inquiry, key, inquiry.judge(completion), prompt
            return
        if landed.reason is not None:
            self.memory.run.failures.add(self.books.server_name, digest_prompt(landed.prompt), landed.reason)
        for key, outcome in landed.outcomes:
            yield landed.inquiry, key, outcome, landed.prompt

    def learn_held(self) -> Iterator[bytes]:
        """Remember of what was not asked why not, where calls make do with that; whose it is."""
        if self._held and not self.budget.is_over:
            held, self._held = self._held, []
            for inquiry, key in held:
                self._ahead.discard((inquiry, key))
                inquiry.outcomes.setdefault(key, (None, NotAsked(self.budget.why_not(inquiry.call))))
                yield key

    def close(self) -> None:
        """Write the rest into the books, at a moment when the user cannot be told of trouble."""
        self.budget.close()
        self.books.close()

    def of_groups(self, groups: Sequence[Group]) -> Iterator[Portion]:
        """Ask all that is not known of some groups, if all of it can be afforded."""
        unknown: Iterable[tuple[Group, list[Inquiry], NDArray[np.intp]]] = chain.from_iterable(
            map(self._unknown, groups)
        )
        calls = [inquiry.call for group in groups for inquiry in group.inquiries]
        self.budget.expect(calls)
        if any(map(self.budget.foresees, calls)):
            unknown = list(unknown)
            if not self.affords(unknown):
                return
        for group, inquiries, rows in unknown:
            yield from self.of_rows(group, inquiries, rows)

    def with_repairs(self, portions: Iterator[Portion]) -> Iterator[Portion]:
        """The same portions, and what is asked in the place of prompts about several rows that have no answer."""
        for portion in portions:
            yield portion
            yield from self._repairs()
        while self._packs.are_due and not self.budget.is_over:
            yield NOTHING_YET
            yield from self._repairs()

    def _repairs(self) -> Iterator[Portion]:
        for packing, packs in self._packs.take_again():
            yield Portion(self._packs.making(self._packed(packing, iter(packs))), len(packs))

    def affords(self, unknown: Iterable[tuple[Group, Sequence[Inquiry], NDArray[np.intp]]]) -> bool:
        """Whether all that is asked of some groups' rows can be afforded; if not, the statement is to end."""
        return self.budget.allows(
            Asked(inquiry.call, prompts, prompts * _chars_around(inquiry) + row_chars)
            for group, inquiries, rows in unknown
            for row_chars in [_chars_of_rows(group.table, rows)]
            for inquiry in inquiries
            for prompts in [_fewest_prompts(inquiry, len(rows))]
        )

    def _unknown(self, group: Group) -> Iterator[tuple[Group, list[Inquiry], NDArray[np.intp]]]:
        """Questions, and the rows of which they are unknown."""
        unknown: dict[tuple[int, ...], list[Inquiry]] = {}  # the questions of which the same rows are unknown
        for inquiry in dict.fromkeys(group.inquiries):
            self._recall(group, inquiry)
            rows = tuple(self._fresh_of(group, inquiry))
            if rows:
                unknown.setdefault(rows, []).append(inquiry)
        for rows, inquiries in unknown.items():
            yield group, inquiries, np.array(rows, np.intp)

    def of_rows(
        self, group: Group, inquiries: Sequence[Inquiry], rows: NDArray[np.intp], *, quick: bool = False
    ) -> Iterator[Portion]:
        """Ask some questions about some of a group's unique rows.

        Args:
            group: The group.
            inquiries: Some of its questions.
            rows: Places in its table.
            quick: Whether to order them in a way that rows to come are likely to continue.
        """
        self.work()
        shut = [inquiry for inquiry in inquiries if self.budget.is_shut(inquiry.call)]
        if shut:
            self._held += [(inquiry, group.keys[row]) for inquiry in shut for row in rows.tolist()]
            inquiries = [inquiry for inquiry in inquiries if inquiry not in shut]
            if not inquiries:
                yield Portion(iter(()), is_ahead=True)  # to hand over what that is
                return
        if len(rows) * len(group.table.columns) >= _LEAD_FROM_CELLS and not quick:
            lead = self._lead(group, rows, len(rows) // _LEAD_SHARE)
            yield self._portion(group, inquiries, rows[lead], is_ahead=True)
            rows = np.delete(rows, lead)
        yield self._portion(group, inquiries, rows, quick=quick)

    def fresh(self, group: Group) -> list[int]:
        """The unique rows of a group of which no question has been asked, or is known."""
        for inquiry in group.inquiries:
            self._recall(group, inquiry)
        return sorted(set.intersection(*(set(self._fresh_of(group, inquiry)) for inquiry in group.inquiries)))

    def ahead(
        self, group: Group, rows: Sequence[int], read: int, most: int = _MOST_LEAD_ROWS
    ) -> tuple[Portion, list[int]]:
        """Ask about a few of some unique rows, of a group of which more rows are still being read.

        Args:
            group: The group, whose answers are remembered: its rows are to be found again by what they are.
            rows: Places in its table.
            read: How many rows have been read so far.
            most: Rows to ask about at most.

        Returns:
            The portion, and the rows that are asked about.
        """
        share = _AHEAD_SHARE if read < _LARGE_READ_ROWS else _AHEAD_SHARE // 2
        chosen = np.array(rows, np.intp)
        chosen = chosen[self._lead(group, chosen, min(most, read // share))]
        asked = chosen.tolist()
        self._ahead.update((inquiry, group.keys[u]) for inquiry in group.inquiries for u in asked)
        return self._portion(group, group.inquiries, chosen, is_ahead=True), asked

    def _recall(self, group: Group, inquiry: Inquiry) -> None:
        """Learn what the ledger knows; of what was asked ahead an answer may be there that nobody has learned."""
        ahead = self._ahead
        self.books.recall(inquiry, [key for key in group.keys if (inquiry, key) not in ahead] if ahead else group.keys)

    def _fresh_of(self, group: Group, inquiry: Inquiry) -> Iterator[int]:
        outcomes, ahead = inquiry.outcomes, self._ahead
        return (u for u, key in enumerate(group.keys) if key not in outcomes and (inquiry, key) not in ahead)

    def _lead(self, group: Group, rows: NDArray[np.intp], most: int) -> NDArray[np.intp]:
        """Places in `rows` of a few that share much with each other: neighbours in an order that is soon found."""
        size = max(1, min(most, _MOST_LEAD_ROWS, len(rows)))
        reorder = group.call.reorder
        with self.run.planning():
            table = group.table.take(rows)
            ordering = plan(table, reorder=reorder, quick=True, check_interrupts=self.work)
            start = 0 if reorder == "none" else _find_densest(table, ordering, size)
        return ordering.row_order[start : start + size]

    def _portion(
        self,
        group: Group,
        inquiries: Sequence[Inquiry],
        rows: NDArray[np.intp],
        *,
        quick: bool = False,
        is_ahead: bool = False,
    ) -> Portion:
        """Order some rows, and make prompts of them."""
        heads = (tuple(map(id, inquiries)), group.table.columns)
        with self.run.planning():
            ordering = plan(
                group.table.take(rows),
                reorder=group.call.reorder,
                quick=quick or is_ahead,
                after=self.memory.sent.get(heads, Sent()),
                check_interrupts=self.work,
            )
        if ordering.sent is not None:
            self.memory.sent[heads] = ordering.sent
        size = sum(_fewest_prompts(inquiry, len(rows)) for inquiry in inquiries)
        return Portion(self._prompts(group, inquiries, rows, ordering), size, is_ahead)

    def _prompts(
        self, group: Group, inquiries: Sequence[Inquiry], rows: NDArray[np.intp], ordering: Ordering
    ) -> Iterator[str]:
        keys = [group.keys[row] for row in rows[ordering.row_order].tolist()]
        table = group.table.take(rows)
        has_media = bool(media_of(chain.from_iterable(table.values)))  # which stand in a prompt of their row alone
        packed = [inquiry for inquiry in inquiries if inquiry.call.packs and not has_media]
        alone = [inquiry for inquiry in inquiries if inquiry not in packed]
        prompts = self._each(alone, keys, table, ordering) if alone else iter(())
        for inquiry in packed:
            packing = self._packs.packing(inquiry)
            packs = packing.pack(zip(keys, pieces_of(table, ordering), strict=True))
            prompts = chain(prompts, self._packs.making(self._packed(packing, packs)))
        return prompts

    def _packed(self, packing: Packing, packs: Iterator[Pack]) -> Iterator[str]:
        inquiry = packing.inquiry
        for pack in packs:
            text = packing.write(pack)
            if not self.budget.admits(inquiry.call, self._number, len(text)):
                self._held += [(inquiry, key) for key in pack.keys]
                continue
            self._packs.send(self._number, packing, pack, text)
            self._number += 1
            self.run.unique_prompts += 1
            yield text

    def _each(
        self, inquiries: Sequence[Inquiry], keys: Sequence[bytes], table: Table, ordering: Ordering
    ) -> Iterator[str]:
        questions = [inquiry.question for inquiry in inquiries]
        for place, number, text in render_questions(questions, table, ordering, inquiries[0].call.placement):
            inquiry = inquiries[number]
            if not self.budget.admits(inquiry.call, self._number, len(text)):
                self._held.append((inquiry, keys[place]))
                continue
            self._expected[self._number] = inquiry, keys[place], text
            self._number += 1
            self.run.unique_prompts += 1
            yield text


def _fewest_prompts(inquiry: Inquiry, rows: int) -> int:
    """How many prompts it takes, at least, to ask about some rows."""
    return -(-rows // inquiry.call.rows_per_prompt) if inquiry.call.packs else rows


def _chars_around(inquiry: Inquiry) -> int:
    """The characters of a prompt and its instruction, less those of the row's cells and their names."""
    return len(inquiry.call.system_prompt) + len(inquiry.question.text) + len("\n{}")


def _chars_of_rows(table: Table, rows: NDArray[np.intp]) -> int:
    """The characters of some rows' cells and their names in prompts."""
    cells = sum(int(lengths[table.codes[rows, j]].sum()) for j, lengths in enumerate(table.lengths()))
    return cells + len(rows) * sum(len(label) + len(", ") for label in table.labels())


def _find_densest(table: Table, ordering: Ordering, count: int) -> int:
    """Where so many rows begin that share most with the rows before them, of rows that all have one column order."""
    columns = ordering.column_order[0]
    codes = table.codes[ordering.row_order][:, columns]
    all_lengths = table.lengths()
    chars = np.stack([all_lengths[column][codes[1:, place]] for place, column in enumerate(columns)], axis=1)
    equal = np.logical_and.accumulate(codes[1:] == codes[:-1], axis=1)
    summed = np.concatenate([[0], np.cumsum((equal * chars).sum(axis=1))])
    return int(np.argmax(summed[count - 1 :] - summed[: len(summed) - count + 1]))
