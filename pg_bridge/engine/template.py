"""Whether the engine's template leaves thoughts open where the answer begins, asked of the engine.

In: a payload and a client. Out: yes, no, or None where the engine does not tell. No model is asked anything.
"""

from __future__ import annotations

from pg_bridge.engine.client import Client, quietly
from pg_bridge.engine.dialects import Dialect
from pg_bridge.engine.failures import Unreadable
from pg_bridge.engine.payload import Payload
from pg_bridge.engine.thoughts import ends_within_thoughts
from pg_bridge.engine.untrusted import parse_json
from pg_bridge.errors import EngineUnreachable

_TELLS_WITHIN_S = 2.0
_LAST_TOKENS = 32


async def leaves_thoughts_open(client: Client, payload: Payload, dialect: Dialect) -> bool | None:
    """Ask the engine what its template makes of a conversation; no run fails for want of it."""
    if not dialect.template_page:
        return None
    try:
        reply = await quietly(client.glance(dialect.template_page, payload.templated()), _TELLS_WITHIN_S)
        end = read_end(reply[1]) if reply is not None and reply[0] == 200 else None
    except (EngineUnreachable, Unreadable):
        return None
    return None if end is None else ends_within_thoughts(end)


def read_end(page: bytes) -> str | None:
    """The end of a prompt: as llama.cpp tells it, or in tokens as vLLM does; None where it is not told.

    >>> read_end(b'{"prompt": "<think>"}'), read_end(b'{"token_strs": ["<", "think", ">"]}'), read_end(b"[]")
    ('<think>', '<think>', None)
    """
    try:
        answer = parse_json(page)
    except ValueError:
        return None
    prompt = answer.get("prompt") if isinstance(answer, dict) else None
    tokens = answer.get("token_strs") if isinstance(answer, dict) else None
    if isinstance(tokens, list) and all(isinstance(token, str) for token in tokens):
        return "".join(tokens[-_LAST_TOKENS:])
    return prompt if isinstance(prompt, str) else None
