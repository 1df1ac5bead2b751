"""`pg-bridge map` from file to file: no database anywhere."""

from __future__ import annotations

import csv
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pg_bridge.cli import main
from pg_bridge.jobs import running
from pg_bridge.testing.behaviour import choose
from pg_bridge.testing.double import EngineDouble

PROMPT = "Is {review} kind?"
HOSTILE = ["", "a,b", 'quote "', "line\nbreak", "é 日本 🎬", "{review} %s \\N", "null"]


@pytest.fixture
def engine_variable(engine: EngineDouble, monkeypatch: pytest.MonkeyPatch) -> EngineDouble:
    monkeypatch.setenv("PG_BRIDGE_ENDPOINT", engine.url)
    return engine


def is_kind(review: str) -> bool:
    return choose("Is review kind?\n" + json.dumps({"review": review}, ensure_ascii=False), ["yes", "no"]) == "yes"


def write_csv(path: Path, reviews: list[str]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["id", "review"], *([str(i), review] for i, review in enumerate(reviews))])


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def map_file(source: Path, into: Path, *arguments: str) -> int:
    words = ["--from", str(source), "--into", str(into), "--prompt", PROMPT, "--type", "boolean", *arguments]
    return main(["map", *words])


@pytest.mark.some(1)
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "ndjson"])
def test_each_row_comes_back_in_its_place_with_its_answer(
    engine_variable: EngineDouble, tmp_path: Path, suffix: str
) -> None:
    reviews = [*HOSTILE, *HOSTILE, *(f"review {i}" for i in range(3000))]
    write_csv(tmp_path / "in.csv", reviews)
    out = tmp_path / f"out.{suffix}"
    assert map_file(tmp_path / "in.csv", out) == 0
    assert len(engine_variable.received.prompts) == 3000 + len(HOSTILE)
    if suffix == "csv":
        found = [(row["id"], row["review"], row["answer"]) for row in read_csv(out)]
        assert found == [(str(i), text, str(is_kind(text)).lower()) for i, text in enumerate(reviews)]
    else:
        rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
        assert [(row["id"], row["review"], row["answer"]) for row in rows] == [
            (str(i), text, is_kind(text)) for i, text in enumerate(reviews)
        ]
        assert {(row["model"], row["error"]) for row in rows} == {("double", None)}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", f"out.{suffix}"]


def test_json_lines_keep_their_spelling(engine_variable: EngineDouble, tmp_path: Path) -> None:
    lines = ['{"id":1,"price":12.50,"tags":["a",{"b":1e400}]}', "", '{"price": 1, "more": null,  "id": 2}']
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    words = ["--prompt", "Is {price} of {tags} dear?", "--into", str(tmp_path / "out.jsonl"), "--choices", "yes,no"]
    assert main(["map", "--from", str(tmp_path / "in.jsonl"), *words]) == 0
    assert sorted(engine_variable.received.prompts) == [
        'Is price of tags dear?\n{"price": 1, "tags": null}',
        'Is price of tags dear?\n{"price": 12.50, "tags": ["a",{"b":1e400}]}',
    ]
    first, second = (tmp_path / "out.jsonl").read_text().splitlines()
    assert first.startswith('{"id":1,"price":12.50,"tags":["a",{"b":1e400}], "answer": "')
    assert second.startswith('{"price": 1, "more": null,  "id": 2, "answer": "')


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_started_again_it_asks_what_is_new(engine_variable: EngineDouble, tmp_path: Path, suffix: str) -> None:
    source, out = tmp_path / "in.csv", tmp_path / f"out.{suffix}"
    write_csv(source, [f"review {i}" for i in range(50)])
    assert map_file(source, out) == 0
    assert map_file(source, out) == 0
    assert len(engine_variable.received.prompts) == 50
    write_csv(source, ["review 7", "new", *(f"review {i}" for i in range(20))])
    assert map_file(source, out) == 0
    assert len(engine_variable.received.prompts) == 51
    assert map_file(source, out, "--system-prompt", "Be brief.") == 0
    assert len(engine_variable.received.prompts) == 51 + 21


