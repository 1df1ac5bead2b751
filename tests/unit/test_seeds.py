from __future__ import annotations

import pytest

from tests.seeds import each_seed

seen: list[int] = []


@each_seed(3)
def test_every_seed_is_tried(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    seen.append(seed)
    assert tmp_path_factory
    assert seen == list(range(seed + 1))


def test_a_failure_names_its_seed() -> None:
    @each_seed(9)
    def fails(seed: int) -> None:
        assert seed != 5

    with pytest.raises(AssertionError) as raised:
        fails()
    assert raised.value.__notes__ == ["seed = 5"]
