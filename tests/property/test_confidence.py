"""The probability of an answer, followed through tokens that nobody chose well, is what the model gave it."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pg_bridge.engine.confidence import Certainty, alternatives
from pg_bridge.engine.forms import Asked, in_words, response_format, structured_outputs
from pg_bridge.engine.records import Sampling
from pg_bridge.options.forms import fold
from pg_bridge.testing.logprobs import logprobs_of

# Of few letters, so that many begin alike and some are the beginnings of others.
LABEL = st.text("ab é", min_size=1, max_size=12).filter(str.strip)
LABELS = st.lists(LABEL, min_size=1, max_size=6, unique_by=fold)
SHARES = st.floats(0.001, 0.999)


def sampling_of(labels: list[str]) -> Sampling:
    return Sampling(16, 0.0, "", choices=tuple(labels), confidence=True)


def text_of(asked: Asked, label: str) -> str:
    return json.dumps({"answer": label}) if asked.is_wrapped else label


@given(labels=LABELS, sure=SHARES, free=st.sampled_from([0.0, 0.4]), wrapped=st.booleans(), chat=st.booleans())
@example(labels=["aé", "aéa", "a"], sure=0.5, free=0.4, wrapped=True, chat=True)
@example(labels=["b ééé", "bbébb", "b", "b éb ", " abbb", "é    "], sure=0.5, free=0.4, wrapped=True, chat=True)
def test_a_label_is_as_likely_as_the_model_says(
    labels: list[str], sure: float, free: float, wrapped: bool, chat: bool
) -> None:
    sampling = sampling_of(labels)
    asked = (response_format if wrapped else structured_outputs)(sampling)
    text = text_of(asked, labels[0])
    told = logprobs_of(text, [text_of(asked, each) for each in labels], sure, 20, free=free, chat=chat)
    found = Certainty(sampling, asked).of({"logprobs": told}, text, labels[0])
    assert found == pytest.approx(sure if len(labels) > 1 else 1.0, abs=1e-6)


@given(low=st.integers(-120, 120), size=st.integers(0, 30), place=st.floats(0, 1), sure=SHARES)
def test_a_number_is_as_likely_as_the_model_says(low: int, size: int, place: float, sure: float) -> None:
    sampling = Sampling(16, 0.0, "", pattern="-?[0-9]+", low=low, high=low + size, confidence=True)
    text = str(low + round(place * size))
    told = logprobs_of(text, map(str, range(low, low + size + 1)), sure, 40)
    found = Certainty(sampling, structured_outputs(sampling)).of({"logprobs": told}, text, text)
    assert found == pytest.approx(sure if size else 1.0, abs=1e-6)


@given(sure=SHARES, label=st.sampled_from(["yes", "Yes", " YES", '"Yes."', "**yes**"]))
def test_an_answer_in_words_may_be_written_otherwise(sure: float, label: str) -> None:
    sampling = sampling_of(["yes", "no"])
    told = logprobs_of(label, [label, "No"], sure, 5)
    assert Certainty(sampling, in_words(sampling)).of({"logprobs": told}, label, "yes") == pytest.approx(sure, abs=1e-6)


def test_alternatives_that_mean_the_same_count_as_the_answer() -> None:
    told = {
        "content": [
            {
                "token": "yes",
                "logprob": math.log(0.5),
                "top_logprobs": [
                    {"token": "yes", "logprob": math.log(0.5)},
                    {"token": "y", "logprob": math.log(0.1)},
                    {"token": " yes", "logprob": math.log(0.1)},
                    {"token": "no", "logprob": math.log(0.2)},
                    {"token": "yesterday", "logprob": math.log(0.05)},
                ],
            }
        ]
    }
    sampling = sampling_of(["yes", "no"])
    found = Certainty(sampling, structured_outputs(sampling)).of({"logprobs": told}, "yes", "yes")
    assert found == pytest.approx(0.7 / 0.9)


def test_a_piece_of_several_answers_tells_nothing_of_them() -> None:
    first = [{"token": each, "logprob": math.log(p)} for each, p in (("no", 0.4), ("n", 0.2), ("yes", 0.4))]
    rest = [{"token": each, "logprob": math.log(p)} for each, p in ((" news", 0.25), ("", 0.75))]
    content = [{**first[0], "top_logprobs": first}, {**rest[0], "top_logprobs": rest}]
    sampling = sampling_of(["no", "no news", "yes"])
    certainty = Certainty(sampling, structured_outputs(sampling))
    found = certainty.of({"logprobs": {"content": content}}, "no news", "no news")
    assert found == pytest.approx(0.5 * 0.25)
    content[1] = {**rest[1], "top_logprobs": rest}
    assert certainty.of({"logprobs": {"content": content}}, "no", "no") == pytest.approx(0.5 * 0.75)


def test_answers_may_hide_in_what_is_not_told() -> None:
    def told(*probabilities: tuple[str, float]) -> dict[str, object]:
        first, *_ = tokens = [{"token": each, "logprob": math.log(p)} for each, p in probabilities]
        return {"logprobs": {"content": [{**first, "top_logprobs": tokens}]}}

    sampling = sampling_of(["yes", "no"])
    certainty = Certainty(sampling, structured_outputs(sampling))
    # "no" may be as likely as 0.04, and nobody tells.
    assert certainty.of(told(("yes", 0.01), ("Well", 0.9), ("So", 0.05)), "yes", "yes") is None
    assert certainty.of(told(("yes", 0.5), ("Well", 0.3), ("no", 0.19)), "yes", "yes") == pytest.approx(0.5 / 0.69)
    # This engine tells of answers alone: what it does not tell is of others.
    assert certainty.of(told(("yes", 0.5), ("no", 0.3)), "yes", "yes") == pytest.approx(0.5)


def _told(*places: tuple[tuple[str, float], ...]) -> dict[str, object]:
    """Of each place the tokens with their probabilities, the chosen one first."""
    tokens = [[{"token": each, "logprob": math.log(p)} for each, p in place] for place in places]
    return {"logprobs": {"content": [{**place[0], "top_logprobs": place} for place in tokens]}}


@pytest.mark.parametrize("half", ["", "日\ufffd"])  # vLLM tells nothing of half a character, others this sign
def test_what_half_a_character_leads_to_nobody_knows(half: str) -> None:
    sampling = sampling_of(["月", "日本"])
    certainty = Certainty(sampling, structured_outputs(sampling))
    assert certainty.of(_told((("月", 0.2), (half, 0.8))), "月", "月") == pytest.approx(0.2)
    assert certainty.of(_told((("月", 0.2), (half, 0.5), ("Well", 0.3))), "月", "月") is None
    longer = Certainty(sampling_of(["月", "月👍"]), structured_outputs(sampling))
    assert longer.of(_told((("月", 1.0),), (("</s>", 0.2), (half, 0.8))), "月", "月") == pytest.approx(0.2)


@pytest.mark.parametrize("wrapped", [False, True])
def test_answers_may_differ_by_half_a_character(wrapped: bool) -> None:
    sampling = sampling_of(["👍", "👎"])
    certainty = Certainty(sampling, (response_format if wrapped else structured_outputs)(sampling))
    before = ((('{"answer": "', 1.0),),) if wrapped else ()
    told = _told(*before, (("", 1.0),), (("", 0.6), ("", 0.4)), (("👍", 1.0),), (('"}' if wrapped else "</s>", 1.0),))
    text = '{"answer": "👍"}' if wrapped else "👍"
    assert certainty.of(told, text, "👍") == pytest.approx(0.6)


def test_thoughts_before_an_answer_are_passed_over() -> None:
    told = logprobs_of("no", ["yes", "no"], 0.6, 5)
    before = [{"token": each, "logprob": -1.0} for each in ("yes", " or", " no", "</think>")]
    sampling = sampling_of(["yes", "no"])
    found = Certainty(sampling, structured_outputs(sampling)).of(
        {"logprobs": {"content": before + told["content"]}}, "no", "no"
    )
    assert found == pytest.approx(0.6)


@pytest.mark.parametrize("end", ["<|im_end|>", "</s>", "\n", ""])
@pytest.mark.parametrize("label", ["n", "s"])
def test_an_answer_is_not_looked_for_in_the_name_of_its_end(label: str, end: str) -> None:
    first = [{"token": label, "logprob": math.log(0.3)}, {"token": "yes", "logprob": math.log(0.7)}]
    content = [{**first[0], "top_logprobs": first}, {"token": end, "logprob": 0.0, "top_logprobs": []}]
    sampling = sampling_of([label, "yes"])
    text = label if end.strip() else label + end
    found = Certainty(sampling, in_words(sampling)).of({"logprobs": {"content": content}}, text, label)
    assert found == pytest.approx(0.3)


def test_without_alternatives_it_is_the_product_of_the_tokens() -> None:
    content = [{"token": "1", "logprob": math.log(0.5)}, {"token": "0", "logprob": math.log(0.5)}]
    sampling = Sampling(16, 0.0, "", pattern="x", low=1, high=10, confidence=True)
    found = Certainty(sampling, structured_outputs(sampling)).of({"logprobs": {"content": content}}, "10", "10")
    assert found == pytest.approx(0.25)


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers(-(10**400), 10**400)
    | st.sampled_from(["yes", "no", "y", "", "\ud800", "es"])
    | st.lists(st.integers(-1, 256), max_size=4),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["content", "token", "logprob", "bytes", "top_logprobs", "tokens", "token_logprobs", "yes"]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)
TOKEN = st.fixed_dictionaries(
    {},
    optional={
        "token": st.sampled_from(["yes", "y", "es", "no", "", " "]) | ANYTHING,
        "logprob": st.floats() | ANYTHING,
        "bytes": ANYTHING,
        "top_logprobs": st.lists(
            st.fixed_dictionaries({"token": st.sampled_from(["yes", "no", ""]), "logprob": st.floats() | ANYTHING}),
            max_size=4,
        )
        | ANYTHING,
    },
)
NONSENSE = st.fixed_dictionaries({"content": st.lists(TOKEN, max_size=4) | ANYTHING}) | ANYTHING


@given(told=NONSENSE, wrapped=st.booleans())
def test_nonsense_is_no_confidence_or_one_within_bounds(told: Any, wrapped: bool) -> None:
    sampling = sampling_of(["yes", "no"])
    asked = (response_format if wrapped else structured_outputs)(sampling)
    found = Certainty(sampling, asked).of({"logprobs": told}, text_of(asked, "yes"), "yes")
    assert found is None or 0.0 <= found <= 1.0


def _nonsense(value: object) -> dict[str, Any]:
    return {"content": [{"token": "yes", "logprob": value, "top_logprobs": []}]}


@pytest.mark.parametrize(
    "told",
    [
        None,
        [],
        {},
        {"content": []},
        {"content": [{"token": "maybe", "logprob": -0.1}]},
        *map(_nonsense, [None, "0", float("nan"), float("inf"), 0.5, True, [], {}, 10**400]),
        {"content": [{"token": "yes", "logprob": 0.0, "top_logprobs": [{"token": "no", "logprob": 0.0}]}]},
        {"content": [{"token": "yes", "logprob": -1.0, "top_logprobs": [{"token": "no", "logprob": None}]}]},
        {"tokens": ["yes"], "token_logprobs": [-0.1, -0.1]},
        {"tokens": ["yes"], "token_logprobs": [-0.1], "top_logprobs": [{}, {}]},
    ],
)
def test_what_is_no_probability_is_none(told: object) -> None:
    sampling = sampling_of(["yes", "no"])
    assert Certainty(sampling, structured_outputs(sampling)).of({"logprobs": told}, "yes", "yes") is None


def test_a_token_without_end_costs_no_more_than_reading_it() -> None:
    endless = "yes" + "a" * 3_000_000
    content = [{"token": "yes", "logprob": -2.0, "top_logprobs": [{"token": endless, "logprob": -2.0}] * 3}]
    sampling = sampling_of(["yes", "no"])
    certainty = Certainty(sampling, structured_outputs(sampling))
    assert certainty.of({"logprobs": {"content": content}}, "yes", "yes") is None


def test_few_alternatives_are_asked_for_where_few_tell_all() -> None:
    assert alternatives(sampling_of(["yes", "no"]), 20) == 5
    assert alternatives(sampling_of([f"label {i}" for i in range(7)]), 20) == 14
    assert alternatives(sampling_of([f"label {i}" for i in range(70)]), 20) == 20
    assert alternatives(sampling_of(["a" * 50, "b"] + [f"label {i}" for i in range(70)]), 20) == 5
    assert alternatives(Sampling(16, 0.0, "", pattern="x", confidence=True), 20) == 20
    assert alternatives(sampling_of(["yes", "no"]), 0) == 0
