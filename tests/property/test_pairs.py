"""Questions about pairs are put together in lists, and each pair's answer is its own."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pg_bridge.asking.pairs import LIST_CHARS, LIST_ROWS, arrange, call_about, read_numbers
from pg_bridge.asking.prompt import parse_question
from pg_bridge.options import Call

PROMPT = "Does {review} concern {name}?"
TEXT = st.text(max_size=6) | st.sampled_from(["{", "}}", "{name}", "\u0000", '"', "\\", "\n1. ", "é", "Ω"])


def pair(left: object, right: object) -> str:
    return json.dumps({"": [left, right]}, ensure_ascii=False)


def listed_in(prompt: str) -> list[object]:
    """The candidates as whoever reads the prompt sees them."""
    text = parse_question(prompt).text
    return [json.loads(found) for found in re.findall(r"^[0-9]+\. (\{.*\})$", text, re.M)]


@given(st.lists(st.tuples(TEXT, TEXT), max_size=40))
def test_each_pair_is_asked_about_once_and_with_its_own_rows(pairs: list[tuple[str, str]]) -> None:
    rows = [pair({"id": 1, "review": a}, {"name": b}) for a, b in pairs]
    listed, alone = arrange([PROMPT] * len(rows), rows)
    covered = [place for each in listed for places in each.places for place in places]
    assert sorted(covered + alone) == list(range(len(rows)))
    for each in listed:
        assert len(each.places) >= 2
        candidates = listed_in(each.prompt)
        assert len(candidates) == len(each.places)
        for candidate, places in zip(candidates, each.places, strict=True):
            for place in places:
                review, name = pairs[place]
                assert sorted([json.loads(each.row), candidate], key=str) == sorted(
                    [{"review": review}, {"name": name}], key=str
                )


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
    assert {len(each.places) for each in listed} == {2}
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


@pytest.mark.parametrize(
    "answer",
    [
        None,
        "",
        "yes",
        "[1]",
        "{}",
        "[",
        "[" * 9999,
        *(
            f'{{"yes": {numbers}}}'
            for numbers in ("[0]", "[4]", "[1.0]", "[true]", '["1"]', "{}", "[[1]]", "1", "null")
        ),
    ],
)
def test_what_is_no_list_of_candidates_is_no_answer(answer: str | None) -> None:
    assert read_numbers(answer, 3) is None


def test_a_list_is_asked_for_in_form_and_fails_no_statement() -> None:
    call = call_about(Call.from_arguments({"kind": "boolean", "pairs": "listed"}), 40)
    assert json.loads(call.schema)["properties"]["yes"]["items"]["enum"][-1] == 40
    assert (call.choices, call.on_error) == ((), "null")
    assert call.max_tokens >= 200
