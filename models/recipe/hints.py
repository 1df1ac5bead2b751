"""What is true of single tokens of a message, for training alone: a denser lesson than the answer's few tokens.

In: an example, and the places of its tokens. Out: for each token what a reader knows once they have come to it: the
topic or the sentiment of the text that it stands in, whether it belongs to the column asked about, and whether it
completes a word that is asked about. It knows no decoder; nothing of it is in the model's files.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from models.recipe.examples import Example, Subject, dumped
from models.recipe.notes import TOPICS
from models.recipe.reviews import Sentiment

Kind = Literal["topic", "felt", "asked", "match", "hit", "found"]
KINDS: tuple[Kind, ...] = get_args(Kind)
CLASSES: dict[Kind, int] = {
    "topic": len(TOPICS),  # of the text asked about; or of a label
    "felt": len(get_args(Sentiment)),  # the sentiment of the text asked about
    "asked": 2,  # whether a token belongs to the column asked about: to its name or to its value
    "match": 2,  # whether a word that is asked about ends with it; in the question, whether it is part of one
    "hit": 2,  # both
    "found": 2,  # whether there was such a token before
}
NOTHING = -1

_PLACE = {kind: place for place, kind in enumerate(KINDS)}
_FELT = {felt: place for place, felt in enumerate(get_args(Sentiment))}
_TOPIC_OF = {label.casefold(): place for place, topic in enumerate(TOPICS) for label in topic.labels}


def hints(each: Example, ends: Sequence[int]) -> NDArray[np.int8]:
    """Say what is true of a message's tokens.

    Args:
        each: The example.
        ends: Where its message's tokens, and those after it, end, as numbers of characters.

    Returns:
        (tokens, kinds) with the number of a class, or `NOTHING` where nothing is to be known.
    """
    told = np.full((len(ends), len(KINDS)), NOTHING, np.int8)
    tokens = _Tokens(ends)
    own = _tell_asked(each, tokens, told)
    if each.column == each.about.column:
        for place in (own, slice(tokens.first(len(each.message)), None)):
            _tell_text(each.about, told[place])
    if each.task == "label":
        for word in each.words:
            topic = _TOPIC_OF.get(word.casefold())
            for start, end in _occurrences(each.question, word):
                told[tokens.within(start, end), _PLACE["topic"]] = NOTHING if topic is None else topic
    if each.task == "mention":
        _tell_matches(each, tokens, own, told)
    return told


@dataclass(frozen=True, slots=True)
class _Tokens:
    """Tokens by their places in the text."""

    ends: Sequence[int]

    def first(self, start: int) -> int:
        """Return the first token that goes beyond a place."""
        return bisect_right(self.ends, start)

    def within(self, start: int, end: int) -> slice:
        """Return the tokens from one place to another."""
        return slice(bisect_right(self.ends, start), bisect_right(self.ends, end))


def _tell_asked(each: Example, tokens: _Tokens, told: NDArray[np.int8]) -> slice:
    """Mark the column asked about; return the tokens of its value."""
    asked = told[:, _PLACE["asked"]]
    asked[: tokens.first(len(each.message))] = 0
    name = each.prompt.index("{")
    asked[tokens.within(name, name + len(each.column))] = 1
    place = len(each.question) + 2
    for column, value in each.row.items():
        key = tokens.within(place + 1, place + len(dumped(column)) - 1)  # without its quotation marks
        place += len(dumped(column)) + 2
        end = place + len(dumped(value))
        if column == each.column:
            own = tokens.within(place, end)
            asked[own] = 1
            asked[key] = NOTHING  # a reader cannot know yet
            asked[key.stop - 1] = 1
        place = end + 2
    return own


def _tell_text(about: Subject, told: NDArray[np.int8]) -> None:
    if about.topic is not None:
        told[:, _PLACE["topic"]] = TOPICS.index(about.topic)
    if about.felt is not None:
        told[:, _PLACE["felt"]] = _FELT[about.felt]


def _tell_matches(each: Example, tokens: _Tokens, own: slice, told: NDArray[np.int8]) -> None:
    match, hit, found = (told[:, _PLACE[kind]] for kind in ("match", "hit", "found"))
    row, after = tokens.first(len(each.question)), tokens.first(len(each.message))
    match[:after] = hit[row:after] = found[row:] = 0
    name = each.prompt.index("{")
    for word in each.words:
        for start, end in _occurrences(each.question, word):
            if not name <= start < name + len(each.column):
                match[tokens.within(start, end)] = 1
        before = len(each.question) + 1
        for start, end in _occurrences(dumped(each.row), word):
            spelt = tokens.within(before + start, before + end)
            match[spelt] = NOTHING  # a reader cannot know yet
            match[spelt.stop - 1] = 1
    hit[own] = match[own]
    if (hit == 1).any():
        found[int((hit == 1).argmax()) :] = 1


def _occurrences(text: str, word: str) -> Iterator[tuple[int, int]]:
    for match in re.finditer(rf"(?<!\w){re.escape(word.casefold())}(?!\w)", text.casefold()):
        yield match.span()
