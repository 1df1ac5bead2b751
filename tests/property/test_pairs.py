"""Questions about pairs are put together in lists, and each pair's answer is its own."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pg_bridge.asking.joint import (
    BLOCK_ROWS,
    EXPECTED_YES,
    LIST_CHARS,
    LIST_ROWS,
    Joint,
    call_about,
    put_together,
    read_answer,
    ways_of,
)
from pg_bridge.asking.pairs import find_pairs
from pg_bridge.asking.prompt import parse_question
from pg_bridge.options import Call

PROMPT = "Does {review} concern {name}?"
TEXT = st.text(max_size=6) | st.sampled_from(["{", "}}", "{name}", "\u0000", '"', "\\", "\n1. ", "é", "Ω"])


def pair(left: object, right: object) -> str:
    return json.dumps({"": [left, right]}, ensure_ascii=False)


def arrange(
    prompts: Sequence[str | None], rows: Sequence[str | None], most_rows: int = 1, context_tokens: int = 8192
) -> tuple[list[Joint], list[int]]:
    some, others = find_pairs(prompts, rows, range(len(rows)))
    joint, too_few = put_together(some, most_rows, context_tokens)
    return joint, sorted(others + too_few)


def rows_of(joint: Joint) -> list[object]:
    return [json.loads(joint.row)] if joint.rows == 1 else list(json.loads(joint.row).values())


def listed_in(prompt: str) -> list[object]:
    """The candidates as whoever reads the prompt sees them."""
    text = parse_question(prompt).text
    return [json.loads(found) for found in re.findall(r"^[0-9]+\. (\{.*\})$", text, re.M)]


@pytest.mark.parametrize("most_rows", [1, BLOCK_ROWS])
@given(pairs=st.lists(st.tuples(TEXT, TEXT), max_size=40), context=st.sampled_from([256, 512, 8192]))
def test_each_pair_is_asked_about_once_and_with_its_own_rows(
    pairs: list[tuple[str, str]], context: int, most_rows: int
) -> None:
    rows = [pair({"id": 1, "review": a}, {"name": b}) for a, b in pairs]
    joint, alone = arrange([PROMPT] * len(rows), rows, most_rows, context)
    covered = [place for each in joint for places in each.pairs() for place in places]
    assert sorted(covered + alone) == list(range(len(rows)))
    for each in joint:
        candidates = listed_in(each.prompt)
        assert each.rows <= most_rows
        assert 2 <= len(candidates) == each.candidates
        for row, of_row in zip(rows_of(each), each.places, strict=True):
            for candidate, places in zip(candidates, of_row, strict=True):
                for place in places:
                    review, name = pairs[place]
                    assert sorted([row, candidate], key=str) == sorted([{"review": review}, {"name": name}], key=str)


def test_blocks_are_an_eighth_and_keep_within_the_context() -> None:
    reviews, names = [f"a long review, number {i} " + "x" * 300 for i in range(50)], [f"p{j}" for j in range(90)]
    rows = [pair({"review": r}, {"name": n}) for r in reviews for n in names]
    joint, alone = arrange([PROMPT] * len(rows), rows, BLOCK_ROWS)
    assert alone == []
    assert len(joint) == 3 * -(-50 // BLOCK_ROWS)
    assert len({each.prompt for each in joint}) == 3
    small, alone = arrange([PROMPT] * len(rows), rows, BLOCK_ROWS, 1200)
    assert alone == []
    assert 3 * -(-50 // BLOCK_ROWS) < len(small) < 3 * 50
    for each in small:
        tokens = (len(each.prompt) + len(each.row)) / 3 + call_about(
            Call(max_tokens=1), each.rows, each.candidates
        ).max_tokens
        assert tokens <= 1200
    least, _ = arrange([PROMPT] * len(rows), rows, BLOCK_ROWS, 1)
    assert {each.rows for each in least} == {1}  # a list, then


def test_rows_that_have_other_pairs_left_are_in_no_block_together() -> None:
    rows = [pair({"review": i}, {"name": str(j)}) for i in range(12) for j in range(6) if j // 3 == i % 2]
    joint, alone = arrange([PROMPT] * len(rows), rows, BLOCK_ROWS)
    assert (len(joint), alone) == (2, [])
    assert sum(len(places) for each in joint for places in each.pairs()) == len(rows)


@pytest.mark.parametrize(
    ("reviews", "names", "words", "chosen"),
    [
        (1, 1, 8, ()),
        (3, 3, 8, ()),
        (1, 40, 8, (1,)),
        (40, 10, 8, (1,)),  # lists are hardly dearer than blocks
        (40, 10, 1, (BLOCK_ROWS, 1)),
    ],
)
def test_the_most_exact_way_that_costs_little_more_is_chosen(
    reviews: int, names: int, words: int, chosen: tuple[int, ...]
) -> None:
    rows = [pair({"review": "word " * words + str(i)}, {"name": j}) for i in range(reviews) for j in range(names)]
    some, _ = find_pairs([PROMPT] * len(rows), rows, range(len(rows)))
    assert tuple(ways_of("auto", some, 8192)) == chosen
    assert [tuple(ways_of(way, some, 8192)) for way in ("each", "listed", "blocks")] == [(), (1,), (BLOCK_ROWS, 1)]


def test_all_with_all_are_few_questions_about_the_shorter_side() -> None:
    reviews, names = [f"a long review, number {i}" for i in range(50)], [f"p{j}" for j in range(90)]
    rows = [pair({"review": r}, {"name": n}) for r in reviews for n in names]
    listed, alone = arrange([PROMPT] * len(rows), rows)
    assert alone == []
    assert len(listed) == 50 * -(-90 // LIST_ROWS)
    prompts = [each.prompt for each in listed]
    assert len(dict.fromkeys(prompts)) == 3
    assert prompts == sorted(prompts, key=list(dict.fromkeys(prompts)).index)  # one list after the other


def test_lists_are_no_longer_than_a_model_takes() -> None:
    rows = [pair({"review": "x" * 6000 + str(i)}, {"name": "y" * 1500 + str(j)}) for i in range(3) for j in range(9)]
    listed, alone = arrange([PROMPT] * len(rows), rows)
    assert {each.candidates for each in listed} == {2}
    assert len(alone) == 3  # the ninth
    assert max(len(each.prompt) for each in listed) < LIST_CHARS + 500


@pytest.mark.parametrize(
    ("prompt", "row"),
    [
        (None, pair({"review": 1}, {"name": 2})),
        (PROMPT, None),
        (PROMPT, '{"review": 1, "name": 2}'),
        (PROMPT, json.dumps({"": [{"review": 1, "name": 2}]})),
        (PROMPT, json.dumps({"": [{"review": 1}, {"name": 2}, {"a": 3}]})),
        (PROMPT, pair({"review": 1, "name": 1}, {"name": 2})),
        (PROMPT, pair({"review": 1}, None)),
        (PROMPT, pair({"review": 1}, 5)),
        (PROMPT, pair({"review": 1, "name": 3}, {"other": 2})),
        (PROMPT, pair({"review": 1}, {"other": 2})),
        ("Does {review concern {name}?", pair({"review": 1}, {"name": 2})),
        (PROMPT, "not JSON"),
        (PROMPT, '{"":[{"review": 1}, {"name": 2}'),
    ],
)
def test_what_is_no_pair_is_asked_about_alone(prompt: str | None, row: str | None) -> None:
    assert arrange([prompt] * 3, [row] * 3) == ([], [0, 1, 2])


def test_a_prompt_that_names_nothing_sends_both_rows_whole() -> None:
    rows = [pair({"a": i, "b": 0}, {"c": j}) for i in range(2) for j in range(3)]
    listed, alone = arrange(["Do they fit?"] * 6, rows)
    assert alone == []
    assert [(each.row, listed_in(each.prompt)) for each in listed] == [
        ('{"a": 0, "b": 0}', [{"c": 0}, {"c": 1}, {"c": 2}]),
        ('{"a": 1, "b": 0}', [{"c": 0}, {"c": 1}, {"c": 2}]),
    ]


def test_cells_stay_as_they_are_spelled() -> None:
    rows = ['{"":[{"review":1.50}, {"name":1e400}]}', '{"":[{"review":1.50}, {"name":12.00}]}']
    (each,), _ = arrange([PROMPT] * 2, rows)
    assert "1e400" in each.prompt
    assert "12.00" in each.prompt
    assert each.row == '{"review": 1.50}'


NUMBERS = ("[0]", "[4]", "[1.0]", "[true]", '["1"]', "{}", "[[1]]", "1", "null")


@pytest.mark.parametrize(
    "answer", [None, "", "yes", "[1]", "{}", "[", "[" * 9999, *(f'{{"yes": {n}}}' for n in NUMBERS)]
)
def test_what_is_no_list_of_candidates_is_no_answer(answer: str | None) -> None:
    assert read_answer(answer, 1, 3) is None


@pytest.mark.parametrize(
    "answer", [None, "yes", '["1", "2"]', '{"1": [1]}', '{"yes": [1]}', *(f'{{"1": [], "2": {n}}}' for n in NUMBERS)]
)
def test_what_leaves_a_row_of_a_block_out_is_no_answer(answer: str | None) -> None:
    assert read_answer(answer, 2, 3) is None


def test_it_is_asked_for_in_form_and_fails_no_statement() -> None:
    asked = Call.from_arguments({"kind": "boolean", "pairs": "listed"})
    one, block = call_about(asked, 1, 40), call_about(asked, 3, 40)
    assert json.loads(one.schema)["properties"]["yes"]["items"]["enum"][-1] == 40
    assert json.loads(block.schema)["required"] == ["1", "2", "3"]
    for call in (one, block):
        assert (call.choices, call.on_error) == ((), "null")
    assert one.max_tokens >= 200
    assert block.max_tokens >= EXPECTED_YES * 3 * 40 * 5
