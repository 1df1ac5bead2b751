"""What the engine double reads and writes, as JSON and text; no network here.

In: a request's parsed body. Out: its prompts, the body of the answer in vLLM's form, the reason to refuse it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pg_bridge.asking.prefix_cache import CHARS_PER_TOKEN, characters
from pg_bridge.rows.media import Medium, shown
from pg_bridge.testing.behaviour import (
    Behaviour,
    answer_as_demanded,
    default_answer,
    default_confidence,
    default_embedding,
    default_relevance,
    demanded_of,
)
from pg_bridge.testing.fast_engine import FastEngine, Request
from pg_bridge.testing.logprobs import allowed_texts, logprobs_of
from pg_bridge.testing.scheduler import Rank

CHAT, BATCH, COMPLETIONS = "/v1/chat/completions", "/v1/chat/completions/batch", "/v1/completions"
EMBEDDINGS, RERANK = "/v1/embeddings", "/v1/rerank"
_LISTED_AS = {EMBEDDINGS: "data", RERANK: "results"}  # what an answer has in the place of choices


def read(path: str, body: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Read a request; returns each prompt's own text and each prompt's whole rendered text."""
    if path == COMPLETIONS:
        prompts = [body["prompt"]] if isinstance(body["prompt"], str) else body["prompt"]
        return prompts, prompts
    if path == EMBEDDINGS and "messages" not in body:
        prompts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        return prompts, prompts
    if path == RERANK:
        prompts = body["documents"]
        return prompts, [f"{body['query']}\n{document}" for document in prompts]
    conversations = body["messages"] if path == BATCH else [body["messages"]]
    prompts = [shown(text_of(conversation[-1]["content"])) for conversation in conversations]
    rendered = [
        "".join([f"<{message['role']}>{text_of(message['content'])}\n" for message in conversation]) + "<assistant>"
        for conversation in conversations
    ]
    return prompts, rendered


def contents(path: str, body: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """The last messages of a request, those of them that are lists of parts."""
    conversations = body["messages"] if path == BATCH else [body["messages"]] if "messages" in body else []
    last = [conversation[-1]["content"] for conversation in conversations]
    return [content for content in last if isinstance(content, list)]


def text_of(content: object) -> str:
    """The content of a message as one text; a picture in it has as many characters as it is counted as."""
    if isinstance(content, str):
        return content
    parts: list[dict[str, Any]] = content  # type: ignore[assignment]  # as OpenAI has it, or Anthropic
    return "".join(part["text"] if part["type"] == "text" else _medium(part).stand_in for part in parts)


def _medium(part: dict[str, Any]) -> Medium:
    """What a part holds."""
    if part["type"] == "input_audio":
        audio = part["input_audio"]
        return Medium({"mp3": "audio/mpeg"}.get(audio["format"], f"audio/{audio['format']}"), audio["data"])
    if "source" in part:
        return Medium(part["source"]["media_type"], part["source"]["data"])
    uri = part["image_url"]["url"] if part["type"] == "image_url" else part["file"]["file_data"]
    mime, _, data = uri.removeprefix("data:").partition(";base64,")
    return Medium(mime, data)


def tokenize(behaviour: Behaviour, text: str) -> NDArray[np.integer[Any]]:
    """What tokens the double takes a text for."""
    return (behaviour.tokenizer or characters)(text)


def tokenized(behaviour: Behaviour, body: dict[str, Any]) -> str:
    """The answer's body to a request of /tokenize, in vLLM's form."""
    _, (text,) = read(CHAT if "messages" in body else COMPLETIONS, body)
    tokens = [int(token) & 0x1FFFFFFF for token in tokenize(behaviour, text)]
    texts = [behaviour.template_end] if behaviour.template_end and body.get("return_token_strs") else None
    return json.dumps({"count": len(tokens), "max_model_len": 1 << 20, "tokens": tokens, "token_strs": texts})


def refusal(behaviour: Behaviour, body: dict[str, Any], prompts: Sequence[str]) -> tuple[int, str] | None:
    """The status and the message that the request earns by what it holds, if any."""
    if body.get("model") not in behaviour.models:
        return 404, f"The model `{body.get('model')}` does not exist."
    if (untaken := _untaken(behaviour, body)) is not None:
        return untaken
    marked = (said for marker, said in behaviour.refuse_marked.items() if any(marker in prompt for prompt in prompts))
    if said := behaviour.refuse_every or next(marked, ""):
        return 400, said
    for prompt in prompts if behaviour.reject_marker else ():
        if behaviour.reject_marker in prompt:
            return 400, f"bad prompt: {prompt!r}" if behaviour.reject_echo else "bad prompt"
    most_chars = behaviour.max_prompt_chars
    if most_chars and any(len(prompt) > most_chars for prompt in prompts):
        tokens = most_chars // CHARS_PER_TOKEN
        return 400, f"This model's maximum context length is {tokens} tokens. Your request is longer."
    return None


def _untaken(behaviour: Behaviour, body: dict[str, Any]) -> tuple[int, str] | None:
    """The refusal of an argument that the double shall not know, or not take so."""
    takes = {"model", "messages", "prompt", *behaviour.takes} if behaviour.takes else body.keys()
    for name in body:
        if name in behaviour.refuse_fields or name not in takes:
            says = {
                "openai": (400, f"Unrecognized request argument supplied: {name}"),
                "model": (403, f"You are not allowed to request {name} from this model"),
                "transformers": (422, f"Unexpected fields in the request: {{{name!r}}}"),
            }
            return says[behaviour.refuse_as]
    if not behaviour.takes_schemas and (body.get("response_format") or {}).get("type") == "json_schema":
        return 400, "This response_format type is unavailable now"
    if behaviour.wants_max_completion_tokens and "max_tokens" in body:
        said = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        )
        return 400, said
    if behaviour.wants_max_completion_tokens and body.get("temperature", 1) != 1:
        return 400, "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) is."
    return None


