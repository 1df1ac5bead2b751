"""Answers about a query's rows for which not all of them are asked: a cascade of two models, a share, a mean.

In: rows, a prompt, a statement's memory and what asks. Out: an answer for each row, or an estimate with its bounds.
Equal rows are one. Which rows are asked about, and when it is enough, `cascade` and `poll` say. It knows neither
PostgreSQL nor HTTP.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from pg_bridge.asking.cascade import FEWEST, Cascade, Thresholds, keep_accuracy, keep_recall_and_precision
from pg_bridge.asking.evidence import Floats, Places
from pg_bridge.asking.inquiry import Ask, NotAsked, Outcome, shown
from pg_bridge.asking.memory import Memory
from pg_bridge.asking.poll import Bounds, Poll
from pg_bridge.asking.prompt import parse_question, resolve_columns
from pg_bridge.asking.together import Failed, Round, answer_columns
from pg_bridge.asking.windows import rounds_of
from pg_bridge.errors import OptionError, SampleError
from pg_bridge.options import YES_OR_NO, Call
from pg_bridge.rows.cutting import cut
from pg_bridge.rows.table import Table

_MOST_AT_ONCE = 1_000_000  # rows
_YES = YES_OR_NO[0]
_TWENTIETH = 0.05
_NO_LIMITS = {
    "max_requests": None,
    "max_prompt_tokens": None,
    "max_completion_tokens": None,
    "max_seconds": None,
    "max_cost": None,
}


class Population:
    """The rows of a query, by what is sent of them.

    Args:
        prompt: The prompt.
        columns: The columns of the rows.

    Attributes:
        columns: Those that are sent.
        different: The different rows, as cells.
        numbers: Which of them each row is.

    Raises:
        TemplateError: The prompt does not parse or names an unknown column.
    """

    def __init__(self, prompt: str | None, columns: Sequence[str | None]) -> None:
        self.columns = resolve_columns(parse_question(prompt), columns)
        self.different: list[tuple[str, ...]] = []
        self.numbers = array("q")
        self._known: dict[tuple[str, ...], int] = {}

    def add(self, rows: Sequence[str | None]) -> None:
        """Add rows, each the text of a JSON object."""
        for _, cells in cut(rows, lambda _: self.columns):
            number = self._known.setdefault(cells, len(self.different))
            if number == len(self.different):
                self.different.append(cells)
            self.numbers.append(number)

    def close(self) -> None:
        """Sort the different rows, so that what is drawn goes by no query's order."""
        order = sorted(range(len(self.different)), key=self.different.__getitem__)
        places = np.empty(len(order), np.int64)
        places[order] = np.arange(len(order))
        self.different = [self.different[number] for number in order]
        self.numbers = array("q", places[np.frombuffer(self.numbers, np.int64)].tolist()) if order else self.numbers
        self._known.clear()

    def counts(self) -> Floats:
        """How often each different row stands in the query."""
        return np.bincount(np.array(self.numbers, np.int64), minlength=len(self.different)).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Asking:
    """What asks one question about some rows.

    Attributes:
        population: The rows.
        ask: The question.
        memory: Of the statement.
        begin: Begins what asks; once for each round, or more often where it is large.
    """

    population: Population
    ask: Ask
    memory: Memory
    begin: Callable[[], Round]

    def about(self, rows: Places) -> list[Outcome]:
        """The outcomes of some different rows.

        Raises:
            SampleError: One has no answer, and `on_error` is `fail`.
            BudgetExceeded: More would have to be asked than a budget allows, and `on_budget` is `fail`.
            EngineError: The engine failed as a whole.
        """
        outcomes: list[Outcome] = []
        texts = map(self.population.different.__getitem__, rows.tolist())
        for some in rounds_of(texts, lambda row: sum(map(len, row)), most_rows=_MOST_AT_ONCE):
            cells = [[row[at] for row in some] for at in range(len(self.population.columns))]
            asking = self.begin()
            try:
                table = Table.from_cells(self.population.columns, cells)
                outcomes += answer_columns(self.memory, [self.ask], table, asking)[0]
            except Failed as failed:
                raise SampleError(failed.reason) from None
            finally:
                asking.close()
        return outcomes


class Decided(NamedTuple):
    """What a cascade says of a different row.

    Attributes:
        answer: The answer's text; None for none.
        by_proxy: Whether the small model's answer stands.
        error: Why there is none.
    """

    answer: str | None
    by_proxy: bool
    error: str | None


@dataclass(frozen=True, slots=True)
class Course:
    """How a cascade went.

    Attributes:
        decided: Of each different row.
        thresholds: Where the small model's answers stand.
        of_proxy: Different rows that the small model was asked about.
        of_server: Those that the large one was asked about.
        drawn: Those of them that were drawn by chance.
    """

    decided: list[Decided]
    thresholds: Thresholds
    of_proxy: int
    of_server: int
    drawn: int


