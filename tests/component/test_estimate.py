"""What an estimate foretells is what an engine then counts; nothing is asked of its model."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
import pytest

from pg_bridge.asking.books import Books
from pg_bridge.asking.counting import Engineering, Estimate
from pg_bridge.asking.estimate import estimate
from pg_bridge.asking.gauge import SAMPLED_PROMPTS
from pg_bridge.asking.inquiry import Ask, Inquiry
from pg_bridge.asking.run import Run
from pg_bridge.asking.seen import Seen
from pg_bridge.asking.streamed import Fetch, ask
from pg_bridge.engine import Engine, EngineFacts, EngineTokenizer, survey
from pg_bridge.errors import EngineDenied, EngineUnreachable, UnknownColumn
from pg_bridge.options import Call, Server
from pg_bridge.testing.double import EngineDouble

QUESTION = "Is what is said of the film kind? Look at who made it as well, and at when it was shown for the first time."
COLUMNS = ("film", "maker", "review", "id")
WORDS = """
the a slow good story of one long night small town train music fine ending great actors house river
"""


def words(chance: random.Random, count: int) -> str:
    return " ".join(chance.choices(WORDS.split(), k=count))


def make_rows(count: int, seed: int = 7) -> list[str]:
    """Reviews of few films: what prompts begin with repeats, what they end with does not."""
    chance = random.Random(seed)
    films = [(words(chance, 25 + number % 31), words(chance, 12)) for number in range(max(1, count // 10))]
    return [
        json.dumps(dict(zip(COLUMNS, (*chance.choice(films), words(chance, 10 + number % 9), number), strict=True)))
        for number in range(count)
    ]


def fetch_from(rows: Sequence[str | None]) -> Fetch:
    rest = iter(rows)
    return lambda count: [row for _, row in zip(range(count), rest, strict=False)]


class Known(Books):
    """Books that know the answers about some rows, by their digests."""

    def __init__(self, engine: Engine, knows: Callable[[bytes], bool] = lambda _: False) -> None:
        super().__init__(None, engine, Run())
        self._knows = knows

    def recall(self, inquiry: Inquiry, keys: Iterable[bytes]) -> None:
        inquiry.outcomes |= {key: ("known", None) for key in keys if self._knows(key)}


def of_words(text: str) -> np.ndarray:
    """Tokens of uneven length: a word each, long ones in two, and every sign."""
    tokens: list[int] = []
    for word in text.replace('"', ' " ').split():
        tokens += [hash((word, part)) & 0xFFFFFF for part in range(1 + len(word) // 6)]
    return np.array(tokens, np.int64)


def foresee(
    rows: Sequence[str | None],
    server: Server,
    call: Call | None = None,
    *,
    prompt: str = QUESTION,
    knows: Callable[[bytes], bool] = lambda _: False,
    seen: Seen | None = None,
    every_row: bool = True,
    work: Callable[[], None] = lambda: None,
) -> Estimate:
    call = call or Call()
    with Engine(server) as engine:
        facts = Engineering(
            server, lambda: survey(engine, server), partial(EngineTokenizer, engine, server), seen or Seen()
        )
        return estimate(
            fetch_from(rows), COLUMNS, [Ask(prompt, call)], facts, Known(engine, knows), every_row=every_row, work=work
        )


def run(rows: Sequence[str | None], server: Server, call: Call | None = None, *, every_row: bool = True) -> Run:
    done = Run()
    for _ in ask(fetch_from(rows), COLUMNS, QUESTION, call or Call(), Engine(server), done, every_row=every_row):
        pass
    return done


def of(double: EngineDouble, **options: str) -> Server:
    return Server.from_options("s", {"endpoint": double.url, "model": "double", **options})


@pytest.mark.some(3)
@pytest.mark.parametrize("every_row", [True, False])
@pytest.mark.parametrize("api", ["chat", "completions"])
@pytest.mark.parametrize("tokenizer", [None, of_words])
@pytest.mark.parametrize("count", [300, 1500])
def test_what_is_foretold_is_what_is_counted(
    count: int, tokenizer: Callable[[str], np.ndarray] | None, api: str, every_row: bool
) -> None:
    rows = make_rows(count)
    with EngineDouble(tokenizer=tokenizer) as double:
        foretold = foresee(rows, of(double, api=api), every_row=every_row)
        assert double.received.requests == []  # of its model nothing was asked
        assert double.received.tokenized <= SAMPLED_PROMPTS + len(COLUMNS) + 2
        done = run(rows, of(double, api=api), every_row=every_row)
    assert (foretold.rows, foretold.unique_prompts, foretold.already_answered) == (count, done.unique_prompts, 0)
    assert foretold.counted_by == "by_tokenizer"
    assert foretold.prompt_tokens == pytest.approx(done.usage.prompt_tokens, rel=0.01)
    assert foretold.cached_tokens == pytest.approx(done.usage.cached_tokens, rel=0.05)
    assert done.usage.cached_tokens
    assert done.usage.cached_tokens > done.usage.prompt_tokens / 3  # type: ignore[operator]  # else nothing is shown


def test_without_a_tokenizer_characters_are_counted_and_it_says_so() -> None:
    rows = make_rows(200)
    with EngineDouble(tokenize=False) as double:
        foretold = foresee(rows, of(double))
        done = run(rows, of(double))
    assert foretold.counted_by == "by_characters"
    assert foretold.prompt_tokens == pytest.approx(done.usage.prompt_tokens, rel=0.1)
    assert foretold.cached_tokens == pytest.approx(done.usage.cached_tokens, rel=0.15)


def test_whole_prompts_set_right_what_cells_alone_have_shown() -> None:
    def of_context(text: str) -> np.ndarray:
        return np.repeat(of_words(text), 2 if "<user>" in text else 1)

    rows = make_rows(400)
    with EngineDouble(tokenizer=of_context) as double:
        foretold, done = foresee(rows, of(double)), run(rows, of(double))
    assert foretold.prompt_tokens == pytest.approx(done.usage.prompt_tokens, rel=0.01)
    assert foretold.cached_tokens == pytest.approx(done.usage.cached_tokens, rel=0.05)


@pytest.mark.parametrize("size", [16, 32, 128])
def test_the_cache_is_the_engines(size: int) -> None:
    rows = make_rows(400)
    with EngineDouble(block_size=size) as double:
        foretold, done = foresee(rows, of(double)), run(rows, of(double))
    assert foretold.cached_tokens == pytest.approx(done.usage.cached_tokens, rel=0.05)
    assert foretold.cached_tokens % size == 0


def test_a_cache_without_room_holds_little() -> None:
    rows = make_rows(400)
    call = Call(reorder="none")
    with EngineDouble(cache_blocks=200) as double:
        server = of(double, max_in_flight="8")
        foretold, done = foresee(rows, server, call), run(rows, server, call)
        assert done.usage.cached_tokens
        assert foretold.cached_tokens == pytest.approx(done.usage.cached_tokens, rel=0.1)
    with EngineDouble() as double:
        assert foresee(rows, of(double), call).cached_tokens > 1.2 * foretold.cached_tokens


def test_an_engine_that_tells_nothing_of_its_cache_has_vllms_usual_one() -> None:
    with EngineDouble(metrics=False) as double, Engine(of(double)) as engine:
        assert survey(engine, of(double)) == EngineFacts(16, 65_536, 8, tells=False)


@pytest.mark.parametrize(
    ("batches", "in_flight", "requests"), [(True, "1024", 25), (True, "8", 101), (False, "1024", 200)]
)
def test_requests(batches: bool, in_flight: str, requests: int) -> None:
    rows = make_rows(200)
    with EngineDouble(batch_endpoint=batches) as double:
        foretold = foresee(rows, of(double, max_in_flight=in_flight))
        done = run(rows, of(double, max_in_flight=in_flight))
    assert abs(foretold.requests - done.usage.requests) <= 2 + (not batches) * 8  # which show that there is none
    assert abs(foretold.requests - requests) <= 4


def test_rows_that_are_equal_are_one_question_unless_they_are_not() -> None:
    rows = make_rows(100) * 3
    with EngineDouble() as double:
        assert foresee(rows, of(double)).unique_prompts == 100
        assert foresee(rows, of(double), every_row=False).unique_prompts == 100  # in windows of few rows
        every = foresee(rows, of(double), Call(dedup=False))
        assert (every.rows, every.unique_prompts) == (300, 300)


def test_what_is_answered_is_not_asked() -> None:
    rows = make_rows(400)
    with EngineDouble() as double:
        whole, rest = foresee(rows, of(double)), foresee(rows, of(double), knows=lambda key: bool(key[0] % 2))
        assert 100 < rest.already_answered < 300
        assert rest.unique_prompts == whole.unique_prompts == 400
        share = 1 - rest.already_answered / 400
        assert rest.prompt_tokens == pytest.approx(share * whole.prompt_tokens, rel=0.05)
        received = double.received.tokenized
        none = foresee(rows, of(double), knows=lambda _: True)
        assert double.received.tokenized == received  # nothing is to be counted
    assert (none.already_answered, none.requests, none.prompt_tokens, none.cached_tokens) == (400, 0, 0, 0)
    assert (none.seconds, none.counted_by) == (0.0, None)


def test_no_rows() -> None:
    none = foresee([], Server("s", "http://127.0.0.1:9", price_prompt=1.0))  # where nobody listens
    assert none == Estimate(seconds=0.0, cost=0.0)


def test_null_rows_and_no_columns() -> None:
    with EngineDouble() as double:
        assert foresee([None, None], of(double)).unique_prompts == 1
        with Engine(of(double)) as engine:
            facts = Engineering(of(double), EngineFacts, partial(EngineTokenizer, engine, of(double)))
            rows: Fetch = fetch_from(["{}", "{}"])
            one = estimate(rows, (), [Ask("Well?", Call())], facts, Known(engine), every_row=True, work=lambda: None)
    assert (one.unique_prompts, one.requests, one.counted_by) == (1, 1, "by_tokenizer")
    assert one.prompt_tokens > 0


def test_time_and_cost() -> None:
    rows = make_rows(100)
    with EngineDouble() as double:
        server = of(double, price_prompt="2", price_cached="0.5", price_completion="8")
        unseen = foresee(rows, server, Call(max_tokens=10))
        seen = foresee(rows, server, Call(max_tokens=10), seen=Seen(5000, 2.0, 50, 150))
        chosen = foresee(rows, server, Call(choices=("yes", "no")))
        free = foresee(rows, of(double))
    computed = unseen.prompt_tokens - unseen.cached_tokens
    assert (unseen.seconds, unseen.completion_tokens, unseen.answers_by) == (None, 1000, "at_most")
    assert unseen.cost == pytest.approx((2 * computed + 0.5 * unseen.cached_tokens + 8 * 1000) / 1e6)
    assert seen.seconds == pytest.approx(computed / 2500)
    assert (seen.completion_tokens, seen.answers_by) == (300, "as_seen")
    assert seen.cost == pytest.approx((2 * computed + 0.5 * seen.cached_tokens + 8 * 300) / 1e6)
    assert (chosen.completion_tokens, chosen.answers_by) == (400, "at_most")  # not 128 a row
    assert free.cost is None


def test_it_is_the_same_every_time() -> None:
    rows = make_rows(700)
    with EngineDouble(tokenizer=of_words) as double:
        assert foresee(rows, of(double)) == foresee(rows, of(double))


def test_errors_are_those_of_a_run() -> None:
    rows = make_rows(3)
    with EngineDouble(api_key="sesame") as double, pytest.raises(EngineDenied):
        foresee(rows, of(double))
    with pytest.raises(EngineUnreachable):
        foresee(rows, Server("s", "http://127.0.0.1:9", connect_timeout_s=0.1))
    with EngineDouble() as double, pytest.raises(UnknownColumn):
        foresee(rows, of(double), prompt="Is {nobody} there?")


def test_it_can_be_ended() -> None:
    class Enough(Exception):
        pass

    calls = 0

    def work() -> None:
        nonlocal calls
        calls += 1
        if calls > 5:
            raise Enough

    with EngineDouble() as double, pytest.raises(Enough):
        foresee(make_rows(3000), of(double), work=work)


@pytest.mark.parametrize(
    "wrong", ["", "[]", "{}", '{"count": 1, "tokens": []}', '{"count": 1, "tokens": ["a"]}', "nul"]
)
def test_a_tokenizer_that_talks_nonsense_is_none(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pg_bridge.testing.wire.tokenized", lambda *_: wrong)
    with EngineDouble() as double:
        assert foresee(make_rows(5), of(double)).counted_by == "by_characters"
