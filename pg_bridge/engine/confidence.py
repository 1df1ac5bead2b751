"""How sure a model was of an answer that is held to a form, by the log-probabilities of the answer's tokens.

In: what an engine tells of a token and of those that it could have chosen instead, and which answers were allowed. Out:
the probability of the answer among these, or None. Engines that hold a model to a form (vLLM) tell probabilities of
what was allowed, others (llama.cpp, OpenAI) those of anything: of both, those tokens are counted by which an allowed
answer could go on. Nothing that an engine tells here is an error of its answer.

What is not told is allowed, too, where all that is told is. Else an answer may hide there that is more likely than what
is told of answers: if there is room for that, nothing is known.

Another token that begins as the answer does and as another answer, too, is left out, unless it is an answer itself: how
it would go on nobody tells.

A probability is followed token by token, until no other answer begins so: of "positive" and "negative" the first token
tells all, "1" and "10" are told apart by whether the answer ends.
"""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple, Protocol

from pg_bridge.engine.forms import Asked
from pg_bridge.engine.records import Sampling

FEW_ALTERNATIVES = 5
"""As many as every engine tells that tells any."""

_LONG_LABEL_CHARS = 40  # of some ten tokens, with alternatives to each
_ROUNDING = 1.05  # of probabilities that are added up
_MOST_HIDDEN = 0.1  # of what is told of answers
_NEXT_TO_NOTHING = -700  # an integer far below is more than a float holds
_AROUND = b" \t\r\n\"'*`"  # what models put around answers, and engines begin them with
_BROKEN = "\ufffd".encode()  # in the place of half a character, or nothing is
_NUMBER = re.compile(rb"-?[0-9]{1,15}(\.[0-9]{1,9})?")
_BEGUN_NUMBER = re.compile(rb"-?([0-9]{1,15}(\.[0-9]{0,9})?)?")
_WHOLE = re.compile(rb"-?[0-9]+")


class _Step(NamedTuple):
    """A token of an answer.

    Attributes:
        text: Its bytes.
        logprob: What the engine tells of it, unseen.
        others: The same of others in its place: (text, logprob) each.
    """

    text: bytes
    logprob: object
    others: Sequence[tuple[bytes, object]]


class _Allowed(Protocol):
    """The answers that are allowed."""

    def has(self, text: bytes) -> bool:
        """Whether a text is one of them."""

    def lead(self, begun: bytes, answer: bytes, ended: int = 0) -> tuple[bool, bool]:
        """Whether what begins so may become an answer, and whether any other one; none that was over before a place."""


def alternatives(sampling: Sampling, most: int) -> int:
    """How many tokens to ask an engine for in the place of each, which tells so many at most."""
    if any(len(choice) > _LONG_LABEL_CHARS for choice in sampling.choices):
        return min(most, FEW_ALTERNATIVES)
    return min(most, max(FEW_ALTERNATIVES, 2 * len(sampling.choices) if sampling.choices else most))


