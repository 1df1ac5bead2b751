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

from pg_bridge.asking.prompt import Question, parse_question, render_questions, resolve_columns
from pg_bridge.asking.streamed import REMEMBERED_ANSWERS, Run, collector_paused, row_digests, sampling_of, storable
from pg_bridge.engine import Engine, Sampling
from pg_bridge.errors import CallError, OptionError
from pg_bridge.options import Call
from pg_bridge.ordering import Sent, plan
from pg_bridge.rows.dedup import dedup
from pg_bridge.rows.table import Table, layouts

Outcome = tuple[str | None, str | None]  # (text, error)
_Key = tuple[frozenset[str], bytes]  # the columns sent, and a digest of the row's cells
_SentBefore = dict[tuple[tuple[int, ...], tuple[str, ...]], Sent]  # by what prompts begin with: questions, columns

_NUMBERS = count()


@dataclass(frozen=True, slots=True)
class Ask:
    """A prompt and the options to ask it with."""

    prompt: str | None
    call: Call


@dataclass(slots=True, eq=False)
class _Asked:
    """One question under one set of options.

    Attributes:
        question: The parsed prompt.
        call: The options.
        sampling: What they say of the answers.
        outcomes: By the columns sent and the cells' digest, the oldest first.
    """

    question: Question
    call: Call
    sampling: Sampling
    outcomes: dict[_Key, Outcome] = field(default_factory=dict)


