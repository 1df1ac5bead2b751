"""What engines understand, one small table each.

In: what an engine says of itself, or the server's option `dialect`. Out: a `Dialect`, whose fields say how a body is
written for that engine. Who writes a body or reads an answer goes by the fields, never by the name. Nothing here waits
or knows HTTP beyond a host's name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import urlsplit

from pg_bridge.engine.confidence import FEW_ALTERNATIVES
from pg_bridge.engine.forms import (
    Form,
    grammar,
    json_object,
    output_format,
    regex,
    response_format,
    structured_outputs,
    tool,
    value_of_type,
)
from pg_bridge.options import Reasoning, Server
from pg_bridge.rows.media import MediaKind

_REASONS_AT_OPENAI = r"o[1-9]|gpt-([5-9]|[1-9][0-9])"
_LITELLM_CREATED = 1677610602
_ANTHROPIC_VERSION = "2023-06-01"
_PICTURES: frozenset[MediaKind] = frozenset({"image"})
_SOUND: frozenset[MediaKind] = _PICTURES | {"audio"}
_ALL_MEDIA: frozenset[MediaKind] = _SOUND | {"document"}

Ways = tuple[Mapping[str, Any], ...]
"""Arguments of the body that say one thing, the best first: those that an engine refuses give way to the next."""

Reasons = Callable[[Reasoning | None, str], Ways]
"""From whether a model shall reason, None where nobody has said, and its name to what tells it so."""


def _by_template(reasoning: Reasoning | None, model: str) -> Ways:
    """By the arguments of the chat template, among which those that it does not know are nothing to it.

    Qwen, GLM and others look at `enable_thinking`, DeepSeek and Granite at `thinking`. OpenAI's open models cannot be
    kept from reasoning.
    """
    if reasoning in (None, "off"):
        if "gpt-oss" in model.lower():
            return ({"reasoning_effort": "low"},)
        return ({"chat_template_kwargs": {"enable_thinking": False, "thinking": False}},)
    if reasoning == "model":
        return ()
    effort = {"reasoning_effort": reasoning}
    return ({"chat_template_kwargs": {"enable_thinking": True, "thinking": True}, **effort}, effort)


def _by_template_if_said(reasoning: Reasoning | None, model: str) -> Ways:
    """The same for an engine of which it is not known whether it takes such arguments."""
    return _by_template(reasoning, model) if reasoning else ()


def _by_effort(reasoning: Reasoning | None, _: str) -> Ways:
    """As OpenAI takes it, and Ollama: https://platform.openai.com/docs/guides/reasoning; the least differs by model."""
    if reasoning in (None, "model"):
        return ()
    efforts = ("none", "minimal", "low") if reasoning == "off" else (reasoning,)
    return tuple({"reasoning_effort": effort} for effort in efforts)


def _by_effort_of_openai(reasoning: Reasoning | None, model: str) -> Ways:
    """The same where the names of models tell which of them reason; others refuse the argument."""
    return _by_effort(reasoning or ("off" if re.match(_REASONS_AT_OPENAI, model) else None), model)


def _by_effort_unless_said(reasoning: Reasoning | None, model: str) -> Ways:
    """The same where it is no harm to say so to a model that does not reason: as Ollama takes it."""
    return _by_effort(reasoning, model) if reasoning else ({"reasoning_effort": "none"},)


def _by_thinking(reasoning: Reasoning | None, _: str) -> Ways:
    """As Anthropic takes it: https://platform.claude.com/docs/en/build-with-claude/extended-thinking.

    Older models are given a budget, which `pg_bridge.engine.messages` fills in. Unasked none reasons.
    """
    if reasoning in (None, "model"):
        return ()
    if reasoning == "off":
        return ({"thinking": {"type": "disabled"}}, {})
    adaptive = {"thinking": {"type": "adaptive"}, "output_config": {"effort": reasoning}}
    return (adaptive, {"thinking": {"type": "enabled"}})


@dataclass(frozen=True, slots=True)
class Dialect:
    """What one kind of engine understands.

    Attributes:
        name: As the option `dialect` has it.
        forms: How the form of an answer may be asked for, the best first; behind them all stand words.
        max_tokens: The argument that bounds an answer.
        other_max_tokens: The one that some of its models want instead, and say so; empty for none.
        fixed_temperature: The names of models that have a temperature of their own and are sent none.
        has_batches: Whether there may be a batch endpoint for chat; where there is none after all it is done without.
        has_lists: Whether completions take several prompts a request, and tell the tokens of all of them.
        reasons: How a model is told to reason, or not to.
        thought_budget: The argument that bounds thoughts alone; empty where `max_tokens` bounds both together only.
        thinks_aloud: Whether thoughts may stand in the text of an answer.
        template_page: The page that shows what a template makes of a conversation; empty for none.
        alternatives: How many tokens it tells at most that it could have chosen instead of one, with their
            log-probabilities; 0 where it tells none.
        takes_salt: Whether `cache_salt` keeps prompts apart in its prefix cache.
        media: What may stand in a message besides texts; whether its model takes it, the engine says.
        embeds_media: Whether `/v1/embeddings` may take a message, and so what may stand in one.
        speaks: Whose interface it has: OpenAI's, or Anthropic's messages.
    """

    name: str
    forms: tuple[Form, ...] = (response_format, json_object)
    max_tokens: str = "max_tokens"
    other_max_tokens: str = ""
    fixed_temperature: str = ""
    has_batches: bool = False
    has_lists: bool = True
    reasons: Reasons = _by_effort
    thought_budget: str = ""
    thinks_aloud: bool = True
    template_page: str = ""
    alternatives: int = FEW_ALTERNATIVES
    takes_salt: bool = False
    media: frozenset[MediaKind] = _PICTURES
    embeds_media: bool = False
    speaks: Literal["openai", "anthropic"] = "openai"


