"""What an engine double does: the answers it gives and the faults it shows.

In: fields, set by name at any time, also from JSON. Out: an answer for a prompt. No network here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pg_bridge.asking.packing import ALL, TASK
from pg_bridge.options.forms import list_of, whole_numbers
from pg_bridge.options.values import PATTERNS
from pg_bridge.testing.turns import take_turn, turns_of

_LIST = re.compile(r'\\\[\("\((.*?)\)"\(, ')  # as `pg_bridge.options.forms.list_of` writes it
_MOST_TRIED = 1000  # numbers, to find one of a pattern


@dataclass(slots=True)
class Behaviour:
    """How the double behaves; every field may be changed while it runs.

    Attributes:
        answer: From a prompt to its answer; None for `default_answer`.
        models: The models it serves; a request for another gets 404.
        owned_by: Whose its list says that they are, by which engines give themselves away; empty for nobody's.
        listed: Whether it lists its models; else 500, as `transformers serve` answers without a cache of the hub.
        embedding: From a text to its embedding, or whatever else is said instead; None for `default_embedding`.
        embedded: From the data of an answer to what is told instead; None for the same.
        embeddings: Whether `/v1/embeddings` exists.
        relevance: From a query and a document to how relevant it is, or whatever else is said instead; None for
            `default_relevance`.
        reranked: From the results of an answer to what is told instead; None for the same, the most relevant first.
        reranking: Whether `/v1/rerank` exists.
        api_key: If set, requests without it get 401.
        batch_endpoint: Whether `/v1/chat/completions/batch` exists.
        metrics: Whether `/metrics` exists.
        tokenize: Whether `/tokenize` exists.
        tokenizer: From a text to its tokens; None takes every 4 characters for one.
        prompt_tokens_details: Whether cached tokens stand in `usage`, as with vLLM's flag of that name.
        delay_s: Seconds that every request waits before it is answered.
        delay_per_prompt_s: Seconds more for each of its prompts.
        hang: Take requests, those of `/tokenize` too, and never answer them.
        hang_after: Answer so many more requests, then `hang`; counts down; negative for never.
        fail_first: So many of the next requests get `fail_status`; counts down.
        fail_status: The HTTP status of a failed request.
        retry_after_s: If set, failed requests carry it as `Retry-After`.
        headers: Headers of every answer to a request that may carry prompts, and of every failed request.
        drop_first: So many of the next requests have their connection dropped; counts down.
        reject_marker: A request with a prompt that holds this text gets 400; empty for none.
        reject_echo: Whether that 400 quotes the prompt, as some engines' messages do.
        refuse_marked: A request with a prompt that holds one of these texts gets 400 with the message to it.
        refuse_every: Every request with prompts gets 400 with this message; empty for none.
        refuse_fields: A request that has one of these fields gets OpenAI's 400 for it.
        takes: If set, the only fields that it takes: a request with another gets OpenAI's 400 for it.
        takes_schemas: Whether a `response_format` may be one; else DeepSeek's 400.
        refuse_as: Who says so in its own way: `openai`, `transformers` with a 422, or a `model` of OpenAI's with a 403.
        wants_max_completion_tokens: Refuse `max_tokens` and any temperature but 1, as OpenAI's models do that reason.
        max_model_len: The context that its list of models tells; 0 for not at all.
        max_prompt_chars: A request with a longer prompt gets vLLM's 400 for it; 0 for no limit.
        malformed: Answer with text that is not JSON.
        ignore_choices: Answer freely where choices, a pattern or a schema were asked for.
        withhold_marker: An answer to a prompt that holds this text is empty, by a content filter; empty for none.
        finish_reason: What every answer says of its end, whatever the truth; empty for the truth.
        refusal: What every answer says instead of a text, as OpenAI's models may; empty for none.
        no_text: Answer with null instead of text.
        reasoning: Thoughts that stand beside every answer of a chat, as vLLM's reasoning parsers put them; their tokens
            come before the answer's under the limit, which may leave it nothing.
        confidence: How sure it is of its answers, 0 to 1, or of that to a prompt; None for `default_confidence`. What
            it tells of that: `pg_bridge.testing.logprobs`.
        free_share: What of each token's probability is that of one which is not allowed: more than 0 as with engines
            that tell how likely tokens are before they are held to a form.
        tell_logprobs: From a choice's `logprobs` to what stands in its place.
        template_end: What its chat template ends prompts with, shown by `/tokenize` as vLLM does; empty for not at all.
        record: Keep every prompt; turn it off for millions of them.
    """

    answer: Callable[[str], str] | None = None
    models: Sequence[str] = ("double",)
    owned_by: str = "vllm"
    listed: bool = True
    embedding: Callable[[str], object] | None = None
    embedded: Callable[[list[dict[str, Any]]], object] | None = None
    embeddings: bool = True
    relevance: Callable[[str, str], object] | None = None
    reranked: Callable[[list[dict[str, Any]]], object] | None = None
    reranking: bool = True
    api_key: str | None = None
    batch_endpoint: bool = True
    metrics: bool = True
    tokenize: bool = True
    tokenizer: Callable[[str], NDArray[np.integer[Any]]] | None = None
    prompt_tokens_details: bool = True
    delay_s: float = 0.0
    delay_per_prompt_s: float = 0.0
    hang: bool = False
    hang_after: int = -1
    fail_first: int = 0
    fail_status: int = 503
    retry_after_s: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    drop_first: int = 0
    reject_marker: str = ""
    reject_echo: bool = False
    refuse_marked: Mapping[str, str] = field(default_factory=dict)
    refuse_every: str = ""
    refuse_fields: Sequence[str] = ()
    takes: Sequence[str] = ()
    takes_schemas: bool = True
    refuse_as: str = "openai"
    wants_max_completion_tokens: bool = False
    max_model_len: int = 0
    max_prompt_chars: int = 0
    malformed: bool = False
    ignore_choices: bool = False
    withhold_marker: str = ""
    finish_reason: str = ""
    refusal: str = ""
    no_text: bool = False
    reasoning: str = ""
    confidence: float | Callable[[str], float] | None = None
    free_share: float = 0.0
    tell_logprobs: Callable[[Any], Any] | None = None
    template_end: str = ""
    record: bool = True

    def change(self, changes: Mapping[str, Any]) -> None:
        """Set fields by name.

        Raises:
            ValueError: There is no such field, or it cannot be set this way.
        """
        names = {each.name for each in fields(self)} - {
            "answer",
            "embedding",
            "embedded",
            "relevance",
            "reranked",
            "tokenizer",
        }
        unknown = sorted(changes.keys() - names)
        if unknown:
            raise ValueError(f"no setting {unknown[0]!r}; there are: {', '.join(sorted(names))}")
        for name, value in changes.items():
            setattr(self, name, value)


def default_answer(prompt: str) -> str:
    r"""A short text that depends on what is asked and on nothing else.

    The row at the prompt's end is read as a JSON object and its cells are sorted by their names, so that the
    order of columns, which carries no meaning, does not change the answer.

    >>> default_answer('Good?\n{"a": 1, "b": "x"}') == default_answer('Good?\n{"b": "x", "a": 1}')
    True
    >>> default_answer('Good?\n{"a": 1}') == default_answer('{"a": 1}\nGood?')
    True
    >>> default_answer('Good?\n{"a": 1}') == default_answer('Good?\n{"a": 2}')
    False
    """
    return f"answer {digest(prompt):08x}"


def default_embedding(text: str, dimensions: int = 8) -> list[float]:
    """Numbers from -1 to 1 that depend on the text alone; of fewer dimensions the same ones, as models have it.

    >>> default_embedding("a", 2) == default_embedding("a")[:2], default_embedding("a") == default_embedding("b")
    (True, False)
    """
    digest = b"".join(blake2b(text.encode(), salt=bytes([part])).digest() for part in range(-(-dimensions // 64)))
    return [byte / 127.5 - 1 for byte in digest[:dimensions]]


def default_relevance(query: str, document: str) -> float:
    """Of the words of a query the share that stand in a document, and less than a thousandth by chance.

    >>> default_relevance("who hid", "I hid behind the sofa.") > default_relevance("who hid", "Too long.")
    True
    """
    words = set(re.findall(r"\w+", query.lower()))
    found = len(words & set(re.findall(r"\w+", document.lower()))) / max(1, len(words))
    return round(found + digest(f"{query}\n{document}") % 1000 / 1e6, 6)


def default_confidence(prompt: str) -> float:
    """From 0.5 to 0.99; depends on the prompt as `default_answer` does."""
    return 0.5 + digest(prompt) // 5 % 50 / 100


def digest(prompt: str) -> int:
    """A number of 32 bits; see `default_answer` for what it depends on. The row may also stand before the question."""
    text = prompt
    if prompt.startswith("{"):
        row, brace, question = prompt.rpartition("}\n")
        row += "}"
    else:
        question, brace, row = prompt.partition("\n{")
        row = "{" + row
    if brace:
        try:
            text = f"{question}\n{sorted(json.loads(row).items())!r}"
        except (ValueError, RecursionError):
            text = prompt  # it only looked like a row, or goes too deep
    return int.from_bytes(blake2b(text.encode(errors="replace"), digest_size=4).digest())


def choose(prompt: str, choices: Sequence[str]) -> str:
    """One of the choices; depends on the prompt as `default_answer` does."""
    return choices[digest(prompt) % len(choices)]


def demanded_of(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """What form a request demands, as vLLM's `structured_outputs` says it, which takes `response_format` as well."""
    if body.get("structured_outputs"):
        return dict(body["structured_outputs"])
    asked = body.get("response_format") or {}
    if asked.get("type") == "json_object":
        return {"json": {"type": "object"}}
    return {"json": asked["json_schema"]["schema"]} if asked.get("type") == "json_schema" else {}