@dataclass(slots=True)
class Statement:
    """One statement's memory.

    Attributes:
        run: What all its calls did.
        nodes: What the calls of each plan node did.
    """

    run: Run = field(default_factory=Run)
    nodes: dict[int, Run] = field(default_factory=dict)
    _asked: dict[Ask, _Asked] = field(default_factory=dict)
    _samplings: dict[Call, Sampling] = field(default_factory=dict)
    _sent: _SentBefore = field(default_factory=dict)

    def answer(
        self, node: int, prompts: Sequence[str | None], rows: Sequence[str | None], call: Call, engine: Engine
    ) -> list[str | None]:
        """Ask about the rows of one window, each row its own prompt.

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
        places: dict[str | None, list[int]] = {}
        for place, prompt in enumerate(prompts):
            places.setdefault(prompt, []).append(place)

        def groups() -> Iterator[_Group]:
            for prompt, of_prompt in places.items():
                asked = self._memory(Ask(prompt, call))
                for columns, members in _by_columns(asked.question, [rows[i] for i in of_prompt]):
                    yield _Group([asked], columns, [of_prompt[i] for i in members], rows)

        answers: list[str | None] = [None] * len(rows)
        made = self._answered(node, len(rows), groups, engine)
        for group in made:
            for place, (text, error) in group.outcomes(0):
                if error is not None and call.on_error == "fail":
                    raise CallError(error)
                answers[place] = text
        for group in made:
            group.forget()
        return answers

    def answer_each(
        self, node: int, asks: Sequence[Ask], rows: Sequence[str | None], columns: Sequence[str], engine: Engine
    ) -> list[list[Outcome]]:
        """Ask several questions about the same rows; those that need the same columns share the work on them.

        Args:
            node: The plan node that asks.
            asks: The questions.
            rows: (n,) the rows, JSON text or None.
            columns: The names of the rows' columns.
            engine: Where the prompts go; closed at the end.

        Returns:
            For each question (n,) outcomes.

        Raises:
            TemplateError: A prompt does not parse or names an unknown column.
            EngineError: The engine failed as a whole.
        """
        numbers: dict[tuple[tuple[str, ...], str, bool], list[int]] = {}  # of the questions that go together
        for number, ask in enumerate(asks):
            needed = resolve_columns(self._memory(ask).question, columns)
            numbers.setdefault((needed, ask.call.reorder, ask.call.dedup), []).append(number)

        def groups() -> Iterator[_Group]:
            for (needed, _, _), together in numbers.items():
                yield _Group([self._memory(asks[number]) for number in together], needed, range(len(rows)), rows)

        answers: list[list[Outcome]] = [[] for _ in asks]
        for group, together in zip(self._answered(node, len(rows), groups, engine), numbers.values(), strict=True):
            for place, number in enumerate(together):
                answers[number] = [outcome for _, outcome in group.outcomes(place)]
            group.forget()
        return answers

    def known(self, ask: Ask, rows: Sequence[str | None], columns: Sequence[str]) -> list[Outcome | None]:
        """Tell what a question about some rows has been answered before; None where it has not been asked.

        Args:
            ask: The question.
            rows: (n,) the rows, JSON text or None.
            columns: The names of the rows' columns.
        """
        asked = self._memory(ask)
        if not asked.outcomes:
            return [None] * len(rows)
        group = _Group([asked], resolve_columns(asked.question, columns), range(len(rows)), rows)
        return [outcome for _, outcome in group.known()]

    def _answered(self, node: int, rows: int, groups: Callable[[], Iterator[_Group]], engine: Engine) -> list[_Group]:
        """Make groups and ask what they have to ask; their outcomes are known afterwards."""
        run = Run(rows=rows, usage=engine.usage)
        started = time.perf_counter()
        with collector_paused():
            made = list(groups())
            pending = [each for group in made for each in group.prompts(self._sent, engine.check_interrupts)]
        run.plan_s = time.perf_counter() - started
        run.unique_prompts = len(pending)
        samplings = [asked.sampling for asked, _, _ in pending]
        try:
            texts = iter([text for _, _, text in pending])
            for completion in engine.complete(texts, samplings.__getitem__, eager=True):
                if completion is not None:
                    asked, key, _ = pending[completion.index]
                    asked.outcomes[key] = storable(completion)
        finally:
            engine.close()
            self.run.add(run)
            self.nodes.setdefault(node, Run()).add(run)
        return made

    def _memory(self, ask: Ask) -> _Asked:
        if ask not in self._asked:
            # Prompts of one and the same sampling can share a request.
            sampling = self._samplings.setdefault(ask.call, sampling_of(ask.call))
            self._asked[ask] = _Asked(parse_question(ask.prompt), ask.call, sampling)
        return self._asked[ask]


class _Group:
    """Rows of one window that have the same columns and are asked the same questions.

    Args:
        asked: The questions, and what is known of them; they agree in what may be reordered and left out.
        columns: The columns to send.
        places: Where the rows stand in the window.
        rows: The window's rows.
    """

    def __init__(
        self, asked: Sequence[_Asked], columns: tuple[str, ...], places: Sequence[int], rows: Sequence[str | None]
    ) -> None:
        self._asked = asked
        self._call = asked[0].call
        self._places = places
        self._unique = dedup(Table.from_json([rows[i] for i in places], columns), enabled=self._call.dedup)
        # Of cells in one order, whatever that of the rows: the same row may come in another one.
        digests = row_digests(self._unique.table.by_name())
        if not self._call.dedup:  # no row is another's equal, in this window or any other
            digests = [digest + next(_NUMBERS).to_bytes(8) for digest in digests]
        self._keys = [(frozenset(columns), digest) for digest in digests]

    def prompts(self, sent: _SentBefore, check_interrupts: Callable[[], None]) -> Iterator[tuple[_Asked, _Key, str]]:
        """Yield what is to be asked, in the order in which to send it: (question, key, prompt)."""
        together: dict[tuple[int, ...], list[_Asked]] = {}  # the questions of which the same rows are unknown
        for asked in self._asked:
            fresh = tuple(u for u, key in enumerate(self._keys) if key not in asked.outcomes)
            together.setdefault(fresh, []).append(asked)
        for fresh, questions in together.items():
            table = self._unique.table.take(np.array(fresh, dtype=np.intp))
            heads = (tuple(map(id, questions)), table.columns)
            ordering = plan(
                table, reorder=self._call.reorder, after=sent.get(heads, Sent()), check_interrupts=check_interrupts
            )
            if ordering.sent is not None:
                sent[heads] = ordering.sent
            row_order = ordering.row_order.tolist()
            texts = [asked.question for asked in questions]
            for place, number, text in render_questions(texts, table, ordering, self._call.placement):
                yield questions[number], self._keys[fresh[row_order[place]]], text

    def known(self) -> Iterator[tuple[int, Outcome | None]]:
        """Yield the place in the window and the outcome so far of each row, of the first question."""
        outcomes = [self._asked[0].outcomes.get(key) for key in self._keys]
        for place, u in zip(self._places, self._unique.inverse.tolist(), strict=True):
            yield place, outcomes[u]

    def outcomes(self, number: int) -> Iterator[tuple[int, Outcome]]:
        """Yield the place in the window and the outcome of each row, of one of the questions."""
        known = self._asked[number].outcomes
        outcomes = [known[key] for key in self._keys]
        for place, u in zip(self._places, self._unique.inverse.tolist(), strict=True):
            yield place, outcomes[u]

    def forget(self) -> None:
        """Keep the latest outcomes only."""
        for asked in self._asked:
            while len(asked.outcomes) > REMEMBERED_ANSWERS:
                del asked.outcomes[next(iter(asked.outcomes))]


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
