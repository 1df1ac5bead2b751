"""How the form of an answer is asked for: by arguments that hold an engine to it, each kind its own; or in words.

In: a `Sampling`, and what is known of an engine. Out: an `Asked`. A form that an engine refuses gives way to the next
one that it may know; the last is words, which nobody refuses and nobody is held by. Nothing here waits or knows HTTP.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pg_bridge.engine.records import Sampling
from pg_bridge.engine.refusal import Refused
from pg_bridge.options.values import PATTERNS

WRAPPED_IN = "answer"
"""The one key of the object that holds an answer, where an engine can be held to nothing but objects."""

Constraint = Literal["", "choices", "pattern", "schema"]
"""What kind of form answers shall have; empty for free text."""


class Asked(NamedTuple):
    """How the form of an answer is asked for.

    Attributes:
        name: Of the form, as `llm.health` shows it; empty for free text.
        arguments: Those of the body; none for free text, and where it is asked for in words.
        is_wrapped: Whether the answer comes in an object of one key.
        words: What a prompt says of it; empty where the engine is held to it.
    """

    name: str = ""
    arguments: Mapping[str, Any] = {}
    is_wrapped: bool = False
    words: str = ""


Form = Callable[[Sampling], Asked | None]
"""From how a prompt is to be answered to how that is asked for; None where that cannot be said so."""

IN_WORDS = "words"
_FREE = Asked()

_PATTERN_WORDS = {
    PATTERNS["number"]: "a number in digits, such as 7 or -1.5",
    PATTERNS["integer"]: "a whole number in digits, such as 7 or -15",
    PATTERNS["date"]: "a date of the form YYYY-MM-DD",
    PATTERNS["timestamp"]: "a date and time of the form YYYY-MM-DDThh:mm:ss",
    PATTERNS["timestamptz"]: "a date and time with its zone, of the form YYYY-MM-DDThh:mm:ss+hh:mm",
}

# What a refusal says of a form as such, whatever is to be of it.
_ABOUT_FORMS = re.compile(
    r"structured[ _]outputs?|guided[ _](decoding|json|choice|regex)|json[ _](mode|object|schema)", re.I
)
_NOT_KNOWN = re.compile(
    r"un(known|recogni[sz]ed|expected|supported|available)|not (supported|allowed|permitted|available)"
    r"|(does|do) not support|extra (inputs|fields)",
    re.I,
)
_NO_ARGUMENT = re.compile(
    r"un(known|recogni[sz]ed|expected) (request )?(argument|parameter|field)|extra (inputs|fields)", re.I
)
# A schema that is none is for its user to mend.
_BAD_SCHEMA = re.compile(r"invalid[^.]{0,20} schema|schema[^.]{0,40} invalid", re.I)


def constraint_of(sampling: Sampling) -> Constraint:
    """What kind of form answers shall have."""
    if sampling.choices:
        return "choices"
    return "pattern" if sampling.pattern else "schema" if sampling.schema else ""


def ask_for(
    forms: Sequence[Form],
    sampling: Sampling,
    untaken: Container[str] = (),
    is_loose: Callable[[str], bool] | None = None,
) -> Asked:
    """How to ask an engine for the form of an answer.

    Args:
        forms: Those that it may know, the best first.
        sampling: How prompts are answered.
        untaken: What it is known to refuse, by the names of `refused_by`.
        is_loose: Whether it is known to take a form without keeping to it, by the name of `kept_by`.
    """
    if not constraint_of(sampling):
        return _FREE
    for form in forms:
        asked = form(sampling)
        if asked is None or any(name in untaken for name in _names(asked, sampling)):
            continue
        if is_loose is None or not is_loose(kept_by(asked, sampling)):
            return asked
    return in_words(sampling)


def kept_by(asked: Asked, sampling: Sampling) -> str:
    """By what name it is remembered how an engine keeps to a form."""
    return f"{asked.name} for {constraint_of(sampling)}"


def refused_by(asked: Asked, sampling: Sampling, refused: Refused, prompts: Sequence[str]) -> str | None:
    """By what name it is remembered that an engine does not take a form; None where a refusal is not about that.

    Args:
        asked: How it was asked for.
        sampling: How prompts were to be answered.
        refused: The refusal.
        prompts: The prompts: words that stand in one of them tell nothing.
    """
    if not asked.arguments:
        return None
    said = refused.body.decode(errors="replace")
    about = re.compile("|".join([*(rf"\b{re.escape(name)}\b" for name in asked.arguments), _ABOUT_FORMS.pattern]), re.I)
    if not about.search(said) or any(map(about.search, prompts)):
        return None
    if sampling.schema and _BAD_SCHEMA.search(said):
        return None
    argument, for_all, for_this = _names(asked, sampling)
    if _NO_ARGUMENT.search(said):
        return argument
    return for_all if _NOT_KNOWN.search(said) else for_this


def _names(asked: Asked, sampling: Sampling) -> tuple[str, str, str]:
    """By which it is remembered what is refused: an argument, a form for all constraints of a kind, or for one."""
    kind = kept_by(asked, sampling)
    return (
        f"argument {next(iter(asked.arguments), '')}",
        kind,
        f"{kind}: {sampling.choices or sampling.pattern or sampling.schema}",
    )


def structured_outputs(sampling: Sampling) -> Asked:
    """As vLLM takes it, from 0.11 on: https://docs.vllm.ai/en/latest/features/structured_outputs/."""
    if sampling.choices:
        of: dict[str, Any] = {"choice": list(sampling.choices)}
    elif sampling.pattern:
        of = {"regex": sampling.pattern}
    else:
        of = {"json": json.loads(sampling.schema)}
    return Asked("structured_outputs", {"structured_outputs": of})


