"""Which models an engine serves, and which of them a server's prompts go to.

In: a server and a client. Out: models, or the error of a run that has none.
"""

from __future__ import annotations

from collections.abc import Mapping

from pg_bridge.engine.client import Client
from pg_bridge.engine.failures import Unreadable, malformed, refused_run, unknown_model
from pg_bridge.engine.records import Model
from pg_bridge.engine.refusal import Refused
from pg_bridge.engine.untrusted import parse_json
from pg_bridge.errors import EngineError, EngineTimeout, EngineUnreachable
from pg_bridge.options import Server

_ORIGIN = ("root", "parent", "revision", "digest", "sha", "fingerprint")
_REVISION_CHARS = 500


async def find_model(server: Server, client: Client) -> Model:
    """Which model a server's prompts will go to: the one that it names, or the first that the engine lists.

    Raises:
        EngineError: The engine serves no such model, or is not there.
    """
    try:
        served = await list_models(server, client)
    except (EngineTimeout, EngineUnreachable):
        raise
    except EngineError:
        if server.model is None:
            raise
        return Model(server.model)  # some do not list them
    if server.model is None:
        if not served:
            raise unknown_model(server, [])
        return served[0]
    return next((model for model in served if model.name == server.model), Model(server.model))


async def list_models(server: Server, client: Client) -> list[Model]:
    """The models that an engine serves.

    Raises:
        EngineError: It does not tell.
    """
    try:
        listed = parse_json(await client.get("/v1/models"))["data"]
        return [Model(model["id"], _revision(model)) for model in listed if isinstance(model["id"], str)]
    except Refused as refused:
        raise refused_run(server, refused) from None
    except (ValueError, TypeError, KeyError, AttributeError, Unreadable):
        raise malformed(server, "not a list of models") from None


def _revision(model: Mapping[str, object]) -> str:
    """What an engine tells of where a model comes from: vLLM its path, others a digest."""
    return " ".join(f"{name}={model[name]}" for name in _ORIGIN if isinstance(model.get(name), str))[:_REVISION_CHARS]
