"""Which pairs of a condition are near enough to be asked about, by embeddings of what is sent of either side.

In: a matter, its call, and what embeds texts. Out: the matter without the pairs that are far, those that are left by
their nearness; and which pairs are gone, some of them to be asked about all the same.

Each row of the first side keeps the nearest of those of the last that it is asked about with: which is which says who
writes `llm.row(first, last)`, not the lengths of texts. What has no embedding (an empty text, or one that the engine
makes none of) is far from nothing: it stays, besides. The sample depends on the texts of the pairs alone, so that a
statement draws the same whenever it runs, and finds the answers again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from pg_bridge.asking.nearness import Vectors, blocks
from pg_bridge.asking.pairs import Matter
from pg_bridge.asking.pruned import Pruned
from pg_bridge.asking.vectors import text_of
from pg_bridge.options import Call

Embed = Callable[[Sequence[str]], Vectors]
"""From texts to (n, d) unit vectors; of what has none the row is zeros."""

LAST = 1
"""The side whose rows are near to one of the other's."""

_SEED = b"pg_bridge: checked"

_Whole = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Far:
    """The pairs of a matter that are far.

    Attributes:
        places: Of those for which the answer is no, unasked.
        sample: The places of each of those that are asked about all the same.
        told: Their figures, of which those of answers are to come.
    """

    places: Sequence[int]
    sample: Sequence[Sequence[int]]
    told: Pruned


def keep_nearest(matter: Matter, call: Call, embed: Embed, work: Callable[[], None] = lambda: None) -> Far | None:
    """Take from a matter the pairs that are far.

    Args:
        matter: The matter; the pairs that are left stand nearest first.
        call: Says how many each row keeps, and how many of the others are checked.
        embed: Called once at most, with different texts that are not empty.
        work: Called now and then.

    Returns:
        What was taken; None where nothing was.
    """
    nearest = call.nearest or len(matter.places)
    pairs: _Whole = np.array(list(matter.places), np.intp).reshape(-1, 2)
    rows, candidates = pairs[:, 1 - LAST], pairs[:, LAST]
    order: _Whole = np.lexsort((candidates, rows))
    ends: _Whole = np.cumsum(np.bincount(rows))
    some = [part for part in np.split(order, ends[:-1]) if len(part) > nearest]
    if not some:
        return None
    near = np.ones(len(pairs), bool)
    rank = np.zeros(len(pairs), np.intp)
    vectors, at = _vectors(matter, pairs[np.concatenate(some)], embed)
    somewhere = np.asarray(vectors.any(axis=1), bool)
    alike: dict[bytes, list[_Whole]] = {}
    for part in some:  # rows that are asked about with the same others are one product of matrices
        alike.setdefault(candidates[part].tobytes(), []).append(part)
    for parts in alike.values():
        of_list = at[LAST][candidates[parts[0]]]
        for some_parts in blocks(len(parts), len(of_list)):
            work()
            block: _Whole = np.array(parts[some_parts])
            of_block = at[1 - LAST][rows[block[:, 0]]]
            cosines = vectors[of_block] @ vectors[of_list].T
            none = ~(somewhere[of_block][:, None] & somewhere[of_list])
            by_nearness = np.argsort(-np.where(none, -2, cosines), axis=1, kind="stable")
            own = np.empty_like(by_nearness)
            np.put_along_axis(own, by_nearness, np.arange(len(of_list))[None, :], axis=1)
            rank[block] = own
            near[block] = (own < nearest) | none
    return _part(matter, pairs, near, np.lexsort((rank, rows)), call.checked)


def _vectors(matter: Matter, pairs: _Whole, embed: Embed) -> tuple[Vectors, list[_Whole]]:
    """Unit vectors, the last of them zeros; and for each side which of them is whose, in some pairs."""
    sides = [list(side) for side in matter.sides]
    needed = [np.unique(pairs[:, side]) for side in (0, 1)]
    texts = [[text_of(sides[side][number], "\n") for number in needed[side].tolist()] for side in (0, 1)]
    different = [text for text in dict.fromkeys(texts[0] + texts[1]) if text.strip()]
    found = embed(different) if different else np.empty((0, 0), np.float32)
    place = {text: number for number, text in enumerate(different)}
    whose = [np.full(len(side), len(different), np.intp) for side in sides]
    for side in (0, 1):
        whose[side][needed[side]] = [place.get(text, len(different)) for text in texts[side]]
    return np.concatenate([found, np.zeros((1, found.shape[1]), np.float32)]), whose


def _part(matter: Matter, pairs: _Whole, near: NDArray[np.bool_], order: _Whole, checked: int) -> Far | None:
    """Take the pairs that are not near; those that are stay in an order."""
    far: _Whole = np.flatnonzero(~near)
    if not len(far):
        return None
    drawn = set(_draw(matter, pairs[far], checked).tolist())
    places, sample = [], []
    all_places = matter.places
    for number, pair in enumerate(map(tuple, pairs[far].tolist())):
        if number in drawn:
            sample.append(all_places[pair])
        else:
            places += all_places[pair]
    matter.places = {pair: all_places[pair] for pair in map(tuple, pairs[order[near[order]]].tolist())}
    return Far(places, sample, Pruned(len(far), len(sample)))


def _draw(matter: Matter, pairs: _Whole, count: int) -> _Whole:
    """Numbers of some pairs: those whose texts have the smallest digests."""
    if count >= len(pairs):
        return np.arange(len(pairs))
    if not count:
        return np.empty(0, np.intp)
    left, right = (
        np.frombuffer(
            b"".join(
                blake2b(text.encode(errors="surrogatepass"), digest_size=8, key=_SEED, salt=bytes([side])).digest()
                for text in matter.sides[side]
            ),
            np.uint64,
        )
        for side in (0, 1)
    )
    return np.argpartition(_mix(_mix(left[pairs[:, 0]]) ^ right[pairs[:, 1]]), count - 1)[:count]


def _mix(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread numbers so that nothing is left of their order: the last steps of SplitMix64."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        numbers = (numbers ^ (numbers >> np.uint64(shift))) * np.uint64(factor)
    return numbers ^ (numbers >> np.uint64(31))
