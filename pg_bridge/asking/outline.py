"""What can be told of a run whose rows nobody has read, for EXPLAIN: the planner's own figures, in tokens and money.

In: prompts and options, how many rows of which length PostgreSQL expects, how many of them are different by its
statistics, and how many answers are kept. Out: lines `label: value`. Nobody knows which rows are equal, which of their
questions are answered already, or what prompts share besides what they begin with: so what is counted as asked is the
most that would be, and the least that would come from the cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from math import ceil

from pg_bridge.asking.gauge import gauge_by_characters
from pg_bridge.asking.inquiry import Inquiry, sampling_of
from pg_bridge.asking.packing import TASK, Packing
from pg_bridge.asking.pair_outline import Foretold
from pg_bridge.asking.prefix_cache import CHARS_PER_TOKEN
from pg_bridge.asking.prompt import Question
from pg_bridge.asking.reduction import least_context
from pg_bridge.asking.seen import Seen, answer_tokens
from pg_bridge.engine.flight import pace_of
from pg_bridge.engine.further import thought_tokens
from pg_bridge.engine.survey import BLOCK_SIZE
from pg_bridge.ledger.prices import cost_of
from pg_bridge.options import Call, Server

CELL_CHARS = 8  # the quotes around name and text, a colon, a comma and the spaces behind them
_HOW_SURE = ((True, "about "), (False, " at most"))  # of different questions, by statistics and without


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows that a question is asked about.

    Attributes:
        count: How many PostgreSQL expects.
        chars: Characters of each of them in a prompt.
        distinct: How many of them are different, by PostgreSQL's statistics; None where these do not tell.
        kept: Answers to the question that are kept; None where that is not known.
    """

    count: float
    chars: float
    distinct: float | None = None
    kept: int | None = None


@dataclass(slots=True)
class Outline:
    """The questions of one plan node.

    Attributes:
        questions: How many there are, at most.
        unique: The different ones among them.
        answered: Those that the ledger answers, at most; None where that is not known.
        prompt_tokens: Of their prompts.
        cached_tokens: Those of them that the prefix cache holds, at least.
        completion_tokens: Of their answers.
        together: Questions and tokens of their prompts, where pairs, or rows, are asked about together.
    """

    questions: int = 0
    unique: int = 0
    answered: int | None = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    together: dict[str, tuple[int, int]] = field(default_factory=dict)
    _by_statistics: set[bool] = field(default_factory=set)  # how the different ones were counted

    def add(self, question: Question, call: Call, rows: Rows, server: Server, seen: Seen) -> None:
        """Count a question in.

        Args:
            question: The parsed prompt.
            call: How it is asked.
            rows: That it is asked about.
            server: Where.
            seen: What its engine did lately.
        """
        sampling = sampling_of(call)
        gauge = gauge_by_characters(question, ("",) if rows.chars else (), sampling, server.api)
        questions = max(1, round(rows.count))
        distinct = rows.distinct if call.dedup else None  # else each is asked, equal ones too
        unique = questions if distinct is None else min(questions, max(1, round(distinct)))
        each = gauge.head_tokens + rows.chars / CHARS_PER_TOKEN + gauge.tail_tokens
        self.questions += questions
        self.unique += unique
        self._by_statistics.add(distinct is not None)
        if rows.kept is None or self.answered is None:
            self.answered = None
        else:
            self.answered += min(unique, rows.kept)
        self.prompt_tokens += round(questions * each)
        self.cached_tokens += (questions - 1) * (int(gauge.head_tokens) // BLOCK_SIZE * BLOCK_SIZE)
        self.completion_tokens += answer_tokens(questions, sampling, seen, thought_tokens(server, sampling))[0]

        if call.packs:
            packing = Packing(Inquiry(question, call, sampling), least_context(None, call.context_tokens))
            most = packing.fitting(rows.chars)
            prompts = ceil(unique / most)
            tokens = prompts * (gauge.head_tokens + gauge.tail_tokens + len(TASK) / CHARS_PER_TOKEN)
            tokens += unique * rows.chars / CHARS_PER_TOKEN
            where = f"Prompts of {most} Rows" if most > 1 else "Prompts"
            self.add_joint(Foretold(f"Questions in {where}", prompts, round(tokens)))

    def add_joint(self, foretold: Foretold) -> None:
        """Count in how often a question that is counted would be asked about several rows or pairs together."""
        questions, tokens = self.together.get(foretold.way, (0, 0))
        self.together[foretold.way] = questions + foretold.questions, tokens + foretold.prompt_tokens

    def lines(self, server: Server, seen: Seen) -> Iterator[str]:
        """What EXPLAIN shows; nothing where nothing is asked."""
        if not self.questions:
            return
        yield f"Estimated Questions: {self.questions} at most"
        about, most = (text if known in self._by_statistics else "" for known, text in _HOW_SURE)
        yield f"Estimated Unique Questions: {about}{self.unique}{most}"
        for way, (questions, tokens) in self.together.items():
            yield f"Estimated {way}: about {questions}, of {tokens} prompt tokens"
        if self.answered is not None:
            yield f"Estimated Already Answered: {self.answered}{' at most' if self.answered else ''}"
        yield f"Estimated Prompt Tokens: {self.prompt_tokens} by characters"
        yield f"Estimated Cached Tokens: {self.cached_tokens} at least"
        yield f"Estimated Requests: {-(-self.questions // pace_of(server, eager=True).largest_request)}"
        seconds = seen.seconds_for(self.prompt_tokens - self.cached_tokens)
        if seconds is not None:
            yield f"Estimated Time: {seconds:.1f} s"
        cost = cost_of(self, server)
        if cost is not None:
            yield f"Estimated Cost: {Decimal(f'{cost:.4g}'):f} at most"  # an exponent is no price


def chars_of(columns: Mapping[str, float]) -> float:
    """Characters of a row of columns of some widths, between the braces of its prompt.

    >>> chars_of({"a": 1, "b": 2}) == len('"a": "x", "b": "yz"')
    True
    """
    return sum(len(name) + CELL_CHARS + width for name, width in columns.items()) - 2 * bool(columns)
