"""What the engine's refusals mean: the error to raise, or the reason to give for one row.

In: HTTP statuses and bodies. Out: members of the error tree, and reasons made
safe to show. An engine's message may echo a prompt or the key, so it never goes into an error of the whole run, and
only after `safe_reason` into a row's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from pg_bridge.engine.records import Model
from pg_bridge.engine.refusal import (
    DENIED_STATUSES,
    LATER_STATUSES,
    RETRIED_STATUSES,
    Refused,
    has_expired,
    is_used_up,
    message_of,
)
from pg_bridge.engine.untrusted import hide_key, make_printable
from pg_bridge.errors import (
    EngineDenied,
    EngineError,
    EngineOverloaded,
    EngineTimeout,
    EngineUnreachable,
    KeyExpired,
    QuotaUsedUp,
    UnknownModel,
)
from pg_bridge.options import Server
from pg_bridge.rows.media import Illustrated

OR_RUN_DOCTOR = ", or run: pg-bridge doctor"
"""The end of a hint; doctor itself leaves it out."""

_REASON_CHARS = 300
_MODEL_CHARS = 100
_ECHO_CHARS = 12
_RANK = "data_parallel_rank"
_ENCODED = re.compile(r"base64,|[A-Za-z0-9+/]{32}")  # of a picture
QUOTED = re.compile(
    r"""(?<!\w)(?:"(?:\\.|[^"\\])*(?:"|$)|'(?:\\.|[^'\\])*(?:'(?!\w)|$)|`[^`]*(?:`|$))""",
)


class Notice(NamedTuple):
    """What to tell the user, and what can be done about it."""

    message: str
    hint: str


class Unreadable(Exception):  # a message between rooms of the engine, not an error for users
    """The bytes of an answer are not worth looking at.

    Attributes:
        hint: What to do about it.
    """

    hint = "The endpoint must be the base URL of an OpenAI-compatible server such as vLLM's."


class Oversized(Unreadable):
    """An answer is larger than it may be.

    Args:
        most_bytes: How large that is.
    """

    hint = "Where answers are that large, raise the server's option max_answer_bytes, or lower max_tokens."

    def __init__(self, most_bytes: int) -> None:
        super().__init__(f"it has more than {most_bytes} bytes")


class Compressed(Unreadable):
    """An answer is compressed, which it was asked not to be."""

    hint = "It was asked for as it is: see what stands between the server and the engine."

    def __init__(self) -> None:
        super().__init__("it is compressed")


def safe_reason(status: int, body: bytes, prompt: str, server: Server) -> str:
    r"""The engine's reason for refusing one prompt, fit to be shown.

    Only its first line, at most 300 characters, without the key and without what it quotes; nothing of it if what is
    left still repeats 12 characters of the prompt.

    >>> server = Server("vllm", "http://engine")
    >>> safe_reason(400, b'{"error": {"message": "bad input \'secret\' at 3"}}', "secret", server)
    "bad input '…' at 3"
    """
    line = hide_key(message_of(body), server).strip().partition("\n")[0].strip()
    line = QUOTED.sub("'…'", line)[:_REASON_CHARS].strip()
    echoes = any(line[i : i + _ECHO_CHARS] in prompt for i in range(len(line) - _ECHO_CHARS + 1))
    echoes = echoes or (isinstance(prompt, Illustrated) and _ENCODED.search(line) is not None)
    if not line or echoes or line in prompt:
        return f"the engine refused the prompt (HTTP status {status})"
    return make_printable(line)


class OfTheStatement(EngineError):
    """No engine of the server's would answer what it was asked."""


def refused_altogether(server: Server, refused: Refused, control: str) -> EngineError:
    """The error of a run whose requests are refused whatever the prompt.

    Args:
        server: The server.
        refused: How a prompt was refused that has nothing of any row in it.
        control: That prompt.
    """
    return OfTheStatement(
        f'the engine of server "{server.name}" refuses every prompt (HTTP status {refused.status})',
        detail=f"{safe_reason(refused.status, refused.body, control, server)}\nThe endpoint is {server.endpoint}.",
        hint="No row is to blame: see the options of the call (max_tokens, system_prompt, labels or schema) and of the "
        f"server (model, api){OR_RUN_DOCTOR}",
    )


def refused_run(server: Server, refused: Refused) -> EngineError:
    """The error of a run whose request met with this refusal."""
    status = refused.status
    if is_used_up(status, refused.body):
        return QuotaUsedUp(
            f'the engine of server "{server.name}" says that the account has nothing left',
            detail=f"{server.endpoint} answered with HTTP status {status}: the quota or the balance is used up.",
            hint="Waiting does not help: see the account's plan and billing, or use the key of another account.",
        )
    if status in DENIED_STATUSES and server.api_key and has_expired(refused):
        return KeyExpired(
            f'the engine of server "{server.name}" says that the API key has expired',
            detail=f"{server.endpoint} answered with HTTP status {status}.",
            hint="Make a new key, and ALTER USER MAPPING FOR … SERVER … OPTIONS (SET api_key '…').",
        )
    if status in DENIED_STATUSES:
        return EngineDenied(
            f'the engine of server "{server.name}" refused the API key'
            if server.api_key
            else f'the engine of server "{server.name}" wants an API key',
            detail=f"{server.endpoint} answered with HTTP status {status}.",
            hint="CREATE or ALTER USER MAPPING FOR … SERVER … OPTIONS (api_key '…').",
        )
    retried = f" after {server.max_retries} retries" if status in RETRIED_STATUSES and server.max_retries else ""
    is_overload = status in LATER_STATUSES
    return (EngineOverloaded if is_overload else EngineError)(
        f'the engine of server "{server.name}" answered with HTTP status {status}{retried}',
        detail=f"The endpoint is {server.endpoint}."
        + (" It is starting, or has more to do than it can." if is_overload else ""),
        hint=f"Ask later, or set the server's patience_s to wait for it{OR_RUN_DOCTOR}"
        if is_overload
        else f"See the engine's log{OR_RUN_DOCTOR}",
    )


