"""What is true of single tokens of a message, for training alone: a denser lesson than the answer's few tokens.

In: an example, and the places of its tokens. Out: for each token what a reader knows once they have come to it: the
topic or the sentiment of the text that it stands in, whether it belongs to the column asked about, and whether it
completes a word that is asked about. It knows no decoder; nothing of it is in the model's files.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from models.recipe.examples import Example, dumped
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

_FELT = {felt: place for place, felt in enumerate(get_args(Sentiment))}
_TOPIC_OF = {label.casefold(): place for place, topic in enumerate(TOPICS) for label in topic.labels}


@dataclass(frozen=True, slots=True)
class _Span:
    """Characters of a message, from `start` to `end`."""

    start: int
    end: int


def hints(each: Example, ends: Sequence[int]) -> NDArray[np.int8]:
    """Say what is true of a message's tokens.

    Args:
        each: The example.
        ends: Where its message's tokens, and those after it, end, as numbers of characters.

    Returns:
        (tokens, kinds) with the number of a class, or `NOTHING` where nothing is to be known.
    """
    told = np.full((len(ends), len(KINDS)), NOTHING, np.int8)
    topic, felt, asked, match, hit, found = told.T

    def tokens(start: int, end: int) -> slice:
        return slice(bisect_right(ends, start), bisect_right(ends, end))

    row = bisect_right(ends, len(each.question))
    after = bisect_right(ends, len(each.message))
    asked[:after] = 0
    name = each.prompt.index("{")
    asked[tokens(name, name + len(each.column))] = 1
    own = slice(0, 0)
    for column, key, value in _cells(each):
        if column == each.column:
            own = tokens(value.start, value.end)
            asked[own] = 1
            spelt = tokens(key.start, key.end)
            asked[spelt] = NOTHING  # a reader cannot know yet
            asked[spelt.stop - 1] = 1
    about = each.about
    if each.column == about.column:
        for place in (own, slice(after, None)):
            if about.topic is not None:
                topic[place] = TOPICS.index(about.topic)
            if about.felt is not None:
                felt[place] = _FELT[about.felt]
    if each.task == "label":
        for word in each.words:
            named = _TOPIC_OF.get(word.casefold())
            if named is not None:
                for span in _occurrences(each.question, word):
                    topic[tokens(span.start, span.end)] = named
    if each.task == "mention":
        match[:after] = hit[row:after] = found[row:] = 0
        for word in each.words:
            for span in _occurrences(each.question, word):
                if not name <= span.start < name + len(each.column):
                    match[tokens(span.start, span.end)] = 1
        _look_for(each, ends, match)
        hit[own] = match[own]
        if (hit == 1).any():
            found[int((hit == 1).argmax()) :] = 1
    return told


def _look_for(each: Example, ends: Sequence[int], match: NDArray[np.int8]) -> None:
    row = dumped(each.row)
    start = len(each.question) + 1
    for word in each.words:
        for span in _occurrences(row, word):
            first = bisect_right(ends, start + span.start)
            last = bisect_left(ends, start + span.end)
            if last < len(match) and ends[last] == start + span.end:
                match[first:last] = NOTHING  # a reader cannot know yet
                match[last] = 1


def _occurrences(text: str, word: str) -> Iterator[_Span]:
    for match in re.finditer(rf"(?<!\w){re.escape(word.casefold())}(?!\w)", text.casefold()):
        yield _Span(match.start(), match.end())


def _cells(each: Example) -> Iterator[tuple[str, _Span, _Span]]:
    """Yield the columns, and where in the message their names and values stand, without the names' quotation marks."""
    place = len(each.question) + 2
    for name, value in each.row.items():
        key = _Span(place + 1, place + len(dumped(name)) - 1)
        place += len(dumped(name)) + 2
        length = len(dumped(value))
        yield name, key, _Span(place, place + length)
        place += length + 2
