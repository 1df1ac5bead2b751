"""Where prompts were is the engine's word or None, and what is in flight is counted."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pg_bridge.asking.run import Averages, Run
from pg_bridge.engine import Sampling, Usage
from pg_bridge.engine.metrics import Counters, Tally, read_counters
from pg_bridge.engine.payload import Payload, Tokens
from pg_bridge.engine.records import Stages
from pg_bridge.engine.stages import StageCounters, Traffic

NOTHING = Tokens(None, None, None)
METRICS = {"queue_time_ms": 1.5, "time_to_first_token_ms": 20, "generation_time_ms": 0.5, "mean_itl_ms": None}


def page(*engines: tuple[int, float, float, float]) -> str:
    lines = ["# TYPE vllm:request_queue_time_seconds histogram"]
    for engine, (prompts, *seconds) in enumerate(engines):
        labels = f'engine="{engine}",model_name="a {{b}}"'
        for stage, spent in zip(("queue", "prefill", "decode"), seconds, strict=True):
            name = f"vllm:request_{stage}_time_seconds"
            lines += [
                f'{name}_bucket{{{labels},le="0.3"}} 1.0',
                f"{name}_count{{{labels}}} {float(prompts)}",
                f"{name}_sum{{{labels}}} {spent}",
                f"{name}_created{{{labels}}} 1.7e+09",
            ]
    return "\n".join(lines) + "\n"


def counted(prompts: int, *seconds: float) -> Counters:
    return read_counters(page((prompts, *seconds)))  # type: ignore[arg-type]


# -- reading


def test_histograms_of_several_engines_are_summed() -> None:
    found = read_counters(page((3, 1e-05, 2.0, 0.5), (4, 0.25, 1.0, 0.5)))
    assert found == Counters(None, StageCounters(7, Stages(0.25001, 3.0, 1.0)))


@pytest.mark.parametrize(
    ("sample", "other"),
    [
        ("queue_time_seconds_count", "queue_time_seconds_cnt"),
        ("decode_time_seconds_sum", "decode_time_seconds_total"),
        ("3.0", "nan"),
        ("0.75", "-0.75"),
        ("0.75", "1e999"),
        ("0.75", "1-1"),
    ],
)
def test_a_page_that_lacks_something_or_has_no_number_tells_nothing(sample: str, other: str) -> None:
    told = page((3, 0.75, 2.0, 0.5))
    assert read_counters(told).stages == StageCounters(3, Stages(0.75, 2.0, 0.5))
    assert read_counters(told.replace(sample, other, 1)).stages is None


def test_a_histogram_of_more_prompts_than_the_others_is_read_too_early() -> None:
    told = page((3, 0.75, 2.0, 0.5))
    more = told.replace("prefill_time_seconds_count", "prefill_time_seconds_count 1.0\n# ", 1)
    assert read_counters(more).stages is None


def _answer(**told: object) -> bytes:
    choice = {"index": 0, "message": {"content": "yes"}}
    return json.dumps({"choices": [choice], **told}).encode()


def parsed(**told: object) -> Stages | None:
    return Payload("chat", "m", Sampling(8, 0.0, "")).parse(_answer(**told), 1)[1].stages


def test_an_answer_tells_where_its_prompt_was() -> None:
    assert parsed(metrics=METRICS) == Stages(0.0015, 0.02, 0.0005)
    assert parsed(metrics=METRICS, usage={"prompt_tokens": 5, "completion_tokens": 1}) == Stages(0.0015, 0.02, 0.0005)


NO_TIMES: tuple[object, ...] = (None, -1, "1", True, [], 1e300, 10**400, float("inf"), float("nan"))


@pytest.mark.parametrize("metrics", [None, [], "x", {}, *(METRICS | {"queue_time_ms": each} for each in NO_TIMES)])
def test_an_answer_with_other_metrics_tells_nothing(metrics: object) -> None:
    assert parsed(metrics=metrics) is None


def test_an_answer_to_several_prompts_tells_nothing() -> None:
    choices = [{"index": i, "message": {"content": "yes"}} for i in range(2)]
    body = json.dumps({"choices": choices, "metrics": METRICS}).encode()
    assert Payload("chat", "m", Sampling(8, 0.0, "")).parse(body, 2)[1].stages is None


# -- adding up


def test_answers_that_all_tell_add_up() -> None:
    usage = Usage()
    tally = Tally(usage)
    tally.begin(None)
    for _ in range(2):
        tally.add(1, replace(NOTHING, stages=Stages(0.25, 0.5, 0.125)), 1.0, 0.0)
    assert usage.stages == Stages(0.5, 1.0, 0.25)
    assert (usage.answered, usage.flight_s) == (2, 2.0)
    tally.add(1, NOTHING, 1.0, 0.0)
    assert usage.stages is None
    assert not tally.wants_counters


def test_an_answer_that_was_longer_with_the_engine_than_in_flight_is_not_believed() -> None:
    usage = Usage()
    tally = Tally(usage)
    tally.begin(None)
    tally.add(1, replace(NOTHING, stages=Stages(0.25, 0.5, 0.5)), 1.0, 0.0)
    assert usage.stages is None


def stretch(usage: Usage, before: Counters, after: Counters, *, prompts: int = 10, took_s: float = 1.0) -> bool:
    tally = Tally(usage)
    tally.begin(before)
    tally.add(prompts, NOTHING, took_s, 0.0)
    return tally.wants_counters and tally.settle(after)


def test_histograms_that_moved_by_exactly_these_prompts_are_believed() -> None:
    usage = Usage()
    assert stretch(usage, counted(5, 1.0, 2.0, 3.0), counted(15, 2.0, 4.0, 6.0))
    assert usage.stages == Stages(1.0, 2.0, 3.0)
    assert stretch(usage, counted(50, 5.0, 5.0, 5.0), counted(60, 5.0, 5.0, 6.0))
    assert usage.stages == Stages(1.0, 2.0, 4.0)  # what was known before counts in


@pytest.mark.parametrize(
    "after",
    [
        pytest.param(counted(14, 2.0, 4.0, 6.0), id="not all yet"),
        pytest.param(counted(16, 2.0, 4.0, 6.0), id="somebody else, too"),
        pytest.param(counted(10, 0.5, 1.0, 1.0), id="begun anew"),
        pytest.param(counted(15, 0.5, 4.0, 6.0), id="less than before"),
        pytest.param(counted(15, 2.0, 14.0, 6.0), id="more than there was"),
        pytest.param(Counters(), id="none"),
    ],
)
def test_other_histograms_are_not(after: Counters) -> None:
    usage = Usage()
    assert not stretch(usage, counted(5, 1.0, 2.0, 3.0), after)
    assert usage.stages is None
    assert not stretch(usage, counted(5, 1.0, 2.0, 3.0), counted(15, 2.0, 4.0, 6.0), took_s=0.5)
    assert usage.stages is None


def test_what_one_run_is_not_told_is_not_known_of_both() -> None:
    usage = Usage(queue_s=1.0, prefill_s=1.0, decode_s=1.0)
    usage.add(Usage(queue_s=None, prefill_s=None, decode_s=None))
    assert usage.stages is None


def test_what_is_in_flight_is_counted_while_anything_is() -> None:
    usage = Usage()
    traffic = Traffic(usage)
    for now_s, more in ((10.0, 4), (11.0, 4), (13.0, -8), (100.0, 1), (102.0, -1)):
        traffic.change(more, now_s)
    assert (usage.busy_s, usage.prompt_s, traffic.in_flight) == (5.0, 4.0 + 16.0 + 2.0, 0)


# -- averages


def test_the_parts_of_an_average_prompt_add_up() -> None:
    usage = Usage(answered=10, flight_s=20.0, unread_s=1.0, queue_s=2.0, prefill_s=3.0, decode_s=4.0)
    usage.busy_s, usage.prompt_s = 5.0, 20.0
    assert Averages.of(usage) == Averages(4.0, 2000.0, 100.0, 1000.0, 200.0, 300.0, 400.0)
    parts = "unread 100.000, front end 1000.000, queue 200.000, prefill 300.000, decode 400.000"
    assert list(Averages.of(usage).lines()) == [
        ("Prompts in Flight", "4.0"),
        ("Time in Flight", f"2000.000 ms ({parts})"),
    ]


def test_an_answer_was_not_unread_while_the_engine_worked_on_it() -> None:
    usage = Usage(answered=1, flight_s=2.0, unread_s=2.0, queue_s=0.0, prefill_s=0.5, decode_s=0.5, busy_s=2.0)
    found = Averages.of(usage)
    assert (found.unread_ms, found.front_ms) == (1000.0, 0.0)


def test_where_the_engine_does_not_tell_the_rest_is_known() -> None:
    usage = Usage(answered=2, flight_s=2.0, unread_s=0.5, queue_s=None, busy_s=1.0, prompt_s=2.0)
    assert Averages.of(usage) == Averages(2.0, 1000.0, 250.0)
    assert dict(Averages.of(usage).lines())["Time in Flight"] == "1000.000 ms (unread 250.000)"


def test_a_run_that_asked_nothing_has_no_averages() -> None:
    assert Averages.of(Usage()) == Averages()
    assert not list(Averages().lines())
    assert Run().as_dict()["in_flight"] is None


def test_seconds_on_the_engine_are_work_and_waiting() -> None:
    told = Run(usage=Usage(wait_s=3.0, idle_s=2.0)).as_dict()
    assert (told["http_s"], told["wait_s"]) == (1.0, 2.0)
