"""The figures that `pg-bridge plan` reports: the shape of its JSON document.

In: nothing; `measures` fills them in, `report` writes them down. Plain numbers, texts and tuples under the
names that they have in the document. Rates are fractions between 0 and 1. No cell of a table is in here.

Three sets of prompts are counted:

    before   all rows of the file in its own order, the questions in front, one question after another
    after    all rows as planned, equal rows side by side
    sent     the unique rows as planned: what an engine is asked, as one request answers equal rows
"""

from __future__ import annotations

from dataclasses import dataclass

from pg_bridge.asking.prompt import First


@dataclass(frozen=True, slots=True)
class StrategyFigures:
    """What one strategy reaches by itself, over the unique rows.

    Attributes:
        strategy: Its name.
        hit_rate: Characters shared with the prompt before, of all characters.
        plan_s: Seconds, the coding of the cells included.
        chosen: Whether the plan is its.
    """

    strategy: str
    hit_rate: float
    plan_s: float
    chosen: bool


@dataclass(frozen=True, slots=True)
class BoundFigures:
    """Hit rates that no ordering of the unique rows exceeds.

    Attributes:
        cells: If every repeat of a cell were shared.
        neighbours: If every row followed the row most like it; None where left out.
        groups: If rows could go several ways through a prefix tree, in parts; None where left out.
        optimum: The best of all orderings, tried one by one; None where left out.
        remaining: The least of these less what the plan reaches.
        left_out: Why a bound that was asked for is not there, a sentence each.
    """

    cells: float
    neighbours: float | None
    groups: float | None
    optimum: float | None
    remaining: float
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlacementFigures:
    """Where several questions stand, and what either place costs for the unique rows.

    Attributes:
        first: What a prompt begins with: "question" or "row".
        question_first_chars: Characters to compute with the question in front.
        row_first_chars: The same with the row in front.
        question_first_tokens: Tokens to compute in a cache without a bound; None without figures in tokens.
        row_first_tokens: The same with the row in front.
    """

    first: First
    question_first_chars: int
    row_first_chars: int
    question_first_tokens: int | None = None
    row_first_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class CacheFigures:
    """What a prefix cache makes of one sequence of prompts.

    Attributes:
        tokens: All of the prompts' tokens.
        hit_rate: Tokens found, of all tokens; in a cache without a bound.
        bounded_hit_rate: The same in the bounded cache; None where no size was given.
    """

    tokens: int
    hit_rate: float
    bounded_hit_rate: float | None


@dataclass(frozen=True, slots=True)
class TokenFigures:
    """Hit rates in tokens and whole blocks.

    Attributes:
        tokenizer: The file; None where every 4 characters stand in for a token.
        block_size: Tokens of a block.
        cache_blocks: Blocks of the bounded cache; None where no size was given.
        before: The file's own order.
        after: The planned order, all rows.
        sent: The planned order, unique rows.
    """

    tokenizer: str | None
    block_size: int
    cache_blocks: int | None
    before: CacheFigures
    after: CacheFigures
    sent: CacheFigures


@dataclass(frozen=True, slots=True)
class ColumnFigures:
    """One column of the unique rows; a cell's length is that of its JSON text.

    Attributes:
        column: Its name.
        cardinality: Distinct cells.
        mean_chars: Mean length.
        median_chars: Median length.
        most_chars: The longest cell.
        repeated_share: Characters in cells whose text has come before in the column, of the column's characters.
        entropy_bits: Of the groups of equal cells.
    """

    column: str
    cardinality: int
    mean_chars: float
    median_chars: int
    most_chars: int
    repeated_share: float
    entropy_bits: float


@dataclass(frozen=True, slots=True)
class DependencyFigures:
    """One column as a function of another.

    Attributes:
        determinant: The column that determines.
        dependent: The column that is determined.
        exceptions: Rows to leave out for it to be exact; 0 where it is.
        exceptions_share: These of the unique rows.
    """

    determinant: str
    dependent: str
    exceptions: int
    exceptions_share: float


@dataclass(frozen=True, slots=True)
class StatisticsFigures:
    """What the planner knows about the columns of the unique rows.

    Attributes:
        columns: One entry a column.
        dependencies: Those that do not hold of any table, exact and approximate.
    """

    columns: tuple[ColumnFigures, ...]
    dependencies: tuple[DependencyFigures, ...]


@dataclass(frozen=True, slots=True)
class Figures:
    """All there is to report. Rates are fractions of the characters of whole user messages, questions included.

    Attributes:
        rows: Of the file.
        unique_rows: Distinct ones.
        columns: The columns that are sent.
        questions: The questions' texts.
        chars: Characters of all rows' prompts.
        strategy: Where the plan comes from.
        reason: Why that strategy was chosen.
        hit_rate_before: Shared with the prompt before, in the file's own order.
        hit_rate_after: The same as planned, equal rows side by side.
        hit_rate_sent: The same over the unique rows.
        strategies: Every strategy by itself; empty where left out.
        strategies_left_out: Why they are; empty where they are not.
        bounds: What no ordering exceeds.
        placement: Where several questions stand; None for one or none.
        tokens: In whole blocks of tokens; None where not asked for.
        statistics: About the columns; None where not asked for.
        plan_s: Seconds that planning took, finding equal rows included.
        read_s: Seconds that reading took.
    """

    rows: int
    unique_rows: int
    columns: tuple[str, ...]
    questions: tuple[str, ...]
    chars: int
    strategy: str
    reason: str
    hit_rate_before: float
    hit_rate_after: float
    hit_rate_sent: float
    strategies: tuple[StrategyFigures, ...]
    strategies_left_out: str
    bounds: BoundFigures
    placement: PlacementFigures | None
    tokens: TokenFigures | None
    statistics: StatisticsFigures | None
    plan_s: float
    read_s: float


def points(difference: float) -> str:
    """A difference of two rates in percentage points, with as many decimals as it takes to see it.

    >>> points(0.0231), points(0.000049), points(0)
    ('2.3 points', '0.005 points', '0.0 points')
    """
    decimals = next((d for d in range(1, 4) if round(100 * difference, d)), 1)
    return f"{100 * difference:.{decimals}f} points"
