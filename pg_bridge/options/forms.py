"""The forms that answers are held to besides those of a type, and what a question says of its labels.

In: the bounds of a number, or labels and what they mean. Out: a regular expression for the whole answer, in the syntax
that Python, the engines and `pg_bridge.engine.forms.grammar_of_pattern` share; a text to follow the question.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Sequence

ONE = "The answer is one of these:"
MANY = "Answer with a JSON array of those of these that fit, [] if none does:"
_SPECIAL = re.compile(r"[\\^$.|?*+()\[\]{}]")


def whole_numbers(low: int, high: int) -> str:
    """A pattern for the whole numbers from `low` to `high`, both included, which are few hundred characters at most.

    >>> whole_numbers(1, 5), whole_numbers(0, 100), whole_numbers(-12, 3)
    ('[1-5]', '([0-9]|[1-9][0-9]|100)', '(-[1-9]|-1[0-2]|[0-3])')
    """
    below = [f"-{part}" for part in _by_length(max(1, -high), -low)]
    return _any_of([*below, *_by_length(max(0, low), high)])


def _by_length(low: int, high: int) -> list[str]:
    """A pattern for the numbers of each count of digits; none for an empty range."""
    patterns = []
    for digits in range(len(str(low)), len(str(high)) + 1) if low <= high else ():
        first, last = max(low, 10 ** (digits - 1) if digits > 1 else 0), min(high, 10**digits - 1)
        patterns.append(_between(str(first), str(last)))
    return patterns


def _between(low: str, high: str) -> str:
    """A pattern for the numbers between two of as many digits."""
    if not low:
        return ""
    if low[0] == high[0]:
        return low[0] + _between(low[1:], high[1:])
    first, last, rest = int(low[0]), int(high[0]), len(low) - 1
    begins, ends = [], []
    if low[1:] != "0" * rest:
        begins = [low[0] + _between(low[1:], "9" * rest)]
        first += 1
    if high[1:] != "9" * rest:
        ends = [high[0] + _between("0" * rest, high[1:])]
        last -= 1
    digit = str(first) if first == last else f"[{first}-{last}]"
    any_digits = "[0-9]" if rest == 1 else f"[0-9]{{{rest}}}" if rest else ""
    return _any_of([*begins, *([digit + any_digits] if first <= last else []), *ends])


def _any_of(patterns: Iterable[str]) -> str:
    alternatives = list(patterns)
    return alternatives[0] if len(alternatives) == 1 else f"({'|'.join(alternatives)})"


def list_of(labels: Sequence[str]) -> str:
    r"""A pattern for JSON arrays of labels, none to as many as there are.

    >>> list_of(["good", "so-so (C)"])
    '\\[("(good|so-so \\(C\\))"(, ?"(good|so-so \\(C\\))"){0,1})?\\]'
    """
    escaped = [_SPECIAL.sub(r"\\\g<0>", json.dumps(label, ensure_ascii=False)[1:-1]) for label in labels]
    label = f'"({"|".join(escaped)})"'
    return rf"\[({label}(, ?{label}){{0,{len(labels) - 1}}})?\]"


def order_of(rows: int) -> str:
    """A pattern for the numbers of some rows in an order, which may leave some of them out.

    >>> order_of(10)
    '([1-9]|10)(, ?([1-9]|10)){0,9}'
    """
    number = whole_numbers(1, rows)
    return f"{number}(, ?{number}){{0,{rows - 1}}}"


def fold(label: str) -> str:
    """The label without what a model is not to tell labels apart by: capitals, spaces, ways to write a character."""
    return " ".join(unicodedata.normalize("NFKC", label).split()).casefold()


def told(opening: str, labels: Sequence[str], descriptions: Sequence[tuple[str, str]]) -> str:
    """What a question says of labels: each on a line of its own, with what it means.

    >>> print(told(ONE, ["good", "bad"], [("bad", "nobody should see it")]))
    The answer is one of these:
    - good
    - bad: nobody should see it
    """
    means = dict(descriptions)
    lines = (f"- {label}: {means[label]}" if means.get(label) else f"- {label}" for label in labels)
    return "\n".join((opening, *lines))
