"""What embeddings and relevances have in common: a model answers in numbers, one answer for each text of a request.

In: texts and a `Sampling` that is pooled; the bytes of an answer. Out: the bytes of a request; for each text what it
has or why it has none, in the texts' order, whatever order the engine has. An engine is trusted with nothing: not with
the order, the number or the form of what it sends.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pg_bridge.engine.checking import Answer
from pg_bridge.engine.dialects import Dialect
from pg_bridge.engine.failures import OfTheStatement
from pg_bridge.engine.further import Further, salt_of
from pg_bridge.engine.payload import MalformedAnswer, Payload, Tokens
from pg_bridge.engine.records import Sampling
from pg_bridge.engine.refusal import Refused, message_of
from pg_bridge.engine.untrusted import parse_json, token_count
from pg_bridge.options import Server
from pg_bridge.options.further import merge


class NotServed(OfTheStatement):
    """The engine, or the model that it serves, has nothing of the kind."""

    sqlstate = "0A000"


@dataclass(frozen=True, slots=True)
class Service:
    """What an engine may serve besides answers.

    Attributes:
        path: Where.
        makes: What it makes, behind "the engine makes no".
        asked_by: The function of schema `llm` that asks for it.
        whose: What a model is for that makes them.
        lists: Under which names an answer has them; the first that is there.
        value: Under which name each of them stands.
        wrong_count: What is said where there is not one for each text.
        none: By which words an engine says that it makes none.
        optional: What is said that need not be, by the words by which an engine refuses it.
    """

    path: str
    makes: str
    asked_by: str
    whose: str
    lists: tuple[str, ...]
    value: str
    wrong_count: str
    none: re.Pattern[str]
    optional: Mapping[str, tuple[Any, re.Pattern[str]]]

    def further_of(self, server: Server, sampling: Sampling, dialect: Dialect, untaken: Container[str]) -> Further:
        """What the body of a request says besides; arguments as for `pg_bridge.engine.further.further`.

        Raises:
            NotServed: The engine's interface has nothing of the kind.
            OptionError: The engine cannot be told what it must be.
        """
        if dialect.speaks != "openai":
            raise self.missing(server)
        said = {name: told for name, told in self.optional.items() if name not in untaken}
        arguments: dict[str, Any] = {name: value for name, (value, _) in said.items()}
        arguments |= salt_of(server, dialect)
        return Further(
            arguments | merge(server.request_options, sampling.request_options),
            dispensable={name: words for name, (_, words) in said.items()},
        )

    def missing(self, server: Server) -> NotServed:
        """The error of a run at an engine that has nothing of the kind."""
        return NotServed(
            f'the engine of server "{server.name}" makes no {self.makes}',
            detail=f"{server.endpoint} has no {self.path}, or not for its model.",
            hint=f"A model for {self.whose} has a server of its own as a rule, even at the same endpoint: CREATE "
            f"SERVER … OPTIONS (endpoint '…', model '…'), and {self.asked_by}(…, server => '…').",
        )

    def is_denied(self, refused: Refused, texts: Sequence[str]) -> bool:
        """Whether a refusal says that there is nothing of the kind, and not of a text in which the same words stand."""
        return bool(self.none.search(message_of(refused.body))) and not any(map(self.none.search, texts))


class PooledPayload(Payload):
    """Bodies of one run's requests for numbers, and the reading of their answers; arguments as for `Payload`."""

    service: ClassVar[Service]

    def _write(self, constant: dict[str, Any], system: str) -> None:
        said = {name: value for name, value in constant.items() if name in {"model", "priority"}}
        self._head = f"{json.dumps(said | self._said() | dict(self.further.arguments))[:-1]}, "

    def _said(self) -> dict[str, Any]:
        """What bodies of this kind say besides."""
        return {}

    def path(self, prompt_count: int) -> str:
        """The path for a request of so many texts."""
        return self.service.path

    def missing(self, server: Server, refused: Refused | None = None, prompts: Sequence[str] = ()) -> NotServed | None:
        """As `Payload.missing`."""
        is_missing = refused is None or self.service.is_denied(refused, prompts)
        return self.service.missing(server) if is_missing else None

    def parse(self, body: bytes, prompt_count: int) -> tuple[list[Answer], Tokens]:
        """Read an answer; what is wrong with what a text has is the affair of that text.

        Raises:
            MalformedAnswer: The body is no list of what was asked for.
        """
        service = self.service
        try:
            answer = parse_json(body)
            usage = answer.get("usage")
            data = next((answer[name] for name in service.lists if name in answer), None)
            found = _in_order(data, service.value, prompt_count)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise MalformedAnswer(f"not the JSON of {service.makes}") from None
        usage = usage if isinstance(usage, dict) else {}
        prompt = token_count(usage.get("prompt_tokens", usage.get("total_tokens")))  # of which there are no others
        nothing: list[Answer] = [(None, service.wrong_count)] * prompt_count
        answers = nothing if found is None else list(map(self.read, found))
        return answers, Tokens(prompt, 0, None)  # of a prefix cache the engine's counters tell, if anything does

    @staticmethod
    def read(found: object) -> Answer:
        """What an engine says that a text has, or why that is nothing."""
        raise NotImplementedError


def _in_order(data: object, value: str, count: int) -> list[object] | None:
    """What there is for each text, in the texts' order; None where that is not one for each.

    Raises:
        TypeError, KeyError: This is no list of what was asked for.
    """
    if not isinstance(data, list):
        raise TypeError
    of_text = {each["index"]: each[value] for each in data}
    if len(data) != count or any(type(index) is not int for index in of_text):
        return None
    return [of_text[index] for index in range(count)] if of_text.keys() == set(range(count)) else None
