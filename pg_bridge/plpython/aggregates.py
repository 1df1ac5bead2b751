"""The aggregates of the PL/Python host: `llm.aggregate` and `llm.summarize`.

In: values, one a call, and states of groups. Out: states, and the answers about groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from pg_bridge.asking.groups import begin_reduction, reduce_all
from pg_bridge.asking.memory import Memory
from pg_bridge.asking.reduction import SUMMARIZE, SYSTEM_PROMPT
from pg_bridge.asking.together import Fails, Round
from pg_bridge.backend.engines import context_of, new_engine
from pg_bridge.backend.faults import Fault
from pg_bridge.backend.gathered import Gathered, gatherings
from pg_bridge.backend.session import SESSION
from pg_bridge.errors import OptionError
from pg_bridge.options import AGGREGATE, OPTIONS, Call, Server
from pg_bridge.plpython.arguments import is_flat, parse_json, require
from pg_bridge.plpython.functions import find_server, open_account, say_that_it_is_alone
from pg_bridge.plpython.spi import describe_failure

MAX_TOKENS = 512
_OWN = {option.name for option in OPTIONS if "map" in option.places or option.places & AGGREGATE} - {
    "choices",
    "rows_per_prompt",
}


def note(state: str | None, instruction: str | None, value: str | None, options: str | None) -> str | None:
    """Keep a group's next value; the body of `llm._note`."""
    if value is None:
        return state
    return str(gatherings().add(None if state is None else int(state), instruction, options, value))


def reduce_groups(
    plpy: Any, statement: int | None, node: int | None, states: list[str | None] | None
) -> list[tuple[list[str | None] | None, Fault | None]]:
    """Ask about groups; the body of `llm._reduce`.

    Args:
        plpy: PL/Python's module.
        statement: A number that the calls of one statement share; None where the groups are all there is.
        node: The plan node that asks.
        states: (n,) of the groups; None for one without values.

    Returns:
        One (answers, fault): answers in the order of the groups.
    """
    try:
        require(states is not None and is_flat(states))
        if statement is None:
            say_that_it_is_alone(plpy)
            memory = Memory()
            SESSION.begin_run(memory.run)
        else:
            memory = SESSION.statement(statement)
        return [(_answer(plpy, statement, node or 0, states or [], memory), None)]
    except Exception as error:
        return [(None, describe_failure(plpy, error))]


def _answer(
    plpy: Any, statement: int | None, node: int, states: Sequence[str | None], memory: Memory
) -> list[str | None]:
    places_of: dict[Call, list[tuple[int, str, list[str]]]] = {}  # place, instruction and values
    for place, state in enumerate(states):
        if state is not None:
            group, values = gatherings().find(_parse_state(state))
            instruction = SUMMARIZE if group.instruction is None else group.instruction
            places_of.setdefault(_call_of(group), []).append((place, instruction, values))
    answers: list[str | None] = [None] * len(states)
    for call, groups in places_of.items():
        server = find_server(plpy, call.server, statement)
        context = context_of(server, call)
        trees = [begin_reduction(instruction, values, call, context) for _, instruction, values in groups]
        found = reduce_all(trees, call, memory, partial(_begin, plpy, statement, node, server, memory))
        for (place, _, _), answer in zip(groups, found, strict=True):
            answers[place] = answer
    return answers


def _begin(plpy: Any, statement: int | None, node: int, server: Server, memory: Memory, fails: Fails) -> Round:
    if statement is None:
        account = open_account(plpy, server)
    else:
        account = SESSION.find_account(statement, server, partial(open_account, plpy))
    return Round(memory, node, new_engine(server), account, fails=fails, tells=True)


def _call_of(group: Gathered) -> Call:
    """How a group is asked about.

    Raises:
        OptionError: Its rows do not agree about it, or an option is not valid.
    """
    if not group.is_one:
        raise OptionError(
            "the instruction or the options of an aggregate differ from row to row",
            hint="Take what is the same for all rows of a group, or group by it, too.",
        )
    given = parse_json(group.options) or {}
    if not isinstance(given, dict):
        raise OptionError("the options are not a JSON object", hint="""For example: {"server": "vllm"}""")
    for name in given:
        if name not in _OWN:
            raise OptionError(f'invalid option "{name}"', hint=f"Valid options are: {', '.join(sorted(_OWN))}.")
    given = {name: value for name, value in given.items() if value is not None}
    return Call.from_arguments({"max_tokens": MAX_TOKENS, "system_prompt": SYSTEM_PROMPT} | given)


def _parse_state(state: str) -> int:
    try:
        return int(state)
    except ValueError:
        require(False)
        raise
