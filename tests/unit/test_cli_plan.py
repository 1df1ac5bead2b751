from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from os.path import commonprefix
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from pg_bridge.analysis.measures import measure
from pg_bridge.asking.prompt import parse_question
from pg_bridge.cli import plan
from pg_bridge.errors import OptionError, PgBridgeError, TemplateError, UnknownColumn
from pg_bridge.ordering import STRATEGIES
from pg_bridge.ordering import plan as plan_rows
from pg_bridge.rows.dedup import dedup
from pg_bridge.rows.table import Table


def run(*arguments: str | Path) -> int:
    parser = argparse.ArgumentParser()
    plan.add_parser(parser.add_subparsers(required=True))
    parsed = parser.parse_args(["plan", *map(str, arguments)])
    return int(parsed.run(parsed))


def figures(printed: str) -> dict[str, str]:
    return {line[:17].strip(): line[17:] for line in printed.splitlines()}


def percent(figure: str) -> float:
    return float(figure.partition(" %")[0])


def document(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> Any:
    assert run(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def write(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def messages(source: Path, planned: Path | None, question: str = "") -> list[str]:
    """The prompts about all rows, written by hand: in the file's own order, or as a plan's file says."""
    with source.open(encoding="utf-8-sig", newline="") as file:
        header, *rows = csv.reader(file)
    orders = [list(range(len(header)))] * len(rows)
    if planned is not None:
        read = json.loads(planned.read_text(encoding="utf-8"))
        header_places = [header.index(name) for name in read["columns"]]
        rows = [rows[i] for i in read["row_order"]]
        orders = [[header_places[j] for j in order] for order in read["column_order"]]
    head = question + "\n" if question else ""
    return [
        head + json.dumps({header[j]: row[j] for j in order}, ensure_ascii=False)
        for row, order in zip(rows, orders, strict=True)
    ]


def neighbour_rate(prompts: Sequence[str]) -> float:
    shared = sum(len(commonprefix(pair)) for pair in pairwise(prompts))  # noqa: RUF071 - characters are meant
    return shared / sum(map(len, prompts))


def computed_chars(prompts: Iterable[str]) -> int:
    """Characters that no other prompt has in front: the nodes of the prompts' trie."""
    return len({prompt[:end] for prompt in prompts for end in range(1, len(prompt) + 1)})


def block_rate(prompts: Iterable[bytes], block_size: int) -> float:
    """Tokens found in whole blocks, the last token never, if every byte is a token."""
    seen: set[bytes] = set()
    hits = total = 0
    for prompt in prompts:
        ends = range(block_size, len(prompt) + 1, block_size)
        found = 0
        while found < len(ends) and prompt[: ends[found]] in seen:
            found += 1
        hits += min(found, (len(prompt) - 1) // block_size) * block_size
        total += len(prompt)
        seen.update(prompt[:end] for end in ends)
    return hits / total


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
    assert printed["strategy"].split(":")[0] in STRATEGIES
    before, after = (percent(printed[f"hit rate {when}"]) for when in ("before", "after"))
    assert before < 20
    assert after > 80
    written = json.loads(out.read_text(encoding="utf-8"))
    assert list(written) == ["columns", "row_order", "column_order"]
    assert written["columns"] == ["review", "film", "note"]
    assert sorted(written["row_order"]) == list(range(60))
    assert all(sorted(order) == [0, 1, 2] for order in written["column_order"])
    assert len(written["column_order"]) == 60
    place = {row: i for i, row in enumerate(written["row_order"])}
    assert all(place[i + 30] == place[i] + 1 for i in range(30))  # row i + 30 is row i's twin


def test_the_question_picks_columns_and_counts(reviews: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(reviews, "--columns", "film,review")
    alone = figures(capsys.readouterr().out)
    run(reviews, "--columns", "film,review", "--question", "Is {review} kind? " + "Think well. " * 50)
    asked = figures(capsys.readouterr().out)
    assert (alone["columns"], asked["columns"]) == ("2", "1")
    assert percent(alone["hit rate before"]) < 50 < percent(asked["hit rate before"])


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
    assert percent(figures(capsys.readouterr().out)["hit rate after"]) == 0
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
        (b"a,b\n1,2\n", ["--question", "So?", "--question", "Is {x} so?"], UnknownColumn, 'column "x" does not exist'),
        (b"a,b\n1,2\n", ["--question", "Is {a} so?", "--question", "Is a so?"], OptionError, "is given 2 times"),
        (b"a,b\n1,2\n", ["--block-size", "0"], OptionError, "--block-size is 0"),
        (b"a,b\n1,2\n", ["--cache-tokens", "15"], OptionError, "not even one block of 16"),
        (b"a,b\n1,2\n", ["--tokenizer", "no such file"], OptionError, "cannot read no such file"),
        (b"a\n" + b"".join(b"%d\n" % i for i in range(41)), ["--tree", "x.svg"], OptionError, "up to 40 .* has 41"),
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


@pytest.mark.parametrize("option", ["--output", "--tree"])
def test_a_file_that_cannot_be_written(reviews: Path, tmp_path: Path, option: str) -> None:
    with pytest.raises(OptionError, match="cannot write"):
        run(reviews, option, tmp_path / "no such folder" / "out")


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run("--help")
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    for word in ("row_order", "column_order", "examples:", "--question", "hit_rate_sent", "exceptions_share"):
        assert word in printed


KEYS = {
    "": "rows unique_rows columns questions chars strategy reason hit_rate_before hit_rate_after hit_rate_sent "
    "strategies strategies_left_out bounds placement tokens statistics plan_s read_s",
    "strategies": "strategy hit_rate plan_s chosen",
    "bounds": "cells neighbours groups optimum remaining left_out",
    "placement": "first question_first_chars row_first_chars question_first_tokens row_first_tokens",
    "tokens": "tokenizer block_size cache_blocks before after sent",
    "before": "tokens hit_rate bounded_hit_rate",
    "statistics": "columns dependencies",
    "columns": "column cardinality mean_chars median_chars most_chars repeated_share entropy_bits",
    "dependencies": "determinant dependent exceptions exceptions_share",
}


def test_the_keys_are_those_that_help_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "in.csv", "abc", [[f"{i % 4}", f"{i % 2}", f"{i}"] for i in range(8)])
    found = document(capsys, source, "--question", "a", "--question", "b", "--statistics", "--block-size", "8")
    parts = {
        "": found,
        "strategies": found["strategies"][0],
        "bounds": found["bounds"],
        "placement": found["placement"],
        "tokens": found["tokens"],
        "before": found["tokens"]["before"],
        "statistics": found["statistics"],
        "columns": found["statistics"]["columns"][0],
        "dependencies": found["statistics"]["dependencies"][0],
    }
    assert {name: list(part) for name, part in parts.items()} == {name: keys.split() for name, keys in KEYS.items()}
    with pytest.raises(SystemExit):
        run("--help")
    printed = capsys.readouterr().out
    assert [key for keys in KEYS.values() for key in keys.split() if key not in printed] == []


@pytest.mark.parametrize("question", ["", "Is this kind?"])
def test_rates_are_those_of_the_prompts(
    reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], question: str
) -> None:
    out = tmp_path / "out.json"
    asked = ["--question", question] if question else []
    found = document(capsys, reviews, "--output", out, *asked)
    before, after = messages(reviews, None, question), messages(reviews, out, question)
    assert found["questions"] == asked[1:]
    assert found["chars"] == sum(map(len, before))
    assert found["hit_rate_before"] == pytest.approx(neighbour_rate(before))
    assert found["hit_rate_after"] == pytest.approx(neighbour_rate(after))
    sent = list(dict.fromkeys(after))
    assert len(sent) == found["unique_rows"] == 30
    assert found["hit_rate_sent"] == pytest.approx(neighbour_rate(sent))
    assert found["tokens"] is found["statistics"] is found["placement"] is None


def test_the_report_and_the_document_say_the_same(reviews: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, reviews)
    run(reviews)
    printed = capsys.readouterr().out
    lines = figures(printed)
    assert lines["strategy"] == f"{found['strategy']}: {found['reason']}"
    for when in ("before", "after", "sent"):
        assert percent(lines[f"hit rate {when}"]) == round(100 * found[f"hit_rate_{when}"], 1)
    for each in found["strategies"]:
        mark = "*" if each["chosen"] else " "
        assert f"  {mark}  {each['strategy']} " in printed
    assert f"Left to gain: {100 * found['bounds']['remaining']:.1f} points at most." in printed
    assert "Characters stand in for tokens here" in printed
    assert "without the model's chat template" in printed


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """24 rows; in half of them the genre, in half of them the studio is what repeats."""
    rows = [[f"genre {i}" * 3, f"studio {i % 2}" * 3, f"{i}"] for i in range(12)]
    rows += [[f"genre {i % 3}" * 3, f"studio {i + 5}" * 3, f"{i}"] for i in range(12)]
    return write(tmp_path / "films.csv", ["genre", "studio", "note"], rows)


def test_strategies_and_bounds(films: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, films)
    rates = {each["strategy"]: each["hit_rate"] for each in found["strategies"]}
    assert tuple(rates) == STRATEGIES
    assert [each["strategy"] for each in found["strategies"] if each["chosen"]] == ["tree"] == [found["strategy"]]
    assert rates["tree"] == found["hit_rate_sent"] == max(rates.values())
    assert rates["original"] == pytest.approx(neighbour_rate(messages(films, None)))
    next_best = max([name for name in rates if name != "tree"], key=lambda name: rates[name])
    points = 100 * (rates["tree"] - rates[next_best])
    assert found["reason"] == f"it shares {points:.1f} points more than the next best, {next_best}"
    found = document(capsys, films, "--bound")
    bounds = found["bounds"]
    assert rates["tree"] < bounds["groups"] < bounds["neighbours"] < bounds["cells"] < 1
    assert bounds["remaining"] == pytest.approx(bounds["groups"] - rates["tree"])
    assert bounds["optimum"] is None
    assert "too many orderings" in " ".join(bounds["left_out"])


def test_a_plan_that_reaches_a_bound(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, Path(__file__).parents[2] / "docs" / "planner" / "six_rows.csv", "--bound")
    assert found["reason"] == "it reaches a bound, so no ordering shares more"
    assert found["hit_rate_sent"] == found["bounds"]["groups"] < found["bounds"]["neighbours"]
    assert found["bounds"]["remaining"] == 0


@pytest.mark.parametrize(("rows", "at_once"), [(3, True), (5, False)])  # 6 ** 3 and 6 ** 5 orderings
def test_the_optimum_of_a_tiny_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: int, at_once: bool
) -> None:
    cells = [[f"{i % 2}" * 9, f"{i % 3}" * 9, f"{i}"] for i in range(rows)]
    source = write(tmp_path / "tiny.csv", "abc", cells)
    assert (document(capsys, source)["bounds"]["optimum"] is not None) == at_once
    found = document(capsys, source, "--bound")
    bounds = found["bounds"]
    assert found["hit_rate_sent"] == bounds["optimum"] == found["strategies"][-1]["hit_rate"]
    assert bounds["optimum"] <= bounds["groups"] <= bounds["cells"]
    assert bounds["optimum"] <= bounds["neighbours"] <= bounds["cells"]
    assert bounds["remaining"] == 0
    assert bounds["left_out"] == []
    assert found["reason"] == "all orderings were tried, and none shares more"


def test_what_takes_long_is_left_out_and_said(
    films: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pg_bridge.analysis.measures.MOST_COMPARED_CELLS", 71)
    monkeypatch.setattr("pg_bridge.analysis.measures.MOST_NEIGHBOUR_ROWS", 23)
    monkeypatch.setattr("pg_bridge.analysis.measures.MOST_GROUP_CELLS", 71)
    run(films, "--bound")
    printed = capsys.readouterr().out
    assert "too many groups of rows" in printed
    assert "with --all each strategy is run" in printed
    assert "at most 23 rows of the 24" in printed
    assert "greedy" not in printed
    found = document(capsys, films)
    assert (found["strategies"], found["bounds"]["neighbours"]) == ([], None)
    assert found["bounds"]["remaining"] == pytest.approx(found["bounds"]["cells"] - found["hit_rate_sent"])
    assert len(document(capsys, films, "--all")["strategies"]) == len(STRATEGIES)


def test_statistics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [[f"f{i % 3}", "s0" if i == 1 else f"s{i % 3}", f"{i}", "same"] for i in range(60)]
    source = write(tmp_path / "in.csv", ["film", "studio", "review", "kind"], rows)
    found = document(capsys, source, "--statistics")["statistics"]
    film, _, review, kind = found["columns"]
    assert film == {
        "column": "film",
        "cardinality": 3,
        "mean_chars": 4.0,  # the quotes count
        "median_chars": 4,
        "most_chars": 4,
        "repeated_share": 57 / 60,
        "entropy_bits": pytest.approx(np.log2(3)),
    }
    assert (review["repeated_share"], kind["repeated_share"]) == (0, 59 / 60)
    assert (review["entropy_bits"], kind["entropy_bits"]) == (pytest.approx(np.log2(60)), 0)
    assert [(each["determinant"], each["dependent"], each["exceptions"]) for each in found["dependencies"]] == [
        ("film", "studio", 1),
        ("studio", "film", 1),
    ]
    assert found["dependencies"][0]["exceptions_share"] == 1 / 60
    run(source, "--statistics")
    printed = capsys.readouterr().out
    assert "film → studio  approximate: 1 exceptions, 1.7 % of the rows" in printed
    assert "review →" not in printed


def test_an_exact_dependency_is_not_marked(reviews: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(reviews.parent / "in.csv", "ab", [[f"{i % 4}", f"{i % 2}"] for i in range(4)] * 2)
    run(source, "--statistics")
    assert "none" in capsys.readouterr().out  # of four unique rows column a is unique
    source = write(reviews.parent / "in.csv", "abc", [[f"{i % 4}", f"{i % 2}", f"{i}"] for i in range(8)])
    run(source, "--statistics")
    assert "  a → b\n" in capsys.readouterr().out


@pytest.fixture
def byte_tokenizer(tmp_path: Path) -> Path:
    """A tokenizer.json in which every byte is a token."""
    tokenizers = pytest.importorskip("tokenizers")
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    vocabulary = {letter: i for i, letter in enumerate(sorted(alphabet))}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    return path


@pytest.mark.parametrize("question", ["", "Is this kind?"])
@pytest.mark.parametrize(("option", "block_size"), [([], 16), (["--block-size", "7"], 7)])
def test_tokens_in_whole_blocks(
    reviews: Path,
    byte_tokenizer: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    option: list[str],
    block_size: int,
    question: str,
) -> None:
    out = tmp_path / "out.json"
    asked = ["--question", question] if question else []
    tokens = document(capsys, reviews, "--output", out, "--tokenizer", byte_tokenizer, *asked, *option)["tokens"]
    assert (tokens["tokenizer"], tokens["block_size"]) == (str(byte_tokenizer), block_size)
    before, after = ([text.encode() for text in messages(reviews, at, question)] for at in (None, out))
    for name, prompts in (("before", before), ("after", after), ("sent", list(dict.fromkeys(after)))):
        assert tokens[name] == {
            "tokens": sum(map(len, prompts)),
            "hit_rate": pytest.approx(block_rate(prompts, block_size)),
            "bounded_hit_rate": None,
        }


def test_a_bounded_cache(reviews: Path, byte_tokenizer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = (reviews, "--columns", "film,review", "--tokenizer", byte_tokenizer, "--block-size", "8")
    small = document(capsys, *options, "--cache-tokens", "205")["tokens"]
    assert small["cache_blocks"] == 25  # room for one film at a time
    assert small["before"]["bounded_hit_rate"] < small["before"]["hit_rate"]
    assert small["after"]["bounded_hit_rate"] == small["after"]["hit_rate"]
    large = document(capsys, *options, "--cache-tokens", "100000")["tokens"]
    assert large["before"]["bounded_hit_rate"] == large["before"]["hit_rate"] == small["before"]["hit_rate"]
    run(*options, "--cache-tokens", "205")
    printed = capsys.readouterr().out
    assert "in 25 blocks" in printed
    assert f"Tokens of {byte_tokenizer}, in whole blocks of 8" in printed
    assert "ESTIMATE" not in printed


def test_without_a_tokenizer_tokens_are_an_estimate(reviews: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokens = document(capsys, reviews, "--block-size", "4")["tokens"]
    assert tokens["tokenizer"] is None
    assert tokens["before"]["tokens"] == sum(-(-len(text) // 4) for text in messages(reviews, None))
    run(reviews, "--block-size", "4")
    assert "ESTIMATE: every 4 characters taken for a token, in whole blocks of 4" in capsys.readouterr().out


def test_several_questions(reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    asked = ["Is it kind?", "Is it so? " * 30, "Is it fun?"]
    for questions, first in ((asked[:1] + asked[2:], "row"), (asked, "question")):
        options = [word for text in questions for word in ("--question", text)]
        found = document(capsys, reviews, *options, "--output", out, "--block-size", "4")
        rows = messages(reviews, out)
        unique = list(dict.fromkeys(rows))
        question_first = [f"{text}\n{row}" for text in questions for row in unique]
        row_first = [f"{row}\n{text}" for row in unique for text in questions]
        placement = found["placement"]
        assert placement["question_first_chars"] == computed_chars(question_first)
        assert placement["row_first_chars"] == computed_chars(row_first)
        assert placement["first"] == first
        chars = sum(map(len, question_first))
        least = min(placement["question_first_chars"], placement["row_first_chars"])
        assert found["hit_rate_sent"] == pytest.approx(1 - least / chars)
        assert found["hit_rate_sent"] == next(each["hit_rate"] for each in found["strategies"] if each["chosen"])
        assert found["chars"] == 2 * chars  # every row is there twice
        sent = found["tokens"]["sent"]
        assert sent["tokens"] * (1 - sent["hit_rate"]) == pytest.approx(placement[f"{first}_first_tokens"])
        run(reviews, *options)
        printed = capsys.readouterr().out
        assert f"  *  {first} first " in printed
        assert f"{placement['row_first_chars']:,}" in printed


def test_several_questions_are_about_the_columns_of_all(reviews: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = ["--question", "Is {note} so?", "--question", "Is {review} so?"]
    assert document(capsys, reviews, *named)["columns"] == ["review", "note"]
    assert document(capsys, reviews, *named, "--question", "So?")["columns"] == ["review", "film", "note"]


def test_a_tree_is_drawn_with_the_files_row_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "in.csv", "ab", [["x", "1"], ["x", "1"], ["x", "2"], ["y", "3"]])
    picture = tmp_path / "tree.svg"
    rate = document(capsys, source, "--tree", picture)["hit_rate_sent"]
    svg = picture.read_text(encoding="utf-8")
    said = [each.text or "" for each in ElementTree.fromstring(svg).iter()]  # noqa: S314 - our own text
    assert sorted(text for text in said if text.startswith("row ")) == ["row 0", "row 2", "row 3"]
    assert f"Prefix tree of 3 rows: hit rate {100 * rate:.1f} %" in said


def test_a_header_alone_can_be_reported_with_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "in.csv", "ab", [])
    options = ("--bound", "--statistics", "--cache-tokens", "16", "--question", "a?", "--question", "b?")
    found = document(capsys, source, *options, "--tree", tmp_path / "tree.svg")
    assert (found["chars"], found["hit_rate_after"], found["bounds"]["cells"]) == (0, 0, 0)
    assert found["reason"] == "there is nothing to order"
    assert run(source, *options) == 0


@pytest.mark.parametrize("prompts", [[], ["Well?"], ["Well?", "Why?"]])
def test_rows_without_columns(prompts: list[str]) -> None:
    table = Table((), np.empty((3, 0), np.int32), ())
    unique = dedup(table)
    ordering = plan_rows(unique.table)
    questions = [parse_question(prompt) for prompt in prompts]
    found = measure(table, unique, ordering, plan_rows(table), questions, plan_s=0, read_s=0, bound=True)
    assert (found.rows, found.unique_rows) == (3, 1)
    assert found.chars == 3 * sum(map(len, prompts))
    assert found.hit_rate_after == pytest.approx(2 / 3 if prompts else 0, abs=0.05)
