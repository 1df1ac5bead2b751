"""The planner's parts, each against a naive writing of what it promises: on texts, row by row."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from os import path

import numpy as np
import pytest
from numpy.typing import NDArray

from pg_bridge.ordering.cells import Cells, sort_texts
from pg_bridge.ordering.fixed import count_fixed, order_greedily, order_v1, refine_order
from pg_bridge.ordering.measured import CHUNK_ROWS
from pg_bridge.ordering.partition import NONE, Partition, descend, divide, sort_order, split, walk
from pg_bridge.ordering.sent import Sent
from pg_bridge.ordering.tree import grow
from pg_bridge.rows.table import Table
from tests.seeds import each_seed

Row = tuple[str, ...]  # its pieces '"name": cell', as sent or by column


def chance_of(seed: int) -> np.random.Generator:
    return np.random.default_rng([7, seed])


def random_table(chance: np.random.Generator, n: int, k: int, distinct: int = 5) -> Table:
    """Cells that repeat, begin alike, continue each other and come up in several columns."""
    pool = ["", "a", "ab", "abb", "abc", "b", "ba", "long, and alike for 20", "long, and alike for 22", "1", "12", "2"]
    columns = []
    for _ in range(k):
        words = chance.choice(pool, size=distinct)
        columns.append([text if text.isdigit() else json.dumps(text) for text in chance.choice(words, n).tolist()])
    return Table.from_cells([chr(ord("a") + j) for j in range(k)], columns)


def random_orders(chance: np.random.Generator, n: int, k: int) -> NDArray[np.int16]:
    return np.array([chance.permutation(k) for _ in range(n)], np.int16).reshape(n, k)


def random_partition(chance: np.random.Generator, n: int, groups: int) -> Partition:
    """Groups of two rows or more."""
    group = np.sort(np.concatenate([np.repeat(np.arange(groups), 2), chance.integers(0, groups, n - 2 * groups)]))
    return Partition(chance.permutation(n).astype(np.intp), group.astype(np.intp), groups)


def pieces(table: Table) -> list[Row]:
    labels = [json.dumps(name) + ": " for name in table.columns]
    return [tuple(label + cell for label, cell in zip(labels, row, strict=True)) for row in table.cells()]


def common_chars(one: str, other: str) -> int:
    return len(path.commonprefix((one, other)))  # noqa: RUF071 - characters are meant


def common_cells(one: Row, other: Row, names: bool) -> int:
    """Characters of cells, each with the two that part it from the next, that two rows share at their start.

    `names` counts those of the names, too, where the rows part because they hold different columns.
    """
    chars = 0
    for a, b in zip(one, other, strict=True):
        if a != b:
            return chars + (common_chars(a, b) if names or a.split(":")[0] == b.split(":")[0] else 0)
        chars += len(a) + 2
    return chars


def shared_cells(rows: Sequence[Row], *, names: bool = False) -> int:
    """The same, summed over neighbours of the sorted rows."""
    return sum(common_cells(one, other, names) for one, other in pairwise(sorted(rows)))


def as_sent(table: Table, column_order: NDArray[np.int16]) -> list[Row]:
    return [tuple(row[j] for j in order) for row, order in zip(pieces(table), column_order.tolist(), strict=True)]


def by_columns(table: Table, columns: Sequence[int]) -> list[Row]:
    return [tuple(row[j] for j in columns) for row in pieces(table)]


# Cells


@pytest.mark.parametrize("letters", ["aé日😀", "aébÿ"], ids=["of any alphabet", "in Latin-1"])
@pytest.mark.parametrize("alike", [0, 1, 15, 16, 17, 79, 80, 81, 335, 336, 337, 1359, 1360, 5455, 5456, 9551, 9552])
def test_texts_are_sorted_and_share_their_common_prefix_with_the_text_before(alike: int, letters: str) -> None:
    same = (letters * (alike // 4 + 1))[:alike]
    assert_alphabetical(list(dict.fromkeys([same + "b", same, same[: alike // 2] + "z", same + "ab", "", same + "a"])))


@pytest.mark.parametrize("chunk", [64, pytest.param(CHUNK_ROWS, marks=pytest.mark.slow)])
@pytest.mark.parametrize("rare", ["x", "ł"])
def test_many_texts_are_sorted_as_few_are(rare: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pg_bridge.ordering.cells.CHUNK_ROWS", chunk)
    n = 2 * chunk + 8
    texts = [f"{i // 3:06d} and {i * 7919 % n}" for i in range(n)]
    assert_alphabetical([*texts[::-1], rare])


@pytest.mark.parametrize("texts", [[], ["a"], ["", "\x7f", "\x80", "ÿ", "~"]])
def test_any_texts_are_sorted(texts: list[str]) -> None:
    assert_alphabetical(texts)


def assert_alphabetical(texts: list[str]) -> None:
    order, common = sort_texts(texts)
    assert [texts[i] for i in order.tolist()] == sorted(texts)
    pairs = [common_chars(one, other) for one, other in pairwise(sorted(texts))]
    assert common.tolist() == [0, *pairs][: len(texts)]


# With the name and a quote up to 255 and up to 65,535, then more.
@pytest.mark.parametrize("alike", [248, 249, 250, 251, 65_528, 65_529, 65_530, 65_531, 65_532])
def test_cells_share_beginnings_of_any_length(alike: int) -> None:
    texts = [json.dumps("x" * alike + end) for end in "abc"]
    cells = Cells(Table.from_cells(["a"], [texts]))
    assert cells.common_with_previous.tolist() == [0, alike + 6, alike + 6]
    assert cells.shared_chars(np.array([0]), np.array([2])).tolist() == [alike + 6]


@each_seed(12)
def test_any_two_cells_of_a_column_share_their_common_prefix(seed: int) -> None:
    chance = chance_of(seed)
    alphabet = np.array(list("ab"))
    columns = [["".join(chance.choice(alphabet, chance.integers(0, 8))) for _ in range(n)] for n in (60, 60)]
    table = Table.from_cells(["x", "a name"], [[json.dumps(text) for text in column] for column in columns])
    cells = Cells(table)
    for j, label in enumerate(table.labels()):
        texts = sorted(table.values[j])
        low, high = np.triu_indices(len(texts), 1)
        shared = cells.shared_chars(low + cells.offsets[j], high + cells.offsets[j])
        expected = [common_chars(label + texts[a], label + texts[b]) for a, b in zip(low, high, strict=True)]
        assert shared.tolist() == expected


def test_places_number_the_distinct_cells_alphabetically_column_after_column() -> None:
    table = Table.from_cells(["a", "bc"], [["3", "1", "3"], ['"y"', '"x"', '"z"']])
    cells = Cells(table)
    assert cells.ranks.tolist() == [[1, 0, 1], [1, 0, 2]]
    assert cells.offsets.tolist() == [0, 2]
    assert cells.chars.tolist() == [len(f"{piece}, ") for piece in ('"a": 1', '"a": 3', *['"bc": "x"'] * 3)]
    assert cells.places(np.array([0, 2, 1]), np.array([0, 1, 1])).tolist() == [1, 4, 2]


@pytest.mark.parametrize("step", [1, 2, 7, 40, 100])
def test_every_so_manieth_row_keeps_its_cells(step: int) -> None:
    cells = Cells(random_table(chance_of(step), 40, 3))
    some = cells.some(np.arange(0, cells.rows, step))
    assert some.rows == len(range(0, 40, step))
    assert some.ranks.tolist() == [ranks[::step] for ranks in cells.ranks.tolist()]
    assert cells.rows == 40


@pytest.mark.parametrize(("distinct", "dtype"), [(65_535, np.uint16), (65_536, np.int32), (70_000, np.int32)])
def test_ranks_are_wide_enough_for_every_cell(distinct: int, dtype: type[np.integer]) -> None:
    numbers = (np.arange(distinct) * 7919 % distinct).tolist()
    cells = Cells(Table.from_cells(["a", "b"], [[f"{number:06d}" for number in numbers], ["1"] * distinct]))
    assert cells.ranks.dtype == dtype
    assert cells.ranks[0].tolist() == numbers


# Splitting groups


@pytest.mark.parametrize("ranks", [1, 10, 65_535, 65_536, 65_537, 200_000])
@pytest.mark.parametrize("groups", [1, 300, 65_536, 65_537, 70_000])
def test_sorting_by_group_and_rank_is_stable(ranks: int, groups: int) -> None:
    chance = chance_of(ranks)
    n = 33_000  # enough for the largest keys and their places to need more than 63 bits
    group = np.sort(np.append(chance.integers(0, groups, n), groups - 1))
    dtype: type[np.integer] = np.uint16 if ranks <= 65_536 else np.int32
    rank: NDArray[np.integer] = np.append(chance.integers(0, ranks, n), ranks - 1).astype(dtype)
    expected = np.lexsort((rank, group))
    assert np.array_equal(sort_order(group, rank, ranks), expected)
    assert np.array_equal(sort_order(group, rank), expected)


def test_nothing_sorts_to_nothing() -> None:
    assert sort_order(np.empty(0, np.intp), np.empty(0, np.uint16), 0).tolist() == []


def assert_split(table: Table, cells: Cells, partition: Partition, columns: list[int]) -> None:
    """Compare a split, by one column for each group, to sorting the rows' texts."""
    found = split(cells, partition, columns[0] if len(set(columns)) == 1 else np.array(columns, np.int16))
    text = pieces(table)
    rows: list[int] = []
    parts: list[tuple[int, str, int, int]] = []  # parent, text, size, saved
    members = np.split(partition.rows, np.flatnonzero(np.diff(partition.group)) + 1)
    for group, (of_group, column) in enumerate(zip(members, columns, strict=True)):
        before = None
        by_text: dict[str, list[int]] = {}
        for row in of_group.tolist():
            by_text.setdefault(text[row][column], []).append(row)
        for piece, equal in sorted(by_text.items()):
            saved = (len(piece) + 2) * (len(equal) - 1) + (common_chars(before, piece) if before is not None else 0)
            parts.append((group, piece, len(equal), saved))
            rows += equal
            before = piece
    assert found.rows.tolist() == rows
    assert found.start.tolist() == np.cumsum([0, *(size for *_, size, _ in parts)])[:-1].tolist()
    pieces_of = [
        label + value for label, values in zip(table.labels(), table.values, strict=True) for value in sorted(values)
    ]
    assert [pieces_of[place] for place in found.place.tolist()] == [piece for _, piece, _, _ in parts]
    figures = zip(found.parent.tolist(), found.size.tolist(), found.saved.tolist(), strict=True)
    assert list(figures) == [(parent, size, saved) for parent, _, size, saved in parts]
    groups, large = found.groups()
    assert large.tolist() == [i for i, (_, _, size, _) in enumerate(parts) if size > 1]
    assert np.bincount(groups.group, minlength=groups.count).tolist() == [size for *_, size, _ in parts if size > 1]
    starts = found.start.tolist()
    assert groups.rows.tolist() == [row for i in large.tolist() for row in rows[starts[i] : starts[i] + parts[i][2]]]