def proxy_call(call: Call) -> Call:
    """How the small model is asked: with its confidence; what it cannot answer is the large one's, and so are limits.

    Raises:
        OptionError: No small model is named.
    """
    if call.proxy is None:
        raise OptionError('there is no option "proxy"', hint="Name the server of a small model: proxy => 'small'.")
    return replace(call, server=call.proxy, confidence=True, reasoning="off", on_error="null", **_NO_LIMITS)  # type: ignore[arg-type]


def run_cascade(population: Population, call: Call, proxy: Asking, large: Asking) -> Course:
    """Ask the small model about all rows, and the large one about as many as it takes.

    Args:
        population: The rows.
        call: What is to be kept.
        proxy: Asks the small model.
        large: Asks the large one.

    Raises:
        SampleError: A row that the large model is asked about has no answer, and `on_error` is `fail`.
        BudgetExceeded: More would have to be asked than a budget allows, and `on_budget` is `fail`.
        EngineError: An engine failed as a whole.
    """
    count, counts = len(population.different), population.counts()
    of_proxy = count if count >= FEWEST else 0
    answers = proxy.about(np.arange(of_proxy)) if of_proxy else [(None, None)] * count
    texts = [text for text, _ in answers]
    said = shown(replace(proxy.ask.call, gives="answer"), texts)
    sure = shown(replace(proxy.ask.call, gives="confidence"), texts)
    scores = np.array([_score(*each, call) for each in zip(said, sure, strict=True)], np.float64)
    is_labels = call.kind == "label"
    keep = (
        keep_accuracy(call.accuracy_target, call.probability)
        if is_labels
        else keep_recall_and_precision(call.recall_target, call.precision_target, call.probability)
    )
    cascade = Cascade(scores, counts, keep, call.seed)
    decided: list[Decided | None] = [None] * count
    of_server = 0
    while len(rows := cascade.rows()):
        outcomes = large.about(rows)
        of_server += sum(not isinstance(error, NotAsked) for _, error in outcomes)
        for row, (text, error) in zip(rows.tolist(), outcomes, strict=True):
            decided[row] = Decided(text, False, error)
        cascade.take(
            np.array(
                [
                    np.nan if text is None else text == (said[row] if is_labels else _YES)
                    for row, (text, _) in zip(rows.tolist(), outcomes, strict=True)
                ],
                np.float64,
            )
        )
    no, yes = cascade.stands()
    for row in np.flatnonzero(no | yes).tolist():
        decided[row] = Decided(said[row] if is_labels else YES_OR_NO[not yes[row]], True, None)
    found = [each or Decided(None, False, None) for each in decided]
    return Course(found, cascade.thresholds(), of_proxy, of_server, cascade.drawn)


def _score(said: str | None, sure: str | None, call: Call) -> float:
    """How likely the small model says yes, or its label."""
    if said is None or sure is None:
        return np.nan
    return float(sure) if call.kind == "label" or said == _YES else 1 - float(sure)


class Polled(NamedTuple):
    """A share or a mean.

    Attributes:
        asked: How many different rows were asked about.
        bounds: What is known of it; None where there are no rows.
    """

    asked: int
    bounds: Bounds | None


def run_poll(population: Population, call: Call, asking: Asking) -> Polled:
    """Ask about rows until their share or mean is known well enough.

    Args:
        population: The rows.
        call: How well, and of which numbers.
        asking: Asks.

    Raises:
        OptionError: Numbers are asked for, and nobody says from where to where they go.
        SampleError: A row that was drawn has no answer, and `on_error` is `fail`.
        BudgetExceeded: More would have to be asked than a budget allows, and `on_budget` is `fail`.
        EngineError: The engine failed as a whole.
    """
    low, width = 0, 1
    if call.kind == "number":
        if call.low is None or call.high is None:
            raise OptionError(
                'there is no option "low"' if call.low is None else 'there is no option "high"',
                hint="Bounds need a range: low => 1, high => 5.",
            )
        low, width = call.low, call.high - call.low
    if not population.different:
        return Polled(0, None)
    error = _TWENTIETH if call.error is None else call.error / width if width else 1.0
    poll = Poll(population.counts(), error, 1 - call.probability, call.seed)
    while len(rows := poll.rows()):
        outcomes = asking.about(rows)
        if any(isinstance(reason, NotAsked) for _, reason in outcomes):
            break  # by a budget: what is known without this round holds
        poll.take(np.array([_number(text, low, width) for text, _ in outcomes]))
    if not poll.known:
        return Polled(0, Bounds(low + width / 2, low, low + width))
    bounds = poll.bounds()
    return Polled(poll.known, Bounds(*(low + width * each for each in (bounds.estimate, bounds.low, bounds.high))))


def _number(text: str | None, low: int, width: int) -> float:
    if text is None:
        return np.nan
    if text in YES_OR_NO:
        return float(text == _YES)
    return min(1.0, max(0.0, (float(text) - low) / width)) if width else 0.0
