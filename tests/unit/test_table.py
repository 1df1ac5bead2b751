from __future__ import annotations

import json
from unittest.mock import Mock, call

import numpy as np
import pytest

from pg_bridge.errors import OptionError, QueryError
from pg_bridge.rows import cutting
from pg_bridge.rows.cutting import UNKNOWN, columns_of
from pg_bridge.rows.table import Table


def cells(table: Table) -> list[list[str]]:
    return [[table.values[j][code] for j, code in enumerate(row)] for row in table.codes.tolist()]


def test_numbers_keep_their_spelling() -> None:
    spellings = ["12.50", "12.5", "1e400", "-0", "0.0", "123456789012345678901234567890123456789012"]
    table = Table.from_json([f'{{"n":{spelling}}}' for spelling in spellings], ["n"])
    assert cells(table) == [[spelling] for spelling in spellings]


def test_equal_text_of_different_kinds_stays_apart() -> None:
    table = Table.from_json(['{"a":null}', '{"a":"null"}', '{"a":1}', '{"a":"1"}', '{"a":""}', '{"a":[]}'], ["a"])
    assert len(table.values[0]) == 6


def test_null_row_missing_key_and_null_cell_are_one_value() -> None:
    table = Table.from_json([None, "{}", '{"a":null}', '{"b":1}'], ["a"])
    assert cells(table) == [["null"]] * 4
    assert table.values == (["null"],)


def test_columns_keep_the_order_asked_for_whatever_the_rows_say() -> None:
    rows = ['{"a":1,"b":2,"c":3}', '{"c":6,"b":5,"a":4}', '{ "b" : 8 , "a" : 7 }']
    assert cells(Table.from_json(rows, ["c", "a"])) == [["3", "1"], ["6", "4"], ["null", "7"]]


def test_the_last_of_equal_keys_counts_in_every_row() -> None:
    assert cells(Table.from_json(['{"a":1,"a":2}', '{"a":3,"a":4}', '{"a":5}'], ["a"])) == [
        ["2"],
        ["4"],
        ["5"],
    ]


MANY = 200  # rows enough for a pattern of their layout to be compiled


@pytest.mark.parametrize("columns", [["a", "b"], ["b", "a"], ["b"], ["a", "missing"], ["missing"]])
def test_many_rows_are_cut_like_few(columns: list[str]) -> None:
    odd = [
        '{"a":"x","b":{"c":[1,{"d":[2]}]}}',  # nested deeper than the pattern goes
        '{"b":1,"a":2}',
        '{"a": "spaced", "b": 2}',
        '{"a":"extra","b":1,"c":3}',
        '{"a":"twice","a":"\\u00e9","b":null}',
        '{"a":"\\u00e9","b":"\\/"}',
        '{"b":3}',
        "{}",
        None,
    ]
    plain = [f'{{"a":"a \\"{i}\\" }}","b":{i}.50}}' for i in range(MANY)]
    rows = [plain[0], *odd, *plain[1:], *odd]
    few = [cells(Table.from_json([row], columns))[0] for row in rows]
    assert cells(Table.from_json(rows, columns)) == few


@pytest.mark.parametrize("columns", [["a", "b"], ["b", "a"], ["b"], ["c"], ["missing", "a"]])
def test_rows_side_by_side_are_one(columns: list[str]) -> None:
    odd = [
        '{"":[null, {"a":1}]}',
        '{"":[{"a":"}, {"}, null]}',
        '{"": [{"a":2} , { "b" : [{"c":3}, {}] }] }',
        '{"":[{"a":1,"b":2}]}',
        '{"":[{}, { }, {"b":7}]}',
        '{"":[]}',
        '{"a":3,"b":4}',
        None,
    ]
    plain = [f'{{"":[{{"a":"\\"}}, {i % 3}"}}, {{"b":{i},"c":[{{}}, {{}}]}}]}}' for i in range(MANY)]
    merged = [f'{{"a":"\\"}}, {i % 3}","b":{i},"c":[{{}}, {{}}]}}' for i in range(MANY)]
    of_odd = ['{"a":1}', '{"a":"}, {"}', '{"a":2,"b":[{"c":3}, {}]}', '{"a":1,"b":2}', '{"b":7}', "{}", *odd[-2:]]
    assert cells(Table.from_json([*odd, *plain, *odd], columns)) == [
        cells(Table.from_json([row], columns))[0] for row in [*of_odd, *merged, *of_odd]
    ]


