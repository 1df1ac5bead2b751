"""`make bench-feed`, at a scale of seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.feed.engines import MAIN
from benchmarks.feed.runs import FED_WAYS
from pg_bridge.testing.cluster import Cluster

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(not Cluster().has_module, reason="this PostgreSQL has not the module pg_bridge")
def test_the_benchmark_of_the_feed_runs(tmp_path: Path) -> None:
    pytest.importorskip("mistral_common", reason="the tokenizer comes with vLLM")
    output = tmp_path / "feed.txt"
    command = [sys.executable, "-m", "benchmarks.feed", "--parts", "virtual", "clock", "--engines", "h100-8b"]
    done = subprocess.run(
        [*command, "--tables", "movies", "beer", "--rows", "60", "--output", str(output), "--charts", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert output.read_text() == done.stdout
    assert (tmp_path / "feed_seconds.png").exists()
    for part in done.stdout.partition("In virtual time")[2].split("Beside a clock"):
        assert MAIN.name in part
        for table in ("movies", "beer"):
            lines = part.partition(f"\n{table}, 60 rows\n")[2].splitlines()[1 : 1 + len(FED_WAYS)]
            assert [line[2:30].strip() for line in lines] == [way.name for way in FED_WAYS]
            for line in lines:
                seconds, floor, times, front, busy = line[30:].split()[:5]
                assert float(seconds) >= float(floor) > float(front) > 0
                assert float(times) >= 1
                assert 0 < int(busy.rstrip("%")) <= 100
        assert part.count("; the paper's ratio ") == 2


@pytest.mark.slow
@pytest.mark.vllm
def test_a_real_vllm_is_fed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.feed", "--parts", "vllm", "--vllm-rows", "40"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.partition("vLLM on this CPU")[2].splitlines()[2:]
    assert [line[2:30].strip() for line in lines] == [way.name for way in FED_WAYS]
    for line in lines:
        seconds, rate, _, front, _, core = line[30:].split()[:6]
        assert float(seconds) > 0 < int(rate)
        assert float(front) > 0
        assert float(core) > 0