@each_seed(12)
def test_groups_split_as_their_texts_sort(seed: int) -> None:
    chance = chance_of(seed)
    table = random_table(chance, 50, 3)
    partition = random_partition(chance, 50, 1 + seed)
    columns: list[int] = chance.integers(0, 3, partition.count).tolist()
    assert_split(table, Cells(table), partition, columns)
    assert_split(table, Cells(table), partition, [seed % 3] * partition.count)


@pytest.mark.parametrize(
    ("n", "largest_short", "chunk"),
    [(700, 255, 64), pytest.param(70_000, np.iinfo(np.uint16).max, CHUNK_ROWS, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("columns", [[1, 0, 1], [1, 1, 1]])
def test_groups_of_many_distinct_cells_split_as_their_texts_sort(
    columns: list[int], n: int, largest_short: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pg_bridge.ordering.cells._LARGEST_SHORT", largest_short)
    monkeypatch.setattr("pg_bridge.ordering.partition.CHUNK_ROWS", chunk)
    many = [f'"{i * 7919 % n:05d}"' for i in range(n - n // 7)]
    table = Table.from_cells(["few", "many"], [[f"{i % 7}" for i in range(n)], many + many[: n // 7]])
    assert_split(table, Cells(table), random_partition(chance_of(0), n, 3), columns)


@each_seed(12)
def test_groups_are_divided_by_the_column_that_each_row_takes(seed: int) -> None:
    chance = chance_of(seed)
    partition = random_partition(chance, 40, 1 + seed)
    column = chance.integers(0, 4, 40).astype(np.int16)
    divided, parent, of_group = divide(partition, column)
    wanted: dict[tuple[int, int], list[int]] = {}
    for row, group, j in zip(partition.rows.tolist(), partition.group.tolist(), column.tolist(), strict=True):
        wanted.setdefault((group, j), []).append(row)
    keys = sorted(wanted)
    assert list(zip(parent.tolist(), of_group.tolist(), strict=True)) == keys
    assert divided.rows.tolist() == [row for key in keys for row in wanted[key]]
    assert divided.group.tolist() == [i for i, key in enumerate(keys) for _ in wanted[key]]
    assert divided.count == len(keys)


def test_some_groups_of_a_partition_are_numbered_anew() -> None:
    partition = Partition(np.array([5, 1, 4, 0, 2, 3]), np.array([0, 0, 1, 1, 2, 2]), 3)
    some = partition.of(np.array([True, False, True]))
    assert (some.rows.tolist(), some.group.tolist(), some.count) == ([5, 1, 2, 3], [0, 0, 1, 1], 2)


@pytest.mark.parametrize(("n", "groups"), [(0, 0), (1, 0), (2, 1), (9, 1)])
def test_a_table_is_one_group_of_its_rows_unless_one_stands_alone(n: int, groups: int) -> None:
    whole = Partition.whole(Cells(random_table(chance_of(n), n, 2)))
    assert whole.count == groups
    assert whole.rows.tolist() == list(range(n))[: n * groups]


@each_seed(12)
def test_a_descent_saves_what_sorted_rows_share_in_each_group(seed: int) -> None:
    chance = chance_of(seed)
    table = random_table(chance, 40, 4)
    partition = random_partition(chance, 40, 3)
    lengths = [4, 2, 3]
    orders = [chance.permutation(4)[:length].tolist() for length in lengths]
    padded = np.array([order + [NONE] * (4 - len(order)) for order in orders], np.int16)
    saved = sum(level.saved(3) for level in descend(Cells(table), partition, padded))
    text = pieces(table)
    for group, order in enumerate(orders):
        rows = partition.rows[partition.group == group].tolist()
        assert np.asarray(saved)[group] == shared_cells([tuple(text[row][j] for j in order) for row in rows])


# Rows


@each_seed(12)
def test_sorted_rows_share_as_much_as_their_sorted_texts(seed: int) -> None:
    chance = chance_of(seed)
    table = random_table(chance, 30, 3)
    column_order = random_orders(chance, 30, 3)
    texts = [f"{{{', '.join(row)}}}" for row in as_sent(table, column_order)]
    rows = walk(Cells(table), column_order)[0].tolist()
    assert sorted(rows) == list(range(30))
    shared = sum(common_chars(*pair) for pair in pairwise(sorted(texts)))
    assert sum(common_chars(texts[one], texts[other]) for one, other in pairwise(rows)) == shared
    assert walk(Cells(table), column_order)[1] == shared_cells(as_sent(table, column_order), names=True)
    place = {row: i for i, row in enumerate(rows)}
    assert all(place[a] < place[b] for b in range(30) for a in range(b) if texts[a] == texts[b])


def test_rows_sort_by_column_then_by_cell_at_every_depth() -> None:
    table = Table.from_cells(["a", "b"], [["2", "1", "1", "3"], ["7", "8", "7", "6"]])
    column_order = np.array([[0, 1], [0, 1], [0, 1], [1, 0]], np.int16)
    assert walk(Cells(table), column_order)[0].tolist() == [2, 1, 0, 3]


def test_columns_with_names_that_begin_alike_stand_side_by_side() -> None:
    table = Table.from_cells(["long name one", "m", "long name two"], [["1", "2", "3"]] * 3)
    column_order = np.array([[0, 1, 2], [1, 0, 2], [2, 0, 1]], np.int16)
    assert walk(Cells(table), column_order)[0].tolist() == [0, 2, 1]
    # '"long name ' and then '"', for no opening brace is counted here
    assert walk(Cells(table), column_order)[1] == len('"long name ') + len('"')


@pytest.mark.parametrize(
    ("orders", "mean"),
    [
        ([[2, 0, 1], [2, 1, 0], [0, 2, 1]], (2, 0, 1)),
        ([[0, 1, 2], [0, 1, 2], [2, 1, 0]], (0, 1, 2)),
        ([[0, 1], [1, 0]], (0, 1)),
    ],
)
def test_what_was_sent_has_the_columns_in_their_mean_order(orders: list[list[int]], mean: tuple[int, ...]) -> None:
    column_order = np.array(orders, np.int16)
    hashes = iter([np.zeros(len(orders), np.uint64)] * len(mean))
    assert Sent().add(hashes, column_order).order == mean


@each_seed(12)
def test_every_distinct_beginning_of_a_row_is_one_prefix(seed: int) -> None:
    chance = chance_of(seed)
    table = random_table(chance, 30, 3)
    column_order = random_orders(chance, 30, 3)
    beginnings = {row[:depth] for row in as_sent(table, column_order) for depth in (1, 2, 3)}
    cells = Cells(table, hashed=True)
    sent = Sent().add(cells.hashes_by_place(np.arange(30), column_order), column_order)
    assert len(sent.prefixes) == len(beginnings)


# Fixed orders


@each_seed(12)
def test_a_fixed_order_shares_what_its_sorted_rows_share(seed: int) -> None:
    chance = chance_of(seed)
    table = random_table(chance, 40, 4)
    columns: list[int] = chance.permutation(4).tolist()
    assert count_fixed(Cells(table), columns) == shared_cells(by_columns(table, columns))


def naive_greedy(table: Table, beginnings: bool) -> list[int]:
    """Count anew, at each step, what each column would save behind those chosen."""
    chosen: list[int] = []
    text = pieces(table)

    def saved(column: int) -> int:
        groups: dict[Row, list[Row]] = {}
        for row in text:
            groups.setdefault(tuple(row[j] for j in chosen), []).append((row[column],))
        if beginnings:
            return sum(map(shared_cells, groups.values()))
        return sum(
            sum(len(piece) + 2 for (piece,) in group) - sum(len(piece) + 2 for (piece,) in set(group))
            for group in groups.values()
        )

    rest = list(range(len(table.columns)))
    while rest:
        best = max(rest, key=saved)  # the first of equal ones
        if not saved(best):
            break
        chosen.append(best)
        rest.remove(best)
    return chosen + rest


@pytest.mark.parametrize("beginnings", [False, True])
@each_seed(12)
def test_the_greedy_order_takes_the_column_that_saves_most(seed: int, beginnings: bool) -> None:
    chance = chance_of(seed)
    table = random_table(chance, 25, 6, distinct=12)
    assert order_greedily(Cells(table), beginnings=beginnings) == naive_greedy(table, beginnings)


@each_seed(12)
def test_the_v1_order_is_by_mean_length_times_rows_over_cardinality(seed: int) -> None:
    table = random_table(chance_of(seed), 30, 6, distinct=1 + seed)
    columns = list(zip(*table.cells(), strict=True))
    scores = [sum(map(len, column)) / 30 * 30 / len(set(column)) for column in columns]
    assert order_v1(Cells(table)) == sorted(range(6), key=lambda j: -scores[j])


@each_seed(40)
def test_refining_gains_wherever_one_column_moved_forward_would(seed: int) -> None:
    chance = chance_of(seed)
    table = random_table(chance, 16, 4, distinct=6)
    columns: list[int] = order_greedily(Cells(table))

    def shared(order: list[int]) -> int:
        return shared_cells(by_columns(table, order))

    moves = []
    for here in range(4):
        for there in range(here):
            order = [*columns[:here], *columns[here + 1 :]]
            order.insert(there, columns[here])
            moves.append(shared(order))
    refined = refine_order(Cells(table), columns)
    assert sorted(refined) == [0, 1, 2, 3]
    assert (shared(refined) > shared(columns)) == (max(moves) > shared(columns))
    assert refined == columns or shared(refined) > shared(columns)


def test_a_move_that_gains_nothing_is_not_made() -> None:
    twins = [f"{i // 3}" for i in range(12)]
    cells = Cells(Table.from_cells(["a", "b", "c"], [twins, twins, [f"{i}" for i in range(12)]]))
    assert refine_order(cells, [0, 1, 2]) == [0, 1, 2]
    assert refine_order(cells, [1, 0, 2]) == [1, 0, 2]


def test_columns_far_behind_stay_where_they_are() -> None:
    table = Table.from_cells([f"c{j}" for j in range(70)], [[f"{i * (j + 1)}" for i in range(6)] for j in range(70)])
    columns = list(range(69, -1, -1))
    refined = refine_order(Cells(table), columns)
    assert refined[64:] == columns[64:]
    assert sorted(refined) == list(range(70))


# Trees


@pytest.mark.parametrize("candidates", [1, 4, 9])
@each_seed(4)
def test_every_row_of_a_tree_takes_every_column_once(seed: int, candidates: int) -> None:
    chance = chance_of(seed)
    for n, k in ((1, 3), (2, 1), (2, 4), (60, 5)):
        cells = Cells(random_table(chance, n, k))
        order = grow(cells, chance.permutation(k).tolist(), candidates)
        assert np.sort(order, axis=1).tolist() == [list(range(k))] * n
        assert order.dtype == np.int16


def test_columns_that_are_equal_in_a_whole_group_are_taken_first() -> None:
    film = [f'"film {i // 4}"' for i in range(24)]
    year = [f"{1900 + i // 4 % 3}" for i in range(24)]  # determined by the film
    review = [f'"{i % 4}{"x" * 60}"' for i in range(24)]
    site = ['"one for all"'] * 24
    table = Table.from_cells(["film", "review", "year", "site"], [film, review, year, site])
    assert grow(Cells(table), [0, 1, 2, 3], 1)[:, :3].tolist() == [[3, 0, 2]] * 24


def test_rows_alone_with_their_cell_go_on_together() -> None:
    a = [*['"the same one"'] * 3, '"p"', '"q"', '"r"', '"s"']
    b = ['"t"', '"u"', '"v"', *['"all of these"'] * 4]
    table = Table.from_cells(["a", "b"], [a, b])
    assert grow(Cells(table), [0, 1], 1).tolist() == [[0, 1]] * 3 + [[1, 0]] * 4


def test_a_node_looks_at_as_many_columns_as_it_is_told_to() -> None:
    n = 12
    table = Table.from_cells(
        ["bad", "worse", "good"],
        [[f'"{i}"' for i in range(n)], [f'"{i % 6}"' for i in range(n)], [f'"{"x" * 50}{i % 2}"' for i in range(n)]],
    )
    firsts = {candidates: grow(Cells(table), [0, 1, 2], candidates)[:, 0].tolist() for candidates in (1, 2, 3)}
    assert firsts == {1: [0] * n, 2: [1] * n, 3: [2] * n}