class Certainty:
    """Reads how sure a model was of its answers.

    Args:
        sampling: Tells which answers are allowed.
        asked: How they were asked for.
    """

    def __init__(self, sampling: Sampling, asked: Asked) -> None:
        self._fold: Callable[[bytes], bytes] = bytes.lower if asked.words else bytes
        # Within a JSON string a label may be spelt in two ways.
        self._spellings = [_json(is_ascii) for is_ascii in (False, True)] if asked.is_wrapped else [_plain]
        self._allowed = self._allowed_of(sampling)

    def of(self, choice: dict[str, Any], content: object, answer: str) -> float | None:
        """The probability of an answer among those that are allowed; None where the engine does not tell it.

        Args:
            choice: What the engine says of the answer.
            content: The text that it gives.
            answer: What of it is the answer.
        """
        steps = _steps(choice.get("logprobs"))
        if not steps or not isinstance(content, str):
            return None
        told = self._fold(b"".join(step.text for step in steps))
        whole = self._fold(content.encode(errors="replace"))
        last = self._fold(steps[-1].text)
        if not whole.rstrip().endswith(last.strip()):  # "<|im_end|>", in which "n" is not to be found
            told = told.removesuffix(last)
        begins = told.rfind(whole)
        if begins < 0:
            begins, whole = told.rfind(whole.strip()), whole.strip()
        for spell in self._spellings:
            sought = self._spell(spell, answer)
            at = whole.rfind(sought)
            if begins >= 0 and at >= 0 and sought:
                return _follow(self._weighed(steps, told, begins + at, sought))
        return None

    def _spell(self, spell: Callable[[str], str], text: str) -> bytes:
        return self._fold(spell(text).encode(errors="replace"))

    def _allowed_of(self, sampling: Sampling) -> _Allowed:
        if sampling.choices:
            return _Labels({self._spell(spell, each): each for spell in self._spellings for each in sampling.choices})
        if sampling.low is not None and sampling.high is not None:
            return _WholeNumbers(sampling.low, sampling.high)
        return _Numbers()

    def _weighed(self, steps: Iterable[_Step], told: bytes, start: int, answer: bytes) -> Iterator[_Weights | None]:
        """What there was to choose from at each token of an answer, as far as that tells answers apart."""
        at, end = 0, start + len(answer)
        for step in steps:
            begins, at = at, at + len(step.text)
            is_end = begins >= end
            if at <= start and (step.text or at < start):
                continue
            before, lead = told[start : min(begins, end)], told[begins:start]
            begun = answer if is_end else told[start:at]
            is_told = is_end or (bool(step.text) and not self._allowed.lead(begun, answer)[1])
            yield self._weigh(step, before, lead, answer, is_told=is_told)
            if is_told:
                return

    def _weigh(self, step: _Step, before: bytes, lead: bytes, answer: bytes, *, is_told: bool) -> _Weights | None:
        chosen = _probability(step.logprob)
        if chosen is None:
            return None
        path, sure = (0.0, chosen) if is_told else (chosen, 0.0)
        total = seen = chosen
        is_masked = True  # nothing is told that is not allowed
        for text, logprob in step.others:
            other = _probability(logprob)
            if other is None:
                return None
            if text == step.text or self._is_half(text, before, answer):
                continue
            seen += other
            leads = self._lead(self._fold(text), before, lead, answer)
            if leads is not None:
                mine, others = leads
                total += other if mine or others else 0.0
                sure += other if mine and not others else 0.0
            is_masked = is_masked and (leads is None or any(leads) or not other)
        hidden = max(0.0, 1.0 - seen)
        if seen > _ROUNDING or (hidden > _MOST_HIDDEN * total and not is_masked):
            return None
        return _Weights(path, sure, total + hidden if is_masked else total)

    def _is_half(self, text: bytes, before: bytes, answer: bytes) -> bool:
        """Whether a token is half a character, and nobody knows where it leads; nothing may end another answer, too."""
        return _BROKEN in text or (not text and (before == answer or not self._allowed.has(before)))

    def _lead(self, text: bytes, before: bytes, lead: bytes, answer: bytes) -> tuple[bool, bool] | None:
        """Whether a token that was not chosen leads to the answer, and whether to another one; None if that is open."""
        if not text:  # another answer ends
            return False, True
        begun = before + text.removeprefix(lead)
        leads = self._allowed.lead(begun, answer, len(before))
        if not before and not any(leads):
            begun = begun.lstrip(_AROUND)
            leads = self._allowed.lead(begun, answer)
        if all(leads):  # a piece of several answers, which is taken for one if it is one
            return (begun == answer, begun != answer) if self._allowed.has(begun) else None
        return leads


class _Weights(NamedTuple):
    """Probabilities of tokens in one place.

    Attributes:
        path: Of the one that was chosen, where others than the answer begin so, too.
        sure: Of those by which there is no other answer.
        total: Of all by which there is an allowed one.
    """

    path: float
    sure: float
    total: float


def _follow(weighed: Iterable[_Weights | None]) -> float | None:
    steps = list(weighed)
    found = 1.0
    for weights in reversed(steps):
        if weights is None or weights.total <= 0:
            return None
        found = min(1.0, (weights.path * found + weights.sure) / weights.total)
    return found if steps else None


def _plain(text: str) -> str:
    return text


def _json(is_ascii: bool) -> Callable[[str], str]:
    return lambda text: json.dumps(text, ensure_ascii=is_ascii)[1:-1]


def _ends(rest: bytes) -> bool:
    """Whether a word ends where such bytes follow; a backslash is a character of it, escaped."""
    return not rest[:1].isalnum() and rest[:1] < b"\x80" and rest[:1] != b"\\"


