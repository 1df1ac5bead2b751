"""How an engine is, and what it can be held to: what `llm.health` shows and `pg-bridge doctor` looks at.

In: a server, and what opens a way to its engine. Out: findings, one after another, until the engine cannot be asked. It
asks six short questions, and more of an engine that does not keep to forms; it never tells a key.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

from pg_bridge.engine.dialects import UNHEARD, UNTOLD, Dialect, dialect_of_server
from pg_bridge.engine.engine import Engine
from pg_bridge.engine.forms import IN_WORDS, Asked, ask_for, constraint_of
from pg_bridge.engine.metrics import read_counters
from pg_bridge.engine.payload import CUT_IN_THOUGHTS
from pg_bridge.engine.records import Completion, Model, Sampling, Usage
from pg_bridge.engine.survey import has_batches
from pg_bridge.engine.untrusted import hide_key, make_printable, parse_json
from pg_bridge.engine.waiting import Acquaintance
from pg_bridge.errors import EngineError, OptionError, PgBridgeError
from pg_bridge.options import Server

QUESTION = "Say banana."
_SYSTEM_PROMPT = "This is a test of how answers come. " * 12  # some whole blocks of a prefix cache
FREE = Sampling(4, 0.0, _SYSTEM_PROMPT)
FORMS = {
    "choices": Sampling(16, 0.0, "", choices=("cherry", "plum")),
    "patterns": Sampling(16, 0.0, "", pattern="[0-9]{1,3}"),
    "schemas": Sampling(
        64, 0.0, "", schema='{"type": "object", "properties": {"fruit": {"enum": ["plum"]}}, "required": ["fruit"]}'
    ),
}
"""Questions that no model answers so by itself."""

_THOUGHT_TOKENS = 32
_SHOWN_CHARS = 200

Opening = Callable[[Acquaintance], Engine]
"""Opens a way to the engine, on which what is learnt is noted."""


class Finding(NamedTuple):
    """One thing about an engine.

    Attributes:
        item: What it is about.
        state: How that is, in a word or by a name.
        detail: More of it; empty where there is none.
    """

    item: str
    state: str
    detail: str = ""


def examine(server: Server, opening: Opening) -> Iterator[Finding]:
    """Look at an engine from the outside in; what the engine lacks, or refuses, is a finding."""
    known = Acquaintance()
    try:
        with opening(known) as engine:
            started = time.perf_counter()
            model = engine.find_model()
            took_ms = (time.perf_counter() - started) * 1000
            version = _version(engine)
            has_counters = read_counters(_page(engine, "/metrics")).cache is not None
            batches = server.api == "chat" and has_batches(engine)
    except (EngineError, OptionError) as error:
        yield Finding("reachable", "no", _why(error))
        return
    yield Finding("reachable", "yes", f"it answers after {took_ms:.0f} ms")
    yield Finding("model", *_shown(server, model))
    try:
        yield from _asked(replace(server, model=model.name), opening, known)
    except (EngineError, OptionError) as error:
        yield Finding("answers", "failed", _why(error))
    yield from _dialect(server, known)
    yield Finding("version", make_printable(hide_key(version, server))[:_SHOWN_CHARS] or "untold")
    many = batches and _spoken(server, known).has_batches
    yield Finding(
        "batches", "yes" if many else "no", f"{'many prompts go' if many else 'one prompt goes'} in a request"
    )
    yield Finding("prefix cache counters", "yes" if has_counters else "no", "on its page /metrics")


def _asked(server: Server, opening: Opening, known: Acquaintance) -> Iterator[Finding]:
    """What comes of questions."""
    answer, _ = _ask(opening(known), FREE)
    yield Finding("answers", "failed" if answer.error else "yes", answer.error or "")
    if answer.error is None:
        _, again = _ask(opening(known), FREE)
        yield Finding("cached tokens", "untold" if again.cached_tokens is None else "told", _cached(again))
    for item, held, detail in forms(server, opening, known):
        yield Finding(item, held, detail)
    yield _reasoning(opening, known)


def forms(server: Server, opening: Opening, known: Acquaintance) -> Iterator[Finding]:
    """How each kind of form travels, and whether the engine can be held to it: `held`, or `checked` only."""
    for item, sampling in FORMS.items():
        asked, answer = _settled(server, opening, known, sampling)
        loose = known.loose_for(constraint_of(sampling))
        if asked.words:
            said = "asked in words" if asked.name == IN_WORDS else f"asked in words, and by {asked.name}"
            state, detail = "checked", said + (f": it does not keep to {', '.join(loose)}" if loose else "")
        else:
            state, detail = "failed" if answer.error else "held", f"by {asked.name}"
        yield Finding(item, state, f"{detail}; {answer.error}" if answer.error else detail)


def _settled(server: Server, opening: Opening, known: Acquaintance, sampling: Sampling) -> tuple[Asked, Completion]:
    """How the engine is asked for a form in the end, forms that it does not keep to left behind, and its answer."""
    while True:
        before = _asked_for(server, known, sampling)
        answer, _ = _ask(opening(known), sampling)
        after = _asked_for(server, known, sampling)
        if after == before or after.name == IN_WORDS:
            return after, answer


def _asked_for(server: Server, known: Acquaintance, sampling: Sampling) -> Asked:
    return ask_for(_spoken(server, known).forms, sampling, known.untaken, known.is_loose)


def _dialect(server: Server, known: Acquaintance) -> Iterator[Finding]:
    dialect = _spoken(server, known)
    why = "as the server's option dialect says" if server.dialect != "auto" else "as it says of itself"
    if server.dialect == "auto" and dialect is UNTOLD:
        why = "it says nothing of itself: if that is wrong, set the server's option dialect"
    elif dialect is UNHEARD:
        why = "taken for it until it tells its models"
    yield Finding("dialect", dialect.name, why)
    # By its dialect: vLLM works on the first question of that kind for seconds, or a minute on a CPU.
    is_asked = dialect.alternatives > 0
    yield Finding("confidence", "asked for" if is_asked else "none", "log-probabilities of answers, by its dialect")


def _spoken(server: Server, known: Acquaintance) -> Dialect:
    return dialect_of_server(server) or known.dialect or known.spoken or UNHEARD


def _reasoning(opening: Opening, known: Acquaintance) -> Finding:
    """Whether the engine parts thoughts from answers, by a question before which the model shall reason a little."""
    try:
        sampling = replace(FREE, reasoning="low", max_reasoning_tokens=_THOUGHT_TOKENS)
        answer, usage = _ask(opening(known), sampling)
    except (EngineError, OptionError) as error:
        return Finding("reasoning", "not taken", error.message)
    if usage.reasoning_tokens or answer.error == CUT_IN_THOUGHTS:
        parted = "parted from answers and counted" if usage.reasoning_tokens else "not counted"
        return Finding("reasoning", "yes", f"thoughts are {parted}")
    return Finding("reasoning", "none seen", "the model does not reason, or the engine does not part its thoughts")


def _ask(engine: Engine, sampling: Sampling) -> tuple[Completion, Usage]:
    with engine:
        (answer,) = [each for each in engine.complete(iter([QUESTION]), sampling) if each is not None]
        return answer, engine.usage


def _why(error: PgBridgeError) -> str:
    return ". ".join(part for part in (error.message, error.hint) if part)


def _cached(usage: Usage) -> str:
    if usage.cached_tokens is None:
        return "llm.last_run cannot show them"
    return f"asked the same twice, it reused {usage.cached_tokens} of {usage.prompt_tokens} prompt tokens"


def _shown(server: Server, model: Model) -> tuple[str, str]:
    shown = [make_printable(hide_key(part, server))[:_SHOWN_CHARS] for part in model[:2]]
    return shown[0], shown[1]


def _version(engine: Engine) -> str:
    try:
        told = parse_json(_page(engine, "/version").encode())
    except ValueError:
        return ""
    version = told.get("version") if isinstance(told, dict) else None
    return version if isinstance(version, str) else ""


def _page(engine: Engine, path: str) -> str:
    status, page = engine.fetch(path)
    return page if status == 200 else ""
