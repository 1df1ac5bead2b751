"""An answer and how sure the model was of it, as one text: so both are kept, found again and fanned out as answers are.

In: answers of the engine. Out: texts, and of these the part that a call wants.
"""

from __future__ import annotations

from pg_bridge.engine import Sure
from pg_bridge.options import Call


def with_confidence(text: str | None) -> str:
    r"""The text of both: a number, which is empty where the engine told none, a line break, the answer.

    >>> with_confidence(Sure("yes", 0.75)), with_confidence("yes")
    ('0.75\nyes', '\nyes')
    """
    told = f"{text.confidence:.6g}" if isinstance(text, Sure) else ""
    return f"{told}\n{text or ''}"


def part_of(text: str | None, call: Call) -> str | None:
    r"""What a call wants of such a text; all of it where it was asked without.

    >>> both = Call(kind="boolean", confidence=True)
    >>> part_of("0.75\nyes", both), part_of("\nyes", both), part_of("a\nb", Call())
    ('yes', 'yes', 'a\nb')
    """
    if text is None or not call.confidence:
        return text
    told, _, answer = text.partition("\n")
    return answer if call.gives == "answer" else told or None
