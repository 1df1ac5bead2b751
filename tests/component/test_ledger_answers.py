"""Answers in the ledger: found as they were written, forgotten as they may be; and what was used."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import astuple, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pg_bridge.asking.inquiry import digest_rows
from pg_bridge.engine.records import Model
from pg_bridge.ledger import account as module
from pg_bridge.ledger import answers, packs, usage
from pg_bridge.ledger.account import Account, Asker, Ledger
from pg_bridge.ledger.answers import Scope
from pg_bridge.ledger.database import MOST_WAL_BYTES
from pg_bridge.ledger.progress import Job, Owner
from pg_bridge.ledger.usage import Figures
from pg_bridge.options import Server
from pg_bridge.rows.table import Table

SCOPE = Scope("db", "vllm", 10, "http://engine", "model", "")
MIB = 1 << 20


def row(i: object) -> bytes:
    return blake2b(str(i).encode(), digest_size=20).digest()


def job(ledger: Ledger) -> Job:
    return Job(ledger.running, Owner(10, "postgres", "db", "vllm"))


class Asking:
    """A statement's account, of a ledger that other statements may have, too."""

    def __init__(self, ledger: Ledger, **options: str) -> None:
        self.ledger = ledger
        server = Server.from_options("vllm", {"endpoint": "http://engine", **options}, 10)
        self.said: list[str] = []
        self.account = Account(
            ledger, Asker("db", 10, 10), server, lambda message, _: self.said.append(message), job(ledger)
        )
        scope = self.account.identify(lambda: Model("model"), ())
        self.context = self.account.context(scope, ["Kind?"])

    def keep(self, known: dict[bytes, str], prompt: str | None = None) -> None:
        self.account.keep((self.context, each, answer, prompt) for each, answer in known.items())
        self.account.flush()

    def recall(self, rows: list[bytes], max_age_s: float | None = None) -> dict[bytes, str]:
        return self.account.recall(self.context, rows, max_age_s)


@pytest.fixture
def open_ledger(tmp_path: Path) -> Iterator[Callable[..., Ledger]]:
    made: list[Ledger] = []

    def open_one(most_bytes: int = 1 << 30) -> Ledger:
        made.append(Ledger(tmp_path / "folder", most_bytes))
        return made[-1]

    yield open_one
    for each in made:
        each._database.close()
        each.running.close()


@pytest.fixture
def ledger(open_ledger: Callable[..., Ledger]) -> Ledger:
    return open_ledger()


def count(ledger: Ledger, table: str = "answers") -> int:
    return ledger._database.read(lambda c: int(c.execute(f"SELECT count(*) FROM {table}").fetchone()[0]), -1)


