"""What is sent to the engine's embeddings endpoint, and what is read from its answers.

In: texts and a `Sampling` that embeds; the bytes of an answer. Out: the bytes of a request; for each text its
embedding or why there is none, in the texts' order, whatever order the engine has. An embedding is the base64 of its
numbers, each the four bytes of an IEEE 754 single, the lowest first: what engines send where they can, half as long as
decimals.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from json.encoder import encode_basestring
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pg_bridge.engine.checking import Answer
from pg_bridge.engine.parts import blocks_of, openai_part
from pg_bridge.engine.pooling import PooledPayload, Service
from pg_bridge.rows.media import Illustrated

MOST_DIMENSIONS = 1 << 16

TEXT_TOO_LONG = "Embed a shorter text, or have the engine cut it: docs/embeddings.md has how."
NOT_FINITE = "the engine's embedding holds a number that is not finite"
NO_NUMBERS = "the engine's answer holds no embedding"

EMBEDDINGS = Service(
    path="/v1/embeddings",
    makes="embeddings",
    asked_by="llm.embed",
    whose="embeddings",
    lists=("data",),
    value="embedding",
    wrong_count="the engine's answer has not one embedding for each text",
    none=re.compile(
        r"(not|n't|no|without) (support|have|implement|provide|for)?\W*(the )?(task\W*)?(text )?embed"
        r"|embed(ding)?s?( api| endpoint| model)?\W*(is|are)? (not|un)\W*(support|implement|enabl|avail)",
        re.I,
    ),
    optional={"encoding_format": ("base64", re.compile("encoding_format|base64"))},
)


class EmbeddingPayload(PooledPayload):
    """Bodies of one run's requests for embeddings, and the reading of their answers; arguments as for `Payload`."""

    service = EMBEDDINGS
    too_long = TEXT_TOO_LONG

    def _said(self) -> dict[str, Any]:
        return {} if self.sampling.dimensions is None else {"dimensions": self.sampling.dimensions}

    def body(self, prompts: Sequence[str]) -> bytes:
        """The request's body; what has media is a message, as vLLM takes it, and there is but one a request.

        Raises:
            UnicodeEncodeError: A text holds half of a surrogate pair.
        """
        if isinstance(prompts[0], Illustrated):
            blocks = ", ".join(blocks_of(prompts[0], openai_part))
            return f'{self._head}"messages": [{{"role": "user", "content": [{blocks}]}}]}}'.encode()
        return f'{self._head}"input": [{", ".join(map(encode_basestring, prompts))}]}}'.encode()

    @staticmethod
    def read(found: object) -> Answer:
        """An embedding, or why it is none."""
        numbers = _decoded(found) if isinstance(found, str) else _listed(found)
        if numbers is None or not numbers.size:
            return None, NO_NUMBERS
        if numbers.size > MOST_DIMENSIONS:
            return None, f"the engine's embedding has more than {MOST_DIMENSIONS} dimensions"
        if not np.isfinite(numbers).all():
            return None, NOT_FINITE
        return base64.b64encode(numbers.tobytes()).decode(), None


def dimensions_of(answer: str) -> int:
    """How many numbers an embedding has.

    >>> dimensions_of("AACAPwAAAEA=")
    2
    """
    return len(answer) // 4 * 3 // 4


def numbers_of(answer: str) -> NDArray[np.float32]:
    """The numbers of an embedding."""
    return np.frombuffer(base64.b64decode(answer), "<f4")


def array_text(answer: str) -> str:
    """An embedding as PostgreSQL writes a real[]; each number as exactly as a real is one.

    >>> array_text("AACAPwAAAEA="), array_text("zczMPQ==")
    ('{1,2}', '{0.100000001}')
    """
    numbers = numbers_of(answer).tolist()
    return "{" + ("%.9g," * len(numbers) % tuple(numbers))[:-1] + "}"


def _decoded(text: str) -> NDArray[np.float32] | None:
    try:
        numbers = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return np.frombuffer(numbers, "<f4") if len(numbers) % 4 == 0 else None


def _listed(values: object) -> NDArray[np.float32] | None:
    if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
        return None
    with np.errstate(over="ignore"):  # what is too large for a real is not finite
        try:
            return np.array(values, np.float64).astype("<f4")
        except OverflowError:  # an integer of hundreds of digits
            return np.array([np.inf], "<f4")