@dataclass(frozen=True, slots=True)
class Draft:
    """An answer's body but for the prompts' tokens.

    Attributes:
        choices: The answers as JSON, or the embeddings, or the relevances.
        completion_tokens: Their tokens.
        reasoning_tokens: Those of them that are thoughts; None where that is not told.
    """

    choices: str
    completion_tokens: int
    reasoning_tokens: int | None = None


def draft(behaviour: Behaviour, path: str, body: dict[str, Any], prompts: Sequence[str]) -> Draft:
    """Answer prompts."""
    if path == EMBEDDINGS:
        return Draft(json.dumps(_embedded(behaviour, body, prompts)), 0)
    if path == RERANK:
        return Draft(json.dumps(_reranked(behaviour, body["query"], prompts)), 0)
    demanded = {} if behaviour.ignore_choices else demanded_of(body)
    from_prompt = behaviour.answer or default_answer
    most_chars = (body.get("max_tokens") or body.get("max_completion_tokens") or 1_000_000) * CHARS_PER_TOKEN
    choices: list[dict[str, Any]] = []
    completion_tokens = reasoning_tokens = 0
    for index, prompt in enumerate(prompts):
        thoughts = behaviour.reasoning[:most_chars]
        reasoning_tokens += len(tokenize(behaviour, thoughts))
        text = answer_as_demanded(prompt, demanded, from_prompt)
        finish = "stop" if len(text) + len(behaviour.reasoning) <= most_chars else "length"
        text = text[: max(0, most_chars - len(behaviour.reasoning))]
        completion_tokens += len(tokenize(behaviour, text)) or 1
        if behaviour.withhold_marker and behaviour.withhold_marker in prompt:
            text, finish = "", "content_filter"
        said = None if behaviour.no_text or behaviour.refusal else text
        message = {"role": "assistant", "content": said, "refusal": behaviour.refusal or None}
        if thoughts:
            message |= {"reasoning": thoughts, "content": said or None}
        content: dict[str, Any] = {"text": said} if path == COMPLETIONS else {"message": message}
        if body.get("logprobs"):
            content["logprobs"] = _logprobs(behaviour, path, body, prompt, text)
        choices.append({"index": index, **content, "finish_reason": behaviour.finish_reason or finish})
    if not behaviour.reasoning:
        return Draft(json.dumps(choices), completion_tokens)
    told = None if path == BATCH else reasoning_tokens  # as vLLM does
    return Draft(json.dumps(choices), completion_tokens + reasoning_tokens, told)


def _embedded(behaviour: Behaviour, body: dict[str, Any], texts: Sequence[str]) -> object:
    data: list[dict[str, Any]] = []
    for index, text in enumerate(texts):
        found = (
            default_embedding(text, body.get("dimensions", 8))
            if behaviour.embedding is None
            else behaviour.embedding(text)
        )
        if body.get("encoding_format") == "base64" and behaviour.embedding is None:
            found = base64.b64encode(np.array(found, "<f4").tobytes()).decode()
        data.append({"object": "embedding", "index": index, "embedding": found})
    return data if behaviour.embedded is None else behaviour.embedded(data)


