"""Thoughts that a model put before its answer, and no reader of the engine's took out.

In: the text of an answer. Out: what is left of it. Templates have models think between tags; some put the first tag
into the prompt, so that the text begins within the thoughts and only the last one tells where these end.
"""

from __future__ import annotations

import re

# Qwen, DeepSeek, GLM and most others; Mistral; Seed.
_TAGS = (("<think>", "</think>"), ("[THINK]", "[/THINK]"), ("<seed:think>", "</seed:think>"))
_OPENING = re.compile(rf"\s*({'|'.join(re.escape(opening) for opening, _ in _TAGS)})")
_CLOSING = dict(_TAGS)


def ends_within_thoughts(text: str) -> bool:
    """Whether a text, the end of a prompt say, leaves thoughts open.

    >>> ends_within_thoughts("<|assistant|><think>"), ends_within_thoughts("<|assistant|><think></think>")
    (True, False)
    """
    return any(text.rfind(opening) > text.rfind(closing) for opening, closing in _TAGS)


def without_thoughts(text: str) -> tuple[str | None, bool]:
    r"""The answer behind the thoughts.

    A text with both tags further on only speaks of them.

    Returns:
        The answer, and whether there were thoughts before it; None for an answer that they never came to.

    >>> without_thoughts("<think>Hm.</think>\n\nyes"), without_thoughts("Hm.</think>yes")
    (('yes', True), ('yes', True))
    >>> without_thoughts("<think>Hm, it may"), without_thoughts("yes")
    ((None, True), ('yes', False))
    >>> without_thoughts("Between <think> and </think>.")
    ('Between <think> and </think>.', False)
    """
    rest: str | None = text
    while rest is not None and (found := _OPENING.match(rest)):
        closing = _CLOSING[found[1]]
        _, end, behind = rest[found.end() :].partition(closing)
        rest = behind.lstrip() if end else None
    if rest != text:
        return rest, True
    for opening, closing in _TAGS:
        thoughts, end, behind = text.partition(closing)
        if end and opening not in thoughts:
            answer, _ = without_thoughts(behind.lstrip())
            return answer, True
    return text, False
