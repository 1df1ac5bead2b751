"""What the engine double reads and writes, as JSON and text; no network here.

In: a request's parsed body. Out: its prompts, the body of the answer in vLLM's form, the reason to refuse it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pg_bridge.asking.prefix_cache import CHARS_PER_TOKEN, PrefixCache, characters
from pg_bridge.testing.behaviour import Behaviour, answer_as_demanded, default_answer

CHAT, BATCH, COMPLETIONS = "/v1/chat/completions", "/v1/chat/completions/batch", "/v1/completions"


def read(path: str, body: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Read a request; returns each prompt's own text and each prompt's whole rendered text."""
    if path == COMPLETIONS:
        prompts = [body["prompt"]] if isinstance(body["prompt"], str) else body["prompt"]
        return prompts, prompts
    conversations = [body["messages"]] if path == CHAT else body["messages"]
    prompts = [conversation[-1]["content"] for conversation in conversations]
    rendered = [
        "".join([f"<{message['role']}>{message['content']}\n" for message in conversation]) + "<assistant>"
        for conversation in conversations
    ]
    return prompts, rendered


def tokenize(behaviour: Behaviour, text: str) -> NDArray[np.integer[Any]]:
    """What tokens the double takes a text for."""
    return (behaviour.tokenizer or characters)(text)


def tokenized(behaviour: Behaviour, body: dict[str, Any]) -> str:
    """The answer's body to a request of /tokenize, in vLLM's form."""
    _, (text,) = read(CHAT if "messages" in body else COMPLETIONS, body)
    tokens = [int(token) & 0x1FFFFFFF for token in tokenize(behaviour, text)]
    return json.dumps({"count": len(tokens), "max_model_len": 1 << 20, "tokens": tokens, "token_strs": None})


def count_tokens(conversations: Sequence[str]) -> int:
    """How many tokens conversations have, as far as the time to compute them goes."""
    return sum(-(-len(conversation) // CHARS_PER_TOKEN) for conversation in conversations)


def refusal(behaviour: Behaviour, body: dict[str, Any], prompts: Sequence[str]) -> tuple[int, str] | None:
    """The status and the message that the request earns by what it holds, if any."""
    if body.get("model") not in behaviour.models:
        return 404, f"The model `{body.get('model')}` does not exist."
    for name in behaviour.refuse_fields:
        if name in body:
            return 400, f"Unrecognized request argument supplied: {name}"
    for prompt in prompts if behaviour.reject_marker else ():
        if behaviour.reject_marker in prompt:
            return 400, f"bad prompt: {prompt!r}" if behaviour.reject_echo else "bad prompt"
    most_chars = behaviour.max_prompt_chars
    if most_chars and any(len(prompt) > most_chars for prompt in prompts):
        tokens = most_chars // CHARS_PER_TOKEN
        return 400, f"This model's maximum context length is {tokens} tokens. Your request is longer."
    return None


def answer(
    behaviour: Behaviour,
    cache: PrefixCache,
    path: str,
    body: dict[str, Any],
    prompts: Sequence[str],
    conversations: Sequence[str],
) -> str:
    """The answer's body; counts the prompts' blocks on the way."""
    if behaviour.malformed:
        return "<html>not the JSON you want</html>"
    demanded = {} if behaviour.ignore_choices else body.get("structured_outputs") or {}
    from_prompt = behaviour.answer or default_answer
    most_chars = (body.get("max_tokens") or 1_000_000) * CHARS_PER_TOKEN
    choices: list[dict[str, Any]] = []
    prompt_tokens = completion_tokens = cached_tokens = 0
    for index, (prompt, conversation) in enumerate(zip(prompts, conversations, strict=True)):
        tokens = tokenize(behaviour, conversation)
        cached_tokens = cache.query(tokens)
        prompt_tokens += len(tokens)
        text = answer_as_demanded(prompt, demanded, from_prompt)
        finish = "stop" if len(text) <= most_chars else "length"
        text = text[:most_chars]
        completion_tokens += len(tokenize(behaviour, text)) or 1
        said = None if behaviour.no_text else text
        content = {"text": said} if path == COMPLETIONS else {"message": {"role": "assistant", "content": said}}
        choices.append({"index": index, **content, "finish_reason": finish})
    # As vLLM does: a batch of conversations tells none, a list of prompts those of its last prompt.
    tells = behaviour.prompt_tokens_details and path != BATCH
    usage = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens} if tells else None,
    }
    return json.dumps({"id": "double", "model": body["model"], "choices": choices, "usage": usage})


def metrics(behaviour: Behaviour, cache: PrefixCache) -> str:
    """The page `/metrics`, with the two counters that matter and what the cache is like."""
    model = behaviour.models[0] if behaviour.models else ""
    lines = []
    for name, value in {"queries": cache.queried_tokens, "hits": cache.hit_tokens}.items():
        lines.append(f"# TYPE vllm:prefix_cache_{name}_total counter")
        lines.append(f'vllm:prefix_cache_{name}_total{{engine="0",model_name="{model}"}} {float(value)}')
    lines.append("# TYPE vllm:cache_config_info gauge")
    config = (
        f'block_size="{cache.block_size}",enable_prefix_caching="True",engine="0",num_gpu_blocks="{cache.capacity}"'
    )
    lines.append(f"vllm:cache_config_info{{{config}}} 1.0")
    return "\n".join(lines) + "\n"
