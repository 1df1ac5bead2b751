"""Messages with pictures, recordings or documents in them: how each is written, and what cannot be sent.

In: prompts in which something stands for a medium. Out: the content of a message, in parts, as JSON; or why there is
none. A message of several parts is written as OpenAI has it, or Anthropic. What is sent is the bytes: no engine is told
to fetch anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from json.encoder import encode_basestring

from pg_bridge.engine.dialects import Dialect
from pg_bridge.engine.records import Numbered
from pg_bridge.errors import Reason
from pg_bridge.options import Server
from pg_bridge.rows.media import Illustrated, Medium

MOST_BYTES_AT_ONCE = 1 << 26
"""Of the media in requests that are being sent or await an answer, at one engine; one request may have more."""

_NAMES = {"image": "a picture", "audio": "a recording", "document": "a document"}
_PLURALS = {"image": "pictures", "audio": "recordings", "document": "documents"}
_INSTEAD = {
    "image": "Ask a server with another engine.",
    "audio": "Have it transcribed into a column of text before.",
    "document": "Read it out into a column of text before, or draw its pages as pictures.",
}
_FORMATS = {"audio/mpeg": "mp3"}


def openai_part(medium: Medium) -> str:
    """One part of a message, as JSON."""
    data = f"data:{medium.mime};base64,{medium.data}"
    if medium.kind == "image":
        return f'{{"type": "image_url", "image_url": {{"url": "{data}"}}}}'
    if medium.kind == "audio":
        form = _FORMATS.get(medium.mime, medium.mime.partition("/")[2])
        return f'{{"type": "input_audio", "input_audio": {{"data": "{medium.data}", "format": "{form}"}}}}'
    return f'{{"type": "file", "file": {{"filename": "document.pdf", "file_data": "{data}"}}}}'


def anthropic_block(medium: Medium) -> str:
    """One block of a message, as JSON; there is none for recordings."""
    source = f'{{"type": "base64", "media_type": "{medium.mime}", "data": "{medium.data}"}}'
    return f'{{"type": "{medium.kind}", "source": {source}}}'


def blocks_of(prompt: str, write: Callable[[Medium], str]) -> list[str]:
    """The parts of a prompt, as JSON: texts and media in their order.

    Args:
        prompt: The prompt.
        write: Writes a medium.

    >>> blocks_of("Well?", openai_part)
    ['{"type": "text", "text": "Well?"}']
    """
    parts = prompt.parts() if isinstance(prompt, Illustrated) else iter([prompt])
    return [
        write(part) if isinstance(part, Medium) else f'{{"type": "text", "text": {encode_basestring(part)}}}'
        for part in parts
        if isinstance(part, Medium) or part.strip() or not isinstance(prompt, Illustrated)
    ]


def size_of(prompts: Numbered) -> int:
    """How many bytes of media some numbered prompts have."""
    return sum(medium.size_bytes for _, prompt in prompts if isinstance(prompt, Illustrated) for medium in prompt.own())


def objection(prompt: str, server: Server, dialect: Dialect, *, embeds: bool = False) -> Reason | None:
    """Why a prompt's media cannot be sent, or not to be embedded; None if they can, or there are none."""
    if not isinstance(prompt, Illustrated):
        return None
    for medium in prompt.own():
        name = _NAMES[medium.kind]
        if embeds and not dialect.embeds_media:
            return Reason(
                f"{name} cannot be embedded by this engine, whose dialect is {dialect.name}",
                "Ask a server with another engine, vLLM with a model that embeds pictures, or embed a text about it.",
            )
        if not embeds and server.api != "chat" and dialect.speaks == "openai":
            return Reason(f"{name} cannot be sent with api 'completions'", "Set the server's api to chat.")
        if medium.kind not in dialect.media:
            taken = " and ".join(_PLURALS[kind] for kind in sorted(dialect.media, reverse=True)) or "texts only"
            return Reason(
                f"{name} cannot be sent to this engine, whose dialect is {dialect.name}",
                f"It takes {taken}. {_INSTEAD[medium.kind]}",
            )
        if medium.size_bytes > server.max_media_bytes:
            return Reason(
                f"{name} of {medium.size_bytes} bytes is larger than the server's max_media_bytes, "
                f"{server.max_media_bytes}",
                "Store smaller ones: a model scales down what is large. Or raise the option.",
            )
    return None


class Hold:
    """Room for the media of requests: a body is written when there is room, and so no sooner than it can be sent."""

    def __init__(self, most_bytes: int = MOST_BYTES_AT_ONCE) -> None:
        self._most_bytes = most_bytes
        self._held_bytes = 0
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def room(self, size_bytes: int) -> AsyncIterator[None]:
        """Wait for room, and have it for a `with`; what is larger than all of it goes alone."""
        while size_bytes and self._held_bytes and self._held_bytes + size_bytes > self._most_bytes:
            self._freed.clear()
            await self._freed.wait()
        self._held_bytes += size_bytes
        try:
            yield
        finally:
            self._held_bytes -= size_bytes
            self._freed.set()
