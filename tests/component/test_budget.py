"""Budgets without PostgreSQL: nothing is sent that is not allowed, and what was answered is kept."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pg_bridge.asking.budget import Asked, Budget
from pg_bridge.asking.calls import Calls
from pg_bridge.asking.inquiry import Ask, Outcome
from pg_bridge.asking.memory import Memory
from pg_bridge.asking.run import Run
from pg_bridge.asking.streamed import Answer, Fetch, ask
from pg_bridge.asking.together import Round, answer_columns
from pg_bridge.engine import Completion, Engine
from pg_bridge.errors import BudgetExceeded, OptionError
from pg_bridge.ledger.account import Account, Asker, Ledger
from pg_bridge.ledger.progress import Job, Owner
from pg_bridge.ledger.spending import Spending
from pg_bridge.options import Call, Server
from pg_bridge.rows.table import Table
from pg_bridge.testing.double import EngineDouble

ROWS = [json.dumps({"review": f"review number {i}"}) for i in range(100)]


@pytest.fixture
def double() -> Iterator[EngineDouble]:
    with EngineDouble() as running:
        yield running


class Desk:
    """Statements of one role, with a ledger of their own."""

    def __init__(self, folder: Path, double: EngineDouble) -> None:
        self.ledger = Ledger(folder, 1 << 30)
        self.double = double

    def account(self, spending: Spending | None = None, *, role: int = 1, **options: Any) -> Account:
        server = Server("s", self.double.url, owner=1, **({"max_in_flight": 8} | options))
        return Account(self.ledger, Asker("d", role, 1), server, lambda *_: None, _job(self.ledger), spending)

    def map(
        self, call: Call, account: Account, *, rows: list[str] = ROWS, every_row: bool = True, prompt: str = "{review}?"
    ) -> list[Answer]:
        return list(
            ask(
                _fetch(rows),
                ["review"],
                prompt,
                call,
                Engine(account.server),
                Run(),
                every_row=every_row,
                account=account,
            )
        )

    def batch(self, call: Call, account: Account, memory: Memory | None = None) -> list[str | None]:
        memory = memory or Memory()
        calls = Calls(memory, lambda _: Round(memory, 1, Engine(account.server), account))
        half = len(ROWS) // 2
        for rows in (ROWS[:half], ROWS[half:]):
            calls.add(["{review}?"] * half, rows, {call: list(range(half))})
            calls.ask_ahead()
        try:
            return calls.take()
        finally:
            calls.close()

    @property
    def asked(self) -> int:
        return len(self.double.received.prompts)


def _job(ledger: Ledger) -> Job:
    return Job(ledger.running, Owner(1, "r", "d", "s"))


def _ask_columns(asks: list[Ask], table: Table, account: Account) -> list[list[Outcome]]:
    memory = Memory()
    return answer_columns(memory, asks, table, Round(memory, 1, Engine(account.server), account))


def _fetch(rows: list[str]) -> Fetch:
    left = list(rows)

    def fetch(count: int) -> list[str | None]:
        taken, left[:] = left[:count], left[count:]
        return list(taken)

    return fetch


@pytest.fixture
def desk(tmp_path: Path, double: EngineDouble) -> Desk:
    return Desk(tmp_path, double)


# -- before anything is sent


@pytest.mark.parametrize(
    ("limit", "figures"),
    [
        ({"max_requests": 99}, "100 prompts"),
        ({"max_completion_tokens": 99}, "100 completion tokens"),
        ({"max_prompt_tokens": 2000}, "prompt tokens"),
    ],
)
def test_what_would_be_too_much_is_refused_before_the_first_prompt(
    desk: Desk, limit: dict[str, int], figures: str
) -> None:
    call = Call(**limit)  # type: ignore[arg-type]
    name, most = next(iter(limit.items()))
    for run in (desk.map, desk.batch):
        with pytest.raises(BudgetExceeded, match=f"would exceed its limit: {name} = {most}") as caught:
            run(call, desk.account())
        assert figures in caught.value.detail
        assert caught.value.hint.startswith("Nothing was sent.")
        assert caught.value.sqlstate == "53400"
    assert desk.asked == 0


def test_a_cost_is_foreseen_as_if_all_of_it_came_from_the_cache(desk: Desk) -> None:
    prices: dict[str, Any] = {"price_prompt": 1e9, "price_cached": 1e6, "price_completion": 1e6}  # or one a token
    with pytest.raises(BudgetExceeded, match="would exceed its limit: max_cost = 2000") as caught:
        desk.map(Call(max_cost=2000), desk.account(**prices))
    assert "a cost of 36" in caught.value.detail
    assert desk.asked == 0
    rest = desk.map(Call(max_cost=10_000, on_budget="null"), desk.account(**prices))
    assert 1 <= sum(answer.output is not None for answer in rest) == desk.asked <= 8  # they were not from the cache


def test_what_just_fits_is_asked(desk: Desk) -> None:
    assert len(desk.map(Call(max_requests=100), desk.account(max_requests=100, daily_requests=100))) == 100
    tokens = desk.ledger.spent(_today(), "d", 1, "s")
    assert tokens.prompt_tokens > 1000
    exact = Call(cache="off", max_prompt_tokens=tokens.prompt_tokens, max_completion_tokens=tokens.completion_tokens)
    assert len(desk.map(exact, desk.account())) == 100
    assert len(desk.batch(exact, desk.account())) == 100


def test_many_rows_are_counted_before_some_go_ahead(desk: Desk) -> None:
    rows = [json.dumps({"review": f"r{i}"}) for i in range(5000)]
    with pytest.raises(BudgetExceeded, match="would exceed"):
        desk.map(Call(max_requests=4999), desk.account(max_in_flight=256), rows=rows)
    assert desk.asked == 0


def test_what_the_ledger_knows_costs_nothing(desk: Desk) -> None:
    desk.map(Call(), desk.account(), rows=ROWS[:60])
    with pytest.raises(BudgetExceeded, match="would exceed"):
        desk.map(Call(max_requests=39), desk.account())
    assert len(desk.map(Call(max_requests=40), desk.account())) == 100
    assert len(desk.map(Call(max_requests=0), desk.account())) == 100
    assert desk.asked == 100


# -- on the way


@pytest.mark.parametrize("every_row", [True, False])
def test_it_sends_no_more_than_is_allowed_and_the_rest_is_null(desk: Desk, every_row: bool) -> None:
    answers = desk.map(Call(max_requests=17, on_budget="null"), desk.account(), every_row=every_row)
    assert sorted(answer.row_id for answer in answers) == list(range(1, 101))
    unasked = [answer for answer in answers if answer.output is None]
    assert (desk.asked, len(unasked)) == (17, 83)
    assert {answer.error for answer in unasked} == {"not asked: the statement has reached its limit: max_requests = 17"}
    for answer in answers:
        assert (answer.error is None) == (answer.output is not None)
        sent = any(json.loads(answer.input or "")["review"] + '"' in prompt for prompt in desk.double.received.prompts)
        assert sent == (answer.output is not None)


def test_a_batch_has_nulls_too(desk: Desk) -> None:
    answers = desk.batch(Call(max_requests=17, on_budget="null"), desk.account())
    assert (desk.asked, sum(answer is None for answer in answers)) == (17, 83)


def test_calls_of_one_statement_with_the_same_options_are_one(desk: Desk) -> None:
    spending, call = Spending(), Call(max_requests=17, on_budget="null")
    desk.batch(call, desk.account(spending), Memory())
    again = desk.batch(Call(max_requests=17, on_budget="null", cache="off"), desk.account(spending))
    assert (desk.asked, sum(answer is None for answer in again)) == (34, 83)  # another option, another call
    desk.map(call, desk.account(spending), prompt="Another {review}?")
    assert desk.asked == 34


@pytest.mark.some(2)
@pytest.mark.parametrize(("kind", "price"), [("prompt_tokens", None), ("completion_tokens", None), ("cost", 1e6)])
@pytest.mark.parametrize("how", ["map", "batch"])
def test_it_stops_when_answers_have_taken_too_much(desk: Desk, kind: str, price: float | None, how: str) -> None:
    whole = desk.ledger
    desk.map(Call(cache="off"), desk.account())
    figures = whole.spent(_today(), "d", 1, "s")
    tokens = figures.prompt_tokens if kind == "cost" else getattr(figures, kind)
    each, limit, asked = tokens / 100, tokens / 4, desk.asked
    call = Call(on_budget="null", **{f"max_{kind}": float(limit) if kind == "cost" else int(limit)})  # type: ignore[arg-type]
    spending = Spending()
    getattr(desk, how)(call, desk.account(spending, price_prompt=price))
    # No more than what was in flight is beyond it, and it is nearly used up.
    assert limit - 2 * each <= getattr(spending.total, kind) <= limit + 8 * each
    assert 20 <= desk.asked - asked <= 25 + 8


def test_it_fails_when_all_that_was_sent_is_answered_and_goes_on_where_it_stopped(desk: Desk) -> None:
    seen: set[int] = set()
    errors: list[BudgetExceeded] = []
    while len(seen) < 100 and len(errors) < 50:
        account = desk.account(max_requests=9)
        answers = ask(_fetch(ROWS), ["review"], "{review}?", Call(), Engine(account.server), Run(), account=account)
        try:
            seen.update(answer.row_id for answer in answers)
        except BudgetExceeded as error:
            errors.append(error)
    assert len(errors) == 11
    for caught in errors:
        assert str(caught) == "the statement has reached its limit: the server's max_requests = 9"
        assert "So far it has taken 9 prompts" in caught.detail
        assert "is kept: run it again" in caught.hint
    assert desk.asked == len(set(desk.double.received.prompts)) == 100


def test_who_stops_early_gets_what_is_allowed(desk: Desk) -> None:
    account = desk.account()
    answers = ask(
        _fetch(ROWS), ["review"], "{review}?", Call(max_requests=9), Engine(account.server), Run(), account=account
    )
    assert all(next(answers).output for _ in range(9))
    with pytest.raises(BudgetExceeded):
        next(answers)


def test_seconds_count_from_the_first_prompt(desk: Desk) -> None:
    desk.double.behaviour.delay_s = 0.2
    answers = desk.map(Call(max_seconds=0.05, on_budget="null"), desk.account(max_in_flight=4))
    assert 1 <= desk.asked <= 4
    assert sum(answer.output is not None for answer in answers) == desk.asked
    with pytest.raises(BudgetExceeded, match=r"max_seconds = 0\.05"):
        desk.map(Call(max_seconds=0.05, cache="off"), desk.account(max_in_flight=4))


def test_an_engine_that_tells_no_tokens_is_counted_by_characters() -> None:
    call, run = Call(max_prompt_tokens=1000, system_prompt="1234", on_budget="null"), Run()
    budget = Budget(None, run)
    budget.expect([call])
    run.usage.prompt_tokens = run.usage.completion_tokens = None
    sent = 0
    while sent < 100 and budget.admits(call, sent, 96):
        budget.land([Completion(sent, "four", None)])
        sent += 1
    assert sent == 40
    assert budget.is_shut(call)


# -- whose it is


def test_the_lower_of_both_holds_and_the_server_s_holds_for_all_calls(desk: Desk) -> None:
    def unasked(call: Call, spending: Spending, prompt: str = "{review}?") -> int:
        answers = desk.map(call, desk.account(spending, max_requests=30), prompt=prompt)
        return sum(answer.output is None for answer in answers)

    spending = Spending()
    assert unasked(Call(max_requests=20, on_budget="null"), spending) == 80
    assert unasked(Call(max_requests=25, on_budget="null"), spending, "Other {review}?") == 90
    with pytest.raises(BudgetExceeded, match="the server's max_requests = 30"):
        unasked(Call(), spending, "Third {review}?")
    assert desk.asked == 30
    assert unasked(Call(max_requests=40, on_budget="null", cache="off"), Spending()) == 70


def test_columns_have_budgets_of_their_own_in_one_run(desk: Desk) -> None:
    asks = [
        Ask("{review}?", Call(max_requests=10, on_budget="null")),
        Ask("{review}!", Call(max_requests=20, on_budget="null")),
        Ask("Free {review}", Call()),
    ]
    account = desk.account()
    table = Table.from_json(ROWS, ["review"])
    columns = _ask_columns(asks, table, account)
    assert [sum(text is not None for text, _ in column) for column in columns] == [10, 20, 100]
    total = account.spending.total
    assert (total.requests, total.in_flight, total.in_flight_chars) == (130, 0, 0)
    parts = account.spending.calls.values()
    assert abs(sum(part.prompt_tokens for part in parts) - total.prompt_tokens) <= 130


def test_columns_are_foreseen_each_for_itself(desk: Desk) -> None:
    asks = [Ask("{review}?", Call(max_requests=100)), Ask("{review}!", Call(max_requests=150))]
    table, account = Table.from_json(ROWS, ["review"]), desk.account(max_requests=200)
    columns = _ask_columns(asks, table, account)
    assert all(text is not None for column in columns for text, _ in column)
    account = desk.account(max_requests=199, cache="off")
    with pytest.raises(BudgetExceeded, match="the server's max_requests = 199"):
        _ask_columns(asks, table, account)
    assert desk.asked == 200


def test_a_column_that_fails_the_statement_keeps_the_others_from_being_asked(desk: Desk) -> None:
    asks = [Ask("{review}?", Call(max_requests=10)), Ask("Free {review}", Call())]
    account = desk.account()
    with pytest.raises(BudgetExceeded):
        _ask_columns(asks, Table.from_json(ROWS, ["review"]), account)
    assert desk.asked == 0


def test_a_day_is_counted_over_statements_of_one_role(desk: Desk) -> None:
    daily: dict[str, Any] = {"daily_requests": 150}
    desk.map(Call(), desk.account(**daily))
    with pytest.raises(BudgetExceeded, match="would exceed its limit: today's daily_requests = 150") as caught:
        desk.map(Call(), desk.account(**daily), prompt="More {review}?")
    assert "taken" not in caught.value.detail  # of other statements nothing is told
    assert desk.asked == 100
    desk.map(Call(on_budget="null"), desk.account(**daily), prompt="More {review}?")
    assert desk.asked == 150
    desk.map(Call(on_budget="null"), desk.account(**daily), prompt="Still {review}?")
    assert desk.asked == 150
    desk.map(Call(), desk.account(role=2, **daily), prompt="Still {review}?")
    assert desk.asked == 250


def test_what_a_statement_has_written_is_not_counted_twice(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pg_bridge.ledger.spending.OTHERS_EVERY_S", 0)
    answers = desk.map(Call(on_budget="null"), desk.account(daily_requests=100))
    assert all(answer.output for answer in answers)


def test_what_others_take_meanwhile_is_seen(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pg_bridge.ledger.spending.OTHERS_EVERY_S", 0)
    account = desk.account(daily_requests=60)
    answers = ask(
        _fetch(ROWS), ["review"], "{review}?", Call(on_budget="null"), Engine(account.server), Run(), account=account
    )
    assert next(answers).output
    desk.map(Call(), desk.account(), rows=ROWS[:40], prompt="Others {review}?")
    assert sum(answer.output is not None for answer in answers) + 1 + 40 <= 60 + 16  # the first were in flight
    assert desk.asked <= 76


def test_what_is_known_at_the_end_is_counted(desk: Desk) -> None:
    """An engine asked in batches tells of its cache when all is answered."""
    desk.map(Call(cache="off"), desk.account())
    spending = Spending()
    desk.map(Call(cache="off", max_cost=1e9), desk.account(spending, role=2, price_prompt=1e6, price_cached=0.0))
    in_ledger = desk.ledger.spent(_today(), "d", 2, "s")
    assert in_ledger.cached_tokens > 0
    assert spending.total.cost == pytest.approx(in_ledger.prompt_tokens - in_ledger.cached_tokens)
    assert in_ledger.cost == pytest.approx(spending.total.cost)


def test_a_cost_needs_prices(desk: Desk) -> None:
    limited: list[tuple[Call, dict[str, Any]]] = [
        (Call(max_cost=1.0), {}),
        (Call(), {"max_cost": 1.0}),
        (Call(), {"daily_cost": 1.0}),
    ]
    for call, options in limited:
        with pytest.raises(OptionError, match='a cost is limited, and server "s" has no prices'):
            desk.map(call, desk.account(**options))
    assert desk.asked == 0


def test_without_a_ledger_limits_hold(double: EngineDouble) -> None:
    server = Server("s", double.url, max_requests=9)
    ledger = Ledger(None)
    account = Account(ledger, Asker("d", 1, 1), server, lambda *_: None, _job(ledger))
    answers = ask(_fetch(ROWS), ["review"], "{review}?", Call(), Engine(server), Run(), account=account)
    assert sum(1 for _, answer in zip(range(9), answers, strict=False) if answer.output) == 9
    with pytest.raises(BudgetExceeded) as caught:
        next(answers)
    assert "is not kept" in caught.value.hint
    assert len(double.received.prompts) == 9


def test_what_never_was_answered_is_in_flight_no_longer(desk: Desk) -> None:
    call, account = Call(max_prompt_tokens=1000), desk.account()
    budget = Budget(account, Run())
    budget.expect([call])
    assert budget.admits(call, 0, 400)
    assert account.spending.total.in_flight == account.spending.of(call).in_flight == 1
    assert not budget.allows([Asked(call, 40, 4000)])
    budget.close()
    assert budget.is_over
    total = account.spending.total
    assert (total.requests, total.in_flight, total.in_flight_chars) == (1, 0, 0)


def test_when_one_call_ends_the_statement_nothing_more_is_sent_of_others(desk: Desk) -> None:
    strict, free = Call(max_requests=1), Call(max_requests=5, on_budget="null")
    budget = Budget(desk.account(), Run())
    budget.expect([strict, free])
    assert budget.admits(strict, 0, 10)
    assert budget.admits(free, 1, 10)
    assert not budget.admits(strict, 2, 10)
    assert not budget.admits(free, 2, 10)
    with pytest.raises(BudgetExceeded, match="max_requests = 1"):
        budget.check()


def _today() -> str:
    return time.strftime("%Y-%m-%d")
