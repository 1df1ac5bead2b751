"""What the calls of one statement ask, window by window: questions about rows in, one answer a call out.

    calls of one window → Table → unique rows → Ordering → prompts → completions → answers in the calls' order

In: prompts and rows as the calls' arguments give them, a call's options and an engine. Out: all answers of the window
at once. It is to the functions what `pipeline` is to `llm.map`, with two differences: nothing is streamed, because the
executor waits for the whole window; and what the statement has been answered before, in any of its nodes, is not asked
again. It knows neither PostgreSQL nor HTTP.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from pg_bridge.dedup import dedup
from pg_bridge.engine import Engine
from pg_bridge.errors import CallError, OptionError
from pg_bridge.options import Call
from pg_bridge.ordering import Sent, plan
from pg_bridge.pipeline import REMEMBERED_ANSWERS, Run, collector_paused, row_digests, sampling_of, storable
from pg_bridge.prompt import Question, parse_question, render, resolve_columns
from pg_bridge.table import Table, layouts

Outcome = tuple[str | None, str | None]  # (text, error)

_NUMBERS = count()


@dataclass(slots=True)
class _Asked:
    """One question under one set of options.

    Attributes:
        question: The parsed prompt.
        outcomes: By the columns sent and the cells' digest, the oldest first.
        sent: By the columns sent, what the engine's cache has seen.
    """

    question: Question
    outcomes: dict[tuple[frozenset[str], bytes], Outcome] = field(default_factory=dict)
    sent: dict[frozenset[str], Sent] = field(default_factory=dict)


@dataclass(slots=True)
class Statement:
    """One statement's memory.

    Attributes:
        run: What all its calls did.
        nodes: What the calls of each plan node did.
    """

    run: Run = field(default_factory=Run)
    nodes: dict[int, Run] = field(default_factory=dict)
    _asked: dict[tuple[str | None, Call], _Asked] = field(default_factory=dict)

    def answer(
        self, node: int, prompts: Sequence[str | None], rows: Sequence[str | None], call: Call, engine: Engine
    ) -> list[str | None]:
        """Ask about the rows of one window.

        Args:
            node: The plan node that the calls belong to.
            prompts: (n,) the prompt of each call.
            rows: (n,) the row of each call, JSON text or None.
            call: The options that all of them have.
            engine: Where the prompts go; closed at the end.

        Returns:
            (n,) the answers; None for a row that failed, if `call.on_error` is `null`.

        Raises:
            TemplateError: A prompt does not parse or names an unknown column.
            OptionError: A row is no JSON object.
            CallError: A row failed and `call.on_error` is `fail`.
            EngineError: The engine failed as a whole.
        """
        run = Run(rows=len(rows), usage=engine.usage)
        places: dict[str | None, list[int]] = {}
        for place, prompt in enumerate(prompts):
            places.setdefault(prompt, []).append(place)
        started = time.perf_counter()
        with collector_paused():
            groups = [
                _Group(asked, columns, [of_prompt[i] for i in members], rows, call)
                for asked, of_prompt in (
                    (self._memory(prompt, call), of_prompt) for prompt, of_prompt in places.items()
                )
                for columns, members in _by_columns(asked.question, [rows[i] for i in of_prompt])
            ]
            pending = [each for group in groups for each in group.prompts(engine.check_interrupts)]
        run.plan_s = time.perf_counter() - started
        run.unique_prompts = len(pending)
        try:
            for completion in engine.complete(iter([text for _, _, text in pending]), sampling_of(call), eager=True):
                if completion is not None:
                    group, key, _ = pending[completion.index]
                    group.asked.outcomes[group.columns, key] = storable(completion)
        finally:
            engine.close()
            self.run.add(run)
            self.nodes.setdefault(node, Run()).add(run)
        answers: list[str | None] = [None] * len(rows)
        for group in groups:
            for place, (text, error) in group.answers():
                if error is not None and call.on_error == "fail":
                    raise CallError(error)
                answers[place] = text
        for group in groups:
            group.forget()
        return answers

    def _memory(self, prompt: str | None, call: Call) -> _Asked:
        if (prompt, call) not in self._asked:
            self._asked[prompt, call] = _Asked(parse_question(prompt))
        return self._asked[prompt, call]


class _Group:
    """Rows of one window that have the same columns and are asked the same.

    Args:
        asked: The question, and what is known of it.
        columns: The columns to send.
        places: Where the rows stand in the window.
        rows: The window's rows.
        call: The options.
    """

    def __init__(
        self, asked: _Asked, columns: tuple[str, ...], places: Sequence[int], rows: Sequence[str | None], call: Call
    ) -> None:
        self.asked = asked
        self._call = call
        self.columns = frozenset(columns)
        self._places = places
        # In one order, whatever that of the rows: a digest is one of cells in this order.
        self._unique = dedup(Table.from_json([rows[i] for i in places], sorted(columns)), enabled=call.dedup)
        self._keys = row_digests(self._unique.table)
        if not call.dedup:  # no row is another's equal, in this window or any other
            self._keys = [key + next(_NUMBERS).to_bytes(8) for key in self._keys]

    def prompts(self, check_interrupts: Callable[[], None]) -> Iterator[tuple[_Group, bytes, str]]:
        """Yield what is to be asked, in the order in which to send it: (self, key, prompt)."""
        known = self.asked.outcomes
        fresh = [u for u, key in enumerate(self._keys) if (self.columns, key) not in known]
        table = self._unique.table.take(np.array(fresh, dtype=np.intp))
        ordering = plan(
            table,
            reorder=self._call.reorder,
            after=self.asked.sent.get(self.columns, Sent()),
            check_interrupts=check_interrupts,
        )
        if ordering.sent is not None:
            self.asked.sent[self.columns] = ordering.sent
        texts = render(self.asked.question, table, ordering)
        for row, text in zip(ordering.row_order.tolist(), texts, strict=True):
            yield self, self._keys[fresh[row]], text

    def answers(self) -> Iterator[tuple[int, Outcome]]:
        """Yield the place in the window and the outcome of each row."""
        outcomes = [self.asked.outcomes[self.columns, key] for key in self._keys]
        for place, u in zip(self._places, self._unique.inverse.tolist(), strict=True):
            yield place, outcomes[u]

    def forget(self) -> None:
        """Keep the latest outcomes only."""
        outcomes = self.asked.outcomes
        while len(outcomes) > REMEMBERED_ANSWERS:
            del outcomes[next(iter(outcomes))]


def _by_columns(question: Question, rows: Sequence[str | None]) -> Iterator[tuple[tuple[str, ...], list[int]]]:
    """Yield the columns to send and the rows that they are to be sent of.

    Rows that have the same columns in another order belong together. A NULL row has the columns that the prompt names.
    """
    groups: dict[frozenset[str], tuple[tuple[str, ...], list[int]]] = {}
    members_of: dict[tuple[str, ...], list[int]] = {}  # by the rows' own layout
    try:
        for place, layout in enumerate(layouts(rows)):
            available = question.columns if layout is None else layout
            if available not in members_of:
                columns = resolve_columns(question, available)
                _, members_of[available] = groups.setdefault(frozenset(columns), (columns, []))
            members_of[available].append(place)
    except ValueError:
        raise OptionError(
            "the input is neither a row nor a JSON object",
            hint="Pass a whole row (the table's alias) or jsonb_build_object('column', value, …).",
        ) from None
    yield from groups.values()


def as_report(run: Run) -> list[str]:
    """Say what a node's calls did, as labels and values in turn, for EXPLAIN ANALYZE."""
    usage = run.usage
    tokens = [
        (label, value)
        for label, value in (
            ("Prompt Tokens", usage.prompt_tokens),
            ("Cached Tokens", usage.cached_tokens),
            ("Completion Tokens", usage.completion_tokens),
        )
        if value is not None
    ]
    figures = [
        ("Rows Asked", run.rows),
        ("Unique Prompts", run.unique_prompts),
        ("Requests", usage.requests),
        *([("Retries", usage.retries)] if usage.retries else []),
        *tokens,
        ("Time Planned", f"{1000 * run.plan_s:.3f} ms"),
        ("Time Waited", f"{1000 * usage.wait_s:.3f} ms"),
    ]
    return [str(part) for figure in figures for part in figure]
