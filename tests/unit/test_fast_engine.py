"""The model of a fast engine: examples that are computed by hand, and what must hold of whatever is sent."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pg_bridge.testing.fast_engine import FastEngine, Prompt, Request
from pg_bridge.testing.speeds import SPEEDS, EngineSpeed

SIMPLE = EngineSpeed(tokens_per_s=10, step_s=1.0, sequence_s=0.0, render_s=1.0, answer_tokens=1)
UNLIKE = count(1)


def prompt(tokens: int, shared: int = 0) -> Prompt:
    """A prompt whose first tokens are everybody's, in blocks of 16."""
    own = next(UNLIKE)
    return Prompt.of([0] * shared + [own] * (tokens - shared), 16)


def run_out(engine: FastEngine) -> list[Request]:
    """Let all that came be answered."""
    done = []
    while (next_s := engine.next_event_s()) is not None:
        done += engine.advance(next_s)
    return done


def test_requests_that_come_together_are_rendered_in_turns_and_begin_late() -> None:
    engine = FastEngine(SIMPLE)
    first = engine.submit(0.0, [prompt(10), prompt(10)])
    second = engine.submit(0.0, [prompt(10), prompt(10)])
    assert engine.advance(2.5) == []
    assert (first.rendered, second.rendered, engine.running, engine.unrendered) == (1, 1, 0, 2)
    # The first is rendered at 3 and begins at once: 1 s for the step and 2 s for its tokens; the second waits for it.
    engine.advance(4.5)
    assert (engine.running, engine.waiting) == (1, 3)  # a step takes what has come when it begins
    assert run_out(engine) == [first, second]
    assert (first.done_s, second.done_s) == (9.0, 9.0)  # 3 to 5: one prompt; 5 to 9: the three others
    assert engine.busy_s == pytest.approx(6.0)


def test_two_servers_render_beside_each_other() -> None:
    engine = FastEngine(replace(SIMPLE, api_servers=2, tokens_per_s=1e9, step_s=0.0))
    engine.submit(0.0, [prompt(10), prompt(10)], server=engine.least_busy_server())
    engine.submit(0.0, [prompt(10), prompt(10)], server=engine.least_busy_server())
    assert [request.done_s for request in run_out(engine)] == pytest.approx([2.0, 2.0])


def test_what_an_earlier_prompt_of_the_same_step_has_is_not_computed_again() -> None:
    engine = FastEngine(replace(SIMPLE, render_s=0.0))
    request = engine.submit(0.0, [prompt(50, 48), prompt(40, 32)])
    engine.advance(0.0)
    run_out(engine)
    assert request.cached_tokens == [0, 32]
    assert (engine.computed_tokens, engine.queried_tokens, engine.hit_tokens) == (58, 90, 32)


def test_a_step_has_so_many_tokens_and_cuts_a_prompt() -> None:
    engine = FastEngine(replace(SIMPLE, max_num_batched_tokens=25, render_s=0.0))
    request = engine.submit(0.0, [prompt(60)])
    run_out(engine)
    assert engine.steps == 3
    assert request.done_s == pytest.approx(3 + 6.0)


def test_no_more_sequences_run_than_there_are_places_and_blocks() -> None:
    few = FastEngine(replace(SIMPLE, max_num_seqs=2, render_s=0.0))
    few.submit(0.0, [prompt(10) for _ in range(5)])
    few.advance(0.0)
    assert (few.running, few.waiting) == (1, 4)
    few.advance(2.0)
    assert (few.running, few.waiting) == (2, 2)
    tight = FastEngine(replace(SIMPLE, cache_blocks=3, render_s=0.0))
    tight.submit(0.0, [prompt(20) for _ in range(3)])
    tight.advance(3.0)
    assert (tight.running, tight.waiting) == (1, 1)  # each takes two blocks


def test_an_answer_takes_a_step_for_each_of_its_tokens() -> None:
    engine = FastEngine(replace(SIMPLE, answer_tokens=4, render_s=0.0))
    request = engine.submit(0.0, [prompt(10)])
    run_out(engine)
    assert request.done_s == pytest.approx(1 + 1 + 3)
    times = engine.times
    assert (times.prompts, times.queue_s, times.prefill_s, times.decode_s) == (1, 0.0, 2.0, 3.0)