def answer_as_demanded(prompt: str, demanded: Mapping[str, Any], answer: Callable[[str], str]) -> str:
    """An answer of the form that `structured_outputs` demands; free where it demands none.

    It is what `answer` says where that is of the kind; else one of the choices, a small number for a pattern, a
    value of a schema's types, or where functions may be called the next of them.
    """
    free = answer(prompt)
    if "json" in demanded and not free.startswith("{") and (alone := each_alone(prompt)):
        values = demanded["json"].get("properties", {})
        return json.dumps({n: json.loads(_value(each, values.get(n, {}), answer)) for n, each in alone.items()})
    if "choice" in demanded:
        return free if free in demanded["choice"] else choose(prompt, demanded["choice"])
    if "regex" in demanded and not re.fullmatch(demanded["regex"], free):
        return _of_pattern(demanded["regex"], digest(prompt))
    if "json" in demanded and not free.startswith(("{", "[")):
        if turns := turns_of(demanded["json"]):
            return json.dumps(take_turn(prompt, turns, lambda schema: example(schema, free, digest(prompt))))
        return json.dumps(example({"type": "object"} | demanded["json"], free, digest(prompt)))
    return free


def each_alone(prompt: str) -> dict[str, str]:
    r"""Of a prompt about several rows, as `rows_per_prompt` has it, the prompt about each by its number; else none.

    >>> each_alone('Good?' + chr(10) + TASK + chr(10) + '{"all rows": {"a": 1}, "1": {"b": 2}, "2": {"b": 3}}')
    {'1': 'Good?\n{"a": 1, "b": 2}', '2': 'Good?\n{"a": 1, "b": 3}'}
    """
    question, task, behind = prompt.partition(f"\n{TASK}")
    if not task:
        return {}
    rows = json.loads(behind.partition("\n\n")[0].rpartition("\n")[2])  # without what is said when it is asked again
    alike = rows.pop(ALL, {})
    return {number: f"{question}\n{json.dumps(alike | row, ensure_ascii=False)}" for number, row in rows.items()}