def test_many_rows_side_by_side_are_cut_by_a_pattern(monkeypatch: pytest.MonkeyPatch) -> None:
    split = Mock(wraps=cutting._parts)
    monkeypatch.setattr(cutting, "_parts", split)
    rows = ['{"":[{"a":0}, null]}', *(f'{{"":[{{"a":{i}}}, {{"b": {i}}}]}}' for i in range(MANY))]
    assert cells(Table.from_json(rows, ["b"])) == [["null"], *([str(i)] for i in range(MANY))]
    assert split.call_args_list == [call(rows[0]), call(rows[1])]


def test_the_columns_of_rows_side_by_side() -> None:
    assert columns_of('{"":[{"b":1,"a":2}, null, {}, {"a":3}]}') == ("b", "a", UNKNOWN, "a")
    assert columns_of('{"":1}') == columns_of('{"":{"a":1}}') == ("",)
    assert columns_of('{"":[{"a":1}],"b":2}') == ("", "b")
    assert columns_of('{"\\u0000":1}') == ("\0",)


def test_rows_side_by_side_within_others() -> None:
    nested = '{"":[{"a":1}, {"":[{"b":%s}, null, {"":[]}, {"":[{"c":3}]}]}, {"d":4}]}'
    assert columns_of(nested % 2) == ("a", "b", UNKNOWN, "c", "d")
    rows = [nested % i for i in range(MANY)]
    assert cells(Table.from_json(rows, ["b", "d"])) == [[str(i), "4"] for i in range(MANY)]
    for levels in (cutting._DEEPEST, 5000):
        row = '{"":[' * levels + '{"a":1}' + "]}" * levels
        if levels == cutting._DEEPEST:
            assert columns_of(row) == ("a",)
        else:
            with pytest.raises(OptionError, match=r"llm\.row stands in itself more than"):
                columns_of(row)


@pytest.mark.parametrize("part", ["1", '"{"', "[{}]", "true"])
def test_what_stands_side_by_side_is_rows(part: str) -> None:
    with pytest.raises(OptionError, match=r"argument 2 of llm\.row is neither a row nor a JSON object"):
        Table.from_json([f'{{"":[{{"a":1}}, {part}]}}'], ["a"])
    for wrong in ("[{} {}]", "[{},]", "[,]", "[{}"):
        with pytest.raises((ValueError, OptionError)):
            Table.from_json([f'{{"":{wrong}}}'], ["a"])


def test_many_rows_after_a_null_row() -> None:
    rows = [None, *(f'{{"a":{i}}}' for i in range(MANY))]
    assert cells(Table.from_json(rows, ["a"])) == [["null"], *([str(i)] for i in range(MANY))]


@pytest.mark.parametrize(
    "cell",
    [
        '{"x": [1, {"y": "}]"}], "z": {}}',
        '[[[["deep", "\\""]]], "]"]',
        "[1,\n 2]",
        '"a \\"quoted\\" \\\\"',
        '"日本 😀"',
        "[" * 1500 + "]" * 1500,
        "true",
    ],
)
def test_a_cell_is_the_rows_own_text(cell: str) -> None:
    row = f'{{"before":"x","cell":{cell},"after":2}}'
    for count in (1, MANY):
        assert cells(Table.from_json([row] * count, ["cell", "after"])) == [[cell, "2"]] * count


def test_two_spellings_of_a_text_are_one_value() -> None:
    table = Table.from_json(['{"a":"é/"}', '{"a":"\\u00e9\\/"}', '{"a":"\\u00E9/"}'], ["a"])
    assert table.values == (['"é/"'],)


def test_half_a_surrogate_pair_stays_escaped() -> None:
    table = Table.from_json(['{"a":"\\ud800"}'], ["a"])
    assert table.values == (['"\\ud800"'],)


def test_control_characters_survive() -> None:
    text = "".join(map(chr, range(1, 0x20))) + "\x7f\u2028"
    table = Table.from_json([json.dumps({"a": text}, ensure_ascii=False)] * 2, ["a"])
    assert [json.loads(cell) for cell in table.values[0]] == [text]


