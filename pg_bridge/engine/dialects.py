"""What engines understand, one small table each.

In: what an engine says of itself, or the server's option `dialect`. Out: a `Dialect`, whose fields say how a body is
written for that engine. Who writes a body or reads an answer goes by the fields, never by the name. Nothing here waits
or knows HTTP beyond a host's name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from pg_bridge.engine.records import Sampling
from pg_bridge.options import Reasoning, Server

WRAPPED_IN = "answer"
"""The one key of the object that holds an answer, where an engine can be held to nothing but objects."""


class Asked(NamedTuple):
    """How the form of an answer is asked for.

    Attributes:
        arguments: Those of the body; none for free text.
        is_wrapped: Whether the answer comes in an object of one key.
    """

    arguments: Mapping[str, Any]
    is_wrapped: bool = False


Form = Callable[[Sampling], Asked]


def _structured_outputs(sampling: Sampling) -> Asked:
    """As vLLM takes it, from 0.11 on: https://docs.vllm.ai/en/latest/features/structured_outputs/."""
    if sampling.choices:
        return Asked({"structured_outputs": {"choice": list(sampling.choices)}})
    if sampling.pattern:
        return Asked({"structured_outputs": {"regex": sampling.pattern}})
    if sampling.schema:
        return Asked({"structured_outputs": {"json": json.loads(sampling.schema)}})
    return Asked({})


def _response_format(sampling: Sampling) -> Asked:
    """As OpenAI takes it, and whoever speaks like it: https://platform.openai.com/docs/guides/structured-outputs."""
    if sampling.schema:
        schema = json.loads(sampling.schema)
        return Asked(_in_schema(schema, is_strict=_may_be_strict(schema)))
    if sampling.choices:
        value: dict[str, Any] = {"type": "string", "enum": list(sampling.choices)}
    elif sampling.pattern:
        value = {"type": "string", "pattern": f"^({sampling.pattern})$"}
    else:
        return Asked({})
    schema = {
        "type": "object",
        "properties": {WRAPPED_IN: value},
        "required": [WRAPPED_IN],
        "additionalProperties": False,
    }
    return Asked(_in_schema(schema, is_strict=True), is_wrapped=True)


def _regex(sampling: Sampling) -> Asked:
    """As SGLang takes it: https://docs.sglang.io/advanced_features/structured_outputs.html."""
    if sampling.choices:
        return Asked({"regex": "|".join(f"({re.escape(choice)})" for choice in sampling.choices)})
    return Asked({"regex": sampling.pattern}) if sampling.pattern else _response_format(sampling)


def _grammar(sampling: Sampling) -> Asked:
    """As llama.cpp takes it: https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md.

    It takes a JSON schema as well, but then its server reads the answer again, and where it does not like what it finds
    it gives none: status 500, and the statement fails of one row.
    """
    if sampling.choices:
        return Asked({"grammar": "root ::= " + " | ".join(map(_literal, sampling.choices))})
    if sampling.pattern:
        return Asked({"grammar": f"root ::= {grammar_of_pattern(sampling.pattern)}"})
    return _response_format(sampling)


_PIECE = re.compile(r"(?P<whole>\[[^\]]*\]|\{[0-9,]+\}|[()|?*+])|\\?(?P<letter>.)", re.S)


def grammar_of_pattern(pattern: str) -> str:
    """A pattern of ours in llama.cpp's words: letters stand in quotes there, and all else is as it was.

    >>> grammar_of_pattern("-?[0-9]{1,15}")
    '"-" ? [0-9] {1,15}'
    """
    return " ".join(piece["whole"] or _literal(piece["letter"]) for piece in _PIECE.finditer(pattern))


def _literal(text: str) -> str:
    """Quoted as C does, which is how JSON does; what is no ASCII may stand as it is."""
    return json.dumps(text, ensure_ascii=False)


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
    return _by_effort(reasoning or ("off" if _REASONS_AT_OPENAI.match(model) else None), model)


_REASONS_AT_OPENAI = re.compile(r"o[1-9]|gpt-([5-9]|[1-9][0-9])")


