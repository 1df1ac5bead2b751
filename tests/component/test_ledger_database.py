"""The ledger's file: whatever is done to it costs answers at most, never a statement, and is said once."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from pg_bridge.ledger import database as module
from pg_bridge.ledger.database import Database, Warnings

SCHEMA = "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT); CREATE TABLE others (id INTEGER)"
ADD = """
import sqlite3, sys
from pathlib import Path
from pg_bridge.ledger import database as module
from pg_bridge.ledger.database import Database, Warnings
module.OPEN_WITHIN_S = 60.0  # who opens it at the same time may be slow
warnings = Warnings()
database = Database(Path(sys.argv[1]), sys.argv[2], 1, warnings)
def add(connection):
    connection.executemany("INSERT INTO notes (text) VALUES (?)", [(sys.argv[3],)] * 10)
    return True
"""


class Notes:
    """A process that writes notes, ten at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.warnings = Warnings()
        self.database = Database(path, SCHEMA, 1, self.warnings)

    def add(self, text: str = "a note", within_s: float = 0.0) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            connection.execute("INSERT INTO notes (text) VALUES (?)", [text])
            return True

        return self.database.run(work, default=False, within_s=within_s, often=within_s == 0.0)

    def count(self) -> int:
        return self.database.read(lambda c: int(c.execute("SELECT count(*) FROM notes").fetchone()[0]), -1)

    def rows(self, query: str) -> list[tuple[object, ...]]:
        nothing: list[tuple[object, ...]] = []
        return self.database.read(lambda c: c.execute(query).fetchall(), nothing)

    def said(self) -> list[str]:
        return [message.partition('"')[2].partition('" ')[2] for message, _ in self.warnings.take()]


Make = Callable[..., Notes]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Notes] = []

    def make_one(path: Path = tmp_path / "folder/ledger.db") -> Notes:
        made.append(Notes(path))
        return made[-1]

    yield make_one
    for each in made:
        each.database.close()


@pytest.fixture
def notes(make: Make) -> Notes:
    found = make()
    assert found.add()
    return found


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another connection writes meanwhile, as another process would."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


def fill(notes: Notes, count: int = 2000) -> None:
    def work(connection: sqlite3.Connection) -> None:
        connection.executemany("INSERT INTO notes (text) VALUES (?)", [(f"note {i} " * 20,) for i in range(count)])

    notes.database.run(work, None)
    notes.database.read(lambda c: c.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall(), [])


def test_its_files_are_the_user_s_alone(notes: Notes) -> None:
    assert notes.path.parent.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in notes.path.parent.iterdir()} == {0o600}
    assert notes.count() == 1
    assert notes.said() == []


