"""Questions about pairs are put together in lists and blocks, and each pair's answer is its own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pg_bridge.asking.inquiry import Outcome
from pg_bridge.asking.joining import Joining
from pg_bridge.asking.joint import LIST_ROWS, call_about, read_yes
from pg_bridge.asking.memory import Memory
from pg_bridge.asking.pair_plans import BLOCK_ROWS, LIST_BYTES, Terms
from pg_bridge.asking.prompt import parse_question
from pg_bridge.engine.payload import CUT_OFF
from pg_bridge.errors import Reason
from pg_bridge.options import Call

PROMPT = "Does {review} concern {name}?"
TEXT = st.text(max_size=6) | st.sampled_from(["{", "}}", "{name}", "\u0000", '"', "\\", "\n1. ", "é", "Ω"])
PAIRS = st.lists(st.tuples(TEXT, TEXT), max_size=40)
WAYS = ("each", "listed", "blocks", "auto")
TOO_LONG = Reason("too long", sqlstate="54000")

Shown = tuple[dict[int, dict[str, Any]], dict[int, dict[str, Any]]]


def pair(left: object, right: object) -> str:
    """Two rows side by side, as SQL's llm.row puts them."""
    return f'{{"":[{json.dumps(left, ensure_ascii=False)}, {json.dumps(right, ensure_ascii=False)}]}}'


def grid(reviews: int, names: int) -> list[str | None]:
    return [
        pair({"review": f"a long review, number {i}"}, {"name": f"p{j}"}) for i in range(reviews) for j in range(names)
    ]


def embed(_: object) -> NoReturn:
    raise AssertionError("nothing asks for the nearest")


def join(rows: list[str | None], way: str, terms: Terms | None = None, prompt: str | None = PROMPT) -> Joining:
    call = Call.from_arguments({"kind": "boolean", "pairs": way})
    return Joining([prompt] * len(rows), rows, call, terms or Terms(), Memory(), lambda: None, embed)


def listed_in(prompt: str) -> list[Any]:
    """The candidates as whoever reads the prompt sees them."""
    text = parse_question(prompt).text
    return [json.loads(found) for found in re.findall(r"^[0-9]+\. (\{.*\})$", text, re.M)]


def shown(prompt: str, row: str) -> Shown:
    """Rows and candidates by their numbers, as whoever reads them sees them; a lone row has no number."""
    of_row = json.loads(row)
    rows = {int(n): each for n, each in of_row["rows"].items()} if "rows" in of_row else {0: of_row}
    return rows, dict(enumerate(listed_in(prompt), 1))


def say_yes(prompt: str, row: str, is_yes: Callable[[str, str], bool]) -> str:
    """An answer that makes no mistake."""
    rows, candidates = shown(prompt, row)
    found: list[object] = []
    for i, each in rows.items():
        for j, candidate in candidates.items():
            cells = each | candidate
            if is_yes(cells["review"], cells["name"]):
                found.append([i, j] if i else j)
    return json.dumps({"yes": found})


def is_yes(review: str, name: str) -> bool:
    return (len(review) + len(name)) % 3 == 0


def run(joining: Joining, outcome: Callable[[str, str], Outcome]) -> int:
    """Ask until nothing is left but pairs; how many questions that took."""
    asked = 0
    while joining.is_asking:
        asks, rows, _ = joining.ask()
        asked += len(rows)
        joining.take([outcome(ask.prompt or "", row) for ask, row in zip(asks, rows, strict=True)])
    return asked


@pytest.mark.some(2)
@pytest.mark.parametrize("way", WAYS)
@given(PAIRS)
def test_each_pair_has_the_answer_about_its_own_rows(way: str, pairs: list[tuple[str, str]]) -> None:
    joining = join([pair({"id": 1, "review": a}, {"name": b}) for a, b in pairs], way)
    run(joining, lambda prompt, row: (say_yes(prompt, row, is_yes), None))
    assert sorted([*joining.answers, *joining.alone]) == list(range(len(pairs)))
    for place, answer in joining.answers.items():
        assert answer == ("yes" if is_yes(*pairs[place]) else "no")
    assert way != "each" or not joining.answers


