"""An engine double that answers as Anthropic's documents say of `/v1/messages`.

In: requests to `/v1/messages` and `/v1/models`. Out: answers in blocks, the refusals of what the interface does not
take, and what a cache that holds what is marked, and no more, would have told. There is no model in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from aiohttp import web

from pg_bridge.rows.media import shown
from pg_bridge.testing.behaviour import answer_as_demanded, default_answer
from pg_bridge.testing.double import EngineDouble
from pg_bridge.testing.wire import text_of

LEAST_CACHED_TOKENS = 1024
CHARS_PER_TOKEN = 4

_TAKES = frozenset(
    (
        *("model", "max_tokens", "messages", "system", "temperature", "thinking", "tools", "tool_choice"),
        *("output_config", "metadata", "stop_sequences", "service_tier", "top_k", "top_p", "stream", "cache_control"),
    )
)


class MessagesDouble(EngineDouble):
    """As `EngineDouble`, of whose settings it keeps to those of answers, models, keys, `refuse_fields` and `takes`.

    Args:
        takes_formats: Whether its models can be held to a schema by `output_config`; older ones cannot.
        takes_adaptive: Whether they decide themselves how much they think; older ones are given a budget.
        thoughts: What stands in a block before an answer where thinking is on.
        **settings: Fields of `Behaviour`.
    """

    def __init__(
        self,
        *,
        takes_formats: bool = True,
        takes_adaptive: bool = True,
        thoughts: str = "Hm.",
        **settings: Any,  # noqa: ANN401 - the fields of Behaviour, each with its own type
    ) -> None:
        super().__init__(**{"owned_by": "", **settings})
        self._takes_formats = takes_formats
        self._takes_adaptive = takes_adaptive
        self._thoughts = thoughts
        self._cached: set[str] = set()

    def _application(self) -> web.Application:
        application = web.Application()
        application.router.add_post("/v1/messages", self._message)
        application.router.add_get("/v1/models", self._models)
        return application

    def _denied(self, request: web.Request) -> web.Response | None:
        if "anthropic-version" not in request.headers:
            return _refused(400, "invalid_request_error", "anthropic-version: header is required")
        key = self.behaviour.api_key
        if key is None or request.headers.get("x-api-key") == key:
            return None
        return _refused(401, "authentication_error", "invalid x-api-key")

    async def _message(self, request: web.Request) -> web.StreamResponse:
        body = await request.json(loads=json.loads)
        content = body["messages"][-1]["content"]
        prompt = shown(text_of(content))
        received = self.received
        received.requests.append((request.path, 1))
        received.prompts.append(prompt)
        received.contents.append(content)
        received.conversations.append(text_of(body.get("system", "")) + "\n" + prompt)
        received.bodies.append(body)
        received.headers.append({name.lower(): value for name, value in request.headers.items()})
        if (trouble := self._trouble(request)) is not None:
            return trouble
        if (wrong := self._wrong(body)) is not None:
            return _refused(*wrong)
        received.answered += 1
        return web.json_response(self._answer(body, prompt), headers=self.behaviour.headers)

    def _wrong(self, body: Mapping[str, Any]) -> tuple[int, str, str] | None:
        if body.get("model") not in self.behaviour.models:
            return 404, "not_found_error", f"model: {body.get('model')}"
        told = next(self._faults(body), None)
        return None if told is None else (400, "invalid_request_error", told)

    def _faults(self, body: Mapping[str, Any]) -> Iterator[str]:
        behaviour = self.behaviour
        for name in body:
            if name not in _TAKES or name in behaviour.refuse_fields:
                yield f"{name}: Extra inputs are not permitted"
        if behaviour.refuse_every:
            yield behaviour.refuse_every
        config, thinking = body.get("output_config", {}), body.get("thinking", {})
        if "format" in config and not self._takes_formats:
            yield "output_config.format: structured outputs are not supported by this model"
        if not 0 <= body.get("temperature", 1) <= 1:
            yield "temperature: range: 0..1"
        if behaviour.wants_max_completion_tokens and "temperature" in body:
            yield "`temperature` is deprecated for this model."
        if thinking.get("type") == "adaptive" and not self._takes_adaptive:
            yield "thinking: adaptive thinking is not supported on this model"
        if thinking.get("type") == "enabled" and not 1024 <= thinking.get("budget_tokens", 0) < body["max_tokens"]:
            yield "thinking.enabled.budget_tokens: must be at least 1024 and less than `max_tokens`"
        if thinking.get("type") in {"enabled", "adaptive"}:
            if body.get("temperature", 1) != 1:
                yield "`temperature` may only be set to 1 when thinking is enabled"
            if body.get("tool_choice", {}).get("type") in {"tool", "any"}:
                yield "Thinking may not be enabled when tool_choice forces tool use."

    def _answer(self, body: Mapping[str, Any], prompt: str) -> dict[str, Any]:
        behaviour = self.behaviour
        schema = body.get("output_config", {}).get("format", {}).get("schema")
        tools = [tool for tool in body.get("tools", ()) if "input_schema" in tool]
        searches = any(str(tool.get("type")).startswith("web_search") for tool in body.get("tools", ()))
        demanded = (
            {} if behaviour.ignore_choices else {"json": schema or tools[0]["input_schema"]} if schema or tools else {}
        )
        text = answer_as_demanded(prompt, demanded, behaviour.answer or default_answer)
        most = body["max_tokens"] * CHARS_PER_TOKEN
        end = "end_turn" if len(text) <= most else "max_tokens"
        blocks: list[dict[str, Any]] = []
        if body.get("thinking", {}).get("type") in {"enabled", "adaptive"}:
            blocks.append({"type": "thinking", "thinking": self._thoughts, "signature": "…"})
        if searches:
            blocks += _search(prompt)
        if tools and not behaviour.ignore_choices:
            blocks.append({"type": "tool_use", "id": "toolu_1", "name": tools[0]["name"], "input": json.loads(text)})
            end = "tool_use"
        else:
            said = text[:most]
            half = len(said) // 2 if searches else 0  # what it has from a page stands in a block of its own
            cited = {"citations": [{"type": "web_search_result_location", "url": "https://example.com"}]}
            blocks += [{"type": "text", "text": said[:half]} | cited] if half else []
            blocks.append({"type": "text", "text": said[half:]})
        if behaviour.refusal:
            blocks, end = [], "refusal"
        told = {"id": "msg_1", "type": "message", "role": "assistant", "model": body["model"], "content": blocks}
        return {
            **told,
            "stop_reason": behaviour.finish_reason or end,
            "stop_sequence": None,
            "usage": self._usage(body, text),
        }

    def _usage(self, body: Mapping[str, Any], text: str) -> dict[str, Any]:
        read = written = 0
        for beginning in _marked(body):
            tokens = len(beginning) // CHARS_PER_TOKEN
            if beginning in self._cached:
                read, written = tokens, 0
            elif tokens >= LEAST_CACHED_TOKENS:
                self._cached.add(beginning)
                written = tokens - read
        whole = len("".join(_blocks(body))) // CHARS_PER_TOKEN
        return {
            "input_tokens": whole - read - written,
            "cache_creation_input_tokens": written,
            "cache_read_input_tokens": read,
            "output_tokens": len(text) // CHARS_PER_TOKEN or 1,
        }


def _search(prompt: str) -> list[dict[str, Any]]:
    """What a model that searches the web says and does before it answers."""
    used = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": prompt[:40]}}
    page = {"type": "web_search_result", "url": "https://example.com", "title": "A page", "encrypted_content": "…"}
    found = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [page]}
    return [{"type": "text", "text": "I'll search for that."}, used, found]


def _refused(status: int, kind: str, message: str) -> web.Response:
    error = {"type": kind, "message": message}
    return web.json_response({"type": "error", "error": error, "request_id": "req_1"}, status=status)


def _all_blocks(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for part in (body.get("system", ""), *(message["content"] for message in body["messages"])):
        if part:
            yield from [{"text": part}] if isinstance(part, str) else part


def _text(block: Mapping[str, Any]) -> str:
    return text_of([{"type": "text", **block}])


def _blocks(body: Mapping[str, Any]) -> Iterator[str]:
    return (_text(block) for block in _all_blocks(body))


def _marked(body: Mapping[str, Any]) -> Iterator[str]:
    """What stands before each mark, the mark's block included; blocks are parted as they are."""
    before = ""
    for block in _all_blocks(body):
        before += _text(block)
        if "cache_control" in block:
            yield before
