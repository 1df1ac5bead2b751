from __future__ import annotations

from tests.parallel import scope_of, turn_of

VLLM = "tests/integration/test_vllm.py::test_each_interface[chat]"
PROPERTY = "tests/property/test_planner_best.py::test_what_names_have_in_common_counts"


def test_what_needs_vllm_is_in_one_process_and_first() -> None:
    assert scope_of(VLLM) == scope_of("tests/integration/test_demo_model.py::test_spelling") == "vllm"
    assert scope_of("tests/unit/test_prefix_cache.py::test_blocks") != "vllm"
    assert turn_of(VLLM) < turn_of(PROPERTY) < turn_of("tests/unit/test_prefix_cache.py::test_blocks")


def test_the_cases_of_one_test_are_in_one_process() -> None:
    cases = ["tests/unit/test_x.py::test_a[one]", "tests/unit/test_x.py::test_a[of::two@x]", PROPERTY]
    assert len({scope_of(case) for case in cases}) == 2


def test_the_integration_tests_of_one_file_are_in_one_process() -> None:
    cases = ["tests/integration/test_x.py::test_a[one]", "tests/integration/test_x.py::test_b"]
    assert len({scope_of(case) for case in [*cases, "tests/integration/test_y.py::test_a"]}) == 2
