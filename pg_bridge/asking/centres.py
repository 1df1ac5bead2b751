"""Clusters of vectors by k-means, the same ones whenever it is asked for the same.

In: unit vectors, how often each is there, how many clusters are wanted. Out: of each vector its cluster and how far it
is from the centre. Centres are drawn as k-means++ does, by a fixed seed, the best of a few each time (Arthur and
Vassilvitskii, SODA 2007). No cluster is empty: of fewer different vectors than clusters there are as many as vectors.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log

import numpy as np
from numpy.typing import NDArray

from pg_bridge.asking.nearness import Vectors, blocks, to_units

_SEED = 71
_MOST_MOVES = 50
_SAME = 1e-6  # of a squared distance: what arithmetic may be off
_DECIMALS = 6  # of a distance; the rest depends on how many are computed at one time

Distances = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Clustering:
    """Which vectors are of which cluster.

    Attributes:
        clusters: (n,) intp, from 0.
        distances: (n,) float64, 1 less the cosine of the vector and its centre: from 0 to 2; 1 for one of zeros.
        centres: (k, d) float32, unit vectors.
    """

    clusters: NDArray[np.intp]
    distances: Distances
    centres: Vectors


def find_clusters(
    units: Vectors, weights: Sequence[int], wanted: int, work: Callable[[], None] = lambda: None
) -> Clustering:
    """Find clusters.

    Args:
        units: (n, d) unit vectors, or zeros; at least one.
        weights: (n,) how often each is there, at least once.
        wanted: How many clusters, at least one.
        work: Called now and then.
    """
    weight = np.asarray(weights, np.float64)
    centres = _draw(units, weight, wanted, work)
    clusters = _assign(units, centres, work)
    for _ in range(_MOST_MOVES):
        centres = _means(units, weight, clusters, len(centres))
        moved = _assign(units, centres, work)
        if np.array_equal(moved, clusters):
            break
        clusters = moved
    centres = to_units(_means(units, weight, clusters, len(centres)))
    cosines = np.concatenate(
        [np.einsum("ij,ij->i", units[some], centres[clusters[some]]) for some in blocks(len(units), units.shape[1])]
    ).astype(np.float64)
    return Clustering(clusters, np.clip(1 - cosines, 0, 2).round(_DECIMALS), centres)


def _draw(units: Vectors, weight: Distances, wanted: int, work: Callable[[], None]) -> Vectors:
    """(k, d) vectors to begin with, apart from one another."""
    chance = random.Random(_SEED)  # its numbers are the same in every version
    tries = 2 + int(log(wanted))
    chosen = [_pick(weight, chance)]
    nearest = _squares(units, units[chosen[0]])
    while len(chosen) < wanted:
        work()
        shares = weight * np.where(nearest > _SAME, nearest, 0)
        if not shares.any():
            break
        drawn = dict.fromkeys(_pick(shares, chance) for _ in range(tries))
        left = {row: np.minimum(nearest, _squares(units, units[row])) for row in drawn}
        best = min(left, key=lambda row: (float(weight @ left[row]), row))
        chosen.append(best)
        nearest = left[best]
    return units[chosen].copy()


def _pick(shares: Distances, chance: random.Random) -> int:
    summed = np.cumsum(shares)
    at = int(np.searchsorted(summed, chance.random() * summed[-1], side="right"))
    return min(at, int(np.flatnonzero(shares)[-1]))


def _squares(units: Vectors, centre: Vectors) -> Distances:
    """(n,) squared distances to one vector."""
    lengths = np.einsum("ij,ij->i", units, units).astype(np.float64)
    squares: Distances = np.maximum(lengths - 2 * (units @ centre).astype(np.float64) + float(centre @ centre), 0)
    return squares


def _assign(units: Vectors, centres: Vectors, work: Callable[[], None]) -> NDArray[np.intp]:
    """(n,) intp, the nearest centre of each vector, of equally near ones the first; of each centre at least one."""
    clusters, far = np.empty(len(units), np.intp), np.empty(len(units))
    lengths = np.einsum("ij,ij->i", centres, centres)
    for some in blocks(len(units), len(centres)):
        work()
        apart = lengths - 2 * (units[some] @ centres.T)
        clusters[some] = apart.argmin(axis=1)
        far[some] = apart.min(axis=1) + np.einsum("ij,ij->i", units[some], units[some])
    sizes = np.bincount(clusters, minlength=len(centres))
    for empty in np.flatnonzero(sizes == 0).tolist():  # it takes the vector that is farthest from its own centre
        row = int(np.where(sizes[clusters] > 1, far, -1.0).argmax())
        sizes[clusters[row]] -= 1
        sizes[empty] += 1
        clusters[row], far[row] = empty, -1.0
    return clusters


def _means(units: Vectors, weight: Distances, clusters: NDArray[np.intp], count: int) -> Vectors:
    """(k, d) the middle of each cluster; none is empty."""
    sums = np.zeros((count, units.shape[1]))
    for some in blocks(len(units), count):
        shares = np.zeros((count, len(units[some])), np.float32)
        shares[clusters[some], np.arange(shares.shape[1])] = weight[some]
        sums += shares @ units[some]
    return (sums / np.bincount(clusters, weight, count)[:, np.newaxis]).astype(np.float32)
