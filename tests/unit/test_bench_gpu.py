"""The kit for a GPU: nvidia-smi, the lines of a run, libraries for one architecture, pieces. No card, no engine."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import ask, run
from benchmarks.gpu.card import between, samples
from benchmarks.gpu.fatbin import MACHINE_CODE, MAGIC, PTX, Entry, fat_binaries, keep_only
from benchmarks.gpu.models import SHAPES
from benchmarks.gpu.pack import SUMS, cut, library_paths
from benchmarks.gpu.results import HEAD, lines
from benchmarks.paper.runs import Run
from benchmarks.paper.ways import GGR, ORIGINAL, OURS
from benchmarks.paper.workloads import workloads

TOLD = """\
2026/11/28 02:35:14.000, 0, 110.50, 345
2026/11/28 02:35:14.200, 100, 600.00, 1980
2026/11/28 02:35:14.400, 40, 300.00, 1980
2026/11/28 02:35:14.600, [N/A], [N/A], 1980
2026/11/28 02:35:14.8"""


def test_samples_are_read_and_broken_lines_left_out() -> None:
    found = samples(TOLD)
    assert found[0].at == datetime(2026, 11, 28, 2, 35, 14, tzinfo=UTC).timestamp()
    assert [(round(each.at - found[0].at, 3), each.busy, each.watts) for each in found] == [
        (0.0, 0.0, 110.5),
        (0.2, 1.0, 600.0),
        (0.4, 0.4, 300.0),
    ]


def test_a_sample_tells_of_the_time_before_it() -> None:
    found = samples(TOLD)
    began = found[0].at - 0.05
    assert [each.busy for each in between(found, began, began + 0.5)] == [1.0, 0.4]
    assert [each.busy for each in between(found, began, began + 0.1)] == [0.0], "better than none"
    assert between(found, began + 9, began + 10) == []


def record(way: str, seconds: float, cached: int, began: float = 0.0) -> dict[str, Any]:
    facts = {"kind": "run", "engine": "8b:40000", "workload": "movies, filter", "rows": 100, "way": way}
    of = Run(seconds, 100, 100, 10_000, cached, 400, 0.01, 0.02)
    return facts | {"began": began, "ended": began + seconds, "run": asdict(of)}


def rate(tokens_a_second: float) -> dict[str, Any]:
    facts = {"kind": "rate", "engine": "8b:40000", "workload": "movies, filter", "rows": 100}
    return facts | {"began": 0.0, "ended": 1.0, "rate": tokens_a_second}


def words(said: Sequence[str], way: str) -> list[str]:
    (line,) = (line for line in said if line.startswith(f"{way} "))
    return line[28:].split()


def test_seconds_stand_beside_the_floor_the_card_and_the_paper() -> None:
    taken = samples(TOLD)
    began = taken[0].at - 0.05
    records = [rate(5_000.0), record(ORIGINAL, 1.6, 4_000), record(GGR, 0.8, 8_000), record(OURS, 0.5, 9_000, began)]
    said = list(lines([{"kind": "header", "lines": ["machine: one"]}, *records], taken))
    assert said[0] == "machine: one"
    assert "8b:40000: movies, filter, 100 rows" in said
    assert "5000 prompt tokens a second where nothing is shared: no cache 2.00 s" in said
    columns = ["seconds", "spread", "floor", "ratio", "busy", "watts", "rows", "prompts", "computed", "saved"]
    ours = dict(zip([*columns, "original", "no cache", "outside"], words(said, OURS), strict=True))
    assert ours == {
        "seconds": "0.50",
        "spread": "0%",
        "floor": "0.20",
        "ratio": "2.50",
        "busy": "70%",
        "watts": "450",
        "rows": "200",
        "prompts": "100",
        "computed": "1000",
        "saved": "90.0%",
        "original": "3.20",
        "no cache": "4.00",
        "outside": "2.0%",
    }
    assert said[-1].startswith("original / pg_bridge: 3.20 by seconds, 6.00 by tokens; GGR / pg_bridge: 1.60")
    assert "the paper's GGR: 2.5, hit rates 35 -> 86%, here 40% -> 80%" in said[-1]


def test_repeats_are_one_line_and_a_run_that_was_cut_short_is_told_as_far_as_it_came() -> None:
    records = [rate(5_000.0), record(OURS, 0.4, 9_000), record(OURS, 0.6, 9_000), record(OURS, 0.5, 9_000)]
    said = list(lines([*records, {"kind": "note", "text": "time is up"}], []))
    assert words(said, OURS)[:2] == ["0.50", "40%"]
    assert "time is up" in said
    assert list(lines([rate(5_000.0)], []))[-1] == HEAD


def test_what_matters_most_is_measured_first_and_every_way_at_the_first_engine() -> None:
    asked = {name: next(workloads(20_000, 0, (name,), ("filter",))) for name in ("movies", "bird")}
    found = list(ask.jobs(["small", "large"], asked, repeats=2))
    short = [(job.engine, job.workload.table.name, job.way and job.way.name) for job in found]
    assert short[:4] == [("small", "movies", way) for way in (None, ORIGINAL, GGR, OURS)]
    assert [engine for engine, _, _ in short[:16]] == ["small"] * 8 + ["large"] * 8
    assert {way for engine, _, way in short if engine == "small"} >= {"rows sorted", "prefix buckets", "v1 fixed order"}
    assert short.count(("small", "bird", OURS)) == 2
    assert short.count(("large", "bird", OURS)) == 1


def test_the_cache_s_bytes(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"num_hidden_layers": 32, "num_key_value_heads": 8, "head_dim": 128, "hidden_size": 4096}'
    )
    assert run.memory(tmp_path, 40_000, "cuda")[:2] == ["--kv-cache-memory-bytes", str(40_000 * 128 * 1024)]
    assert run.memory(tmp_path, 40_000, "cpu") == []


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_have_heads_that_share_keys_evenly(name: str) -> None:
    shape = SHAPES[name]
    assert shape.heads % shape.key_value_heads == 0
    assert shape.heads * shape.head_dim == shape.hidden


def entry(kind: int, architecture: int, payload: bytes) -> bytes:
    header = struct.pack("<HHIQ", kind, 0x101, 64, len(payload)) + bytes(12) + struct.pack("<I", architecture)
    return header.ljust(64, b"\0") + payload


def fat_binary(*entries: bytes) -> bytes:
    joined = b"".join(entries)
    return MAGIC + struct.pack("<HHQ", 1, 16, len(joined)) + joined


def kept(library: bytes) -> list[list[tuple[int, int]]]:
    return [[(each.kind, each.architecture) for each in entries] for _, entries in fat_binaries(library)]


def test_a_library_keeps_what_a_card_takes_and_its_length() -> None:
    own = entry(MACHINE_CODE, 90, b"hopper" * 9)
    library = b"".join(
        [
            b"code" + MAGIC + b"not one",
            fat_binary(entry(MACHINE_CODE, 80, b"ampere" * 9), own, entry(PTX, 90, b"text" * 9)),
            fat_binary(entry(MACHINE_CODE, 80, b"a"), entry(PTX, 80, b"older"), entry(PTX, 100, b"newer")),
            fat_binary(entry(MACHINE_CODE, 120, b"long" * 9), entry(MACHINE_CODE, 100, b"short")),
            b"data",
        ]
    )
    slim = keep_only(library, 90)
    assert kept(slim) == [[(MACHINE_CODE, 90)], [(PTX, 80)], [(MACHINE_CODE, 100)]]
    assert len(slim) == len(library)
    assert b"ampere" not in slim
    assert next(fat_binaries(slim))[1] == [Entry(MACHINE_CODE, 90, own)]
    assert [place for place, _ in fat_binaries(slim)] == [place for place, _ in fat_binaries(library)]
    assert keep_only(slim, 90) == slim
    assert slim.endswith(b"data")


def test_pieces_fill_every_call_but_the_last_and_come_together_again(tmp_path: Path) -> None:
    archives = [tmp_path / "engine.tar.xz", tmp_path / "root.tar.xz"]
    archives[0].write_bytes(bytes(range(250)))
    archives[1].write_bytes(b"root" * 10)
    folders = cut(archives, tmp_path / "kit", 100)
    assert [folder.name for folder in folders] == ["call-1", "call-2", "call-3"]
    sizes = [[path.stat().st_size for path in folder.iterdir() if path.name != SUMS] for folder in folders]
    assert [sum(each) for each in sizes] == [100, 100, 90]
    assert len({(folder / SUMS).read_text() for folder in folders}) == 1
    assert len((folders[0] / SUMS).read_text().splitlines()) == sum(map(len, sizes)) == 4
    for archive in archives:
        pieces = sorted((tmp_path / "kit").rglob(f"{archive.name}.*"), key=lambda path: path.name)
        assert b"".join(path.read_bytes() for path in pieces) == archive.read_bytes()


def test_libraries_are_those_of_the_system() -> None:
    told = """\
        linux-vdso.so.1 (0x00007ffd)
        libz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f)
        libown.so => /opt/venv/lib/libown.so (0x00007f)
        libgone.so => not found
        /lib64/ld-linux-x86-64.so.2 (0x00007f)
"""
    assert list(library_paths(told)) == ["/lib/x86_64-linux-gnu/libz.so.1", "/lib64/ld-linux-x86-64.so.2"]