@given(PAIRS, st.lists(st.sampled_from(["right", "nonsense", "cut", "long", "refused"]), min_size=1, max_size=30))
def test_whatever_is_answered_each_pair_is_asked_about_to_the_end(
    pairs: list[tuple[str, str]], luck: list[str]
) -> None:
    joining = join([pair({"review": a}, {"name": b}) for a, b in pairs], "blocks")
    turn = iter(range(1 << 30))

    def outcome(prompt: str, row: str) -> Outcome:
        wrong: dict[str, Outcome] = {
            "nonsense": ('{"yes": [[1, 1]]}', None),
            "cut": (None, CUT_OFF),
            "long": (None, TOO_LONG),
            "refused": (None, "no"),
        }
        return wrong.get(luck[next(turn) % len(luck)], (say_yes(prompt, row, is_yes), None))

    assert run(joining, outcome) <= 2 * len(set(pairs)) + 1
    assert sorted([*joining.answers, *joining.alone]) == list(range(len(pairs)))
    assert all(answer == ("yes" if is_yes(*pairs[place]) else "no") for place, answer in joining.answers.items())


def test_all_with_all_are_few_questions_about_the_shorter_side() -> None:
    joining = join(grid(50, 90), "listed")
    asks, rows, told = joining.ask()
    assert (len(rows), told.lists, told.blocks, joining.alone) == (50 * -(-90 // LIST_ROWS), 150, 0, [])
    prompts = [ask.prompt for ask in asks]
    assert len(dict.fromkeys(prompts)) == 3
    assert prompts == sorted(prompts, key=list(dict.fromkeys(prompts)).index)  # one list after the other
    assert len({ask.call for ask in asks}) == 1  # 30 each: questions of one form share requests


def test_blocks_are_fewer_by_the_rows_that_share_a_list() -> None:
    joining = join(grid(50, 90), "blocks")
    asks, rows, told = joining.ask()
    assert (len(rows), told.blocks) == (3 * -(-50 // BLOCK_ROWS), 9)
    assert rows[:3] == rows[3:6] == rows[6:]  # alike beside every list, so that they may stand in front
    assert len({ask.prompt for ask in asks}) == 3


def test_a_small_context_makes_small_questions() -> None:
    def longest(way: str, context: int) -> int:
        asks, rows, _ = join(grid(60, 60), way, Terms(context)).ask()
        return max(len(ask.prompt or "") + len(row) for ask, row in zip(asks, rows, strict=True))

    for way in ("listed", "blocks"):
        assert 3 * 600 > longest(way, 600) < longest(way, 8000)
    joining = join(grid(3, 3), "blocks", Terms(10))  # no room for anything: the least, which the engine may refuse
    run(joining, lambda *_: (None, TOO_LONG))
    assert len(joining.alone) == 9


def test_answers_that_would_be_long_make_small_blocks() -> None:
    rows, memory = grid(40, 40), Memory()
    call = Call.from_arguments({"kind": "boolean", "pairs": "blocks"})
    first = Joining([PROMPT] * len(rows), rows, call, Terms(), memory, lambda: None, embed)
    asked = run(first, lambda prompt, row: (say_yes(prompt, row, lambda *_: True), None))
    again = Joining([PROMPT] * len(rows), rows, call, Terms(), memory, lambda: None, embed)
    assert len(again.ask()[1]) > 5 * asked


def test_what_was_cut_off_is_asked_in_halves_and_not_for_ever() -> None:
    joining = join(grid(20, 40), "blocks")
    shapes = []
    while joining.is_asking:
        _, rows, told = joining.ask()
        shapes.append((told.blocks, told.lists))
        joining.take([(None, CUT_OFF)] * len(rows))
    assert shapes == [(1, 0), (2, 0), (4, 0), (8, 0), (4, 12), (0, 8)]
    assert len(joining.alone) == joining.pairs_alone.repairs == 800


def test_pairs_that_other_conditions_sorted_out_are_in_no_block_alone() -> None:
    rows: list[str | None] = [
        pair({"review": f"r{i}"}, {"name": f"n{j}"}) for i in range(40) for j in range(40) if i % 8 == j % 8
    ]
    asks, _, told = join(rows, "blocks").ask()
    assert (told.blocks, told.lists) == (4, 0)  # half of what a block can tell of is asked about, at the least
    assert all(ask.prompt is not None and len(listed_in(ask.prompt)) == 10 for ask in asks)
    triangle: list[str | None] = [pair({"review": f"r{i}"}, {"name": f"n{j}"}) for i in range(40) for j in range(i)]
    joining = join(triangle, "blocks")
    assert len(joining.ask()[1]) <= 8
    run(joining, lambda prompt, row: (say_yes(prompt, row, is_yes), None))
    assert len(joining.answers) + len(joining.alone) == len(triangle)


@pytest.mark.parametrize(
    ("rows", "terms", "way"),
    [
        (grid(1, 1), Terms(), "each"),
        (grid(30, 30), Terms(), "blocks"),
        (grid(1, 2), Terms(), "each"),
        (grid(30, 30), Terms(completion=1e6), "listed"),
        ([pair({"review": f"{i}" * 9000}, {"name": f"n{j}"}) for i in range(5) for j in range(5)], Terms(), "listed"),
    ],
)
def test_what_costs_least_is_chosen(rows: list[str | None], terms: Terms, way: str) -> None:
    told = join(rows, "auto", terms)
    _, _, pairs = told.ask()
    assert ("blocks" if pairs.blocks else "listed" if pairs.lists else "each") == way


def test_lists_are_no_longer_than_a_model_takes() -> None:
    rows: list[str | None] = [
        pair({"review": "x" * 6000 + str(i)}, {"name": "y" * 1500 + str(j)}) for i in range(3) for j in range(9)
    ]
    joining = join(rows, "listed", Terms(100_000))
    asks, _, _ = joining.ask()
    assert {len(listed_in(ask.prompt or "")) for ask in asks} == {2}
    assert len(joining.alone) == 3  # the ninth
    assert max(len(ask.prompt or "") for ask in asks) < LIST_BYTES + 500


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
        (PROMPT, f"{pair({'review': 1}, {'name': 2})}]}}"),
        ("Does {review concern {name}?", pair({"review": 1}, {"name": 2})),
        (PROMPT, "not JSON"),
        (PROMPT, '{"":[{"review": 1}, {"name": 2}'),
    ],
)
def test_what_is_no_pair_is_asked_about_alone(prompt: str | None, row: str | None) -> None:
    joining = join([row] * 3, "blocks", prompt=prompt)
    assert (joining.is_asking, joining.alone, joining.uncounted) == (False, [0, 1, 2], 3)


@pytest.mark.parametrize("way", ["listed", "blocks"])
def test_a_prompt_that_names_nothing_sends_both_rows_whole(way: str) -> None:
    rows: list[str | None] = [pair({"a": i, "b": 0}, {"c": j}) for i in range(2) for j in range(3)]
    asks, of_asks, _ = join(rows, way, prompt="Do they fit?").ask()
    found = [shown(ask.prompt or "", row) for ask, row in zip(asks, of_asks, strict=True)]
    candidates = {1: {"c": 0}, 2: {"c": 1}, 3: {"c": 2}}
    reviews = [{"a": 0, "b": 0}, {"a": 1, "b": 0}]
    if way == "listed":
        assert found == [({0: review}, candidates) for review in reviews]
    else:
        assert found == [(dict(enumerate(reviews, LIST_ROWS + 1)), candidates)]


def test_cells_stay_as_they_are_spelled() -> None:
    rows: list[str | None] = [
        '{"":[{"review":1.50}, {"name":1e400}]}',
        '{"":[{"review":1.50}, {"name":12.00}]}',
    ]
    (ask,), (row,), _ = join(rows, "blocks").ask()
    assert ask.prompt is not None
    assert "1e400" in ask.prompt
    assert "12.00" in ask.prompt
    assert row == '{"review": 1.50}'


@pytest.mark.parametrize("rows", [1, 2])
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
            for numbers in ("[0]", "[4]", "[1.0]", "[true]", '["1"]', "{}", "[[1]]", "1", "null", "[[41, 1, 1]]")
        ),
        *(
            f'{{"yes": [[{a}, {b}]]}}'
            for a, b in [(1, 2), (41, 42), (41, 4), (43, 1), (0, 41), ("true", 41), (41, "[]")]
        ),
    ],
)
def test_what_names_no_pairs_is_no_answer(answer: str | None, rows: int) -> None:
    assert read_yes(answer, rows, 3) is None


def test_questions_about_several_are_asked_for_in_form_and_fail_no_statement() -> None:
    call = Call.from_arguments({"kind": "boolean", "pairs": "listed"})
    listed, block = call_about(call, 1, 40), call_about(call, 20, 40)
    assert json.loads(listed.schema)["properties"]["yes"]["items"]["enum"][-1] == 40
    of_pair = json.loads(block.schema)["properties"]["yes"]["items"]
    assert (of_pair["minItems"], of_pair["maxItems"], of_pair["items"]["enum"]) == (2, 2, list(range(1, 61)))
    assert all((each.choices, each.on_error) == ((), "null") for each in (listed, block))
    assert listed.max_tokens >= 200
    assert block.max_tokens == 1024 < call_about(Call(max_tokens=2000), 20, 40).max_tokens
