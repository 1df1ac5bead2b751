"""What an inquiry learns of earlier answers."""

from __future__ import annotations

import base64
from itertools import permutations

import numpy as np

from pg_bridge.asking.inquiry import Inquiry
from pg_bridge.asking.prompt import EMBEDDED
from pg_bridge.engine import Sampling
from pg_bridge.options import Call


def embedding(dimensions: int) -> str:
    return base64.b64encode(np.ones(dimensions, "<f4").tobytes()).decode()


def test_of_kept_embeddings_those_are_learned_that_most_agree_with() -> None:
    kept = {b"a": embedding(8), b"b": embedding(2), b"c": embedding(8)}
    for order in permutations(kept):
        inquiry = Inquiry(EMBEDDED, Call(kind="embedding"), Sampling(0, 0.0, "", embeds=True))
        inquiry.recall({key: kept[key] for key in order})
        assert (inquiry.dimensions, set(inquiry.outcomes)) == (8, {b"a", b"c"})


def test_of_two_equally_common_kinds_the_longer_is_learned_in_any_order() -> None:
    for keys in ("ab", "ba"):
        inquiry = Inquiry(EMBEDDED, Call(kind="embedding"), Sampling(0, 0.0, "", embeds=True))
        inquiry.recall({key.encode(): embedding(8 if key == "a" else 2) for key in keys})
        assert set(inquiry.outcomes) == {b"a"}