def response_format(sampling: Sampling) -> Asked:
    """As OpenAI takes it, and whoever speaks like it: https://platform.openai.com/docs/guides/structured-outputs."""
    schema, is_wrapped = schema_of(sampling)
    named = {"name": "answer", "schema": schema, **({"strict": True} if _may_be_strict(schema) else {})}
    arguments = {"response_format": {"type": "json_schema", "json_schema": named}}
    return Asked("response_format", arguments, is_wrapped)


def json_object(sampling: Sampling) -> Asked | None:
    """JSON of any schema, of which the prompt tells the one that is wanted: as DeepSeek takes it, and older engines."""
    if not sampling.schema:
        return None
    words = in_words(sampling).words
    return Asked("json_object", {"response_format": {"type": "json_object"}}, words=words)


def regex(sampling: Sampling) -> Asked | None:
    """As SGLang takes it: https://docs.sglang.io/advanced_features/structured_outputs.html."""
    pattern = _one_pattern(sampling)
    return Asked("regex", {"regex": pattern}) if pattern else None


def value_of_type(sampling: Sampling) -> Asked:
    """As Hugging Face's server takes it: https://huggingface.co/docs/text-generation-inference/conceptual/guidance."""
    pattern = _one_pattern(sampling)
    value = {"type": "regex", "value": pattern} if pattern else {"type": "json", "value": json.loads(sampling.schema)}
    return Asked("response_format", {"response_format": value})


def grammar(sampling: Sampling) -> Asked | None:
    """As llama.cpp takes it: https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md.

    It takes a JSON schema as well, but then its server reads the answer again, and where it does not like what it finds
    it gives none: status 500, and the statement fails of one row.
    """
    if sampling.choices:
        return Asked("grammar", {"grammar": "root ::= " + " | ".join(map(_literal, sampling.choices))})
    if sampling.pattern:
        return Asked("grammar", {"grammar": f"root ::= {grammar_of_pattern(sampling.pattern)}"})
    return None


def output_format(sampling: Sampling) -> Asked:
    """As Anthropic takes it: https://platform.claude.com/docs/en/build-with-claude/structured-outputs."""
    schema, is_wrapped = schema_of(sampling)
    return Asked("output_config", {"output_config": {"format": {"type": "json_schema", "schema": schema}}}, is_wrapped)


def tool(sampling: Sampling) -> Asked:
    """By a tool that must be used, whose input is the answer: https://platform.claude.com/docs/en/agents-and-tools."""
    schema, is_wrapped = schema_of(sampling)
    tools = [{"name": WRAPPED_IN, "description": "Takes the answer.", "input_schema": schema}]
    return Asked("tools", {"tools": tools, "tool_choice": {"type": "tool", "name": WRAPPED_IN}}, is_wrapped)


def in_words(sampling: Sampling) -> Asked:
    """To whom nothing else can be said."""
    if sampling.choices:
        told = f"exactly one of these, as it stands here: {', '.join(map(_literal, sampling.choices))}"
    elif sampling.pattern:
        told = _PATTERN_WORDS.get(sampling.pattern) or f"text that the regular expression {sampling.pattern} matches"
    else:
        told = f"JSON of this schema: {sampling.schema}"
    return Asked(IN_WORDS, words=f"Answer with nothing but {told}")


def schema_of(sampling: Sampling) -> tuple[dict[str, Any], bool]:
    """The JSON schema of an answer, an object's, and whether that is one that holds it."""
    if sampling.schema:
        return json.loads(sampling.schema), False
    if sampling.choices:
        value: dict[str, Any] = {"type": "string", "enum": list(sampling.choices)}
    else:
        value = {"type": "string", "pattern": f"^({sampling.pattern})$"}
    required = {"type": "object", "properties": {WRAPPED_IN: value}, "required": [WRAPPED_IN]}
    return {**required, "additionalProperties": False}, True


def _one_pattern(sampling: Sampling) -> str:
    if sampling.choices:
        return "|".join(f"({re.escape(choice)})" for choice in sampling.choices)
    return sampling.pattern


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
