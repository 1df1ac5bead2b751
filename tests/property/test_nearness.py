"""Rows that are near one another, and clusters of them: as by looking at each pair, whatever numbers there are."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from pg_bridge.asking import nearness
from pg_bridge.asking.centres import find_clusters
from pg_bridge.asking.nearness import Vectors, letters_of, nearest_pairs, to_units

SHAPES = st.tuples(st.integers(1, 30), st.integers(1, 5))
SMALL = npst.arrays(np.float32, SHAPES, elements=st.integers(-3, 3).map(float))
ANY = npst.arrays(np.float32, SHAPES, elements=st.floats(width=32, allow_nan=False, allow_infinity=False))


@given(ANY)
def test_units_have_a_length_of_one_or_none(vectors: Vectors) -> None:
    lengths = np.linalg.norm(to_units(vectors).astype(np.float64), axis=1)
    nowhere = ~vectors.any(axis=1)
    assert np.allclose(lengths[~nowhere], 1, atol=1e-5)
    assert (lengths[nowhere] == 0).all()


@given(SMALL, st.integers(1, 40) | st.none(), st.sampled_from([-1.0, 0.0, 0.5]))
def test_the_nearest_pairs(vectors: Vectors, most: int | None, least: float) -> None:
    units = to_units(vectors)
    cosines = np.round((units @ units.T).astype(np.float64), 6)
    pairs = nearest_pairs(units, most, least)
    assert len(set(pairs)) == len(pairs)
    assert all(one < other for one, other in pairs)
    assert pairs == sorted(pairs, key=lambda pair: (-cosines[pair], pair))
    somewhere = set(np.flatnonzero(units.any(axis=1)).tolist())
    rows = range(len(units))
    if most is None or most >= len(units) - 1:
        everything = [
            pair for pair in combinations(rows, 2) if (most is None and least == -1) or somewhere.issuperset(pair)
        ]
        assert set(pairs) == {pair for pair in everything if cosines[pair] >= least}
        return
    assert all(somewhere.issuperset(pair) and cosines[pair] >= least for pair in pairs)
    for row in somewhere:
        of_row = sorted((cosines[row, other] for other in rows if other != row and other in somewhere), reverse=True)
        near = [cosine for cosine in of_row[:most] if cosine >= least and cosine > 0]
        got = sorted((cosines[pair] for pair in pairs if row in pair), reverse=True)
        assert got[: len(near)] == pytest.approx(near, abs=2e-6)


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearness, "_AT_ONCE", 64)


@pytest.mark.usefixtures("blocks")
def test_blocks_change_nothing() -> None:
    vectors = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    units = to_units(vectors)
    in_blocks, clusters = nearest_pairs(units, 4), find_clusters(units, [1] * 50, 5)
    assert len(in_blocks) >= 100
    nearness._AT_ONCE = 1 << 22
    assert nearest_pairs(units, 4) == in_blocks
    assert (find_clusters(units, [1] * 50, 5).clusters == clusters.clusters).all()


@given(SMALL, st.integers(1, 12), st.data())
def test_clusters_are_not_empty_and_near_their_centres(vectors: Vectors, wanted: int, data: st.DataObject) -> None:
    units = to_units(vectors)
    weights = data.draw(st.lists(st.integers(1, 5), min_size=len(units), max_size=len(units)))
    found = find_clusters(units, weights, wanted)
    different = len(np.unique(units.round(3), axis=0))
    assert len(found.centres) == min(wanted, different)
    assert set(found.clusters.tolist()) == set(range(len(found.centres)))
    assert ((found.distances >= 0) & (found.distances <= 2)).all()
    same = find_clusters(units, weights, wanted)
    assert (same.clusters == found.clusters).all()
    assert (same.distances == found.distances).all()


def test_clusters_that_are_apart_are_found() -> None:
    chance = np.random.default_rng(7)
    directions = np.eye(12, dtype=np.float32)
    of = chance.integers(0, 12, 600)
    units = to_units((directions[of] + 0.05 * chance.normal(size=(600, 12))).astype(np.float32))
    found = find_clusters(units, [1] * 600, 12)
    assert len({*zip(of.tolist(), found.clusters.tolist(), strict=True)}) == 12
    assert found.distances.max() < 0.1


@given(st.lists(st.text(max_size=20), max_size=12))
def test_letters_of_any_texts(texts: list[str]) -> None:
    units = letters_of(texts)
    assert units.shape == (len(texts), nearness.LETTERS_DIMENSIONS)
    assert np.isfinite(units).all()
    for one, other in combinations(range(len(texts)), 2):
        if texts[one].casefold() == texts[other].casefold():
            assert (units[one] == units[other]).all()
