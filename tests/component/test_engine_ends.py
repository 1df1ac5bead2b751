"""How an answer ended: one that was cut off, withheld or declined is no answer, and says so."""

from __future__ import annotations

import pytest

from pg_bridge.engine import Completion, Engine, Sampling
from pg_bridge.engine.payload import BROKEN_OFF, CUT_OFF, DECLINED, NOT_RUN, WITHHELD
from pg_bridge.testing.double import EngineDouble
from tests.component.test_engine_faults import server

FREE = Sampling(max_tokens=1, temperature=0.0, system_prompt="")  # of four characters
TYPED = {
    "a number": Sampling(1, 0.0, "", pattern="-?[0-9]{1,15}"),
    "a label": Sampling(1, 0.0, "", choices=("1984", "198412", "yes")),
    "JSON": Sampling(1, 0.0, "", schema="{}"),
}


def ask(engine: EngineDouble, sampling: Sampling, count: int = 3, api: str = "chat") -> list[Completion]:
    prompts = iter([f"row {i}" for i in range(count)])
    return sorted(Engine(server(engine, api=api)).complete(prompts, sampling), key=lambda each: each.index)


@pytest.mark.parametrize("api", ["chat", "completions"])
@pytest.mark.parametrize("kind", TYPED)
@pytest.mark.parametrize("count", [1, 3])
def test_a_typed_answer_that_was_cut_off_is_none(api: str, kind: str, count: int) -> None:
    with EngineDouble(answer=lambda _: "198412", ignore_choices=True) as engine:
        assert {(each.text, each.error) for each in ask(engine, TYPED[kind], count, api)} == {(None, CUT_OFF)}
        engine.behaviour.answer = lambda _: "1984"
        assert {(each.text, each.error) for each in ask(engine, TYPED[kind], count, api)} == {("1984", None)}


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_a_text_that_was_cut_off_is_kept(api: str) -> None:
    with EngineDouble(answer=lambda _: "It was fine.") as engine:
        assert {(each.text, each.error) for each in ask(engine, FREE, api=api)} == {("It w", None)}


@pytest.mark.parametrize("no_text", [True, False])
def test_of_a_text_that_was_cut_off_before_its_first_letter_there_is_nothing_to_keep(no_text: bool) -> None:
    with EngineDouble(answer=lambda _: "", finish_reason="length", no_text=no_text) as engine:
        assert {(each.text, each.error) for each in ask(engine, FREE)} == {(None, CUT_OFF)}


@pytest.mark.parametrize("sampling", [FREE, *TYPED.values()])
@pytest.mark.parametrize("api", ["chat", "completions"])
def test_what_a_filter_withheld_is_its_own_rows_failure(sampling: Sampling, api: str) -> None:
    with EngineDouble(withhold_marker="row 1", answer=lambda _: "1984", ignore_choices=True) as engine:
        found = ask(engine, sampling, api=api)
    assert [(each.text, each.error) for each in found] == [("1984", None), (None, WITHHELD), ("1984", None)]


@pytest.mark.parametrize(("reason", "error"), [("refusal", DECLINED), ("abort", BROKEN_OFF), ("error", BROKEN_OFF)])
def test_other_ends_that_are_no_answer(reason: str, error: str) -> None:
    with EngineDouble(finish_reason=reason) as engine:
        assert {(each.text, each.error) for each in ask(engine, FREE)} == {(None, error)}


@pytest.mark.parametrize("reason", ["stop", "eos", "end_turn", "tool_calls", "whatever comes"])
def test_other_ends_are_ends(reason: str) -> None:
    with EngineDouble(answer=lambda _: "fine", finish_reason=reason) as engine:
        assert {(each.text, each.error) for each in ask(engine, FREE)} == {("fine", None)}


def test_a_call_that_nobody_runs_is_no_answer() -> None:
    with EngineDouble(no_text=True, finish_reason="tool_calls") as engine:
        assert {(each.text, each.error) for each in ask(engine, FREE)} == {(None, NOT_RUN)}


def test_a_model_that_declines_is_not_quoted() -> None:
    with EngineDouble(refusal="I cannot speak of row 1") as engine:
        assert {(each.text, each.error) for each in ask(engine, FREE)} == {(None, DECLINED)}
