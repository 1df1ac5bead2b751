"""Prompts over ranks: each once, neighbours together, about the same cost for each, cut where little is shared."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pg_bridge.engine.placing import LEAST_PIECE, LOOK_AROUND, Runs, shared_chars, weakest_cuts
from pg_bridge.engine.queue import PromptQueue
from pg_bridge.engine.records import Portion


def idlest(in_flight: Sequence[float]) -> list[int]:
    return sorted(range(len(in_flight)), key=in_flight.__getitem__)


texts = st.lists(st.text(st.sampled_from("ab"), max_size=30), max_size=120)
ranks = st.integers(2, 9)


@given(texts)
def test_what_neighbours_share_is_counted_in_characters(prompts: list[str]) -> None:
    shared = shared_chars(list(enumerate(prompts)))
    assert len(shared) == len(prompts)
    for place, (before, text) in enumerate(zip(["", *prompts], prompts, strict=False)):
        count = int(shared[place])
        assert before[:count] == text[:count]
        assert count == 0 if place == 0 else count in (len(before), len(text)) or before[count] != text[count]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 100)), min_size=1, max_size=200), ranks)
def test_cuts_are_balanced_and_weak(prompts: list[tuple[int, int]], parts: int) -> None:
    shared, costs = (np.array(each, dtype=np.int64) for each in zip(*prompts, strict=True))
    cuts = weakest_cuts(shared, costs, parts)
    assert len(cuts) == parts - 1
    assert cuts == sorted(cuts)
    assert all(0 <= cut <= len(prompts) for cut in cuts)
    one = costs.sum() / parts
    for start, stop in zip([0, *cuts], [*cuts, len(prompts)], strict=True):
        assert costs[start:stop].sum() <= one * (1 + 2 * LOOK_AROUND) + 2 * costs.max()
    for part, cut in enumerate(cuts, 1):
        sums = costs[:cut].sum(), one * part
        near = [
            place
            for place in range(1, len(prompts))
            if abs(costs[:place].sum() - sums[1]) <= one * LOOK_AROUND and (part == 1 or place > cuts[part - 2])
        ]
        assert not near or cut >= len(prompts) or shared[cut] <= shared[near].min()


@given(texts, ranks, st.integers(1, 9), st.randoms())
def test_each_prompt_is_pulled_once_whichever_rank_is_idle(
    prompts: list[str], count: int, most: int, random: object
) -> None:
    runs = Runs(count)
    half = len(prompts) // 2
    numbered = list(enumerate(prompts))
    runs.place(numbered[:half])
    runs.place(numbered[half:])
    pulled = []
    while runs.waiting:
        rank, batch = runs.pull(most, random.sample(range(count), count))  # type: ignore[attr-defined]
        assert 0 <= rank < count
        assert 0 < len(batch) <= most
        assert batch == numbered[batch[0][0] : batch[0][0] + len(batch)]  # neighbours in the planned order
        pulled += batch
    assert sorted(pulled) == numbered
    assert runs.pull(most, range(count))[1] == []


@given(st.lists(st.integers(0, 40), max_size=6), ranks, st.integers(1, 9), st.booleans())
def test_a_queue_hands_out_all_portions(sizes: list[int], count: int, most: int, sized: bool) -> None:
    prompts = [[f"{portion} {i}" for i in range(size)] for portion, size in enumerate(sizes)]
    queue = PromptQueue((Portion(iter(each), len(each) if sized else 0) for each in prompts), count)
    pulled: list[tuple[int, str]] = []
    in_flight = [0] * count
    while not (queue.ended and queue.is_dry):
        rank, batch = queue.pull(most, idlest(in_flight))
        if not batch:
            queue.make_more()
            continue
        if len(batch) > 1:
            queue.put_back(batch[1:], rank)
            again, rest = queue.pull(most, idlest(in_flight))
            assert (again, rest) == (rank, batch[1:])
        in_flight[rank] += len(batch)
        pulled += batch
    assert sorted(pulled) == list(enumerate(text for each in prompts for text in each))
    assert queue.waiting == 0


def test_an_idle_rank_takes_the_end_of_the_longest_run_where_little_is_shared() -> None:
    runs = Runs(2)
    prompts = [(i, f"group {i // 25} and so on, row {i}") for i in range(200)]
    runs.place(prompts)
    # The second rank is slow: the first has all of its own run.
    while (batch := runs.pull(8, idlest([0, 1])))[1][0][0] < 100:
        assert batch[0] == 0
    first = batch[1][0][0]
    assert batch[0] == 0
    assert first % 25 == 0
    assert 130 <= first <= 170
    assert runs.pull(8, idlest([1, 0]))[1][0][0] == 100


def test_a_few_prompts_stay_where_they_are() -> None:
    runs = Runs(2)
    runs.place([(i, "the same") for i in range(2 * LEAST_PIECE)])
    taken = [runs.pull(1, idlest([0, 1]))[0] for _ in range(2 * LEAST_PIECE)]
    assert taken == sorted(taken)
    assert set(taken) == {0, 1}


@pytest.mark.parametrize("count", [2, 8])
def test_of_one_long_group_every_rank_has_its_share(count: int) -> None:
    runs = Runs(count)
    runs.place([(i, "a long beginning " * 20 + str(i)) for i in range(800)])
    firsts = {runs.pull(1, idlest([rank != each for each in range(count)]))[1][0][0] for rank in range(count)}
    assert len(firsts) == count
