"""What engines understand, one small table each.

In: what an engine says of itself, or the server's option `dialect`. Out: a `Dialect`, whose fields say how a body is
written for that engine. Who writes a body or reads an answer goes by the fields, never by the name. Nothing here waits
or knows HTTP beyond a host's name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pg_bridge.engine.records import Sampling
from pg_bridge.options import Server

Form = Callable[[Sampling], Mapping[str, Any]]
"""The arguments of a body that hold the engine to a sampling's choices, pattern or schema; none for free text."""


def _structured_outputs(sampling: Sampling) -> Mapping[str, Any]:
    """As vLLM takes it, from 0.11 on: https://docs.vllm.ai/en/latest/features/structured_outputs/."""
    if sampling.choices:
        return {"structured_outputs": {"choice": list(sampling.choices)}}
    if sampling.pattern:
        return {"structured_outputs": {"regex": sampling.pattern}}
    if sampling.schema:
        return {"structured_outputs": {"json": json.loads(sampling.schema)}}
    return {}


@dataclass(frozen=True, slots=True)
class Dialect:
    """What one kind of engine understands.

    Attributes:
        name: As the option `dialect` has it.
        form: How the form of an answer is asked for.
        max_tokens: The argument that bounds an answer.
        has_batches: Whether there may be a batch endpoint; it is still done without where the engine has none.
    """

    name: str
    form: Form = _structured_outputs
    max_tokens: str = "max_tokens"
    has_batches: bool = True


VLLM = Dialect("vllm")

DIALECTS: Mapping[str, Dialect] = {dialect.name: dialect for dialect in (VLLM,)}
UNTOLD = VLLM
"""That of an engine of which nothing is known."""

_BY_HOST: Mapping[str, Dialect] = {}
_BY_OWNER: Mapping[str, Dialect] = {"vllm": VLLM}  # `owned_by` of the first model that is listed


def dialect_of_server(server: Server) -> Dialect | None:
    """That which a server's options tell: by their own word, or by whose endpoint it is; None where they do not."""
    if server.dialect != "auto":
        return DIALECTS[server.dialect]
    return _BY_HOST.get(urlsplit(server.endpoint).hostname or "")


def dialect_of_models(listed: object) -> Dialect:
    """That of an engine which lists its models so.

    >>> dialect_of_models([{"id": "m", "owned_by": "vllm"}]).name
    'vllm'
    """
    first = listed[0] if isinstance(listed, list) and listed else None
    owner = first.get("owned_by") if isinstance(first, dict) else None
    return _BY_OWNER.get(owner, UNTOLD) if isinstance(owner, str) else UNTOLD
