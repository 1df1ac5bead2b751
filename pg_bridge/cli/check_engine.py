"""Is this engine ready, and will it reuse prefixes?

In: a server. Out: checks, one after another, until one fails that the next ones need. It asks one short question four
times: twice alone, so that the engine's prefix cache can be seen at work, and twice in one request, if the server's
`api` is `chat`; and one of each form that answers can have.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace

from pg_bridge.cli.checks import Check
from pg_bridge.engine import Acquaintance, Completion, Engine, Sampling, Usage
from pg_bridge.engine.client import REDIRECTS
from pg_bridge.engine.failures import OR_RUN_DOCTOR
from pg_bridge.engine.health import forms
from pg_bridge.engine.metrics import CacheCounters, read_counters
from pg_bridge.engine.payload import CUT_IN_THOUGHTS
from pg_bridge.engine.proxies import unused_variable
from pg_bridge.engine.survey import count_ranks
from pg_bridge.engine.untrusted import hide_key, make_printable
from pg_bridge.errors import EngineDenied, PgBridgeError
from pg_bridge.options import Server

LONGEST_WAIT_S = 60.0
SAMPLING = Sampling(max_tokens=4, temperature=0.0, system_prompt="")
# Long enough for some whole blocks at any block size that CPUs and GPUs use, short enough for small contexts.
_MODEL_CHARS = 100
QUESTION = "Is this a short and simple question, asked by pg-bridge doctor only to see that an answer comes? " * 4


def check_engine(server: Server) -> Iterator[Check]:
    """Check an engine from the outside in."""
    server = _impatient(server)
    try:
        yield from _reachable(server)
        model = server.model or _models(server)[0]
        server = replace(server, model=model)
        if ranks := count_ranks(_metrics(server)):
            yield from _ranks(server, ranks)
            server = replace(server, ranks=ranks)  # so that what is asked twice comes to the same rank
        before = _counters(server)
        yield from _answers(server)
        yield from _counts(server, before)
        if server.api == "chat":
            yield from _batches(server)
        yield from _forms(server)
    except _Failed as failed:
        yield failed.check
    except EngineDenied as error:
        mend = f"{error.hint} With --endpoint: set PG_BRIDGE_API_KEY."
        yield Check("FAIL", error.message, mend)
    except PgBridgeError as error:
        yield Check("FAIL", error.message, error.hint.removesuffix(OR_RUN_DOCTOR))


def check_agreement(server: Server) -> Iterator[Check]:
    """Whether several engines serve the same model, those of them that tell."""
    served = {}
    for engine in server.engines:
        try:
            served[engine.endpoint] = server.model or _models(_impatient(engine))[0]
        except (_Failed, PgBridgeError):
            continue  # as was said of it
    if len(set(served.values())) > 1:
        told = ", ".join(f"{endpoint} {_shown([model], server)}" for endpoint, model in served.items())
        mend = "set the server's model option to one that all of them serve, or give each model a server of its own"
        yield Check("FAIL", f"they serve different models: {told}", mend)
    elif served:
        yield Check("ok", f"they are asked for the same model: {_shown(list(served.values())[:1], server)}")


def _impatient(server: Server) -> Server:
    return replace(server, request_timeout_s=min(server.request_timeout_s, LONGEST_WAIT_S))


class _Failed(Exception):  # ends the checks; nobody outside sees it
    def __init__(self, check: Check) -> None:
        super().__init__(check.says)
        self.check = check


def _reachable(server: Server) -> Iterator[Check]:
    if variable := unused_variable(server):
        mend = "if the engine is to be asked over a proxy: set the server's option proxy, or give --proxy"
        yield Check("warn", f"{variable} is set in this environment, and is not used", mend)
    started = time.perf_counter()
    models = _models(server)
    latency_ms = (time.perf_counter() - started) * 1000
    if not models:
        mend = f'nothing is broken if it serves the model "{server.model}", which the server names'
        yield Check("warn", f"it answers after {latency_ms:.0f} ms and lists no models", mend)
        return
    yield Check("ok", f"it answers after {latency_ms:.0f} ms and serves: {_shown(models, server)}")
    if server.model is not None and server.model not in models:
        mend = f"set the server's model option to one of: {_shown(models, server)}"
        raise _Failed(Check("FAIL", f'it does not serve the model "{server.model}"', mend))


def _models(server: Server) -> list[str]:
    with Engine(server) as engine:
        status, page = engine.fetch("/v1/models")
        if status in REDIRECTS:
            engine.find_model()  # which is an error that says where to
    if status in {401, 403}:
        says = "it refuses the key" if server.api_key else "it wants a key"
        mend = "CREATE USER MAPPING … OPTIONS (api_key '…'); with --endpoint: set PG_BRIDGE_API_KEY"
        raise _Failed(Check("FAIL", says, mend))
    try:
        models = [str(model["id"]) for model in json.loads(page)["data"]] if status == 200 else []
    except (ValueError, TypeError, KeyError):
        models = []
    if not models and server.model is None:
        says = f"/v1/models gives no list of models (HTTP status {status}): this is no OpenAI-compatible server"
        mend = "the endpoint must be the engine's base URL, such as http://127.0.0.1:8000"
        raise _Failed(Check("FAIL", says, mend))
    return models


def _shown(models: list[str], server: Server) -> str:
    """Names of models as an engine tells them, fit for a terminal."""
    return ", ".join(make_printable(hide_key(model, server))[:_MODEL_CHARS] for model in models[:5])


def _ask(server: Server, prompts: list[str]) -> tuple[list[Completion], Usage]:
    engine = Engine(server)
    completions = [each for each in engine.complete(iter(prompts), SAMPLING) if each is not None]
    return completions, engine.usage


def _metrics(server: Server) -> str:
    with Engine(server) as engine:
        status, page = engine.fetch("/metrics")
    return page if status == 200 else ""


def _counters(server: Server) -> CacheCounters | None:
    return read_counters(_metrics(server)).cache


def _ranks(server: Server, ranks: int) -> Iterator[Check]:
    """Whether pg_bridge knows how many caches there are."""
    if ranks < server.ranks:
        mend = "set the server's option ranks to the engine's --data-parallel-size, or drop it"
        yield Check("warn", f"it has {ranks} rank(s), and the server's option ranks says {server.ranks}", mend)
    elif ranks > server.ranks:
        mend = f"set the server's option ranks to {ranks}, so that each computes what only it is asked about"
        yield Check("warn", f"it has {ranks} ranks with a prefix cache each, of which pg_bridge is not told", mend)
    elif ranks > 1:
        yield Check("ok", f"it has {ranks} ranks, and each is sent a run of the planned order")


def _answers(server: Server) -> Iterator[Check]:
    started = time.perf_counter()
    completions, usage = _ask(server, [QUESTION])
    took_s = time.perf_counter() - started
    if completions[0].error == CUT_IN_THOUGHTS:
        mend = "set the server's option reasoning to off, or max_reasoning_tokens to what its thoughts may take"
        yield Check("warn", "its model reasons before it answers, for longer than a short question is worth", mend)
    elif completions[0].error is not None:
        mend = "if there is no chat template: set the server's api option to completions"
        raise _Failed(Check("FAIL", f"it cannot answer a prompt: {completions[0].error}", mend))
    else:
        yield Check("ok", f"it answers a prompt of {usage.prompt_tokens or '?'} tokens in {took_s:.2f} s")
    _, usage = _ask(server, [QUESTION])
    if usage.cached_tokens is None:
        mend = "start vLLM with --enable-prompt-tokens-details, or with pg-bridge serve"
        yield Check("warn", "it does not tell cached tokens: llm.last_run() cannot show them for single calls", mend)
    elif usage.cached_tokens == 0:
        mend = "start vLLM with --enable-prefix-caching, or with pg-bridge serve"
        yield Check("warn", "asked the same twice, it reused nothing: its prefix cache seems off", mend)
    else:
        says = f"asked the same twice, it reused {usage.cached_tokens} of {usage.prompt_tokens} prompt tokens"
        yield Check("ok", says)


def _counts(server: Server, before: CacheCounters | None) -> Iterator[Check]:
    now = _counters(server)
    if before is None or now is None:
        mend = "let /metrics through; until then llm.last_run() shows no cached tokens for batches"
        yield Check("warn", "/metrics has no prefix cache counters", mend)
        return
    deadline = time.monotonic() + 1.0  # the counters may lag behind the answers
    while now is not None and now.queried_tokens == before.queried_tokens and time.monotonic() < deadline:
        time.sleep(0.05)
        now = _counters(server)
    if now is None or now.queried_tokens == before.queried_tokens:
        mend = "start vLLM with --enable-prefix-caching, or with pg-bridge serve"
        yield Check("warn", "its prefix cache counters do not move: the prefix cache seems off", mend)
    else:
        yield Check("ok", "its prefix cache counters move")


def _forms(server: Server) -> Iterator[Check]:
    """Whether labels, numbers and JSON come as they are asked for; by the very look that llm.health takes."""
    for item, state, detail in forms(server, lambda known: Engine(server, acquaintance=known), Acquaintance()):
        if state == "held":
            yield Check("ok", f"answers are held to {item} {detail}")
        else:
            mend = (
                "answers are checked all the same, and asked for once more; if that is often: another engine or model"
            )
            yield Check("warn", f"answers are not held to {item}: {detail}", mend)


def _batches(server: Server) -> Iterator[Check]:
    completions, usage = _ask(server, [QUESTION, QUESTION])
    reasons = [each.error for each in completions if each.error not in {None, CUT_IN_THOUGHTS}]
    if reasons:
        raise _Failed(Check("FAIL", f"it cannot answer two prompts at once: {reasons[0]}", "see the engine's log"))
    if usage.requests == 1:
        yield Check("ok", "it takes many conversations in one request")
    else:
        mend = "nothing is broken, but a newer vLLM is faster on small models"
        yield Check("warn", "it takes one conversation a request only", mend)
