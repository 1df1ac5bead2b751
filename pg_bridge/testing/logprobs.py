"""The log-probabilities that the engine double tells: of a model that is as sure of its answers as it is told to be.

In: an answer, the answers that were allowed, how sure it is. Out: what a choice's `logprobs` is, of chat or of
completions. The probability of an answer among those allowed, followed token by token, is what it was told.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pg_bridge.asking.prefix_cache import CHARS_PER_TOKEN

END = "</s>"
_FREE = "Well"  # what no answer begins with
_LEAST = -9999.0


def allowed_texts(demanded: Mapping[str, Any]) -> list[str]:
    """Texts of the form that is demanded, as `pg_bridge.testing.behaviour.demanded_of` has it: labels, some numbers."""
    if "choice" in demanded:
        return list(demanded["choice"])
    if "regex" in demanded:
        return [str(n) for n in range(-20, 121) if re.fullmatch(demanded["regex"], str(n))]
    of = (demanded.get("json") or {}).get("properties") or {}
    if len(of) == 1:
        ((name, value),) = of.items()
        return [json.dumps({name: each}) for each in value.get("enum", ())]
    return []


def logprobs_of(
    text: str, allowed: Iterable[str], confidence: float, top: int, *, free: float = 0.0, chat: bool = True
) -> dict[str, Any]:
    """What is told of an answer.

    Args:
        text: The answer.
        allowed: The answers that were allowed, this one among them or not.
        confidence: Its probability among them.
        top: How many alternatives are told.
        free: The probability of a token that no allowed answer begins with, in the place of each.
        chat: Whether it is told as chat does, else as completions do.
    """
    others = [each for each in dict.fromkeys(allowed) if each != text]
    mass = {text: confidence if others else 1.0, **{each: (1 - confidence) / len(others) for each in others}}
    tokens = {each: _tokens(each) for each in mass}
    places = []
    for place, chosen in enumerate(tokens[text]):
        of_token: dict[str, float] = {}
        for each, share in mass.items():
            if tokens[each][:place] == tokens[text][:place]:
                token = tokens[each][place]
                of_token[token] = of_token.get(token, 0.0) + share
        total = sum(of_token.values()) / (1 - free) or 1.0
        found = {token: share / total for token, share in of_token.items()} | ({_FREE: free} if free else {})
        places.append((chosen, {token: _log(share) for token, share in found.items()}))
    return (_of_chat if chat else _of_completions)(places, top)


def _tokens(text: str) -> list[str]:
    return [*(text[start : start + CHARS_PER_TOKEN] for start in range(0, len(text), CHARS_PER_TOKEN)), END]


def _log(probability: float) -> float:
    return min(0.0, math.log(probability)) if probability > 0 else _LEAST


def _likeliest(found: Mapping[str, float], top: int) -> list[tuple[str, float]]:
    return sorted(found.items(), key=lambda item: -item[1])[:top]


def _of_chat(places: Sequence[tuple[str, Mapping[str, float]]], top: int) -> dict[str, Any]:
    def told(token: str, logprob: float) -> dict[str, Any]:
        return {"token": token, "logprob": logprob, "bytes": list(token.encode())}

    content = [
        {**told(chosen, found[chosen]), "top_logprobs": [told(*each) for each in _likeliest(found, top)]}
        for chosen, found in places
    ]
    return {"content": content}


def _of_completions(places: Sequence[tuple[str, Mapping[str, float]]], top: int) -> dict[str, Any]:
    return {
        "tokens": [chosen for chosen, _ in places],
        "token_logprobs": [found[chosen] for chosen, found in places],
        "top_logprobs": [dict(_likeliest(found, top)) for _, found in places],
    }
