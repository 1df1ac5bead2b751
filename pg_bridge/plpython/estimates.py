"""What the calls of a batch node would ask and take: what the native module has EXPLAIN show.

In: a request as `native/batch_explain.c` writes it: functions, their constants, the rows that PostgreSQL expects and
how wide their columns are. Out: lines `label: value`. No row is read and no engine is asked.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pg_bridge.asking.outline import Outline, chars_of
from pg_bridge.asking.prompt import Question, parse_question
from pg_bridge.asking.seen import Seen
from pg_bridge.backend.estimates import lately
from pg_bridge.backend.faults import Fault
from pg_bridge.errors import OptionError, PgBridgeError, TemplateError
from pg_bridge.options import YES_OR_NO, Call, Server
from pg_bridge.plpython.functions import find_server
from pg_bridge.plpython.spi import describe_failure


def estimate_calls(plpy: Any, request: str | None) -> tuple[list[str], Fault | None]:
    """Say what calls would take; the body of `llm._estimate_calls`. What cannot be told is left out."""
    try:
        outlines: dict[str, tuple[Server, Seen, Outline]] = {}
        for call in _parse_calls(request):
            with suppress(PgBridgeError):  # a server that is not there, or not for this role: calling it will tell
                _add(plpy, call, outlines)
        lines = []
        for server, seen, outline in outlines.values():
            at = f"Estimated at {server.name} " if len(outlines) > 1 else "Estimated "
            lines += [line.replace("Estimated ", at, 1) for line in outline.lines(server, seen)]
        return lines, None
    except Exception as error:
        return [], describe_failure(plpy, error)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A call of the extension's own functions.

    Attributes:
        function: Its name.
        rows: For which it is expected to be made.
        constants: Its arguments that are the same for all of them, as PostgreSQL prints them.
        width: Bytes of a row, where its columns are not known.
        widths: Bytes of each of its columns.
    """

    function: str
    rows: float
    constants: Mapping[str, str | None]
    width: float
    widths: Mapping[str, float] | None


def _parse_calls(request: str | None) -> list[_Asked]:
    """A request of the native module; a superuser may call the function, too, with anything."""
    try:
        calls = [
            _Asked(
                str(call["function"]),
                float(call["rows"]),
                dict(call["arguments"]),
                float(call.get("width", 0)),
                {str(name): float(width) for name, width in call["widths"].items()} if "widths" in call else None,
            )
            for call in json.loads(request or "")["calls"]
        ]
        most = [int(call.constants.get("max_tokens") or 1) for call in calls]
        if all(math.isfinite(call.rows) for call in calls) and all(most):
            return calls
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass
    raise OptionError(
        "this is no request of the native module", hint="EXPLAIN of a statement that asks calls this function."
    )


def _add(plpy: Any, call: _Asked, outlines: dict[str, tuple[Server, Seen, Outline]]) -> None:
    constants = call.constants
    if "server" not in constants:  # another one for each row
        return
    options: dict[str, Any] = {name: constants.get(name) for name in ("server", "system_prompt")}
    options["max_tokens"] = int(constants.get("max_tokens") or 0) or None
    labels = constants.get("labels") or constants.get("choices")
    if call.function == "is_true":
        options["choices"] = list(YES_OR_NO)
    elif labels:  # as PostgreSQL prints the array: no text in it is longer
        options["choices"] = [labels]
    asked = Call.from_arguments(options)
    if asked.server not in outlines:
        server = find_server(plpy, asked.server)
        outlines[asked.server] = server, lately(server), Outline()
    server, seen, outline = outlines[asked.server]
    question = _question(constants.get("prompt"))
    outline.add(question, asked, call.rows, _row_chars(question, call), server, seen)


def _question(prompt: str | None) -> Question:
    """The question; nothing of one that is not known before the statement runs, or does not parse."""
    try:
        return parse_question(prompt)
    except TemplateError:
        return Question("", ())


def _row_chars(question: Question, call: _Asked) -> float:
    """Characters of a row: of the columns that are sent, where there are columns, else as wide as all that is there."""
    if call.widths is None:
        return call.width
    return chars_of(
        {name: width for name, width in call.widths.items() if name in question.columns or not question.columns}
    )