def _value(prompt: str, schema: Mapping[str, Any], answer: Callable[[str], str]) -> str:
    """The answer about one row of several, as JSON: what it would be if the row stood alone."""
    if "enum" in schema:
        return json.dumps(answer_as_demanded(prompt, {"choice": schema["enum"]}, answer))
    if schema.get("type") == "string":
        pattern = schema.get("pattern", "")
        return json.dumps(answer_as_demanded(prompt, {"regex": pattern.strip("^$")} if pattern else {}, answer))
    if "minimum" in schema:
        return answer_as_demanded(prompt, {"regex": whole_numbers(schema["minimum"], schema["maximum"])}, answer)
    if schema.get("type") in ("number", "integer"):
        return answer_as_demanded(prompt, {"regex": PATTERNS[schema["type"]]}, answer)
    if schema.get("type") == "array" and "enum" in schema.get("items", {}):
        return answer_as_demanded(prompt, {"regex": list_of(schema["items"]["enum"])}, answer)
    return answer_as_demanded(prompt, {"json": schema}, answer)


def _of_pattern(pattern: str, number: int) -> str:
    """Some of the labels where it is a list of labels; else a number, from 1 to 5 if it has such."""
    if listed := _LIST.match(pattern):
        labels = [re.sub(r"\\(.)", r"\1", label) for label in re.split(r"(?<!\\)\|", listed[1])]
        return "[" + ", ".join(f'"{label}"' for i, label in enumerate(labels) if number >> i & 1) + "]"
    for sign, few in (("", 5), ("", _MOST_TRIED), ("-", _MOST_TRIED)):
        for further in range(few):
            text = f"{sign}{(number + further) % few + 1}"
            if re.fullmatch(pattern, text):
                return text
    return "0"


def example(schema: Mapping[str, Any], text: str, number: int) -> object:
    """A value of a JSON schema's types: objects of what is required, arrays of one element; a text where none is told.

    >>> numbers = {"type": "array", "items": {"type": "integer"}}
    >>> example({"type": "object", "required": ["a", "b"], "properties": {"a": numbers}}, "text", 7)
    {'a': [3], 'b': 'text'}
    """
    schema = schema.get("anyOf", [schema])[0]
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) else kind
    if "pattern" in schema:
        return text if re.fullmatch(schema["pattern"], text) else _of_pattern(schema["pattern"].strip("^$"), number)
    if text in schema.get("enum", ()):
        return text
    if kind == "object":
        of = schema.get("properties", {})
        return {name: example(of.get(name, {}), text, number) for name in schema.get("required", ())}
    if kind == "array":
        return [example(schema.get("items", {}), text, number)]
    if "enum" in schema:
        return schema["enum"][number % len(schema["enum"])]
    simple = {"integer": number % 5 + 1, "number": number % 5 + 1, "boolean": number % 2 == 1, "null": None}
    return simple.get(str(kind), text)