def test_failed_rows_have_an_error_and_are_asked_again(engine_variable: EngineDouble, tmp_path: Path) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    write_csv(source, [f"review {i}" for i in range(50)])
    engine_variable.behaviour.reject_marker = "review 7"
    assert map_file(source, out) == 3
    failed = [row for row in read_csv(out) if row["error"]]
    assert [(row["id"], row["answer"]) for row in failed] == [("7", "")]
    engine_variable.behaviour.reject_marker = ""
    engine_variable.reset()
    assert map_file(source, out) == 0
    assert len(engine_variable.received.prompts) == 1
    assert not any(row["error"] for row in read_csv(out))


def kept_in(part: Path) -> int:
    """How many answers are committed, past the lock of the run that writes them."""
    try:
        with part.with_name(part.name + "-journal").open("rb") as journal:
            if any(journal.read(8)):  # a transaction is open
                return 0
        with closing(sqlite3.connect(f"{part.as_uri()}?immutable=1", uri=True)) as connection:
            return int(connection.execute("SELECT count(*) FROM answers").fetchone()[0])
    except (sqlite3.Error, OSError):
        return 0


def test_killed_in_the_middle_it_goes_on(engine_variable: EngineDouble, tmp_path: Path) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    write_csv(source, [f"review {i}" for i in range(400)])
    engine_variable.behaviour.hang_after = 3
    words = [
        "--from",
        str(source),
        "--into",
        str(out),
        "--prompt",
        PROMPT,
        "--type",
        "boolean",
        "--max-in-flight",
        "32",
    ]
    program = "from pg_bridge.cli import main; raise SystemExit(main())"
    child = subprocess.Popen([sys.executable, "-c", program, "map", *words], env=dict(os.environ))
    deadline = time.monotonic() + 60
    while (kept := kept_in(tmp_path / "out.csv.part")) < 24:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not out.exists()
    assert engine_variable.received.answered == kept == 24
    engine_variable.behaviour.hang = False
    engine_variable.reset()
    assert map_file(source, out) == 0
    assert len(engine_variable.received.prompts) == 400 - kept
    assert [row["answer"] for row in read_csv(out)] == [str(is_kind(f"review {i}")).lower() for i in range(400)]


def test_a_rehearsal_makes_no_file(
    engine_variable: EngineDouble, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_csv(tmp_path / "in.csv", [f"review {i % 5}" for i in range(50)])
    assert map_file(tmp_path / "in.csv", tmp_path / "out.csv", "--dry-run", "--log", "json") == 0
    assert json.loads(capsys.readouterr().out)["unique_prompts"] == 5
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]
    assert engine_variable.received.prompts == []
    assert map_file(tmp_path / "in.csv", tmp_path / "out.csv", "--max-requests", "3", "--on-budget", "null") == 4
    assert (tmp_path / "out.csv").exists()
    capsys.readouterr()
    assert map_file(tmp_path / "in.csv", tmp_path / "out.csv", "--dry-run", "--log", "json") == 0
    assert json.loads(capsys.readouterr().out)["unique_prompts"] == 2


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl", "out.csv.part"])
def test_a_file_that_holds_something_else_is_not_touched(
    engine_variable: EngineDouble, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_csv(tmp_path / "in.csv", ["review"])
    (tmp_path / name).write_text("my,own\nfile,1\n")
    assert map_file(tmp_path / "in.csv", tmp_path / name.removesuffix(".part")) == 1
    told = capsys.readouterr().err
    assert "was not written by such a job" in told or "cannot be read" in told
    assert (tmp_path / name).read_text() == "my,own\nfile,1\n"
    assert engine_variable.received.prompts == []


@pytest.mark.parametrize(
    ("name", "text", "arguments", "says"),
    [
        ("in.csv", "", [], "is empty"),
        ("in.csv", "id,review\n1\n", [], "line 2 of"),
        ("in.csv", "id,text\n1,a\n", [], 'column "review" does not exist'),
        ("in.csv", "review,answer\na,b\n", [], 'the rows have a column "answer" already'),
        ("in.csv", "id,review\n1,a\n1,b\n", ["--key", "id"], "have the same key"),
        ("in.csv", "id,review\n1,a\n", ["--key", "di"], 'column "di" is not in'),
        ("in.jsonl", "[1]\n", [], "row 1 of"),
        ("in.jsonl", '{"review": 1}\n' * 2000 + "{\n", [], "row 2001 of"),
        ("in.txt", "", [], "is no .csv, .jsonl or .parquet file"),
        ("in.csv", "id,review\n1,a\n", ["--temperature", "warm"], "invalid value for --temperature"),
        ("in.csv", "id,review\n1,a\n", ["--max-cost", "1"], "there are no prices"),
        ("in.csv", "id,review\n1,a\n", ["--schema", "{}"], "--schema is for answers of --type json"),
    ],
)
def test_what_cannot_be_done_is_told(
    engine_variable: EngineDouble,
    tmp_path: Path,
    name: str,
    text: str,
    arguments: list[str],
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / name).write_text(text)
    is_failure = "already" in says or "same key" in says  # all others are in what was typed, or in a file
    assert map_file(tmp_path / name, tmp_path / "out.csv", *arguments) == (1 if is_failure else 2)
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out.csv").exists()


def test_without_an_engine_or_a_source_it_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert map_file(tmp_path / "in.csv", tmp_path / "out.csv") == 2
    assert "PG_BRIDGE_ENDPOINT" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["map", "--prompt", "Well?", "--into", "t"])
    assert ended.value.code == 2


