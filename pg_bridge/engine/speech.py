"""How one engine is spoken to in a run: what it refuses is not said again, what it does not keep to is said in words.

In: samplings, refusals, answers. Out: payloads, and which answers are worth asking for once more. What is learnt lasts
as long as the acquaintance does. Nothing here waits.
"""

from __future__ import annotations

from collections.abc import Sequence

from pg_bridge.engine.dialects import Dialect
from pg_bridge.engine.embeddings import EmbeddingPayload
from pg_bridge.engine.forms import ask_for, constraint_of, kept_by, refused_by
from pg_bridge.engine.further import further
from pg_bridge.engine.messages import payload_of
from pg_bridge.engine.payload import ASTRAY, NOT_IN_FORM, UNFIT, Payload
from pg_bridge.engine.records import Sampling
from pg_bridge.engine.refusal import OF_ARGUMENTS_STATUSES, Refused
from pg_bridge.engine.relevance import RelevancePayload
from pg_bridge.engine.waiting import Acquaintance
from pg_bridge.options import Server


class Speech:
    """What a run says to its engine.

    Args:
        server: Who is asked.
        dialect: What the engine understands, as far as one knows beforehand.
        model: The model's name.
        acquaintance: What is known of the engine; learns what it refuses and what it does not keep to.
    """

    def __init__(self, server: Server, dialect: Dialect, model: str, acquaintance: Acquaintance) -> None:
        self._server = server
        self._dialect = dialect
        self._model = model
        self._acquaintance = acquaintance
        self._payloads: dict[Sampling, Payload] = {}
        self._reminders: dict[Sampling, Payload] = {}

    def payload(self, sampling: Sampling) -> Payload:
        """What is sent for prompts that are answered so."""
        if sampling not in self._payloads:
            self._payloads[sampling] = self._make(sampling, in_words=False)
        return self._payloads[sampling]

    def reminder(self, sampling: Sampling) -> Payload:
        """What is sent to ask once more: the form is said in words, too."""
        if sampling not in self._reminders:
            self._reminders[sampling] = self._make(sampling, in_words=True)
        return self._reminders[sampling]

    def gives_way(self, payload: Payload, refused: Refused, prompts: Sequence[str]) -> bool:
        """Whether something was refused that need not be said, or not so; from now on it is not."""
        untaken = _untaken(payload, refused, prompts)
        self._acquaintance.untaken |= untaken
        if untaken:
            self._forget()
        return bool(untaken)

    def may_give_way(self, payload: Payload, refused: Refused) -> bool:
        """Whether a refusal is about what need not be said, or about a prompt in which the same words stand."""
        return bool(_untaken(payload, refused, ()))

    def to_ask_again(self, payload: Payload, answers: Sequence[tuple[str | None, str | None]]) -> list[int]:
        """The places of those answers that are not of the form, and may be when they are asked for once more."""
        if not constraint_of(payload.sampling):
            return []
        if payload.asked.words:  # held by nothing, so that an answer without an end may just have been none
            return [place for place, (_, error) in enumerate(answers) if error in UNFIT]
        loose = [place for place, (_, error) in enumerate(answers) if error in NOT_IN_FORM or error is ASTRAY]
        kept = sum(text is not None for text, _ in answers)
        if self._acquaintance.count(kept_by(payload.asked, payload.sampling), kept, len(loose)):
            self._forget()
        return loose

    def _forget(self) -> None:
        self._payloads.clear()
        self._reminders.clear()

    def _make(self, sampling: Sampling, *, in_words: bool) -> Payload:
        known = self._acquaintance
        if sampling.is_pooled:
            pooled = EmbeddingPayload if sampling.embeds else RelevancePayload
            said = pooled.service.further_of(self._server, sampling, self._dialect, known.untaken)
            return pooled(self._server.api, self._model, sampling, self._dialect, said)
        besides = further(self._server, sampling, self._dialect, self._model, known.untaken)
        is_loose = (lambda _: True) if in_words else known.is_loose
        asked = ask_for(self._dialect.forms, sampling, known.untaken, is_loose)
        return payload_of(self._server.api, self._model, sampling, self._dialect, besides, asked)


def _untaken(payload: Payload, refused: Refused, prompts: Sequence[str]) -> set[str]:
    """What was refused that need not be said, or not so."""
    if refused.status not in OF_ARGUMENTS_STATUSES:
        return set()
    form = refused_by(payload.asked, payload.sampling, refused, prompts)
    return payload.further.refused_by(refused, prompts) | ({form} if form is not None else set())
