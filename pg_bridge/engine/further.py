"""What a body says besides prompts and a form: how long, how warm, whether to reason, further options, whose cache.

In: a server, a `Sampling`, a dialect. Out: a `Further`. Some of it need not be said: an engine that refuses it is asked
again without, and remembered for it, so that a model which does not reason answers as ever.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pg_bridge.engine.confidence import FEW_ALTERNATIVES, alternatives
from pg_bridge.engine.dialects import Dialect, Ways
from pg_bridge.engine.records import Sampling
from pg_bridge.engine.refusal import Refused
from pg_bridge.errors import OptionError
from pg_bridge.options import Reasoning, Server
from pg_bridge.options.further import merge

THOUGHT_TOKENS = 4096
"""Most of them before one answer of a model that shall reason, where nobody says another number."""

OF_TEMPLATES = "chat_template_kwargs"
_LOGPROBS = re.compile("logprob|log prob", re.I)
_OTHER_LIMIT = "the other limit"
_TEMPERATURE = "temperature"
_FIXED_TEMPERATURE = re.compile(
    r"temperature\W.{0,80}(not support|unsupported|deprecated|only the default)|unsupported.{0,40}temperature",
    re.I | re.S,
)
_NAMED_AS = {OF_TEMPLATES: "chat_template"}  # vLLM's Mistral tokenizers refuse both by this name
_NOBODYS_SALT = secrets.token_hex(16)  # of this process: what it asks is found by nobody else


@dataclass(frozen=True, slots=True)
class Further:
    """What a body says besides.

    Attributes:
        arguments: Those of the body, but for its limit and temperature.
        thought_tokens: How many tokens the limit of an answer is raised by.
        reasons: Whether the model was told to reason, or left to do so.
        dispensable: What of it need not be said, or not so: names by which it is remembered, with the words by which an
            engine refuses it.
        limit: The argument that bounds an answer; empty for the dialect's first.
        has_temperature: Whether a temperature is said.
    """

    arguments: Mapping[str, Any] = field(default_factory=dict)
    thought_tokens: int = 0
    reasons: bool = False
    dispensable: Mapping[str, re.Pattern[str]] = field(default_factory=dict)
    limit: str = ""
    has_temperature: bool = True

    def refused_by(self, refused: Refused, prompts: Sequence[str]) -> set[str]:
        """What of it a refusal is about that need not be said, and not about a prompt in which the words stand."""
        said = refused.body.decode(errors="replace")
        return {
            name
            for name, words in self.dispensable.items()
            if words.search(said) and not any(map(words.search, prompts))
        }


def thought_tokens(server: Server, sampling: Sampling) -> int:
    """Most tokens of thoughts before one answer; 0 where there shall be none."""
    if sampling.is_pooled:
        return 0
    most = sampling.max_reasoning_tokens or server.max_reasoning_tokens
    return most or (THOUGHT_TOKENS if _reasoning(server, sampling) not in (None, "off") else 0)


def further(
    server: Server, sampling: Sampling, dialect: Dialect, model: str = "", untaken: Container[str] = frozenset()
) -> Further:
    """What a body says besides.

    Args:
        server: Who is asked.
        sampling: How prompts are answered.
        dialect: What the engine understands.
        model: The model's name.
        untaken: What the engine is known to refuse.

    Raises:
        OptionError: The engine cannot be told what it must be.
    """
    reasoning, most = _reasoning(server, sampling), thought_tokens(server, sampling)
    ways = _ways(server, reasoning, dialect, model)
    left = {name: way for way in ways if (name := json.dumps([model, way])) not in untaken}
    if not left and ways and _thinks(reasoning):
        raise _cannot_be_told(server, reasoning)
    name, way = next(iter(left.items()), ("", {}))
    limit, has_temperature = _limit(dialect, untaken), _has_temperature(dialect, model, untaken)
    dispensable: dict[str, re.Pattern[str]] = {_TEMPERATURE: _FIXED_TEMPERATURE} if has_temperature else {}
    if dialect.other_max_tokens not in ("", limit):
        dispensable[_OTHER_LIMIT] = _any_of([dialect.other_max_tokens])
    arguments: dict[str, Any] = dict(way)
    if way:
        dispensable[name] = _any_of(_NAMED_AS.get(each, each) for each in way)
    budget = dialect.thought_budget
    if most and budget and budget not in untaken:
        arguments[budget] = most
        dispensable[budget] = _any_of([budget])
    arguments |= salt_of(server, dialect)
    told = _alternatives(sampling, dialect, untaken) if not _thinks(reasoning) else 0
    if told:
        arguments |= {"logprobs": True, "top_logprobs": told} if server.api == "chat" else {"logprobs": told}
        dispensable[_told_as(told)] = _LOGPROBS
    return Further(
        dict(_merged(arguments, merge(server.request_options, sampling.request_options))),
        most,
        _thinks(reasoning),
        dispensable,
        limit,
        has_temperature,
    )


def _thinks(reasoning: Reasoning | None) -> bool:
    """Whether a model is told to reason, or left to do so."""
    return reasoning not in (None, "off")


def _alternatives(sampling: Sampling, dialect: Dialect, untaken: Container[str]) -> int:
    """How many tokens an engine is to tell in the place of each; 0 where it tells none, or need not."""
    if not sampling.confidence:
        return 0
    most = alternatives(sampling, dialect.alternatives)
    return next((n for n in (most, min(most, FEW_ALTERNATIVES)) if n and _told_as(n) not in untaken), 0)


def _told_as(count: int) -> str:
    return f"logprobs of {count}"


def _limit(dialect: Dialect, untaken: Container[str]) -> str:
    """By what name the limit of an answer is said."""
    return dialect.other_max_tokens if dialect.other_max_tokens and _OTHER_LIMIT in untaken else dialect.max_tokens


def _has_temperature(dialect: Dialect, model: str, untaken: Container[str]) -> bool:
    is_fixed = bool(dialect.fixed_temperature and re.match(dialect.fixed_temperature, model))
    return not is_fixed and _TEMPERATURE not in untaken


def _any_of(words: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, words)))


def _reasoning(server: Server, sampling: Sampling) -> Reasoning | None:
    return sampling.reasoning or server.reasoning


def _ways(server: Server, reasoning: Reasoning | None, dialect: Dialect, model: str) -> Ways:
    if server.api == "chat":
        return dialect.reasons(reasoning, model)
    if reasoning in (None, "off", "model"):
        return ()
    raise OptionError(
        f"reasoning is '{reasoning}', and server \"{server.name}\" has no chat template to say it by",
        hint="ALTER SERVER … OPTIONS (SET api 'chat'), or say reasoning => 'model'.",
    )


def salt_of(server: Server, dialect: Dialect) -> dict[str, str]:
    """What keeps a role's prompts apart in the engine's prefix cache.

    Raises:
        OptionError: They shall be, and the engine cannot do so.
    """
    if server.cache_salt == "off":
        return {}
    if not dialect.takes_salt:
        raise OptionError(
            f'server "{server.name}" keeps roles apart by cache_salt, which its engine does not take',
            detail=f"Its dialect is {dialect.name}.",
            hint="vLLM and SGLang take it; else ALTER SERVER … OPTIONS (DROP cache_salt).",
        )
    return {"cache_salt": server.salt or _NOBODYS_SALT}


def _merged(said: Mapping[str, Any], given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What users give goes over what is said, key by key, also in the arguments of the chat template."""
    yield from said.items()
    for name, value in given.items():
        ours = said.get(name)
        both = name == OF_TEMPLATES and isinstance(ours, dict) and isinstance(value, dict)
        yield name, {**ours, **value} if both else value  # type: ignore[dict-item]  # a dictionary, where it is both


def _cannot_be_told(server: Server, reasoning: Reasoning | None) -> OptionError:
    return OptionError(
        f"the engine of server \"{server.name}\" does not take reasoning '{reasoning}'",
        detail=f"The endpoint is {server.endpoint}.",
        hint="Leave it to the model: reasoning => 'model'. What else the engine takes can stand in request_options.",
    )