def test_an_engine_that_is_gone_for_a_while(
    engine_variable: EngineDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "FIRST_PAUSE_S", 0.05)
    write_csv(tmp_path / "in.csv", [f"review {i}" for i in range(200)])
    left = [30]

    def answer(prompt: str) -> str:
        left[0] -= 1
        if left[0] == 0:
            engine_variable.behaviour.drop_first = 6
        return "free"

    engine_variable.behaviour.answer = answer
    words = ["--from", str(tmp_path / "in.csv"), "--into", str(tmp_path / "out.csv"), "--prompt", PROMPT]
    assert main(["map", *words, "--max-in-flight", "16", "--connect-timeout-s", "0.1", "--quiet"]) == 0
    assert [row["answer"] for row in read_csv(tmp_path / "out.csv")] == ["free"] * 200


def test_parquet_files_come_and_go(engine_variable: EngineDouble, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet  # noqa: PLC0415 - optional

    rows: list[dict[str, Any]] = [
        {"id": i, "review": f"review {i}", "stars": i / 2, "good": i % 2 == 0, "tags": ["a"]} for i in range(3000)
    ]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    assert map_file(tmp_path / "in.parquet", tmp_path / "out.parquet") == 0
    found = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [(row["id"], row["stars"], row["good"], row["tags"], row["answer"]) for row in found] == [
        (row["id"], row["stars"], row["good"], '["a"]', is_kind(row["review"])) for row in rows
    ]
    assert map_file(tmp_path / "in.parquet", tmp_path / "out.parquet") == 0
    assert len(engine_variable.received.prompts) == 3000
    assert map_file(tmp_path / "in.parquet", tmp_path / "out.csv") == 0
    assert read_csv(tmp_path / "out.csv")[3]["stars"] == "1.5"


def test_parquet_without_pyarrow_says_what_is_missing(
    engine_variable: EngineDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    write_csv(tmp_path / "in.csv", ["review"])
    assert map_file(tmp_path / "in.csv", tmp_path / "out.parquet") == 2
    assert "pip install pyarrow" in capsys.readouterr().err
    assert engine_variable.received.prompts == []


@pytest.mark.some(1)
@pytest.mark.parametrize("limit", [0, 20, 1024, 1025, 5000])
def test_with_a_limit_a_file_has_every_row_all_the_same(
    engine_variable: EngineDouble, tmp_path: Path, limit: int
) -> None:
    write_csv(tmp_path / "in.csv", [f"review {i}" for i in range(3000)])
    out = tmp_path / "out.csv"
    assert map_file(tmp_path / "in.csv", out, "--limit", str(limit)) == 0
    rows = read_csv(out)
    assert [row["id"] for row in rows] == [str(i) for i in range(3000)]
    assert [row["answer"] != "" for row in rows] == [i < limit for i in range(3000)]
    assert map_file(tmp_path / "in.csv", out) == 0
    assert len(engine_variable.received.prompts) == 3000


def test_half_a_character_does_not_keep_a_file_from_being_written(
    engine_variable: EngineDouble, tmp_path: Path
) -> None:
    (tmp_path / "in.jsonl").write_text('{"review": "a\\ud800b"}\n{"review": "c"}\n')
    assert map_file(tmp_path / "in.jsonl", tmp_path / "out.csv") == 0
    assert [row["review"] for row in read_csv(tmp_path / "out.csv")] == ["a\\ud800b", "c"]


def test_a_prompt_file_may_begin_with_a_byte_order_mark(engine_variable: EngineDouble, tmp_path: Path) -> None:
    write_csv(tmp_path / "in.csv", ["good"])
    (tmp_path / "prompt.txt").write_text(PROMPT + "\n", encoding="utf-8-sig")
    words = ["--prompt-file", str(tmp_path / "prompt.txt"), "--into", str(tmp_path / "out.csv")]
    assert main(["map", "--from", str(tmp_path / "in.csv"), *words]) == 0
    assert [prompt[:2] for prompt in engine_variable.received.prompts] == ["Is"]


def test_a_key_that_postgresql_cannot_hold_is_told(
    engine_variable: EngineDouble, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.jsonl").write_text('{"id": "a\\u0000b", "review": "c"}\n')
    assert map_file(tmp_path / "in.jsonl", tmp_path / "out.csv", "--key", "id") == 2
    assert "a key holds a NUL character" in capsys.readouterr().err
    assert engine_variable.received.prompts == []


def test_an_argument_that_is_not_utf_8_is_told(
    engine_variable: EngineDouble, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_csv(tmp_path / "in.csv", ["good"])
    assert map_file(tmp_path / "in.csv", tmp_path / "out.csv", "--system-prompt", "h\udcff") == 2
    assert "an argument is not UTF-8" in capsys.readouterr().err


def test_a_file_of_a_similar_name_is_not_touched(engine_variable: EngineDouble, tmp_path: Path) -> None:
    write_csv(tmp_path / "in.csv", ["good"])
    (tmp_path / "out.csv.new").write_text("mine")
    assert map_file(tmp_path / "in.csv", tmp_path / "out.csv") == 0
    assert (tmp_path / "out.csv.new").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv", "out.csv.new"]


@pytest.mark.some(1)
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_outputs_are_no_error(engine_variable: EngineDouble, tmp_path: Path, closed: str) -> None:
    write_csv(tmp_path / "in.csv", ["good"])
    program = "from pg_bridge.cli import main; raise SystemExit(main())"
    words = [sys.executable, "-c", program, "map", "--from", "in.csv", "--prompt", PROMPT, "--into", "out.csv"]
    ended = subprocess.run(["/bin/sh", "-c", f'"$@" {closed}', "sh", *words], cwd=tmp_path, check=False)
    assert ended.returncode == 0
    assert len(read_csv(tmp_path / "out.csv")) == 1


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_column_that_first_appears_late_is_not_lost(
    engine_variable: EngineDouble, tmp_path: Path, suffix: str
) -> None:
    rows = [{"review": f"review {i}"} for i in range(1500)] + [{"review": "last", "stars": "5"}, {"stars": "1"}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / f"out.{suffix}"
    words = ["--from", str(tmp_path / "in.jsonl"), "--into", str(out), "--prompt", "Is this kind?"]
    assert main(["map", *words]) == 0
    assert sum('"stars"' in prompt for prompt in engine_variable.received.prompts) > 0
    if suffix == "csv":
        found = [{"review": row["review"], "stars": row["stars"]} for row in read_csv(out)]
        assert found == [{"review": "", "stars": ""} | row for row in rows]
    else:
        written = [json.loads(line) for line in out.read_text().splitlines()]
        assert [{name: row[name] for name in row if name in ("review", "stars")} for row in written] == rows


@pytest.mark.some(1)
@pytest.mark.parametrize(("full", "log"), [(">/dev/full", "json"), (">/dev/full", "text"), ("2>/dev/full", "text")])
def test_an_output_that_is_full_is_told(engine_variable: EngineDouble, tmp_path: Path, full: str, log: str) -> None:
    write_csv(tmp_path / "in.csv", ["good"])
    program = "from pg_bridge.cli import main; raise SystemExit(main())"
    words = [sys.executable, "-c", program, "map", "--from", "in.csv", "--prompt", PROMPT, "--into", "out.csv"]
    words += ["--log", log, *(["--api-key-file", "nothing"] if full.startswith("2") else [])]
    ended = subprocess.run(
        ["/bin/sh", "-c", f'"$@" {full}', "sh", *words], cwd=tmp_path, check=False, capture_output=True, text=True
    )
    if full.startswith("2"):  # where not even an error can be said
        assert (ended.returncode, ended.stdout) == (2, "")
    else:
        assert ended.returncode == 1
        assert ended.stderr == "pg-bridge: the output cannot be written: No space left on device\n"
        assert len(read_csv(tmp_path / "out.csv")) == 1  # which was written before
