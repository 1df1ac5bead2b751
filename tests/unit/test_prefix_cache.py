"""The cache that foretells vLLM's counters, against examples worked by hand and against a plain reference."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pg_bridge.asking.prefix_cache import PrefixCache, characters


def test_blocks_of_two() -> None:
    cache = PrefixCache(block_size=2)
    assert cache.query([1, 2, 3, 4, 5]) == 0  # nothing is there yet; [1 2] and [3 4] are kept, the rest is not
    assert cache.query([1, 2, 3, 4, 5]) == 4
    assert cache.query([1, 2, 3, 4]) == 2  # the last token is in the second block: computed anew
    assert cache.query([1, 2, 3, 4, 6]) == 4
    assert cache.query([1, 2, 9, 4, 5]) == 2
    assert cache.query([9, 2, 3, 4, 5]) == 0  # a block's key stands for all before it: [3 4] is another one here
    assert cache.query([1, 2]) == 0
    assert cache.query([1]) == cache.query([]) == 0
    assert (cache.queried_tokens, cache.hit_tokens) == (5 + 5 + 4 + 5 + 5 + 5 + 2 + 1, 4 + 2 + 4 + 2)
    assert cache.hit_rate == 12 / 32
    assert len(cache) == 2 + 1 + 2


def test_blocks_of_four() -> None:
    cache = PrefixCache(block_size=4)
    assert cache.query(range(12)) == 0
    assert cache.query(range(12)) == 8
    assert cache.query(range(13)) == 12
    assert cache.query([*range(7), 99, 8]) == 4  # three equal tokens of a block are none
    assert cache.query(range(3)) == 0
    assert len(cache) == 3 + 1


def test_the_blocks_used_longest_ago_go_first() -> None:
    cache = PrefixCache(block_size=1, capacity=3)
    cache.query([1])
    cache.query([2])
    assert cache.query([1, 0]) == 1  # now the oldest is 2, and three blocks are there
    cache.query([3])
    assert cache.query([2, 0]) == 0
    assert cache.query([3, 0]) == 1


def test_a_prompt_s_tail_goes_before_its_head() -> None:
    cache = PrefixCache(block_size=2, capacity=4)
    cache.query([1, 1, 2, 2, 3, 3])
    cache.query([8, 8, 9, 9])  # [3 3] had to go
    assert cache.query([1, 1, 2, 2, 3, 3, 0]) == 4
    cache.query([7, 7, 7, 7, 7, 7])  # the older prompt goes before any of the younger
    assert cache.query([8, 8, 9, 9, 0]) == 0


def test_of_a_prompt_that_is_larger_than_the_cache_the_head_stays() -> None:
    cache = PrefixCache(block_size=2, capacity=3)
    assert cache.query(range(100)) == 0
    assert cache.query(range(100)) == 6
    assert len(cache) == 3


def test_without_room_nothing_is_found() -> None:
    cache = PrefixCache(block_size=2, capacity=0)
    assert [cache.query(range(10)) for _ in range(3)] == [0, 0, 0]
    assert (len(cache), cache.queried_tokens, cache.hit_rate) == (0, 30, 0)


def test_clearing_keeps_the_counters() -> None:
    cache = PrefixCache(block_size=2)
    assert cache.hit_rate == 0
    cache.query(range(10))
    cache.query(range(10))
    cache.clear()
    assert (len(cache), cache.queried_tokens, cache.hit_tokens) == (0, 20, 8)
    assert cache.query(range(10)) == 0


@pytest.mark.parametrize("convert", [list, tuple, np.array, np.int32, np.uint16], ids=lambda each: each.__name__)
def test_ids_are_numbers_whatever_holds_them(convert: Callable[[Sequence[int]], Sequence[int]]) -> None:
    cache = PrefixCache(block_size=2)
    cache.query(range(10))
    assert cache.query(convert(list(range(10)))) == 8
    assert cache.query(np.arange(20)[::2]) == 0  # a view that is not contiguous


prompts = st.lists(st.lists(st.integers(0, 1), max_size=12), max_size=30)
block_sizes = st.integers(1, 4)


def reference(prompts: list[list[int]], block_size: int, capacity: int) -> tuple[list[int], int]:
    """The same by the rules alone: blocks are whole prefixes, and each knows when it was last used."""
    last_used: dict[tuple[int, ...], tuple[int, int]] = {}  # (prompt, later for a head than for its tail)
    found = []
    for number, prompt in enumerate(prompts):
        ends = range(block_size, len(prompt) + 1, block_size)
        prefixes = [tuple(prompt[:end]) for end in ends]
        hit = [prefix for prefix in prefixes if prefix in last_used and len(prefix) < len(prompt)]
        found.append(len(hit) * block_size)
        for prefix in prefixes:
            last_used[prefix] = (number, -len(prefix))
        for prefix in sorted(last_used, key=lambda each: last_used[each])[: max(len(last_used) - capacity, 0)]:
            del last_used[prefix]
    return found, len(last_used)


@given(prompts=prompts, block_size=block_sizes, capacity=st.integers(0, 20))
def test_it_agrees_with_the_reference(prompts: list[list[int]], block_size: int, capacity: int) -> None:
    cache = PrefixCache(block_size, capacity)
    found = [cache.query(prompt) for prompt in prompts]
    assert (found, len(cache)) == reference(prompts, block_size, capacity)
    assert cache.hit_tokens == sum(found)
    assert cache.queried_tokens == sum(map(len, prompts))


@given(prompts=prompts, block_size=block_sizes)
def test_without_a_bound_it_is_the_radix_tree_of_whole_blocks(prompts: list[list[int]], block_size: int) -> None:
    cache = PrefixCache(block_size)
    found = [cache.query(prompt) for prompt in prompts]
    tree: set[tuple[int, ...]] = set()
    for prompt in prompts:
        tree |= {tuple(prompt[:end]) for end in range(block_size, len(prompt) + 1, block_size)}
    assert len(cache) == len(tree)
    roomy = PrefixCache(block_size, capacity=len(tree))
    assert [roomy.query(prompt) for prompt in prompts] == found


@given(text=st.text(), other=st.text())
def test_four_characters_are_a_token(text: str, other: str) -> None:
    def chunks(text: str) -> list[str]:
        return [text[start : start + 4] for start in range(0, len(text), 4)]

    tokens, others = characters(text).tolist(), characters(other).tolist()
    assert len(tokens) == len(chunks(text))
    assert [a == b for a, b in zip(tokens, others, strict=False)] == [
        a == b for a, b in zip(chunks(text), chunks(other), strict=False)
    ]


def test_a_shorter_last_token_is_another_one() -> None:
    texts = ["row", "row\0", "row ", "ro", "rwo", "\udc00ow", "r\N{SNOWMAN}w"]
    assert len({int(characters(text)[0]) for text in texts}) == len(texts)


def test_no_hash_seed_and_no_process_shows() -> None:
    program = (
        "import numpy as np; from pg_bridge.asking.prefix_cache import PrefixCache, characters;"
        "rng = np.random.default_rng(1); cache = PrefixCache(2, 40);"
        "found = [cache.query(rng.integers(0, 2, rng.integers(20))) for _ in range(500)];"
        "print(found, len(cache), characters('a row').tolist())"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("0", "1")
    }
    assert len(said) == 1