def silent(server: Server) -> EngineTimeout:
    """The error of a run whose requests were taken and never answered."""
    return EngineTimeout(
        f'the engine of server "{server.name}" was silent for {server.request_timeout_s:g} s',
        detail=f"The endpoint is {server.endpoint}.",
        hint="See the engine's log, or raise the server's request_timeout_s option.",
    )


def impatient(server: Server, status: int, waited_s: float, told_s: float) -> EngineOverloaded:
    """The error of a run that was told to come again later, and nothing else, for too long."""
    return EngineOverloaded(
        f'the engine of server "{server.name}" has answered for {waited_s:g} s'
        f" that it must be asked later (HTTP status {status})",
        detail=f"The endpoint is {server.endpoint}."
        + (f" At last it asked for {min(told_s, 1e6):g} s." if told_s else ""),
        hint="Ask later, lower the server's requests_per_minute, tokens_per_minute or max_in_flight, "
        "or raise its patience_s.",
    )


def no_priorities(server: Server) -> EngineError:
    """The error of a run whose engine does not take the field `priority`."""
    return OfTheStatement(
        f'the engine of server "{server.name}" takes no priority',
        detail=f"The endpoint is {server.endpoint}.",
        hint="Leave the option priority out; vLLM takes it if it was started with --scheduling-policy priority.",
    )


def is_about_priority(refused: Refused, prompts: Sequence[str]) -> bool:
    """Whether a refusal is about the field `priority`, and not about a prompt in which the word stands."""
    return "priority" in message_of(refused.body).lower() and not any("priority" in each.lower() for each in prompts)


def no_such_rank(server: Server) -> EngineError:
    """The error of a run that sent prompts to a rank that the engine has not."""
    return OfTheStatement(
        f'the engine of server "{server.name}" has not the {server.ranks} ranks of the option ranks',
        detail=f"The endpoint is {server.endpoint}.",
        hint="Set ranks to the engine's --data-parallel-size, or leave it out.",
    )


def is_about_rank(refused: Refused, prompts: Sequence[str]) -> bool:
    """Whether a refusal is about the rank that a request was for, and not about a prompt in which the word stands."""
    return _RANK in message_of(refused.body) and not any(_RANK in prompt for prompt in prompts)


def malformed(server: Server, what: str | Exception) -> EngineError:
    """The error of a run that got an answer it cannot read, for a reason in words."""
    return EngineError(
        f'the engine of server "{server.name}" gave an answer that cannot be read: {what}',
        detail=f"The endpoint is {server.endpoint}.",
        hint=what.hint if isinstance(what, Unreadable) else Unreadable.hint,
    )


def left_out(server: Server, error: EngineError) -> Notice:
    """What the user is told of one engine of several that is asked no more for now."""
    return Notice(
        f'server "{server.name}" goes on without {server.endpoint}: {error.message}',
        "That engine is tried again every now and then; the others have its questions.",
    )


def all_waited_for(server: Server, count: int, limit_s: float) -> Notice:
    """What the user is told where none of several engines is there, and they are waited for."""
    return Notice(
        f'waiting for the engines of server "{server.name}": none of the {count} answers',
        f"They are waited for for {limit_s:g} s, the server's patience_s; the statement can be cancelled.",
    )


def all_gone(server: Server, errors: Sequence[tuple[Server, EngineError]]) -> EngineError:
    """The error of a run whose engines have all failed: of their common kind, where they have one.

    Args:
        server: The server.
        errors: Each engine, and what became of it.
    """
    kinds = {type(error) for _, error in errors}
    kind = kinds.pop() if len(kinds) == 1 else EngineUnreachable
    return kind(
        f'none of the {len(errors)} engines of server "{server.name}" answers',
        detail="\n".join(f"{each.endpoint}: {error.message}" for each, error in errors),
        hint=errors[0][1].hint,
    )


def different_models(server: Server, served: Sequence[tuple[Server, Model | None]]) -> UnknownModel:
    """The error of a run whose engines serve different models.

    Args:
        server: The server.
        served: Each engine, and what it serves, where that is known.
    """
    names = [(each.endpoint, hide_key(model.name, server)) for each, model in served if model is not None]
    return UnknownModel(
        f'the engines of server "{server.name}" serve different models',
        detail="\n".join(f"{endpoint} serves {make_printable(name)[:_MODEL_CHARS]}" for endpoint, name in names),
        hint="Set the server's model option to one that all of them serve, or give each model a server of its own.",
    )


def unknown_model(server: Server, served: Sequence[str]) -> UnknownModel:
    """The error of a run that names a model the engine lacks."""
    names = [make_printable(hide_key(model, server))[:_MODEL_CHARS] for model in served[:5]]
    listed = ", ".join(names) + (", …" if len(served) > 5 else "")
    if server.model is None:
        message = f'the engine of server "{server.name}" serves no model'
    else:
        message = f'the engine of server "{server.name}" serves no model named "{server.model}"'
    return UnknownModel(
        message,
        detail=f"The endpoint is {server.endpoint}.",
        hint=f"It serves: {listed}. Set the server's model option to one of them." if listed else "",
    )
