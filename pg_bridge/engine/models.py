"""Which models an engine serves, which of them a server's prompts go to, and what it understands.

In: a server and a client. Out: models, or the error of a run that has none; a dialect, always.
"""

from __future__ import annotations

from collections.abc import Mapping

from pg_bridge.engine.client import Client, quietly
from pg_bridge.engine.dialects import UNHEARD, UNTOLD, Dialect, dialect_of_models, dialect_of_server
from pg_bridge.engine.failures import Unreadable, malformed, refused_run, unknown_model
from pg_bridge.engine.records import Model
from pg_bridge.engine.refusal import LATER_STATUSES, NO_ENDPOINT_STATUSES, Refused
from pg_bridge.engine.untrusted import parse_json
from pg_bridge.engine.waiting import Acquaintance
from pg_bridge.errors import EngineError, EngineTimeout, EngineUnreachable, WrongWay
from pg_bridge.options import Server

_ORIGIN = ("root", "parent", "revision", "digest", "sha", "fingerprint")
_REVISION_CHARS = 500
_TELLS_WITHIN_S = 5.0  # of a vLLM that has much to do the first page takes long, and decides how a run goes


async def find_model(server: Server, client: Client, acquaintance: Acquaintance) -> Model:
    """Which model a server's prompts will go to: the one that it names, or the first that the engine lists.

    Raises:
        EngineError: The engine serves no such model, or is not there.
    """
    try:
        served = await list_models(server, client, acquaintance)
    except (EngineTimeout, EngineUnreachable, WrongWay):
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


async def learn_dialect(server: Server, client: Client, acquaintance: Acquaintance) -> Dialect:
    """What the engine understands: by the server's options, or by its list of models, which is fetched once a session.

    No run fails for want of it: one that says nothing of itself is taken for what speaks like OpenAI, and is not asked
    again; one that is starting, say, is, by the next run.
    """
    told = dialect_of_server(server) or acquaintance.dialect
    acquaintance.spoken = told or await _ask_for_dialect(client, acquaintance)
    return acquaintance.spoken


async def _ask_for_dialect(client: Client, acquaintance: Acquaintance) -> Dialect:
    try:
        reply = await quietly(client.glance("/v1/models"), _TELLS_WITHIN_S)
        if reply is None or reply[0] in LATER_STATUSES:
            return UNHEARD
        if reply[0] in NO_ENDPOINT_STATUSES:
            acquaintance.dialect = acquaintance.dialect or UNTOLD
        if reply[0] != 200:
            return acquaintance.dialect or UNTOLD
        acquaintance.dialect = acquaintance.dialect or dialect_of_models(parse_json(reply[1])["data"])
    except (EngineUnreachable, WrongWay):
        return UNHEARD
    except (Unreadable, ValueError, TypeError, KeyError):
        return acquaintance.dialect or UNTOLD
    return acquaintance.dialect


async def list_models(server: Server, client: Client, acquaintance: Acquaintance) -> list[Model]:
    """The models that an engine serves; its dialect is learnt by the way.

    Raises:
        EngineError: It does not tell.
    """
    try:
        listed = parse_json(await client.get("/v1/models"))["data"]
        models = [
            Model(model["id"], _revision(model), _context(model)) for model in listed if isinstance(model["id"], str)
        ]
    except Refused as refused:
        raise refused_run(server, refused) from None
    except (ValueError, TypeError, KeyError, AttributeError, Unreadable):
        raise malformed(server, "not a list of models") from None
    acquaintance.dialect = acquaintance.dialect or dialect_of_models(listed)
    return models


def _context(model: Mapping[str, object]) -> int | None:
    """How long a prompt and its answer may be together, as vLLM and SGLang tell."""
    told = model.get("max_model_len")
    return told if isinstance(told, int) and not isinstance(told, bool) and told > 0 else None


def _revision(model: Mapping[str, object]) -> str:
    """What an engine tells of where a model comes from: vLLM its path, others a digest."""
    return " ".join(f"{name}={model[name]}" for name in _ORIGIN if isinstance(model.get(name), str))[:_REVISION_CHARS]
