"""Where rows stand of which each may have functions called before it is answered.

In: how many rows, how many calls each may have; round after round what the model said. Out: which rows are asked
next and what has been said of them, which calls are to be made, and at the end the answers. Nothing is asked or called
here. All rows that are asked in a round have had as many calls, so that they are one table.

>>> talk = Dialogue(rows=2, most_calls=1)
>>> ask = Wanted("stock_of", '{"film": "Heat"}')
>>> talk.take([ask, Said("no")]), talk.asking
([Wanted(tool='stock_of', arguments='{"film": "Heat"}', problem='')], [0])
>>> talk.learn({ask: "3"})
>>> talk.asking, talk.is_last, talk.cells()
([0], True, [['{"call": "stock_of", "arguments": {"film": "Heat"}}'], ['3']])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pg_bridge.asking.tools import Said, Wanted


@dataclass(slots=True)
class Dialogue:
    """The state of some rows.

    Attributes:
        rows: How many there are.
        most_calls: How many each may have made.
        asking: The rows that are asked next, ascending.
        answers: What was said of each; None while it is asked about, and of a row that has no answer.
        errors: Why a row has no answer.
        calls: The calls of each row with what they returned, in their order.
        made: How many each row has had that is asked next.
    """

    rows: int
    most_calls: int
    asking: list[int] = field(init=False)
    answers: list[str | None] = field(init=False)
    errors: list[str | None] = field(init=False)
    calls: list[list[tuple[Wanted, str]]] = field(init=False)
    made: int = field(init=False, default=0)
    _wanted: dict[int, Wanted] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.asking = list(range(self.rows))
        self.answers = [None] * self.rows
        self.errors = [None] * self.rows
        self.calls = [[] for _ in range(self.rows)]

    @property
    def is_last(self) -> bool:
        """Whether those that are asked next may not have anything called any more."""
        return self.made >= self.most_calls

    def take(self, turns: Sequence[Wanted | Said | str]) -> list[Wanted]:
        """Take what was said of the rows that were asked, in their order: a text is why there is no answer.

        Returns:
            The calls to be made, each once. `learn` wants all of them.
        """
        if self._wanted:
            raise ValueError("there are calls that nobody has made")
        for row, turn in zip(self.asking, turns, strict=True):
            if isinstance(turn, Said):
                self.answers[row] = turn.answer
            elif isinstance(turn, Wanted) and not self.is_last:
                self._wanted[row] = turn
            elif isinstance(turn, Wanted):
                raise ValueError("no call may be made any more")
            else:
                self.errors[row] = turn
        self.asking = list(self._wanted)
        return list(dict.fromkeys(self._wanted.values()))

    def learn(self, results: Mapping[Wanted, str]) -> None:
        """Learn what calls have returned, each a cell's JSON."""
        for row, wanted in self._wanted.items():
            self.calls[row].append((wanted, results[wanted]))
        self._wanted.clear()
        self.made += 1

    def cells(self) -> list[list[str]]:
        """What was called for the rows that are asked next, column by column: a call, its result, the next call.

        What stood there in the round before stands there unchanged, so that a prompt goes on where the last one ended.
        """
        columns: list[list[str]] = []
        for number in range(self.made):
            columns.append([self.calls[row][number][0].cell for row in self.asking])
            columns.append([self.calls[row][number][1] for row in self.asking])
        return columns


def names_beside(columns: Sequence[str], calls: int) -> tuple[list[str], str]:
    """What the columns of so many calls and their results are called beside a row's own, and that of how many are left.

    >>> names_beside(["film"], 1), names_beside(["call 7"], 1)
    ((['call 1', 'result 1'], 'calls left'), (['tool call 1', 'tool result 1'], 'tool calls left'))
    """
    before = ""
    while any(column.startswith((f"{before}call", f"{before}result")) for column in columns):
        before += "tool "
    names = [f"{before}{what} {number + 1}" for number in range(calls) for what in ("call", "result")]
    return names, f"{before}calls left"
