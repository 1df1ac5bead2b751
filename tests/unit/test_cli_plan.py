from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import pytest

from pg_bridge.cli import plan
from pg_bridge.errors import OptionError, PgBridgeError, TemplateError, UnknownColumn


def run(*arguments: str | Path) -> int:
    parser = argparse.ArgumentParser()
    plan.add_parser(parser.add_subparsers(required=True))
    parsed = parser.parse_args(["plan", *map(str, arguments)])
    return int(parsed.run(parsed))


def figures(printed: str) -> dict[str, str]:
    return {line[:17].strip(): line[17:] for line in printed.splitlines()}


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """60 rows, 30 of them distinct, about 3 films; the review stands first."""
    path = tmp_path / "reviews.csv"
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file)
        writer.writerow(["review", "film", "note"])
        for i in range(60):
            writer.writerow([f'{i % 30 * 7:03d} said\n"so", é', f"film {i % 3} " + "x" * 50, ""])
    return path


def test_figures_and_plan(reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    assert run(reviews, "--output", out) == 0
    printed = figures(capsys.readouterr().out)
    assert (printed["rows"], printed["unique rows"], printed["columns"]) == ("60", "30", "3")
    assert printed["strategy"] == "tree"
    before, after = (float(printed[f"hit rate {when}"].removesuffix(" %")) for when in ("before", "after"))
    assert before < 20
    assert after > 80
    document = json.loads(out.read_text(encoding="utf-8"))
    assert list(document) == ["columns", "row_order", "column_order"]
    assert document["columns"] == ["review", "film", "note"]
    assert sorted(document["row_order"]) == list(range(60))
    assert all(sorted(order) == [0, 1, 2] for order in document["column_order"])
    assert len(document["column_order"]) == 60
    place = {row: i for i, row in enumerate(document["row_order"])}
    assert all(place[i + 30] == place[i] + 1 for i in range(30))  # row i + 30 is row i's twin


def test_the_question_picks_columns_and_counts(reviews: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(reviews, "--columns", "film,review")
    alone = figures(capsys.readouterr().out)
    run(reviews, "--columns", "film,review", "--question", "Is {review} kind? " + "Think well. " * 50)
    asked = figures(capsys.readouterr().out)
    assert (alone["columns"], asked["columns"]) == ("2", "1")
    assert float(alone["hit rate before"][:-2]) < 50 < float(asked["hit rate before"][:-2])


def test_columns_may_be_quoted_and_stand_in_the_files_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.json"
    source.write_text('a,"b, c",d\n1,2,3\n', encoding="utf-8")
    run(source, "--columns", 'd, "b, c"', "--output", out)
    assert json.loads(out.read_text(encoding="utf-8"))["columns"] == ["b, c", "d"]
    assert figures(capsys.readouterr().out)["rows"] == "1"


def test_a_header_alone_is_a_table_without_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.json"
    source.write_text("a,b\n", encoding="utf-8")
    assert run(source, "--output", out) == 0
    assert figures(capsys.readouterr().out)["hit rate after"] == "0.0 %"
    assert json.loads(out.read_text(encoding="utf-8")) == {
        "columns": ["a", "b"],
        "row_order": [],
        "column_order": [],
    }


def test_a_cell_may_be_longer_than_the_csv_modules_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in.csv"
    source.write_text("a\n" + "x" * 200_000 + "\n", encoding="utf-8")
    assert run(source) == 0
    assert figures(capsys.readouterr().out)["rows"] == "1"


@pytest.mark.parametrize(
    ("content", "arguments", "error", "message"),
    [
        (None, [], OptionError, "cannot read"),
        (b"", [], OptionError, "is empty"),
        (b"\n\n", [], OptionError, "is empty"),
        (b"a,b\n1,2\nsecret\n", [], OptionError, "line 3 of .* has 1 cells, the header has 2"),
        (b"a\n\xff\xfesecret\n", [], OptionError, "is not UTF-8"),
        (b'a,b\n1,"secret\n2,3\n', [], OptionError, "is not a CSV file at line 3"),
        (b",".join(b"c%d" % j for j in range(32_768)), [], OptionError, "has 32768 columns"),
        (b"a,b\n1,2\n", ["--columns", ""], OptionError, "names no column"),
        (b"a,a\n1,2\n", [], OptionError, 'has 2 columns named "a"'),
        (b"a,b\n1,2\n", ["--columns", "a,x"], UnknownColumn, 'column "x" is not in'),
        (b"a,b\n1,2\n", ["--question", "Is {x} so?"], UnknownColumn, 'column "x" does not exist'),
        (b"a,b\n1,2\n", ["--question", "Is {x so?"], TemplateError, "unbalanced"),
    ],
)
def test_bad_input_says_what_is_wrong(
    tmp_path: Path, content: bytes | None, arguments: list[str], error: type[PgBridgeError], message: str
) -> None:
    source = tmp_path / "in.csv"
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(error, match=message) as caught:
        run(source, *arguments)
    assert "secret" not in f"{caught.value.message} {caught.value.detail} {caught.value.hint}"


def test_a_plan_that_cannot_be_written(reviews: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="cannot write"):
        run(reviews, "--output", tmp_path / "no such folder" / "out.json")


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run("--help")
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    for word in ("row_order", "column_order", "examples:", "--question"):
        assert word in printed
