"""Row sets staged in memory and in a file give back what was put in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pg_bridge.backend import rowsets
from pg_bridge.backend.rowsets import RowSet
from pg_bridge.multicorn.staging import Staging

row = st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20))


@given(
    rows=st.lists(row, max_size=30),
    position=st.integers(0, 30),
    count=st.integers(0, 30),
    kept=st.integers(0, 30),
    cut=st.integers(0, 30),
)
def test_rows_come_back_in_place(rows: list[str | None], position: int, count: int, kept: int, cut: int) -> None:
    rowset = RowSet()
    rowset.extend(rows[:cut])
    rowset.extend(rows[cut:])
    assert rowset.fetch(position, count) == rows[position : position + count]
    rowset.truncate(kept)
    rowset.extend(["last"])
    assert rowset.fetch(0, 100) == [*rows[:kept], "last"]
    rowset.close()


def test_a_large_row_set_leaves_memory() -> None:
    rowset = RowSet()
    line = "x" * 1000
    for _ in range(rowsets.SPILL_BYTES // 1_000_000 + 1):
        rowset.extend([line] * 1000)
    assert rowset.spilled
    assert rowset.fetch(len(rowset) - 2, 5) == [line, line]
    rowset.close()


def test_marks_nest() -> None:
    area = Staging()
    area.rowset((10, "a")).extend(["1"])
    area.begin_subtransaction(2)
    area.rowset((10, "a")).extend(["2"])
    area.begin_subtransaction(3)
    area.rowset((10, "b")).extend(["3"])
    area.commit_subtransaction(3)
    assert len(area.rowset((10, "b"))) == 1
    area.abort_subtransaction(2)
    assert list(area.rowsets) == [(10, "a")]
    assert area.rowset((10, "a")).fetch(0, 9) == ["1"]
    area.end_transaction()
    assert area.rowsets == {}


def test_a_subtransaction_of_which_two_tables_tell_is_marked_once() -> None:
    area = Staging()
    area.rowset((10, "a")).extend(["1"])
    area.begin_subtransaction(2)
    area.rowset((10, "a")).extend(["2"])
    area.rowset((10, "b")).extend(["3"])
    area.begin_subtransaction(2)
    area.rowset((10, "b")).extend(["4"])
    area.abort_subtransaction(2)
    area.abort_subtransaction(2)
    assert list(area.rowsets) == [(10, "a")]
    assert area.rowset((10, "a")).fetch(0, 9) == ["1"]
    area.end_transaction()


def test_a_role_sees_its_own_row_sets_only() -> None:
    area = Staging()
    area.rowset((10, "a")).extend(["mine"])
    area.rowset((11, "a")).extend(["another's"])
    assert [(name, rowset.fetch(0, 9)) for name, rowset in area.rowsets_of(10)] == [("a", ["mine"])]
    area.drop((10, "a"))
    assert area.rowset((11, "a")).fetch(0, 9) == ["another's"]
    area.end_transaction()