def test_what_is_aborted_is_rendered_and_computed_no_more() -> None:
    engine = FastEngine(SIMPLE)
    gone = engine.submit(0.0, [prompt(100) for _ in range(5)])
    stays = engine.submit(0.0, [prompt(10)])
    engine.abort(0.5, gone)
    assert run_out(engine) == [stays]
    assert stays.done_s == pytest.approx(2.0 + 2.0)  # the prompt that was being rendered is ended
    assert (engine.unrendered, engine.running, engine.waiting) == (0, 0, 0)
    assert engine.computed_tokens == 10


def test_what_is_aborted_in_a_step_leaves_at_its_end() -> None:
    engine = FastEngine(replace(SIMPLE, answer_tokens=100))
    gone = engine.submit(0.0, [prompt(10)])
    engine.advance(1.5)
    assert engine.running == 1
    engine.abort(1.5, gone)
    assert run_out(engine) == []
    assert (engine.running, engine.busy_s) == (0, 2.0)


def test_ranks_share_prompts_and_a_request_may_name_one() -> None:
    engine = FastEngine(replace(SIMPLE, ranks=2, render_s=0.0))
    engine.submit(0.0, [prompt(10) for _ in range(4)])
    assert [request.done_s for request in run_out(engine)] == [4.0]  # each: one prompt, then the other
    pinned = FastEngine(replace(SIMPLE, ranks=2, render_s=0.0))
    pinned.submit(0.0, [prompt(10) for _ in range(4)], rank=1)
    assert [request.done_s for request in run_out(pinned)] == [6.0]
    assert pinned.busy_s == pytest.approx(3.0)  # of one of two


def test_time_does_not_go_back() -> None:
    engine = FastEngine(SIMPLE)
    engine.advance(1.0)
    with pytest.raises(ValueError, match="time goes back"):
        engine.submit(0.5, [prompt(1)])
    with pytest.raises(ValueError, match="one prompt at least"):
        engine.submit(1.0, [])


@pytest.mark.parametrize("wrong", [{"tokens_per_s": 0}, {"api_servers": 0}, {"render_s": -1.0}])
def test_a_speed_that_is_none_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(SIMPLE, **wrong)


SENT = st.lists(
    st.tuples(st.floats(0, 3), st.lists(st.integers(1, 300), min_size=1, max_size=8), st.booleans()),
    min_size=1,
    max_size=12,
)


@given(SENT, st.sampled_from(sorted(SPEEDS)), st.integers(1, 3))
def test_every_prompt_is_answered_once_and_time_is_work_or_none(
    sent: list[tuple[float, list[int], bool]], name: str, servers: int
) -> None:
    engine = FastEngine(replace(SPEEDS[name], api_servers=servers, cache_blocks=60, max_num_seqs=3))
    done, requests, now_s = [], [], 0.0
    for pause_s, lengths, aborted in sent:
        now_s += pause_s
        done += engine.advance(now_s)
        requests.append(engine.submit(now_s, [prompt(each) for each in lengths], server=engine.least_busy_server()))
        if aborted:
            engine.abort(now_s, requests[-1])
    done += run_out(engine)
    kept = [request for request, (_, _, aborted) in zip(requests, sent, strict=True) if not aborted]
    assert sorted(map(id, done)) == sorted(map(id, kept))
    assert all(len(request.prompts) == request.rendered == request.computed for request in kept)
    assert engine.times.prompts == sum(len(request.prompts) for request in kept)
    assert (engine.running, engine.waiting, engine.unrendered) == (0, 0, 0)
    assert engine.computed_tokens >= sum(p.tokens for request in kept for p in request.prompts) - engine.hit_tokens
    span_s = max([request.done_s or 0.0 for request in kept], default=0.0)
    assert engine.busy_s <= span_s + 1e-9 or len(kept) < len(requests)


@given(SENT)
def test_looking_changes_nothing(sent: list[tuple[float, list[int], bool]]) -> None:
    """The same requests end at the same moments, whether or not anybody looked in between."""
    ends = []
    for looks in (1, 7):
        engine = FastEngine(replace(SIMPLE, cache_blocks=40))
        now_s, requests = 0.0, []
        for pause_s, lengths, _ in sent:
            for _ in range(looks):
                engine.advance(now_s)
            requests.append(engine.submit(now_s, [Prompt.of([each] * each, 16) for each in lengths]))
            now_s += pause_s
        run_out(engine)
        ends.append([request.done_s for request in requests])
    assert ends[0] == ends[1]