def test_what_raises_is_rolled_back(notes: Notes) -> None:
    def work(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO notes (text) VALUES ('lost')")
        raise KeyError

    with pytest.raises(KeyError):
        notes.database.run(work, None)
    assert notes.count() == 1
    assert notes.add()


@pytest.mark.parametrize("value", ["half \ud800", 1 << 64])
def test_a_value_that_sqlite_cannot_hold_is_no_error(notes: Notes, value: object) -> None:
    work = lambda c: c.execute("INSERT INTO notes (text) VALUES (?)", [value])  # noqa: E731
    assert notes.database.run(work, None) is None
    assert len(notes.said()) == 1
    assert notes.add()


@pytest.mark.parametrize("with_wal", [False, True])
def test_a_corrupt_header(notes: Notes, make: Make, with_wal: bool) -> None:
    fill(notes)
    notes.database.close()
    notes.path.write_bytes(b"nonsense" + notes.path.read_bytes()[8:])
    if with_wal:
        Path(f"{notes.path}-wal").write_bytes(b"nonsense" * 1000)
    other = make()
    assert other.count() == 0
    assert other.add()
    assert other.said() == ["was damaged and has been set aside"]
    assert Path(f"{other.path}.damaged").exists()
    assert notes.count() == 1  # the first finds the new file, too
    assert notes.said() == []


def test_a_corrupt_page_in_the_middle_is_found_when_it_is_read(notes: Notes) -> None:
    fill(notes)
    size = notes.path.stat().st_size
    with notes.path.open("r+b") as file:
        file.seek(size // 2 // 4096 * 4096)
        file.write(b"\xff" * 40960)
    notes.database.close()  # its cache
    total = "SELECT sum(length(text)) FROM notes"
    assert notes.rows(total) == [(None,)]  # of the new file
    assert notes.said() == ["was damaged and has been set aside"]
    assert notes.add()
    assert notes.said() == []


@pytest.mark.parametrize("part", [0, 10, 4120, 0.5, 0.99])
def test_a_truncated_wal_loses_its_end_at_most(notes: Notes, make: Make, part: float) -> None:
    for _ in range(50):
        notes.add("a note " * 300)
    wal = Path(f"{notes.path}-wal")
    copy = notes.path.parent.parent / "copy/ledger.db"
    copy.parent.mkdir()
    shutil.copy(notes.path, copy)
    content = wal.read_bytes()
    Path(f"{copy}-wal").write_bytes(content[: int(part if part >= 1 else part * len(content))])
    found = make(copy)
    assert 0 <= found.count() <= 51
    assert found.add()
    assert found.said() == []


def test_a_newer_version_is_left_alone(notes: Notes, make: Make) -> None:
    notes.database.run(lambda c: c.execute("PRAGMA user_version = 2"), None)
    notes.database.close()
    before = notes.path.read_bytes()
    other = make()
    assert not other.add()
    assert other.count() == -1
    assert other.said() == ["is of a newer version of pg_bridge"]
    other.database.close()
    assert notes.path.read_bytes() == before


def test_an_older_version_is_begun_anew(notes: Notes) -> None:
    newer = Database(notes.path, "CREATE TABLE notes (id INTEGER)", 2, notes.warnings)
    with closing(newer):
        assert newer.read(lambda c: c.execute("SELECT count(*) FROM notes").fetchone(), None) == (0,)
        # Who has the old one open learns of it at the latest when it next looks, and leaves the new one alone.
        notes.database.look()
        assert not notes.add()
        assert notes.said() == ["is of a newer version of pg_bridge"]
        assert newer.read(lambda c: c.execute("PRAGMA user_version").fetchone(), None) == (2,)


def test_tables_that_somebody_dropped(notes: Notes, make: Make) -> None:
    notes.database.run(lambda c: c.execute("DROP TABLE notes"), None)
    assert notes.add()
    assert notes.count() == 1
    assert notes.said() == ["was damaged and has been set aside"]


def test_a_file_of_somebody_else_is_set_aside(tmp_path: Path, make: Make) -> None:
    with closing(sqlite3.connect(tmp_path / "its.db")) as its:
        its.execute("CREATE TABLE precious (id)")
        its.commit()
    found = make(tmp_path / "its.db")
    assert found.add()
    with closing(sqlite3.connect(tmp_path / "its.db.damaged")) as its:
        assert its.execute("SELECT count(*) FROM precious").fetchone() == (0,)


@pytest.mark.parametrize("order", ["file first", "wal first"])
def test_a_copy_made_while_it_was_written(notes: Notes, make: Make, order: str) -> None:
    """As a base backup makes it: the file and its write-ahead log at different moments."""
    whole = "x" * 3000
    ends = ("", "-wal") if order == "file first" else ("-wal", "")
    for nth in range(8):
        copy = notes.path.parent / f"copy{nth}" / "ledger.db"
        copy.parent.mkdir()
        for end in ends:
            shutil.copy(f"{notes.path}{end}", f"{copy}{end}")
            for _ in range(nth * 20):
                assert notes.add(whole)
            if nth % 3 == 0:
                notes.database.read(lambda c: c.execute("PRAGMA wal_checkpoint(RESTART)").fetchall(), [])
        found = make(copy)
        assert found.count() >= 0
        assert found.add()
        assert found.rows("PRAGMA integrity_check") == [("ok",)]
        assert set(found.rows("SELECT DISTINCT text FROM notes")) <= {("a note",), (whole,)}


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_file_that_was_removed_is_begun_anew(notes: Notes, make: Make, what: str) -> None:
    other = make()
    assert other.count() == 1
    if what == "folder":
        shutil.rmtree(notes.path.parent)
    else:
        notes.path.unlink()
    for each in (notes, other):
        each.database.look()
        assert each.add()
    assert (notes.count(), other.count()) == (2, 2)
    other.database.close()  # who is last with the old file must not take the new one's log away
    assert notes.add()
    assert make().count() == 3
    assert notes.said() == other.said() == []


def test_a_file_in_the_place_of_the_folder(tmp_path: Path, make: Make) -> None:
    (tmp_path / "folder").write_text("")
    found = make()
    for _ in range(3):
        assert not found.add()
        assert found.count() == -1
    assert len(found.said()) == 1
    assert found.said() == []


def test_a_disk_without_space_can_be_read(notes: Notes, monkeypatch: pytest.MonkeyPatch) -> None:
    notes.database.run(lambda c: c.execute("PRAGMA max_page_count = 20").fetchall(), None)
    added = 0
    while notes.add("a note " * 1000):
        added += 1
    assert 1 < added < 40
    assert notes.count() == added + 1
    assert not notes.add()  # it is let be for a while
    assert notes.database.is_full
    assert notes.said() == ["cannot be used: database or disk is full"]
    notes.database.run(lambda c: c.execute("PRAGMA max_page_count = 1000").fetchall(), None, within_s=1)
    assert notes.add("a note " * 1000)


def test_writers_that_find_it_locked_wait_seldom_and_say_so_at_last(
    notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOCKED_S", 0.5)
    with locked(notes.path):
        tries = 0
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            assert not notes.add()
            tries += 1
            assert notes.count() == 1
            time.sleep(0.001)
        assert tries > 50  # most were told at once
        assert not notes.add(within_s=0.2)
    assert notes.said() == ["has been locked by another process for a while"]
    assert notes.add(within_s=10)
    assert notes.add()


def test_who_is_patient_waits_for_a_writer(notes: Notes) -> None:
    loop = "database.run(lambda c: (print(add(c), flush=True), input()), None)"
    process = subprocess.Popen(
        [sys.executable, "-c", f"{ADD}{loop}", str(notes.path), SCHEMA, "its note"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(module.__file__).parents[2])},
    )
    with process:
        assert process.stdout
        assert process.stdin
        process.stdout.readline()
        assert not notes.add()
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert notes.add(within_s=20)
    assert notes.count() == 12


def test_a_locked_opening_is_no_trouble(notes: Notes, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl  # noqa: PLC0415 - for this test alone

    other = make()
    monkeypatch.setattr(module, "PAUSE_S", 0.0)
    with notes.path.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert other.count() == -1
    assert other.count() == 1
    assert other.said() == []


def writer(path: Path, text: str, loop: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", ADD + loop, str(path), SCHEMA, text],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(module.__file__).parents[2])},
    )


def test_eight_processes_write_at_once(tmp_path: Path, make: Make) -> None:
    """They make the file at once, too."""
    path = tmp_path / "folder/ledger.db"
    loop = "print(sum(database.run(add, False, within_s=60) for _ in range(50)), warnings.take())"
    processes = [writer(path, f"of {nth}", loop) for nth in range(8)]
    assert [process.communicate()[0] for process in processes] == [b"50 []\n"] * 8
    assert make().count() == 8 * 50 * 10


@pytest.mark.parametrize("times", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_a_process_killed_in_the_middle_of_a_write(notes: Notes, times: int) -> None:
    """What it was told to be written is there, and its transactions are whole."""
    loop = "while database.run(add, False, within_s=60): print('x', flush=True)"
    for nth in range(times):
        with writer(notes.path, "a note " * 500 * (nth % 3), loop) as process:
            assert process.stdout
            before = notes.count()
            told = sum(1 for _ in zip(range(nth + 1), process.stdout, strict=False))
            process.kill()
            told += len(process.stdout.readlines())
        now = notes.count()
        assert now - before in (told * 10, told * 10 + 10)
        assert notes.add(within_s=10)
    assert notes.rows("PRAGMA integrity_check") == [("ok",)]
    assert notes.said() == []


def test_a_child_opens_its_own(notes: Notes, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = notes.database._connection
    pid = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: pid + 1)
    assert notes.add()
    child = notes.database._connection
    assert child is not parent
    assert parent is not None
    assert parent.execute("SELECT count(*) FROM notes").fetchone() == (2,)  # it was not closed
    parent.close()
