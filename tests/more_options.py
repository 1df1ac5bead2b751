"""A table of options with one more row, as an engineer would write it who adds an option to every call."""

from __future__ import annotations

from dataclasses import dataclass

from pg_bridge.options import OPTIONS, Call, options_of
from pg_bridge.options.option import COLUMN, EVERY_CALL, option
from pg_bridge.options.values import Value

SHARE = Value(r"0|1|0\.[0-9]+", "between 0 and 1", float, "double precision", (str, int, float))


@dataclass(frozen=True, slots=True)
class MoreCall(Call):
    """A call with one more option."""

    top_p: float = option(0.9, SHARE, EVERY_CALL | COLUMN, "how much of the likeliest is drawn from")


MORE = (*OPTIONS, *(row for row in options_of(MoreCall) if row.name == "top_p"))