class _Labels:
    """Labels, by each way to spell them."""

    def __init__(self, label_of: Mapping[bytes, str]) -> None:
        self._of = label_of
        self._sorted = sorted(label_of)
        self._longest = max(map(len, label_of))

    def has(self, text: bytes) -> bool:
        return text in self._of

    def lead(self, begun: bytes, answer: bytes, ended: int = 0) -> tuple[bool, bool]:
        if not begun:
            return False, False
        mine = self._of.get(answer)
        first = bisect_left(self._sorted, begun)
        # One more than one label has spellings.
        likely = [self._of[each] for each in islice(self._sorted, first, first + 3) if each.startswith(begun)]
        if likely:
            return answer.startswith(begun) or mine in likely, any(label != mine for label in likely)
        most = min(len(begun), self._longest + 1)  # an engine may tell of tokens as long as it likes
        past = [n for n in range(ended, most) if begun[:n] in self._of and _ends(begun[n:])]
        if not past:
            return False, False
        label = self._of[begun[: past[-1]]]
        return label == mine, label != mine


class _Numbers:
    """Decimal numbers: another one begins as any that does not end yet."""

    def has(self, text: bytes) -> bool:
        return _NUMBER.fullmatch(text) is not None

    def lead(self, begun: bytes, answer: bytes, ended: int = 0) -> tuple[bool, bool]:
        if begun and _BEGUN_NUMBER.fullmatch(begun):
            return answer.startswith(begun), True
        found = _NUMBER.match(begun)
        if found is None or not _ends(begun[found.end() :]):
            return False, False
        return found[0] == answer, found[0] != answer


class _WholeNumbers:
    """Whole numbers from one to another."""

    def __init__(self, low: int, high: int) -> None:
        self._low, self._high = low, high
        self._digits = max(len(str(abs(low))), len(str(abs(high))))

    def lead(self, begun: bytes, answer: bytes, ended: int = 0) -> tuple[bool, bool]:
        count = self._count(begun)
        if count:
            is_mine = answer.startswith(begun)
            return is_mine, count > is_mine
        found = _WHOLE.match(begun)
        if found is None or found.end() == len(begun) or not _ends(begun[found.end() :]):
            return False, False
        number = found[0]
        return number == answer, number != answer and self.has(number)

    def has(self, text: bytes) -> bool:
        is_short = len(text) <= self._digits + 1 and _WHOLE.fullmatch(text) is not None
        return is_short and self._low <= int(text) <= self._high

    def _count(self, begun: bytes) -> int:
        """How many numbers begin so."""
        is_negative, digits = begun[:1] == b"-", begun.removeprefix(b"-")
        low, high = (-self._high, -self._low) if is_negative else (self._low, self._high)
        low = max(low, 1 if is_negative else 0)
        if not digits:
            return max(0, high - low + 1) if is_negative else 0
        if not digits.isdigit() or len(digits) > self._digits:
            return 0
        if digits[:1] == b"0":
            return int(digits == b"0" and low == 0 <= high)
        spans = ((int(digits) * 10**n, (int(digits) + 1) * 10**n - 1) for n in range(self._digits - len(digits) + 1))
        return sum(max(0, min(high, last) - max(low, first) + 1) for first, last in spans)


def _probability(logprob: object) -> float | None:
    """The probability, None where it is none.

    >>> _probability(0.0), _probability(-9999), _probability(0.7), _probability(float("nan")), _probability("-1")
    (1.0, 0.0, None, None, None)
    """
    if not isinstance(logprob, int | float) or isinstance(logprob, bool) or not logprob <= _ROUNDING - 1:
        return None
    return math.exp(min(logprob, 0.0)) if logprob > _NEXT_TO_NOTHING else 0.0


def _steps(logprobs: object) -> list[_Step]:
    """The tokens of an answer, as chat tells them or as completions do; none where that is not understood."""
    if not isinstance(logprobs, dict):
        return []
    content = logprobs.get("content")
    try:
        if isinstance(content, list):
            return [
                _Step(
                    _bytes(token),
                    token.get("logprob"),
                    [(_bytes(each), each.get("logprob")) for each in token.get("top_logprobs") or ()],
                )
                for token in content
            ]
        tokens, values = logprobs["tokens"], logprobs["token_logprobs"]
        others = logprobs.get("top_logprobs") or [None] * len(tokens)
        return [
            _Step(
                token.encode(errors="replace"),
                value,
                [(text.encode(errors="replace"), other) for text, other in (instead or {}).items()],
            )
            for token, value, instead in zip(tokens, values, others, strict=True)
        ]
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError):
        return []


def _bytes(token: dict[str, Any]) -> bytes:
    """A token's bytes, which may be part of a character; else its text."""
    told = token.get("bytes")
    return bytes(told) if isinstance(told, list) else str.encode(token["token"], errors="replace")
