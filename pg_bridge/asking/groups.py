"""Questions about groups of rows: the trees of all groups advance together, level by level.

In: groups, each with its instruction and its rows; a statement's memory and what asks. Out: an answer a group. The
questions of one level, of all groups, are one round, so that a thousand groups wait as often as the deepest of them. It
knows neither PostgreSQL nor HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from pg_bridge.asking.failures import is_too_long
from pg_bridge.asking.inquiry import Ask, Inquiry, NotAsked, Outcome
from pg_bridge.asking.memory import Memory
from pg_bridge.asking.portions import Group
from pg_bridge.asking.prompt import Question, escape, parse_question, resolve_columns
from pg_bridge.asking.reduction import Part, Reduction, room_for
from pg_bridge.asking.together import Failed, Fails, Round, outcomes_at
from pg_bridge.asking.windows import WINDOW_CHARS, rounds_of
from pg_bridge.errors import CallError, OptionError
from pg_bridge.options import Call
from pg_bridge.rows.cutting import VALUE, as_row, cut, object_of
from pg_bridge.rows.table import Table

Begin = Callable[[Fails], Round]


def fails_for_good(inquiry: Inquiry, reason: str | None) -> bool:
    """Whether a question's failure ends the statement: one that is too long is asked in parts."""
    return reason is not None and not is_too_long(reason) and inquiry.call.on_error == "fail"


def begin_reduction(instruction: str, rows: Sequence[str], call: Call, context_tokens: int) -> tuple[str, Reduction]:
    """What a group's questions begin with, and its tree.

    Args:
        instruction: With columns in braces, or without: then all columns of the rows are sent.
        rows: The rows, objects or values, as JSON texts; at least one.
        call: How it is asked.
        context_tokens: What a prompt and its answer may have together.

    Raises:
        TemplateError: The instruction does not parse or names an unknown column.
        OptionError: A row is not JSON, or there is no room for any.
    """
    question = parse_question(instruction)
    room = room_for(context_tokens, call.max_tokens, question.text, call.system_prompt)
    return question.text, Reduction(list(_sent(question, rows)), room)


def _sent(question: Question, rows: Sequence[str]) -> Iterator[str]:
    """Of each row what the instruction needs: an object, or the value that it is."""
    values = [as_row(row) for row in rows]
    try:
        for (columns, cells), row in zip(
            cut(values, lambda columns: resolve_columns(question, columns or question.columns)), rows, strict=True
        ):
            if columns == (VALUE,) and not row.lstrip().startswith("{"):
                yield cells[0]
            else:
                yield object_of(zip(columns, cells, strict=True))
    except ValueError:
        raise OptionError("the input is not JSON") from None


def reduce_all(
    trees: Sequence[tuple[str, Reduction]], call: Call, memory: Memory, begin: Begin, most_chars: int = WINDOW_CHARS
) -> list[str | None]:
    """Ask until every group has its answer.

    Args:
        trees: As `begin_reduction` returns them, of each group.
        call: How all of them are asked.
        memory: Of the statement.
        begin: Begins what asks; once for each level, or more often where a level is large.
        most_chars: Characters of rows that are asked about at one time.

    Returns:
        (n,) the answers; None for a group that has none, if `on_error` or `on_budget` is `null`.

    Raises:
        CallError: A group has no answer, and `on_error` is `fail`.
        BudgetExceeded: More would have to be asked than a budget allows, and `on_budget` is `fail`.
        EngineError: The engine failed as a whole.
    """
    while True:
        asked = [(instruction, part) for instruction, tree in trees for part in tree.parts()]
        if not asked:
            break
        rounds = rounds_of(asked, lambda each: sum(len(item.text) for item in each[1].items), most_chars)
        outcomes = iter([each for some in rounds for each in _ask(some, call, memory, begin)])
        for _, tree in trees:
            own = [next(outcomes) for _ in tree.parts()]
            if own:
                tree.take(own, too_long=[is_too_long(error) for _, error in own])
    for _, tree in trees:
        if tree.error is not None and call.on_error == "fail" and not isinstance(tree.error, NotAsked):
            raise CallError(tree.error)
    return [tree.answer for _, tree in trees]


def _ask(asked: Sequence[tuple[str, Part]], call: Call, memory: Memory, begin: Begin) -> list[Outcome]:
    """Ask about some parts, all together."""
    asking = begin(fails_for_good)
    places: dict[tuple[str, str], list[int]] = {}  # by prompt and column
    for place, (instruction, part) in enumerate(asked):
        prompt = instruction + part.note
        places.setdefault((prompt, part.column), []).append(place)

    def make_groups() -> Iterator[Group]:
        for (prompt, column), of_prompt in places.items():
            inquiry = memory.inquiry(Ask(escape(prompt), call))
            table = Table.from_cells([column], [[asked[place][1].cell for place in of_prompt]])
            yield asking.group([inquiry], table)

    try:
        groups = asking.ask(len(asked), make_groups)
    except Failed as failed:
        raise CallError(failed.reason) from None
    return outcomes_at(groups, places.values(), len(asked))