def _reranked(behaviour: Behaviour, query: str, documents: Sequence[str]) -> object:
    relevance = behaviour.relevance or default_relevance
    results = [
        {"index": index, "document": {"text": document}, "relevance_score": relevance(query, document)}
        for index, document in enumerate(documents)
    ]
    if behaviour.relevance is None:
        results.sort(key=lambda each: -each["relevance_score"])  # type: ignore[operator]  # numbers, these are
    return results if behaviour.reranked is None else behaviour.reranked(results)


def _logprobs(behaviour: Behaviour, path: str, body: dict[str, Any], prompt: str, text: str) -> object:
    sure, chat = behaviour.confidence, path != COMPLETIONS
    sure = default_confidence if sure is None else sure
    top = body.get("top_logprobs", 0) if chat else body["logprobs"]
    told = logprobs_of(
        text,
        allowed_texts(demanded_of(body)),
        sure(prompt) if callable(sure) else sure,
        top,
        free=behaviour.free_share,
        chat=chat,
    )
    return behaviour.tell_logprobs(told) if behaviour.tell_logprobs else told


def answer(behaviour: Behaviour, path: str, model: str, drafted: Draft, request: Request) -> str:
    """The answer's body."""
    if behaviour.malformed:
        return "<html>not the JSON you want</html>"
    prompt_tokens = sum(prompt.tokens for prompt in request.prompts)
    # As vLLM does: a batch of conversations tells none, a list of prompts those of its last prompt.
    tells = behaviour.prompt_tokens_details and path != BATCH
    usage = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": drafted.completion_tokens,
        "total_tokens": prompt_tokens + drafted.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": request.cached_tokens[-1]} if tells else None,
    }
    if drafted.reasoning_tokens is not None:
        usage["completion_tokens_details"] = {"reasoning_tokens": drafted.reasoning_tokens}
    told = json.dumps({"id": "double", "model": model, "usage": usage})
    return f'{told[:-1]}, "{_LISTED_AS.get(path, "choices")}": {drafted.choices}}}'


def metrics(behaviour: Behaviour, engine: FastEngine) -> str:
    """The page `/metrics`: what of vLLM's matters here, under vLLM's names, and what the cache is like."""
    model = behaviour.models[0] if behaviour.models else ""
    lines = []
    for name, (kind, values) in _METRICS.items():
        lines.append(f"# TYPE vllm:{name} {kind}")
        for suffix, value_of in values.items():
            for number, rank in enumerate(engine.ranks):
                labels = f'engine="{number}",model_name="{model}"' + (',le="+Inf"' if suffix == "_bucket" else "")
                lines.append(f"vllm:{name}{suffix}{{{labels}}} {float(value_of(rank))}")
    lines.append("# TYPE vllm:cache_config_info gauge")
    for number, rank in enumerate(engine.ranks):
        cache = rank.cache
        config = (
            f'block_size="{cache.block_size}",enable_prefix_caching="{engine.speed.prefix_caching}",'
            f'engine="{number}",num_gpu_blocks="{cache.capacity}"'
        )
        lines.append(f"vllm:cache_config_info{{{config}}} 1.0")
    return "\n".join(lines) + "\n"


def _histogram(seconds: str) -> tuple[str, dict[str, Callable[[Rank], float]]]:
    """Of the prompts that are answered: how many, and the sum of their seconds."""
    count = attrgetter("times.prompts")
    return "histogram", {"_bucket": count, "_count": count, "_sum": attrgetter(f"times.{seconds}")}


_METRICS: dict[str, tuple[str, dict[str, Callable[[Rank], float]]]] = {
    "prefix_cache_queries_total": ("counter", {"": attrgetter("cache.queried_tokens")}),
    "prefix_cache_hits_total": ("counter", {"": attrgetter("cache.hit_tokens")}),
    "prompt_tokens_total": ("counter", {"": attrgetter("cache.queried_tokens")}),
    "request_success_total": ("counter", {"": attrgetter("times.prompts")}),
    "num_requests_running": ("gauge", {"": lambda rank: len(rank.running)}),
    "num_requests_waiting": ("gauge", {"": lambda rank: len(rank.waiting)}),
    "request_queue_time_seconds": _histogram("queue_s"),
    "request_prefill_time_seconds": _histogram("prefill_s"),
    "request_decode_time_seconds": _histogram("decode_s"),
}
"""By name: its kind, and by the end of the name where its samples come from."""
