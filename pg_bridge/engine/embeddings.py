"""What is sent to the engine's embeddings endpoint, and what is read from its answers.

In: texts and a `Sampling` that embeds; the bytes of an answer. Out: the bytes of a request; for each text its
embedding or why there is none, in the texts' order, whatever order the engine has. An embedding is the base64 of its
numbers, each the four bytes of an IEEE 754 single, the lowest first: what engines send where they can, half as long as
decimals.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Container, Sequence
from json.encoder import encode_basestring
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pg_bridge.engine.dialects import Dialect
from pg_bridge.engine.failures import OfTheStatement
from pg_bridge.engine.further import Further, salt_of
from pg_bridge.engine.payload import Answer, MalformedAnswer, Payload, Tokens
from pg_bridge.engine.records import Sampling
from pg_bridge.engine.refusal import Refused, message_of
from pg_bridge.engine.untrusted import parse_json, token_count
from pg_bridge.options import Server
from pg_bridge.options.further import merge

PATH = "/v1/embeddings"
MOST_DIMENSIONS = 1 << 16

TEXT_TOO_LONG = "Embed a shorter text, or have the engine cut it: docs/embeddings.md has how."
NOT_FINITE = "the engine's embedding holds a number that is not finite"
NO_NUMBERS = "the engine's answer holds no embedding"
WRONG_COUNT = "the engine's answer has not one embedding for each text"

_FORMAT = "encoding_format"
_ABOUT_FORMAT = re.compile("encoding_format|base64")
_HAS_NONE = re.compile(
    r"(not|n't|no|without) (support|have|implement|provide|for)?\W*(the )?(task\W*)?(text )?embed"
    r"|embed(ding)?s?( api| endpoint| model)?\W*(is|are)? (not|un)\W*(support|implement|enabl|avail)",
    re.I,
)


class NoEmbeddings(OfTheStatement):
    """The engine, or the model that it serves, makes no embeddings."""

    sqlstate = "0A000"


class EmbeddingPayload(Payload):
    """Bodies of one run's requests for embeddings, and the reading of their answers; arguments as for `Payload`."""

    def _write(self, constant: dict[str, Any], system: str) -> None:
        said = {name: value for name, value in constant.items() if name in {"model", "priority"}}
        if self.sampling.dimensions is not None:
            said["dimensions"] = self.sampling.dimensions
        self._head = f'{json.dumps(said | dict(self.further.arguments))[:-1]}, "input": '

    def path(self, prompt_count: int) -> str:
        """The path for a request of so many texts."""
        return PATH

    def body(self, prompts: Sequence[str]) -> bytes:
        """The request's body.

        Raises:
            UnicodeEncodeError: A text holds half of a surrogate pair.
        """
        return f"{self._head}[{', '.join(map(encode_basestring, prompts))}]}}".encode()

    def parse(self, body: bytes, prompt_count: int) -> tuple[list[Answer], Tokens]:
        """Read an answer; what is wrong with an embedding is the affair of its text.

        Raises:
            MalformedAnswer: The body is no list of embeddings.
        """
        try:
            answer = parse_json(body)
            usage = answer.get("usage")
            found = _in_order(answer["data"], prompt_count)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise MalformedAnswer("not the JSON of embeddings") from None
        prompt = token_count(usage.get("prompt_tokens")) if isinstance(usage, dict) else None
        nothing: list[Answer] = [(None, WRONG_COUNT)] * prompt_count
        answers = nothing if found is None else list(map(_read, found))
        return answers, Tokens(prompt, 0, None)  # of a prefix cache the engine's counters tell, if anything does


def further_of(server: Server, sampling: Sampling, dialect: Dialect, untaken: Container[str]) -> Further:
    """What the body of a request for embeddings says besides; arguments as for `pg_bridge.engine.further.further`.

    Raises:
        NoEmbeddings: The engine's interface has none.
        OptionError: The engine cannot be told what it must be.
    """
    if dialect.speaks != "openai":
        raise no_embeddings(server)
    arguments: dict[str, Any] = {} if _FORMAT in untaken else {_FORMAT: "base64"}
    arguments |= salt_of(server, dialect)
    return Further(
        arguments | merge(server.request_options, sampling.request_options),
        dispensable={_FORMAT: _ABOUT_FORMAT} if _FORMAT in arguments else {},
    )


def no_embeddings(server: Server) -> NoEmbeddings:
    """The error of a run for embeddings at an engine that makes none."""
    return NoEmbeddings(
        f'the engine of server "{server.name}" makes no embeddings',
        detail=f"{server.endpoint} has no {PATH}, or not for its model.",
        hint="A model for embeddings has a server of its own as a rule, even at the same endpoint: CREATE SERVER … "
        "OPTIONS (endpoint '…', model '…'), and llm.embed(…, server => '…').",
    )


def is_about_embeddings(refused: Refused, texts: Sequence[str]) -> bool:
    """Whether a refusal says that there are no embeddings, and not of a text in which the same words stand.

    >>> said = b'{"error": {"message": "The model does not support Embeddings API"}}'
    >>> is_about_embeddings(Refused(400, said), ["a text"])
    True
    """
    return bool(_HAS_NONE.search(message_of(refused.body))) and not any(map(_HAS_NONE.search, texts))


def dimensions_of(answer: str) -> int:
    """How many numbers an embedding has.

    >>> dimensions_of("AACAPwAAAEA=")
    2
    """
    return len(answer) // 4 * 3 // 4


def array_text(answer: str) -> str:
    """An embedding as PostgreSQL writes a real[]; each number as exactly as a real is one.

    >>> array_text("AACAPwAAAEA="), array_text("zczMPQ==")
    ('{1,2}', '{0.100000001}')
    """
    numbers = np.frombuffer(base64.b64decode(answer), "<f4").tolist()
    return "{" + ("%.9g," * len(numbers) % tuple(numbers))[:-1] + "}"


def _in_order(data: object, count: int) -> list[object] | None:
    """What there is for each text, in the texts' order; None where that is not one embedding for each.

    Raises:
        TypeError, KeyError: This is no list of embeddings.
    """
    if not isinstance(data, list):
        raise TypeError
    of_text = {each["index"]: each["embedding"] for each in data}
    if len(data) != count or any(type(index) is not int for index in of_text):
        return None
    return [of_text[index] for index in range(count)] if of_text.keys() == set(range(count)) else None


def _read(embedding: object) -> Answer:
    """An embedding, or why it is none."""
    numbers = _decoded(embedding) if isinstance(embedding, str) else _listed(embedding)
    if numbers is None or not numbers.size:
        return None, NO_NUMBERS
    if numbers.size > MOST_DIMENSIONS:
        return None, f"the engine's embedding has more than {MOST_DIMENSIONS} dimensions"
    if not np.isfinite(numbers).all():
        return None, NOT_FINITE
    return base64.b64encode(numbers.tobytes()).decode(), None


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