VLLM = Dialect(
    "vllm",
    forms=(structured_outputs, response_format, json_object),
    has_batches=True,
    reasons=_by_template,
    thought_budget="thinking_token_budget",
    template_page="/tokenize",
    alternatives=20,
    takes_salt=True,
    media=_SOUND,
    embeds_media=True,
)
SGLANG = Dialect(
    "sglang", forms=(regex, response_format, json_object), reasons=_by_template, alternatives=20, takes_salt=True
)
LLAMA_CPP = Dialect(
    "llama.cpp",
    forms=(grammar, response_format, json_object),
    has_lists=False,
    reasons=_by_template,
    template_page="/apply-template",
    alternatives=20,
    media=_SOUND,
)
OLLAMA = Dialect("ollama", has_lists=False, reasons=_by_effort_unless_said, alternatives=20)
TGI = Dialect("tgi", forms=(value_of_type,), reasons=_by_template_if_said)
TRANSFORMERS = Dialect("transformers", forms=(), has_lists=False, reasons=_by_template, alternatives=0)
LITELLM = Dialect(  # what is behind it is a vLLM as often as not, and others refuse what they do not know
    "litellm",
    forms=(structured_outputs, response_format, json_object),
    other_max_tokens="max_completion_tokens",
    alternatives=20,
    media=_ALL_MEDIA,
    embeds_media=True,
)
OPENAI = Dialect(
    "openai",
    max_tokens="max_completion_tokens",
    fixed_temperature=_REASONS_AT_OPENAI,
    reasons=_by_effort_of_openai,
    thinks_aloud=False,
    alternatives=20,
    media=_ALL_MEDIA,
)
ANTHROPIC = Dialect(
    "anthropic",
    forms=(output_format, tool),
    has_lists=False,
    reasons=_by_thinking,
    thinks_aloud=False,
    alternatives=0,
    media=_PICTURES | {"document"},
    speaks="anthropic",
)
COMPATIBLE = Dialect("openai-compatible", other_max_tokens="max_completion_tokens", media=_ALL_MEDIA, embeds_media=True)

DIALECTS: Mapping[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        VLLM,
        SGLANG,
        LLAMA_CPP,
        OLLAMA,
        TGI,
        TRANSFORMERS,
        LITELLM,
        OPENAI,
        ANTHROPIC,
        COMPATIBLE,
    )
}
UNTOLD = COMPATIBLE
"""That of an engine which says nothing of itself."""
UNHEARD = replace(VLLM, reasons=_by_template_if_said)
"""That of one which has not been heard yet: it is starting, or busy."""

_BY_HOST: Mapping[str, Dialect] = {"api.openai.com": OPENAI, "api.anthropic.com": ANTHROPIC}
# By `owned_by` of the first model that is listed.
_BY_OWNER: Mapping[str, Dialect] = {"vllm": VLLM, "sglang": SGLANG, "llamacpp": LLAMA_CPP, "library": OLLAMA}
_BY_HEADER: Mapping[str, Dialect] = {"x-litellm-version": LITELLM}
"""By a header of any answer, in small letters."""


def dialect_of_server(server: Server) -> Dialect | None:
    """That which a server's options tell: by their own word, or by whose endpoint it is; None where they do not."""
    if server.dialect != "auto":
        return DIALECTS[server.dialect]
    try:
        host = urlsplit(server.endpoint).hostname
    except ValueError:  # no URL, as whoever connects will say
        return None
    return _BY_HOST.get(host or "")


def dialect_of_models(listed: object) -> Dialect:
    """That of an engine which lists its models so.

    Hugging Face's server has each model own itself; LiteLLM has all be OpenAI's, and made at the same second.

    >>> dialect_of_models([{"id": "m", "owned_by": "vllm"}]).name
    'vllm'
    >>> dialect_of_models([{"id": "m", "owned_by": "m"}]).name
    'tgi'
    """
    first = listed[0] if isinstance(listed, list) and listed else None
    owner = first.get("owned_by") if isinstance(first, dict) else None
    if not isinstance(first, dict) or not isinstance(owner, str) or not owner:
        return UNTOLD
    if owner == first.get("id"):
        return TGI
    if owner == "openai" and first.get("created") == _LITELLM_CREATED:
        return LITELLM
    return _BY_OWNER.get(owner, UNTOLD)


def dialect_of_headers(headers: Container[str]) -> Dialect | None:
    """That of an engine whose answers have such headers, in whatever letters; None where they do not tell."""
    return next((dialect for name, dialect in _BY_HEADER.items() if name in headers), None)


def credentials(server: Server) -> dict[str, str]:
    """The headers by which a server's engine knows who asks."""
    dialect = dialect_of_server(server)
    if dialect is not None and dialect.speaks == "anthropic":
        return {"anthropic-version": _ANTHROPIC_VERSION, **({"x-api-key": server.api_key} if server.api_key else {})}
    return {"Authorization": f"Bearer {server.api_key}"} if server.api_key is not None else {}
