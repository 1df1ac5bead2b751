"""The flags of vLLM that fit a machine: how many, how large, and whose word counts."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from typing import Any, Literal

import pytest

from pg_bridge.serving.environment import card_gib
from pg_bridge.serving.flags import choose


def chosen(
    *said: str, device: Literal["cpu", "cuda"] = "cuda", cores: int = 16, card: float | None = 80.0
) -> dict[str, int]:
    return {flag.name: flag.value for flag in choose(device, said, cores, card)}


def test_a_cpu_gets_its_blocks_and_nothing_else() -> None:
    assert chosen(device="cpu", card=None) == {"--block-size": 32}


@pytest.mark.parametrize(("cores", "servers"), [(1, 1), (2, 1), (3, 1), (8, 4), (16, 8), (192, 8)])
def test_api_servers_follow_the_cores(cores: int, servers: int) -> None:
    assert chosen(cores=cores)["--api-server-count"] == servers


@pytest.mark.parametrize(("card", "places", "tokens"), [(22.5, 512, 2048), (79.6, 1024, 8192), (139.8, 1024, 8192)])
def test_places_and_steps_follow_the_card(card: float, places: int, tokens: int) -> None:
    found = chosen(card=card)
    assert (found["--max-num-seqs"], found["--max-num-batched-tokens"]) == (places, tokens)


def test_an_unknown_card_leaves_its_sizes_to_vllm() -> None:
    assert chosen(card=None) == {"--block-size": 16, "--api-server-count": 8}


@pytest.mark.parametrize(
    ("said", "name"),
    [
        (("--max-num-seqs", "7"), "--max-num-seqs"),
        (("--max_num_seqs=7",), "--max-num-seqs"),
        (("-asc", "2"), "--api-server-count"),
        (("--data-parallel-multi-port-external-lb",), "--api-server-count"),
        (("--headless",), "--api-server-count"),
    ],
)
def test_what_the_user_says_wins(said: Sequence[str], name: str) -> None:
    assert chosen().keys() - chosen(*said).keys() == {name}


def test_every_flag_has_its_reason() -> None:
    assert all(flag.reason for flag in choose("cuda", (), 16, 80.0))


@pytest.mark.parametrize(("told", "gib"), [("81559\n", 79.6), ("81559\n24564\n", 24.0), ("", None), ("[N/A]\n", None)])
def test_the_smallest_card_counts(monkeypatch: pytest.MonkeyPatch, told: str, gib: float | None) -> None:
    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 0, told, "")

    monkeypatch.setattr(subprocess, "run", run)
    found = card_gib()
    assert (None if found is None else round(found, 1)) == gib


def test_no_card_without_its_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert card_gib() is None
