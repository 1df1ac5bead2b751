"""Anthropic's own interface: what is sent to `/v1/messages`, and what is read from its answers.

In and out: as for `pg_bridge.engine.payload`. What it does otherwise: a system prompt stands beside the messages, the
form of an answer is held by a schema or a tool, and what prompts share is marked, for nothing else is cached.

A mark costs a quarter more for the tokens before it, once, and spares nine tenths of them from then on, for five
minutes; shorter beginnings than 1,024 tokens are not cached. So one is marked from the second prompt on that has it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from os.path import commonprefix
from typing import Any

from pg_bridge.engine.dialects import VLLM, Dialect
from pg_bridge.engine.forms import Asked
from pg_bridge.engine.further import Further
from pg_bridge.engine.parts import anthropic_block, blocks_of
from pg_bridge.engine.payload import Payload
from pg_bridge.engine.records import Sampling
from pg_bridge.engine.untrusted import parse_json, token_count
from pg_bridge.options import Api
from pg_bridge.rows.media import Illustrated, media_of

PATH = "/v1/messages"
LEAST_CHARS = 4096
"""Of a beginning that is marked: about 1,024 tokens."""

_MARK = ', "cache_control": {"type": "ephemeral"}'
_LEAST_THOUGHTS = 1024
_PART_OF_WORD = re.compile(r"\w{1,64}$")
_ENDS = {
    **{"max_tokens": "length", "model_context_window_exceeded": "length", "refusal": "refusal"},
    **{"pause_turn": "pause_turn", "tool_use": "tool_calls"},
}


class MessagesPayload(Payload):
    """Bodies of one run's requests and the reading of their answers; arguments as for `Payload`."""

    def path(self, prompt_count: int) -> str:
        """The path; each prompt has a request of its own."""
        return PATH

    def _write(self, constant: dict[str, Any], system: str) -> None:
        thinking = constant.get("thinking")
        if isinstance(thinking, dict) and thinking.get("type") != "disabled":
            constant.pop("temperature", None)  # it may be nothing but 1
        if thinking == {"type": "enabled"}:
            spare = max(0, _LEAST_THOUGHTS - self.further.thought_tokens)
            constant["max_tokens"] += spare
            constant["thinking"] = {**thinking, "budget_tokens": self.further.thought_tokens + spare}
        for name, ours in self.asked.arguments.items():  # what reasons stands beside the form; nothing goes over it
            given = constant.get(name)
            constant[name] = {**given, **ours} if isinstance(given, dict) and isinstance(ours, dict) else ours
        self._system_chars = len(system)
        self._latest = self._shared = ""
        mark = _MARK if len(system) >= LEAST_CHARS else ""
        said = f'"system": [{{"type": "text", "text": {json.dumps(system)}{mark}}}], ' if system else ""
        self._head = f'{json.dumps(constant)[:-1]}, {said}"messages": [{{"role": "user", "content": ['
        self._before, self._after = '[{"role": "user", "content": ', "}]"  # for pages beside

    def body(self, prompts: Sequence[str]) -> bytes:
        """The request's body, of one prompt.

        Raises:
            UnicodeEncodeError: The prompt holds half of a surrogate pair.
        """
        (prompt,) = prompts
        shared = self._beginning(prompt)
        media = media_of([prompt])
        blocks = blocks_of(Illustrated(shared, media) if media else shared, anthropic_block) if shared else []
        if blocks:
            blocks[-1] = f"{blocks[-1][:-1]}{_MARK}}}"
        rest = prompt[len(shared) :]
        blocks += blocks_of(Illustrated(rest, media) if media else rest, anthropic_block)
        return f"{self._head}{', '.join(blocks)}]}}]}}".encode()

    def _beginning(self, prompt: str) -> str:
        """What is marked of a prompt: what it shares with the one before, for as long as that pays."""
        common = commonprefix((prompt, self._latest))  # noqa: RUF071 - characters are meant
        common = _PART_OF_WORD.sub("", common)  # the next prompt may have another word that begins alike
        if common.count("\0") % 2:  # within what stands for a picture
            common = common[: common.rindex("\0")]
        self._latest = prompt
        is_kept = bool(self._shared) and prompt.startswith(self._shared) and len(prompt) > len(self._shared)
        least = len(self._shared) + LEAST_CHARS if is_kept else max(LEAST_CHARS - self._system_chars, 1)
        if len(common) >= least and len(common) < len(prompt):
            self._shared = common
        elif not is_kept:
            return ""
        shared, rest = self._shared, prompt[len(self._shared) :]
        return shared if shared.strip() and rest.strip() else ""  # a block of nothing but white space is refused

    def _opened(self, body: bytes) -> dict[str, Any]:
        """The answer as OpenAI writes one."""
        answer = parse_json(body)
        blocks = answer["content"]
        is_by_tool = self.asked.name == "tools"
        used = [block["input"] for block in blocks if block["type"] == "tool_use"] if is_by_tool else []
        content = json.dumps(used[0], ensure_ascii=False) if used else _said(blocks)
        has_thought = any("thinking" in block["type"] for block in blocks)
        message = {"content": content, "reasoning": has_thought}
        end = "stop" if used else _ENDS.get(answer.get("stop_reason"), "stop")
        choice = {"index": 0, "message": message, "finish_reason": end}
        return {"choices": [choice], "usage": _usage(answer.get("usage"))}


def payload_of(
    api: Api,
    model: str,
    sampling: Sampling,
    dialect: Dialect = VLLM,
    further: Further | None = None,
    asked: Asked | None = None,
) -> Payload:
    """The payload of a run, in the interface that its dialect has; arguments as for `Payload`."""
    kind = MessagesPayload if dialect.speaks == "anthropic" else Payload
    return kind("chat" if dialect.speaks == "anthropic" else api, model, sampling, dialect, further or Further(), asked)


def _said(blocks: Sequence[Mapping[str, Any]]) -> str:
    """The text behind the last that the provider's own tools did: before that stands what the model meant to look for.

    >>> _said([{"type": "text", "text": "I look."}, {"type": "server_tool_use"}, {"type": "text", "text": "4"}])
    '4'
    """
    said: list[str] = []
    for block in blocks:
        if block["type"] == "text":
            said.append(block["text"])
        elif "thinking" not in block["type"]:
            said.clear()
    return "".join(said)


def _usage(told: object) -> Mapping[str, Any] | None:
    """The tokens as OpenAI tells them: `input_tokens` is what was neither found in the cache nor put there."""
    if not isinstance(told, dict):
        return None
    parts = [token_count(told.get(name) or 0) for name in ("cache_creation_input_tokens", "cache_read_input_tokens")]
    own, written, read = token_count(told.get("input_tokens")), *parts
    if own is None or written is None or read is None:
        return {"completion_tokens": told.get("output_tokens")}
    details = told.get("output_tokens_details")
    return {
        "prompt_tokens": own + written + read,
        "completion_tokens": told.get("output_tokens"),
        "prompt_tokens_details": {"cached_tokens": read},
        "completion_tokens_details": {"reasoning_tokens": details.get("thinking_tokens")}
        if isinstance(details, dict)
        else None,
    }
