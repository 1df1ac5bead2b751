"""`make bench-planner`, at a scale of seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.paper_tables import make
from benchmarks.planner import scaling
from benchmarks.planner.fresh import OURS, STRATEGIES, Task, load_ordering, measure
from benchmarks.planner.results import MEASURES
from pg_bridge.ordering import plan

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
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
        assert all(cost["seconds"] > 0 and cost["peak_bytes"] > 0 for cost in contest["costs"].values())
    assert "instruction" in done.stdout
    assert done.stdout.count("with memory ") == 2
    assert found["verdicts"]
    for verdict in found["verdicts"]:
        assert f"{'met' if verdict['kept'] else 'MISSED':<8}{verdict['promise'][:60]}" in done.stdout


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


def test_memory_is_counted_beyond_the_texts(tmp_path: Path) -> None:
    texts = tmp_path / "texts.json"
    texts.write_text(json.dumps([["a"], [[f"{number:0<100}" for number in range(10**5, 3 * 10**5)]]]))
    found = measure(Task(str(texts), "columns", "original"))
    assert 5 * 2**20 < found.peak_bytes < 300 * 2**20


def test_rows_grow_in_steps_and_budgets_are_spent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "SIZES", (("beer", 300), ("beer+1", 200), ("beer+1", 2000), ("pdmx", 5)))
    monkeypatch.setattr(scaling, "BUDGETS_S", (0.01,))
    grown = list(scaling.sizes(["beer"], 200, 0, tmp_path))
    assert [(size.table, size.rows, size.columns) for size in grown] == [
        ("beer", 200, 9),
        ("beer+1", 20, 10),
        ("beer+1", 200, 10),
    ]
    made = make("beer", 200)
    measured, _ = scaling.costs(made, tmp_path)
    default, spent = scaling.budgets(made, measured[OURS], tmp_path)
    assert (default.budget_s, spent.budget_s) == (None, 0.01)
    assert 0 < default.hit_rate < 1
