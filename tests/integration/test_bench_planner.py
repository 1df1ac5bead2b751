"""`make bench-planner`, at a scale of seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from benchmarks.paper_tables import make
from benchmarks.planner import scaling
from benchmarks.planner.fresh import OURS, STRATEGIES, Task, load_ordering, measure
from benchmarks.planner.kept import CONTROL
from benchmarks.planner.results import MEASURES
from benchmarks.planner.sent import WAYS, prepare, statement
from pg_bridge.asking.prompt import Question, render
from pg_bridge.ordering import plan
from pg_bridge.rows.dedup import dedup
from pg_bridge.testing.cluster import Cluster
from pg_bridge.testing.double import EngineDouble

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(not Cluster().has_module, reason="this PostgreSQL has not the module pg_bridge")
def test_the_benchmark_of_the_planner_runs(tmp_path: Path) -> None:
    pytest.importorskip("mistral_common", reason="the tokenizer comes with vLLM")
    output, figures = tmp_path / "planner.txt", tmp_path / "planner.json"
    command = [sys.executable, "-m", "benchmarks.planner", "--rows", "60", "--tables", "bird", "movies"]
    done = subprocess.run(
        [*command, "--output", str(output), "--json", str(figures)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert output.read_text() == done.stdout
    found = json.loads(figures.read_text())
    assert [contest["quality"]["table"] for contest in found["contests"]] == ["bird", "movies"]
    for contest in found["contests"]:
        by_strategy = contest["quality"]["rates"]
        assert list(by_strategy) == list(contest["costs"]) == list(STRATEGIES)
        for rates in by_strategy.values():
            assert set(MEASURES) <= set(rates)
            assert all(0 < rate < 1 for rate in rates.values())
            assert rates["chars"] <= contest["quality"]["bound"]
            assert rates["neighbours"] <= rates["chars"] + 1e-12
            assert rates["bounded_16"] <= rates["blocks_16"] + 1e-12 <= rates["tokens"] + 2e-12
        assert list(contest["quality"]["sent"]) == list(WAYS)
        for rates in contest["quality"]["sent"].values():
            assert 0 < rates["chars"] <= contest["quality"]["bound"]
        assert all(cost["seconds"] > 0 and cost["peak_bytes"] > 0 for cost in contest["costs"].values())
    assert "instruction" in done.stdout
    assert [each["way"] for each in found["kept"]] == [*WAYS, CONTROL]
    assert all(0 < each["prompts"] <= 60 and each["busy_s"] > 0 and each["first_s"] > 0 for each in found["kept"])
    assert [each["way"] for each in found["peaks"]] == list(WAYS)
    assert all(10 * 2**20 < each["peak_bytes"] < 2**30 for each in found["peaks"])
    assert found["verdicts"]
    for verdict in found["verdicts"]:
        assert f"{'met' if verdict['kept'] else 'MISSED':<8}{verdict['promise'][:60]}" in done.stdout


@pytest.mark.some(1)
@pytest.mark.parametrize("name", ["pdmx", "movies"])
def test_each_way_sends_the_tables_own_prompts(
    shared_conn: psycopg.Connection[Any], shared_engine: EngineDouble, name: str
) -> None:
    made = make(name, 60)
    unique = dedup(made.table()).table
    planned = list(render(Question(made.question, ()), unique, plan(unique)))

    def rows(prompts: Iterable[str]) -> Counter[str]:
        """Whatever the order of rows and cells."""
        halves = [prompt.partition("\n") for prompt in prompts]
        assert {question for question, _, _ in halves} == {made.question}
        return Counter(json.dumps(json.loads(row), sort_keys=True) for _, _, row in halves)

    with shared_conn.transaction(force_rollback=True):
        prepare(shared_conn, made, seed=3)
        for way in WAYS:
            shared_engine.reset()
            shared_conn.execute(statement(way, made))
            received = shared_engine.received
            assert rows(received.prompts) == rows(planned)
            assert sum(map(len, received.prompts)) == sum(map(len, planned))
            (system,) = {conversation.partition("\n")[0] for conversation in received.conversations}
            assert system == f"<system>{made.system_prompt}"


def test_rows_stand_in_random_order(shared_conn: psycopg.Connection[Any]) -> None:
    made = make("beer", 50)
    found = []
    for seed in (1, 1, 2):
        with shared_conn.transaction(force_rollback=True):
            prepare(shared_conn, made, seed)
            rows = shared_conn.execute("SELECT to_json(r)::text FROM items AS r ORDER BY ctid").fetchall()
            found.append([row for (row,) in rows])
    assert found[0] == found[1] != found[2]
    assert sorted(found[0]) == sorted(found[2]) == sorted(made.rows())
    assert found[0] != made.rows()


def test_a_process_of_its_own_plans_the_same_from_rows_and_from_columns(tmp_path: Path) -> None:
    made = make("beer", 300)
    expected = plan(made.table())
    for form in scaling.FORMS:
        texts, ordering = tmp_path / f"{form}.json", tmp_path / f"{form}.npz"
        size_bytes = scaling.write_texts(made, form, texts)
        assert size_bytes == sum(
            len(text.encode())
            for text in (made.rows() if form == "rows" else [cell for column in made.cells for cell in column])
        )
        found = measure(Task(str(texts), form, OURS, ordering=str(ordering)))
        row_order, column_order = load_ordering(ordering)
        assert row_order.tolist() == expected.row_order.tolist()
        assert column_order.tolist() == expected.column_order.tolist()
        assert (found.chosen, found.shared_chars) == (expected.strategy, expected.shared_chars)
        assert 0 < found.encode_s < found.seconds


@pytest.mark.slow
def test_memory_is_counted_beyond_the_texts(tmp_path: Path) -> None:
    texts = tmp_path / "texts.json"
    texts.write_text(json.dumps([["a"], [[f"{number:0<100}" for number in range(10**5, 3 * 10**5)]]]))
    found = measure(Task(str(texts), "columns", "original"))
    assert 5 * 2**20 < found.peak_bytes < 300 * 2**20


@pytest.mark.slow
def test_rows_grow_in_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "SIZES", (("beer", 300), ("beer+1", 200), ("beer+1", 2000), ("pdmx", 5)))
    grown = list(scaling.sizes(["beer"], 200, 0, tmp_path))
    assert [(size.table, size.rows, size.columns) for size in grown] == [
        ("beer", 200, 9),
        ("beer+1", 20, 10),
        ("beer+1", 200, 10),
    ]


@pytest.mark.slow
def test_every_strategy_leaves_its_ordering(tmp_path: Path) -> None:
    made = make("beer", 200)
    measured, files = scaling.costs(made, tmp_path)
    assert list(measured) == list(files) == list(STRATEGIES)
    rows = dedup(made.table()).table.rows
    assert {name: len(load_ordering(Path(file))[0]) for name, file in files.items()} == dict.fromkeys(STRATEGIES, rows)
    assert measured[OURS].shared_chars == max(cost.shared_chars or 0 for cost in measured.values())