@contextmanager
def locked(ledger: Ledger) -> Iterator[None]:
    """Somebody else writes meanwhile."""
    with closing(sqlite3.connect(ledger._database.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


# -- how many are kept


@pytest.mark.parametrize("sorted_in", [False, True])
def test_the_answers_to_one_question_are_counted(ledger: Ledger, sorted_in: bool) -> None:
    asking, asker, server = Asking(ledger), Asker("db", 10, 10), Asking(ledger).account.server
    asking.keep({row(i): "yes" for i in range(30)})
    asking.keep({row(i): "yes" for i in range(30, 50)})
    if sorted_in:
        ledger.fold(asking.context)
    assert ledger.count(asker, server, ["Kind?"], None) == 50
    assert ledger.count(asker, server, ["Kind?"], 3600) == 50
    assert ledger.count(asker, server, ["Kind?"], -3600) == 0
    assert ledger.count(asker, server, ["Another?"], None) == 0
    assert ledger.count(Asker("db", 10, 11), server, ["Kind?"], None) == 0
    assert ledger.count(asker, replace(server, endpoint="http://elsewhere"), ["Kind?"], None) == 0
    apart = replace(server, cache_scope="role")
    assert ledger.count(asker, apart, ["Kind?"], None) == 0


def test_of_very_many_answers_the_first_tell_how_many_there_are(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "COUNTED", 1000)
    asking = Asking(ledger)
    asking.keep({row(i): "yes" for i in range(20_000)})
    ledger.fold(asking.context)
    assert count(ledger, "packs") == 0
    found = ledger.count(Asker("db", 10, 10), asking.account.server, ["Kind?"], None)
    assert found == pytest.approx(20_000, rel=0.15)  # four times what chance does to it


def test_a_ledger_that_cannot_be_read_counts_nothing(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    asking = Asking(ledger)
    asking.keep({row(1): "yes"})
    asker, server = Asker("db", 10, 10), asking.account.server
    with locked(ledger):  # a writer is not in the way of who reads
        assert ledger.count(asker, server, ["Kind?"], None) == 1
    with closing(sqlite3.connect(ledger._database.path)) as other:
        other.execute("PRAGMA user_version = 99")
        other.commit()
    ledger._database.close()
    assert ledger.count(asker, server, ["Kind?"], None) is None


# -- found as they were written


@given(st.dictionaries(st.binary(min_size=20, max_size=20), st.text(), max_size=50), st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_found_again(ledger: Ledger, known: dict[bytes, str], folded: bool) -> None:
    ledger.clear("db", None, None, lambda: None)
    asking = Asking(ledger)
    asking.keep(known)
    if folded:
        ledger.fold(asking.context)
        assert count(ledger, "packs") == 0
    found = Asking(ledger).recall([*known, row("unknown")])
    assert found == {
        key: text for key, text in known.items() if text.encode(errors="ignore") == text.encode(errors="surrogatepass")
    }
    assert asking.said == []


@pytest.mark.parametrize("text", ["\0", "a\0b", "\ud800", "\U0010ffff", "'; DROP TABLE answers", "x" * MIB, "é" * MIB])
def test_hostile_texts(ledger: Ledger, text: str) -> None:
    asking = Asking(ledger, cache_prompts="true")
    asking.keep({row(1): text, row(2): "fine"}, prompt="\0'")
    kept = {row(2): "fine"} | ({} if "\ud800" in text else {row(1): text})
    for _ in range(2):
        assert Asking(ledger).recall([row(1), row(2)]) == kept
    assert asking.said == []


def test_what_is_too_large_is_not_kept(ledger: Ledger) -> None:
    asking = Asking(ledger)
    asking.keep({row(1): "x" * (packs.MOST_CHARS + 1), row(2): "fine"})
    assert Asking(ledger).recall([row(1), row(2)]) == {row(2): "fine"}


def test_a_model_named_by_half_a_character(ledger: Ledger) -> None:
    account = Asking(ledger).account
    said: list[str] = []
    other = Account(ledger, Asker("db", 10, 10), account.server, lambda message, _: said.append(message), job(ledger))
    scope = other.identify(lambda: Model("half \ud800", "\ud800"), ())
    context = other.context(scope, [])
    other.keep([(context, row(1), "yes", None)])
    other.flush()
    assert said == []
    assert Asking(ledger).account.recall(context, [row(1)], None) == {row(1): "yes"}


def test_the_order_of_cells_makes_no_other_row() -> None:
    one = Table.from_json(['{"a": "x", "b": "y"}', '{"a": "y", "b": "x"}'], ["a", "b"])
    other = Table.from_json(['{"b": "y", "a": "x"}', '{"b": "x", "a": "y"}'], ["b", "a"])
    assert digest_rows(one) == digest_rows(other)
    assert len(set(digest_rows(one))) == 2


def test_the_latest_answer_counts(ledger: Ledger) -> None:
    Asking(ledger).keep({row(1): "first"})
    Asking(ledger).keep({row(1): "second"})
    assert Asking(ledger).recall([row(1)]) == {row(1): "second"}
    Asking(ledger).keep({row(1): "third"})
    with locked(ledger):  # it cannot be sorted in
        assert Asking(ledger).recall([row(1)]) == {row(1): "third"}


def test_a_question_that_was_new_is_looked_for_when_somebody_else_has_written(
    open_ledger: Callable[..., Ledger],
) -> None:
    here, there = open_ledger(), open_ledger()  # as two processes have them
    asking = Asking(here)
    assert asking.recall([row(1), row(2)]) == {}
    asking.keep({row(1): "mine"})
    assert asking.recall([row(2)]) == {}
    Asking(there).keep({row(2): "yours"})
    assert asking.recall([row(2)]) == {row(2): "yours"}
    assert Asking(here).recall([row(1), row(2)]) == {row(1): "mine", row(2): "yours"}


def test_two_accounts_of_one_session_find_each_other_s_answers(ledger: Ledger) -> None:
    one, other = Asking(ledger), Asking(ledger)
    assert one.recall([row(1)]) == other.recall([row(1)]) == {}
    one.keep({row(1): "yes"})
    assert other.recall([row(1)]) == {row(1): "yes"}


def test_many_are_sorted_in_on_the_way(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SORT_IN_AFTER", 100)
    asking = Asking(ledger)
    known = {row(i): f"answer {i}" for i in range(250)}
    for start in range(0, 250, 50):
        asking.keep(dict(list(known.items())[start : start + 50]))
    assert (count(ledger), count(ledger, "packs")) == (200, 1)
    assert Asking(ledger).recall(list(known)) == known
    assert (count(ledger), count(ledger, "packs")) == (250, 0)


def test_more_than_is_sorted_in_at_a_time(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "FOLD", 100)
    known = {row(i): f"answer {i}" for i in range(1000)}
    asking = Asking(ledger)
    for start in range(0, 1000, 90):
        asking.keep(dict(list(known.items())[start : start + 90]))
    assert Asking(ledger).recall(list(known)) == known
    assert count(ledger, "packs") == 0


def test_max_age(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    Asking(ledger).keep({row(1): "old"})
    Asking(ledger).recall([row(1)])
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 100)
    Asking(ledger).keep({row(2): "new"})
    for _ in range(2):
        assert Asking(ledger).recall([row(1), row(2)], 50) == {row(2): "new"}
    assert Asking(ledger).recall([row(1), row(2)], 200) == {row(1): "old", row(2): "new"}


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE answers SET answer = 'other'",
        "UPDATE answers SET key = zeroblob(20)",
        "UPDATE answers SET mark = mark + 1",
        "UPDATE packs SET answers = replace(answers, 'true', 'fals')",
        "UPDATE packs SET rows = zeroblob(20)",
    ],
)
def test_what_is_mixed_up_is_not_known(ledger: Ledger, damage: str) -> None:
    asking = Asking(ledger)
    asking.keep({row(1): "it is true"})
    if "answers SET" in damage:
        ledger.fold(asking.context)
    ledger._database.run(lambda c: c.execute(damage), None)
    assert Asking(ledger).recall([row(1)]) == {}


# -- trouble


def test_a_ledger_that_cannot_be_written_takes_no_memory(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAITING_CHARS", 10_000)
    asking = Asking(ledger)
    asking.keep({row(0): "kept"})
    ledger._database.run(lambda c: c.execute("PRAGMA max_page_count = 1").fetchall(), None)
    for i in range(100):
        asking.keep({row(i): "x" * 1000})
        assert asking.account._landed_chars <= 12_000
    asking.account.flush(quietly=True)
    assert asking.said == [f'the ledger "{ledger._database.path}" cannot be used: database or disk is full']
    assert Asking(ledger).recall([row(0)]) == {row(0): "kept"}


def test_what_could_not_be_written_is_written_later(ledger: Ledger) -> None:
    asking = Asking(ledger)
    with locked(ledger):
        asking.keep({row(1): "one"})
        asking.keep({row(2): "two"})
    asking.account.flush(quietly=True)
    assert Asking(ledger).recall([row(1), row(2)]) == {row(1): "one", row(2): "two"}


# -- room


def rows_of(connection: sqlite3.Connection, numbers: range, used: int, text: str) -> None:
    """Write answers as they are when they have been sorted in."""
    values = []
    for i in numbers:
        key = row(i)
        values.append((int.from_bytes(key[:8]) >> 1, 1, used, used, 0, key, text, None))
    connection.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)


@pytest.mark.parametrize("size", [100, 3000, 200_000])
def test_the_files_stay_below_the_limit(open_ledger: Callable[..., Ledger], size: int) -> None:
    most = MIB
    ledger = open_ledger(most)
    total = 0
    asking = Asking(ledger)
    path = ledger._database.path
    while total < 4 * most:
        total += 50 * size
        asking.keep({os.urandom(20): f"{total}" * (size // len(f"{total}")) for _ in range(50)})
        used = ledger._database.read(answers.size, 0)
        assert used <= most + 100 * size + 200_000
    ledger._database.read(lambda c: c.execute("PRAGMA wal_checkpoint").fetchall(), [])
    assert path.stat().st_size <= most + 100 * size + 200_000
    assert Path(f"{path}-wal").stat().st_size <= MOST_WAL_BYTES + 100 * size
    assert asking.recall([row("unknown")]) == {}


def test_what_was_not_used_for_long_goes_first(open_ledger: Callable[..., Ledger]) -> None:
    ledger = open_ledger(4 * MIB)
    now = int(time.time())

    def work(connection: sqlite3.Connection) -> bool:
        rows_of(connection, range(20_000), now - 100_000, "unused " * 20)
        rows_of(connection, range(20_000, 30_000), now, "used " * 28)
        return True

    assert ledger._database.run(work, default=False)
    until = time.monotonic() + 60
    while ledger._database.read(answers.size, 0) > ledger.most_bytes and time.monotonic() < until:
        ledger._database.run(lambda c: answers.make_room(c, ledger.most_bytes), None)
    nothing: list[tuple[int, int]] = []
    by_use = "SELECT used, count(*) FROM answers GROUP BY used"
    left = dict(ledger._database.read(lambda c: c.execute(by_use).fetchall(), nothing))
    assert left[now] > 0.98 * 10_000
    assert 1_000 < left[now - 100_000] < 18_000


def test_using_an_answer_is_noted_by_the_hour(ledger: Ledger) -> None:
    asking = Asking(ledger)
    asking.keep({row(i): "yes" for i in range(10)})
    ledger.fold(asking.context)
    now = int(time.time())
    ledger._database.run(lambda c: c.execute("UPDATE answers SET used = ?", [now - 1800]), None)
    stale = ledger._database.run(lambda c: c.execute("UPDATE answers SET used = 1 WHERE id % 2").rowcount, 0)
    other = Asking(ledger)
    other.recall([row(i) for i in range(10)])
    assert len(other.account._unused) == stale
    other.account.flush(quietly=True)
    since = "SELECT count(*) FROM answers WHERE used >= ?"
    assert ledger._database.read(lambda c: c.execute(since, [now]).fetchone(), None) == (stale,)


# -- figures


def test_stats_and_clear(ledger: Ledger) -> None:
    asking = Asking(ledger)
    asking.keep({row(i): "sorted in" for i in range(100)})
    ledger.fold(asking.context)
    asking.keep({row(i): "in a pack" for i in range(100, 150)})
    checks: list[None] = []
    check = lambda: checks.append(None)  # noqa: E731
    (stats,) = ledger.stats("db", ["vllm", "other"], check)
    assert (stats.server, stats.answers) == ("vllm", 150)
    assert 150 * 28 < stats.bytes < 150 * 60
    assert stats.oldest <= stats.latest <= time.time()
    assert checks
    assert ledger.stats("db", ["other"], check) == ledger.stats("other", ["vllm"], check) == []
    assert ledger.clear("db", ["other"], None, check) == ledger.clear("other", None, None, check) == 0
    assert ledger.clear("db", ["vllm"], time.time() - 60, check) == 0
    assert ledger.clear("db", ["vllm"], time.time() + 60, check) == 150
    assert ledger.stats("db", ["vllm"], check) == []
    assert Asking(ledger).recall([row(1), row(101)]) == {}


def test_what_is_cleared_is_not_in_the_file(ledger: Ledger) -> None:
    asking = Asking(ledger)
    asking.keep({row(i): f"a discreet answer {i} " * 100 for i in range(100)})
    ledger.fold(asking.context)
    asking.keep({row(i): f"a discreet answer {i} " * 100 for i in range(100, 200)})
    ledger._database.read(lambda c: c.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall(), [])
    folder = ledger._database.path.parent

    def written() -> bytes:
        return b"".join(path.read_bytes() for path in folder.iterdir())

    assert b"discreet" in written()
    assert ledger.clear("db", ["vllm"], None, lambda: None) == 200
    assert b"discreet" not in written()
    assert len(written()) < 300_000


def test_clearing_can_be_stopped(ledger: Ledger) -> None:
    def stop() -> None:
        raise KeyError

    Asking(ledger).keep({row(1): "yes"})
    with pytest.raises(KeyError):
        ledger.clear("db", None, None, stop)


FIGURES = st.builds(Figures, *[st.integers(0, 10**9)] * 10, st.floats(0, 1e6), st.floats(0, 1e6))


@given(st.lists(FIGURES, max_size=10))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_usage_adds_up(ledger: Ledger, parts: list[Figures]) -> None:
    ledger.reset_usage("db")
    total = Figures()
    for part in parts:
        total.add(part)
        ledger.write(partial(usage.add, day="2026-01-01", database="db", role=10, server="vllm", model="m", more=part))
    spent = ledger.spent("2026-01-01", "db", 10, "vllm")
    *figures, _ = astuple(spent)
    *expected, _ = astuple(total)
    assert figures == pytest.approx(expected)
    assert spent.less(total) == Figures(*(a - b for a, b in zip(figures, expected, strict=True)))
    assert ledger.spent("2026-01-02", "db", 10, "vllm") == ledger.spent("2026-01-01", "db", 11, "vllm") == Figures()
    assert len(ledger.listed("db", None)) == len(ledger.listed("db", 10)) == bool(parts)
    assert ledger.listed("db", 11) == ledger.listed("other", None) == []
    assert ledger.reset_usage("other") == 0


def test_usage_is_written_without_answers(ledger: Ledger) -> None:
    asking = Asking(ledger)
    asking.account.count(Figures(questions=1))
    asking.account.flush()
    asking.account.count(Figures(questions=2))
    asking.account.flush()  # soon after the first
    today = time.strftime("%Y-%m-%d")
    assert ledger.spent(today, "db", 10, "vllm").questions == 1
    asking.account.flush(quietly=True)
    assert ledger.spent(today, "db", 10, "vllm").questions == 3
