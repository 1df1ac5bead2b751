"""What running statements tell of themselves: rows that are written seldom, and never outlive who wrote them."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from pg_bridge.ledger import progress
from pg_bridge.ledger.database import Database, Warnings
from pg_bridge.ledger.process import Process, this_process
from pg_bridge.ledger.progress import EVERY_S, FIRST_AFTER_S, Job, Owner, Standing

ANA = Owner(10, "ana", "shop", "vllm")
BOB = Owner(11, "bob", "shop", "vllm")
ELSEWHERE = Owner(10, "ana", "other", "vllm")


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(tmp_path / "running.db", progress.SCHEMA, 1, Warnings(), "OFF")


def rows(database: Database, role: int | None = None, name: str | None = None) -> list[dict[str, object]]:
    return database.read(lambda connection: progress.listed(connection, role, name), [])


def test_what_is_done_in_a_moment_is_never_written(database: Database, clock: Clock) -> None:
    job = Job(database, ANA, clock)
    for _ in range(10):
        job.tick(lambda: pytest.fail("nobody need know"))
        clock.now_s += FIRST_AFTER_S / 11
    job.end()
    assert not database.path.exists()


def test_a_statement_is_written_once_a_second_and_removed_at_its_end(database: Database, clock: Clock) -> None:
    job = Job(database, ANA, clock)
    job.rows_read = 9
    stood = []

    def stand() -> Standing:
        stood.append(clock.now_s)
        return Standing(asked=len(stood), prompt_tokens=70, cached_tokens=None, cost=0.5)

    clock.now_s += FIRST_AFTER_S
    for _ in range(100):
        job.tick(stand)
        clock.now_s += EVERY_S / 10
    assert len(stood) == 10
    (row,) = rows(database)
    assert row["pid"] == os.getpid()
    assert (row["role_name"], row["database"], row["server"]) == ("ana", "shop", "vllm")
    assert (row["rows_read"], row["asked"], row["prompt_tokens"], row["cached_tokens"]) == (9, 10, 70, None)
    assert row["cost"] == 0.5
    assert abs(float(str(row["started"])) - time.time()) < 600
    job.end()
    assert rows(database) == []
    job.tick(stand)  # a statement that asks in another window goes on
    assert [row["asked"] for row in rows(database)] == [11]
    job.end()
    job.end()
    assert rows(database) == []


def test_roles_and_databases_are_told_apart(database: Database, clock: Clock) -> None:
    for owner in (ANA, BOB, ELSEWHERE):
        job = Job(database, owner, clock)
        clock.now_s += EVERY_S
        job.tick(Standing)
    assert [(row["role_name"], row["database"]) for row in rows(database)] == [
        ("ana", "shop"),
        ("bob", "shop"),
        ("ana", "other"),
    ]
    assert [row["role_name"] for row in rows(database, 10, "shop")] == ["ana"]
    assert [row["database"] for row in rows(database, 10)] == ["shop", "other"]


def test_the_end_is_expected_once_all_questions_are_known(database: Database, clock: Clock) -> None:
    job = Job(database, ANA, clock)

    def expected_s(answered: int, left: int | None) -> float | None:
        clock.now_s += EVERY_S
        job.tick(lambda: Standing(answered=answered, left=left))
        (row,) = rows(database)
        end = row["expected_end"]
        return None if end is None else float(str(end)) - float(str(row["updated"]))

    assert expected_s(100, None) is None
    assert expected_s(200, 1000) == pytest.approx(10, abs=0.5)  # a hundred a second
    for _ in range(progress.RATE_OVER):
        expected_s(200, 1000)
    assert expected_s(200, 1000) is None  # nothing comes any more
    for second in range(1, progress.RATE_OVER + 1):
        last = expected_s(200 + second * 500, 1000)
    assert last == pytest.approx(2, abs=0.5)  # of late five hundred a second


def test_a_process_that_is_gone_tells_nothing_more(database: Database, clock: Clock) -> None:
    killed = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import os, sys, time; from pathlib import Path; from tests.component.test_ledger_progress import *\n"
            "job = Job(Database(Path(sys.argv[1]), progress.SCHEMA, 1, Warnings(), 'OFF'), BOB)\n"
            "time.sleep(2 * FIRST_AFTER_S); job.tick(Standing); print('written', flush=True); time.sleep(600)",
            str(database.path),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "written\n"
        assert [row["pid"] for row in rows(database)] == [killed.pid]
    finally:
        killed.kill()
        killed.wait()
        if killed.stdout is not None:
            killed.stdout.close()
    assert rows(database) == []  # passed over
    count = "SELECT count(*) FROM jobs"
    assert database.read(lambda connection: connection.execute(count).fetchone(), None) == (1,)
    clock.now_s += EVERY_S
    job = Job(database, ANA, clock)
    clock.now_s += EVERY_S
    job.tick(Standing)
    assert database.read(lambda connection: connection.execute(count).fetchone(), None) == (1,)  # ours alone


def test_a_process_of_the_same_number_is_another() -> None:
    here = this_process()
    assert here.is_alive
    assert not here._replace(began=here.began - 1).is_alive
    assert Process(here.pid, 0).is_alive  # where the system does not tell when


def test_without_a_file_nothing_is_told_and_nothing_fails(clock: Clock) -> None:
    out_of_reach = Database(Path("/proc/nowhere/running.db"), progress.SCHEMA, 1, Warnings(), "OFF")
    job = Job(out_of_reach, ANA, clock)
    clock.now_s += EVERY_S
    job.tick(Standing)
    job.end()


def test_a_row_that_cannot_be_removed_goes_with_the_next_that_is_written(database: Database, clock: Clock) -> None:
    clock_of_next = Clock()
    job, later = Job(database, ANA, clock), Job(database, BOB, clock_of_next)
    clock.now_s += EVERY_S
    job.tick(Standing)
    with closing(sqlite3.connect(database.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        job.end()
        other.execute("ROLLBACK")
    assert [row["role_name"] for row in rows(database)] == ["ana"]
    clock_of_next.now_s += EVERY_S
    later.tick(Standing)
    assert [row["role_name"] for row in rows(database)] == ["bob"]


def test_a_file_that_others_keep_busy_holds_nobody_up(database: Database, clock: Clock) -> None:
    job = Job(database, ANA, clock)
    database.run(progress.remove_gone, None)  # makes it
    with closing(sqlite3.connect(database.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        clock.now_s += EVERY_S
        job.tick(Standing)
        assert time.monotonic() - started < 5
        other.execute("ROLLBACK")
    assert rows(database) == []
    clock.now_s += EVERY_S
    job.tick(Standing)
    assert len(rows(database)) == 1
    job.end()
