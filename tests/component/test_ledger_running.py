"""Limits that hold for all sessions: by pure numbers, by gates on one file, and by many processes."""

import sqlite3
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import accumulate
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pg_bridge.ledger.database import Database, Warnings
from pg_bridge.ledger.leases import LONGEST_WAIT_S, QUIET_S, SCHEMA, Limits
from pg_bridge.ledger.process import Process, this_process
from pg_bridge.ledger.running import LOCKED_OUT_S, Running, ServerGate
from pg_bridge.ledger.sharing import PART_OF_SHARE, Claim, affordable, share_places
from tests.takers import BUSY_S, open_running, take

T = TypeVar("T")


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


class Sessions:
    """Gates that know each other by one file, as those of different processes do."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = Clock()
        self.warnings = Warnings()

    def gate(self, in_flight: int = 8, requests: int | None = None, tokens: int | None = None) -> ServerGate:
        database = Database(self.path, SCHEMA, 1, self.warnings, "OFF", BUSY_S)
        return Running(database, self.warnings.add, self.clock).gate("vllm", Limits(in_flight, requests, tokens))

    def leases(self) -> list[tuple[object, ...]]:
        with sqlite3.connect(self.path) as connection:
            return connection.execute("SELECT held, waits_since FROM leases ORDER BY number").fetchall()


@pytest.fixture
def sessions(tmp_path: Path) -> Sessions:
    return Sessions(tmp_path / "running.db")


def give_back(gate: ServerGate, prompts: int, tokens: int = 0) -> None:
    gate.give_back(prompts, tokens)
    gate.tend()


# -- places


def test_all_sessions_share_the_places(sessions: Sessions) -> None:
    one, two = sessions.gate(), sessions.gate()
    assert one.take(6, 1, 0)[0] == 6
    assert two.take(6, 1, 0)[0] == 2
    assert two.take(1, 1, 0)[0] == 0
    give_back(one, 6)
    assert two.take(6, 1, 0)[0] == 6


def test_another_server_is_another_matter(sessions: Sessions) -> None:
    one, two = sessions.gate(), sessions.gate()
    two._holder = two._holder._replace(server="other")
    assert one.take(8, 1, 0)[0] == two.take(8, 1, 0)[0] == 8


def test_who_comes_late_gets_its_share_as_answers_come_in(sessions: Sessions) -> None:
    early, late = sessions.gate(), sessions.gate()
    assert early.take(8, 1, 0)[0] == 8
    assert late.take(8, 1, 0)[0] == 0
    for _ in range(2):
        give_back(early, 2)
        assert early.take(2, 1, 0)[0] == 0  # it has its share, or more
        assert late.take(8, 1, 0)[0] == 2
    give_back(early, 2)
    assert early.take(2, 1, 0)[0] == 2  # below its share it takes again
    give_back(late, 4)
    late.leave()
    give_back(early, 4)
    assert early.take(8, 1, 0)[0] == 8  # alone it has all


def test_who_is_alone_writes_seldom_and_makes_way_for_another(sessions: Sessions) -> None:
    writes = 0

    class Counting(Database):
        def run(
            self, work: Callable[[sqlite3.Connection], T], default: T, *, within_s: float = 0.0, often: bool = False
        ) -> T:
            nonlocal writes
            writes += 1
            return super().run(work, default, within_s=within_s, often=often)

    database = Counting(sessions.path, SCHEMA, 1, sessions.warnings, "OFF", BUSY_S)
    early = Running(database, sessions.warnings.add, sessions.clock).gate("vllm", Limits(8))
    assert early.take(8, 1, 0)[0] == 8
    for _ in range(100):
        early.give_back(4)
        assert early.take(4, 1, 0)[0] == 4
    assert writes == 1
    late = sessions.gate()
    assert late.take(8, 1, 0)[0] == 0
    early.give_back(3)
    assert early.take(3, 1, 0)[0] == 0
    assert late.take(8, 1, 0)[0] == 3


def test_more_sessions_than_places_take_turns(sessions: Sessions) -> None:
    gates = [sessions.gate(in_flight=2) for _ in range(7)]
    turns: list[int] = []
    holders: deque[int] = deque()

    def ask(i: int) -> None:
        sessions.clock.now_s += 0.01
        if i not in holders and gates[i].take(1, 1, 0)[0]:
            holders.append(i)
            turns.append(i)

    for i in range(7):
        ask(i)
    assert turns == [0, 1]
    while len(turns) < 21:
        gave = holders.popleft()
        give_back(gates[gave], 1)
        ask(gave)  # who gave back asks first, and gets nothing
        for i in reversed(range(7)):
            ask(i)
        assert len(holders) == 2
    assert turns == [0, 1, 2, 3, 4, 5, 6] * 3


def test_whoever_waits_and_does_not_come_by_is_passed_over(sessions: Sessions) -> None:
    one, two, three = (sessions.gate() for _ in range(3))
    assert one.take(8, 1, 0)[0] == 8
    assert two.take(8, 1, 0)[0] == 0
    give_back(one, 8)
    sessions.clock.now_s += 1
    assert three.take(8, 1, 0)[0] == 4  # half is kept for the one who waits
    give_back(three, 4)
    sessions.clock.now_s += 10
    assert three.take(8, 1, 0)[0] == 8


def test_who_does_not_look_at_its_answers_is_taken_to_have_them(sessions: Sessions) -> None:
    paused, other = sessions.gate(), sessions.gate()
    assert paused.take(8, 1, 0)[0] == 8
    sessions.clock.now_s += QUIET_S - 1
    assert other.take(8, 1, 0)[0] == 0
    sessions.clock.now_s += 2
    assert other.take(8, 1, 0)[0] == 8
    paused.tend()  # it looks again, and counts again
    give_back(other, 4)
    assert other.take(4, 1, 0)[0] == 0


def test_who_looks_at_its_answers_keeps_its_places(sessions: Sessions) -> None:
    slow, other = sessions.gate(), sessions.gate()
    assert slow.take(8, 1, 0)[0] == 8
    for _ in range(200):
        sessions.clock.now_s += 1
        slow.tend()
    assert other.take(8, 1, 0)[0] == 0


def test_leaving_gives_all_back(sessions: Sessions) -> None:
    one, two = sessions.gate(), sessions.gate()
    assert one.take(8, 1, 0)[0] == 8
    one.give_back(3)
    one.leave()
    assert sessions.leases() == []
    assert two.take(8, 1, 0)[0] == 8


@given(
    most=st.integers(1, 300),
    mine=st.tuples(st.integers(0, 300), st.none() | st.floats(0, 9)),
    others=st.lists(st.tuples(st.integers(0, 50), st.none() | st.floats(0, 9)), max_size=9),
    wanted=st.integers(1, 300),
)
def test_no_more_is_granted_than_is_there(
    most: int, mine: tuple[int, float | None], others: list[tuple[int, float | None]], wanted: int
) -> None:
    granted, _ = share_places(most, Claim(*mine), [Claim(*other) for other in others], wanted)
    assert 0 <= granted <= wanted
    if granted:
        assert granted + mine[0] + sum(held for held, _ in others) <= most


@given(
    most=st.integers(1, 60),
    waiting=st.lists(st.integers(0, 20), min_size=1, max_size=9),
)
def test_somebody_gets_what_is_free_or_has_something_in_flight(most: int, waiting: list[int]) -> None:
    claims = [Claim(0 if held == max(waiting) else held, float(i)) for i, held in enumerate(waiting)]
    free, share = most - sum(claim.held for claim in claims), max(1, most // len(claims))
    if free <= 0:
        return
    granted = [share_places(most, mine, [c for c in claims if c is not mine], most).granted for mine in claims]
    first = next(claim for claim in claims if claim.held < share)
    assert any(granted) or (first.held and free < share // PART_OF_SHARE)  # which is not worth a request of its own


# -- rates


@pytest.mark.parametrize("per_minute", [1, 7, 60, pytest.param(600, marks=pytest.mark.slow)])
def test_no_minute_sees_more_requests_than_it_may(sessions: Sessions, per_minute: int) -> None:
    gates = [sessions.gate(1000, requests=per_minute) for _ in range(3)]
    sent: list[float] = []
    started_s = sessions.clock.now_s
    step_s = 6.0 / per_minute
    while sessions.clock.now_s < started_s + 180:
        for gate in gates:
            granted, _ = gate.take(20, 20, 0)
            sent += [sessions.clock.now_s] * granted
            give_back(gate, granted)
        sessions.clock.now_s += step_s
    assert max(sum(moment <= each < moment + 60 for each in sent) for moment in sent) <= per_minute
    assert len(sent) >= 0.85 * 3 * per_minute


def test_prompts_of_one_request_cost_one_request(sessions: Sessions) -> None:
    gate = sessions.gate(1000, requests=60)
    assert [gate.take(100, 1, 0)[0] for _ in range(4)] == [100, 100, 100, 0]
    _, wait_s = gate.take(100, 1, 0)
    assert 0.5 < wait_s <= 1
    sessions.clock.now_s += wait_s + 0.05
    assert gate.take(100, 1, 0)[0] == 100


def test_requests_that_are_sent_again_count(sessions: Sessions) -> None:
    gate, other = sessions.gate(1000, requests=60), sessions.gate(1000, requests=60)
    gate.spend(2)
    gate.tend()
    assert other.take(5, 5, 0)[0] == 1


def test_tokens_count_as_they_were_taken(sessions: Sessions) -> None:
    gate, other = sessions.gate(1000, tokens=2000), sessions.gate(1000, tokens=2000)
    assert gate.take(10, 1, 30)[0] == 3  # of a bucket of a hundred
    assert other.take(1, 1, 30)[0] == 0
    give_back(gate, 3, -60)
    assert other.take(5, 1, 30)[0] == 2
    give_back(other, 2, 1000)  # they took more: it is paid for later
    sessions.clock.now_s += 25
    assert gate.take(1, 1, 1)[0] == 0
    sessions.clock.now_s += 10
    assert gate.take(1, 1, 1)[0] == 1


def test_a_prompt_larger_than_the_bucket_goes_when_that_is_full(sessions: Sessions) -> None:
    gate = sessions.gate(1000, tokens=2000)
    assert gate.take(2, 1, 1500)[0] == 1
    assert gate.take(1, 1, 1500)[0] == 0
    sessions.clock.now_s += 50
    assert gate.take(1, 1, 1500)[0] == 1


def test_rates_are_shared_in_turn(sessions: Sessions) -> None:
    gates = [sessions.gate(1000, requests=20) for _ in range(4)]
    granted = [0] * 4
    for _ in range(1200):
        for i, gate in enumerate(gates):
            got, _ = gate.take(5, 5, 0)
            granted[i] += got
            give_back(gate, got)
        sessions.clock.now_s += 0.1
    assert max(granted) - min(granted) <= 2
    assert sum(granted) >= 35


@given(st.floats(-1e6, 1e6), st.integers(0, 10**6), st.integers(1, 1000), st.integers(1, 10**9))
def test_a_bucket_pays_for_what_it_holds_or_for_one(level: float, each: int, wanted: int, per_minute: int) -> None:
    paid = affordable(level, each, wanted, per_minute)
    assert 0 <= paid <= wanted
    if paid > 1 and each:
        assert paid * each <= level * (1 + 1e-6) + 1e-6


# -- patience


def test_an_engine_that_asks_for_patience_gets_it_from_all(sessions: Sessions) -> None:
    one, two = sessions.gate(), sessions.gate()
    one.slow_down(7)
    granted, wait_s = two.take(1, 1, 0)
    assert granted == 0
    assert 7 <= wait_s < 8
    assert two.shut_s() == pytest.approx(7)
    one.slow_down(1)  # who said more is believed
    assert two.shut_s() == pytest.approx(7)
    sessions.clock.now_s += 7.01
    assert two.take(1, 1, 0)[0] == 1


def test_nobody_is_shut_out_for_longer_than_a_minute_at_once(sessions: Sessions) -> None:
    sessions.gate().slow_down(86_400)
    assert sessions.gate().shut_s() == pytest.approx(LONGEST_WAIT_S)


def test_a_clock_that_begins_anew_locks_nobody_out(sessions: Sessions) -> None:
    before = sessions.gate(8, requests=60)
    assert before.take(8, 8, 0)[0] == 3
    assert before.take(8, 8, 0)[0] == 0
    before.slow_down(50)
    sessions.clock.now_s = 5.0  # the machine was started again
    assert sessions.gate(8, requests=60).take(8, 1, 0)[0] == 8


# -- where the file cannot be had


def test_without_the_file_the_limits_of_the_process_hold(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    warnings = Warnings()
    running = open_running(tmp_path / "file" / "running.db", warnings)
    one, two = running.gate("vllm", Limits(8)), running.gate("vllm", Limits(8))
    assert one.take(6, 1, 0)[0] == 6
    assert two.take(6, 1, 0)[0] == 2
    assert len(warnings.take()) == 1


def test_a_file_that_goes_away_on_the_way_is_done_without(sessions: Sessions) -> None:
    gate = sessions.gate()
    assert gate.take(8, 1, 0)[0] == 8
    with sqlite3.connect(sessions.path) as connection:
        connection.execute("DROP TABLE leases")
    gate.give_back(8)
    gate.tend()
    assert gate.take(8, 1, 0)[0] == 8
    assert len(sessions.warnings.take()) == 1


def test_a_lock_is_waited_for_in_small_parts_and_not_for_ever(sessions: Sessions) -> None:
    gate = sessions.gate()
    assert gate.take(1, 1, 0)[0] == 1
    with sqlite3.connect(sessions.path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        started_s = time.monotonic()
        granted, wait_s = gate.take(1, 1, 0)
        assert time.monotonic() - started_s < 100 * BUSY_S
        assert granted == 0
        assert wait_s < 0.1
        assert sessions.warnings.take() == []
        sessions.clock.now_s += LOCKED_OUT_S + 1
        assert gate.take(8, 1, 0)[0] == 7  # of its own eight
        assert gate.take(8, 1, 0)[0] == 0
    assert [message for message, _ in sessions.warnings.take()] == [
        "the limits of all sessions have been locked by another process for 5 s"
    ]


def test_what_cannot_be_given_back_is_given_back_by_the_next(sessions: Sessions) -> None:
    running = open_running(sessions.path)
    gate = running.gate("vllm", Limits(8))
    assert gate.take(8, 1, 0)[0] == 8
    with sqlite3.connect(sessions.path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        gate.leave()
    assert len(sessions.leases()) == 1
    running.gate("another", Limits(8)).take(1, 1, 0)
    assert sessions.leases() == [(1, None)]


# -- processes


def test_a_process_is_known_by_its_start(tmp_path: Path) -> None:
    own = this_process()
    assert own.is_alive
    assert own.began > 0
    assert not Process(own.pid, own.began + 1).is_alive
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with child:
        theirs = Process(child.pid, 0)
        assert theirs.is_alive
        child.kill()
        while theirs.is_alive:  # a zombie is no process
            time.sleep(0.001)
    assert not theirs.is_alive


@pytest.fixture
def takers(tmp_path: Path) -> Iterator["Takers"]:
    with ExitStack() as stack:
        yield Takers(tmp_path / "running.db", stack)


class Takers:
    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.path = path
        self._stack = stack

    def start(self, count: int, in_flight: int, times: int) -> list[subprocess.Popen[str]]:
        started = []
        for seed in range(count):
            command = [sys.executable, "-m", "tests.takers", str(self.path), str(in_flight), str(times), str(seed)]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            self._stack.enter_context(process)
            self._stack.callback(process.kill)
            started.append(process)
        for process in started:
            assert process.stdout is not None
            assert process.stdin is not None
            assert process.stdout.readline() == "ready\n"
        for process in started:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        return started


@pytest.mark.parametrize(("count", "in_flight"), [(6, 8), (8, 2), pytest.param(60, 16, marks=pytest.mark.slow)])
def test_many_processes_never_hold_more_than_there_is(takers: Takers, count: int, in_flight: int) -> None:
    changes: list[tuple[float, int]] = []
    for process in takers.start(count, in_flight, times=15):
        said, _ = process.communicate()
        lines = [line.split() for line in said.splitlines()]
        assert len(lines) == 30  # nobody starves
        changes += [(float(moment), int(more)) for moment, more in lines]
    assert max(accumulate(more for _, more in sorted(changes))) <= in_flight


def test_what_the_dead_held_is_free(takers: Takers, tmp_path: Path) -> None:
    (process,) = takers.start(1, 8, times=0)
    assert process.stdout is not None
    assert process.stdout.readline() == "8\n"
    gate = open_running(takers.path).gate("vllm", Limits(8))
    assert gate.take(8, 1, 0)[0] == 0
    process.kill()
    process.wait()
    assert take(gate, 8) == 8