def _in_schema(schema: dict[str, Any], *, is_strict: bool) -> dict[str, Any]:
    named = {"name": "answer", "schema": schema, **({"strict": True} if is_strict else {})}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def _may_be_strict(schema: object) -> bool:
    """Whether a schema keeps OpenAI's rules for strict ones: each object names all of its keys, and has no others.

    >>> _may_be_strict({"type": "object", "properties": {"a": {}}, "required": ["a"], "additionalProperties": False})
    True
    >>> _may_be_strict({"type": "object", "properties": {"a": {}}})
    False
    """
    if isinstance(schema, list):
        return all(map(_may_be_strict, schema))
    if not isinstance(schema, dict):
        return True
    if schema.get("type") == "object":
        keys, named = schema.get("properties", {}), schema.get("required", [])
        if schema.get("additionalProperties") is not False or not isinstance(keys, dict) or not isinstance(named, list):
            return False
        if any(key not in named for key in keys):
            return False
    return all(map(_may_be_strict, schema.values()))


@dataclass(frozen=True, slots=True)
class Dialect:
    """What one kind of engine understands.

    Attributes:
        name: As the option `dialect` has it.
        form: How the form of an answer is asked for.
        max_tokens: The argument that bounds an answer.
        has_batches: Whether there may be a batch endpoint for chat; where there is none after all it is done without.
        reasons: How a model is told to reason, or not to.
        thought_budget: The argument that bounds thoughts alone; empty where `max_tokens` bounds both together only.
        thinks_aloud: Whether thoughts may stand in the text of an answer.
        template_page: The page that shows what a template makes of a conversation; empty for none.
        takes_salt: Whether `cache_salt` keeps prompts apart in its prefix cache.
    """

    name: str
    form: Form = _structured_outputs
    max_tokens: str = "max_tokens"
    has_batches: bool = True
    reasons: Reasons = _by_effort
    thought_budget: str = ""
    thinks_aloud: bool = True
    template_page: str = ""
    takes_salt: bool = False


VLLM = Dialect(
    "vllm",
    reasons=_by_template,
    thought_budget="thinking_token_budget",
    template_page="/tokenize",
    takes_salt=True,
)
SGLANG = Dialect("sglang", form=_regex, has_batches=False, reasons=_by_template, takes_salt=True)
LLAMA_CPP = Dialect(
    "llama.cpp", form=_grammar, has_batches=False, reasons=_by_template, template_page="/apply-template"
)
OPENAI = Dialect(
    "openai",
    form=_response_format,
    max_tokens="max_completion_tokens",
    has_batches=False,
    reasons=_by_effort_of_openai,
    thinks_aloud=False,
)
COMPATIBLE = Dialect("openai-compatible", form=_response_format, has_batches=False)

DIALECTS: Mapping[str, Dialect] = {dialect.name: dialect for dialect in (VLLM, SGLANG, LLAMA_CPP, OPENAI, COMPATIBLE)}
UNTOLD = replace(VLLM, reasons=_by_template_if_said)
"""That of an engine of which nothing is known."""

_BY_HOST: Mapping[str, Dialect] = {"api.openai.com": OPENAI}
# By `owned_by` of the first model that is listed.
_BY_OWNER: Mapping[str, Dialect] = {"vllm": VLLM, "sglang": SGLANG, "llamacpp": LLAMA_CPP}


def dialect_of_server(server: Server) -> Dialect | None:
    """That which a server's options tell: by their own word, or by whose endpoint it is; None where they do not."""
    if server.dialect != "auto":
        return DIALECTS[server.dialect]
    return _BY_HOST.get(urlsplit(server.endpoint).hostname or "")


def dialect_of_models(listed: object) -> Dialect:
    """That of an engine which lists its models so.

    >>> dialect_of_models([{"id": "m", "owned_by": "vllm"}]).name
    'vllm'
    >>> dialect_of_models([{"id": "m", "owned_by": "llamacpp"}]).name
    'llama.cpp'
    """
    first = listed[0] if isinstance(listed, list) and listed else None
    owner = first.get("owned_by") if isinstance(first, dict) else None
    return _BY_OWNER.get(owner, UNTOLD) if isinstance(owner, str) else UNTOLD