@pytest.mark.parametrize(
    "row",
    [
        "",
        "[]",
        "1",
        '"secret"',
        '{"a":1',
        '{"a" 1}',
        '{"a":1}}',
        '{"a":[1}',
        '{"a":secret}',
        '{"a":1,}',
        '{"a":"secret}',
    ],
)
def test_a_row_that_is_no_object_is_refused_without_quoting_it(row: str) -> None:
    for count in (1, MANY):
        with pytest.raises(ValueError, match="not the text of a JSON object") as caught:
            Table.from_json([*['{"a":1}'] * count, row], ["a"])
        assert "secret" not in str(caught.value)


def test_two_columns_of_one_name_are_refused() -> None:
    with pytest.raises(QueryError, match='2 columns named "a"') as caught:
        Table.from_json(['{"a":1,"a":2}'], ["a", "b", "a"])
    assert "AS" in caught.value.hint


@pytest.mark.parametrize(("rows", "columns"), [([], []), ([], ["a", "b"]), (["{}", None], []), ([None, None], ["a"])])
def test_empty_shapes(rows: list[str | None], columns: list[str]) -> None:
    table = Table.from_json(rows, columns)
    assert table.codes.shape == (len(rows), len(columns))
    assert table.codes.dtype == np.int32
    assert table.rows == len(rows)
    assert len(table.values) == len(columns)


def test_codes_lie_column_by_column_and_number_first_appearances() -> None:
    table = Table.from_json(['{"a":"y","b":1}', '{"a":"x","b":1}', '{"a":"y","b":2}'], ["a", "b"])
    assert table.codes.flags.f_contiguous
    assert table.codes.tolist() == [[0, 0], [1, 0], [0, 1]]
    assert table.values == (['"y"', '"x"'], ["1", "2"])


@pytest.mark.parametrize(("n", "looked_at"), [(5_000, 1 << 11), pytest.param(40_000, 1 << 14, marks=pytest.mark.slow)])
@pytest.mark.parametrize("repeats", ["none", "few", "late", "many late", "all alike at the start"])
def test_columns_of_hardly_repeated_cells_are_coded_as_others_are(
    repeats: str, n: int, looked_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pg_bridge.rows.table._LOOKED_AT_ROWS", looked_at)
    numbers, half = np.arange(n), n // 2
    if repeats == "few":
        numbers[::1_000] = 7
    elif repeats == "late":
        numbers[-100:] = numbers[:100]
    elif repeats == "many late":
        numbers[half:] = numbers[:half] // 2
    elif repeats == "all alike at the start":
        numbers[:half] = 0
    texts = [f'"{number * 7_919 % 40_009}"' for number in numbers.tolist()]
    code_of: dict[str, int] = {}
    codes = [code_of.setdefault(text, len(code_of)) for text in texts]
    from_cells = Table.from_cells(["few", "many"], [["1", "2"] * (n // 2), texts])
    from_rows = Table.from_json(
        [f'{{"few":{1 + i % 2},"many":{text}}}' for i, text in enumerate(texts)], ["few", "many"]
    )
    for table in (from_cells, from_rows):
        assert table.codes[:, 1].tolist() == codes
        assert table.values == (["1", "2"], list(code_of))


def test_lengths_count_characters_not_bytes() -> None:
    table = Table.from_json(['{"a":"日本😀"}', '{"a":12}'], ["a"])
    assert table.lengths()[0].tolist() == [5, 2]
    assert table.lengths()[0].dtype == np.int64


def test_two_thousand_columns() -> None:
    names = [f"c{j}" for j in range(2000)]
    row = "{" + ",".join(f'"{name}":{j}' for j, name in enumerate(names)) + "}"
    assert cells(Table.from_json([row, row], names)) == [[str(j) for j in range(2000)]] * 2


def test_from_cells_wants_one_sequence_a_column() -> None:
    with pytest.raises(ValueError, match="one sequence of cells"):
        Table.from_cells(["a", "b"], [["1"]])


@pytest.mark.parametrize("column", [[], ["1"], ["1", "2", "3"]])
def test_from_cells_wants_columns_of_one_length(column: list[str]) -> None:
    with pytest.raises(ValueError, match="same number"):
        Table.from_cells(["a", "b"], [["1", "2"], column])
