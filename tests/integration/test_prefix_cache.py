"""What the prefix cache of `pg_bridge.asking.prefix_cache` foretells is what vLLM's own counters say afterwards."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from itertools import count

import pytest

from pg_bridge.analysis.tokenizer import load_tokenizer
from pg_bridge.asking.prefix_cache import PrefixCache
from pg_bridge.asking.prompt import Question, render
from pg_bridge.engine import Engine, Sampling
from pg_bridge.options import Server
from pg_bridge.ordering import plan
from pg_bridge.rows.table import Table
from pg_bridge.serving.demo import demo_engine, find_model
from pg_bridge.serving.environment import find_device
from pg_bridge.serving.flags import BLOCK_SIZES
from pg_bridge.serving.launch import VllmEngine
from tests.integration.test_vllm import settled

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

BLOCK_SIZE = BLOCK_SIZES[find_device()]
SMALL_CACHE_BLOCKS = 96
SMALL_IN_FLIGHT = 4

QUESTION = Question("Is the review of this film positive or negative?", ())
NUMBERS = count(1)


WORDS = ("film", "road", "music", "story", "cost", "memory", "review", "table", "answer", "wait")


def words(chooser: random.Random, number: int) -> str:
    return json.dumps(" ".join(chooser.choices(WORDS, k=number)))


def films(rows: int) -> Table:
    """Reviews of a few films: a text of its own a row, and columns that repeat."""
    chooser = random.Random(5)
    about = [(words(chooser, 3), words(chooser, 100), words(chooser, 2)) for _ in range(rows // 8)]
    return Table.from_cells(
        ["review", "title", "story", "company"],
        zip(*((words(chooser, chooser.randint(20, 90)), *chooser.choice(about)) for _ in range(rows)), strict=True),
    )


def measure(engine: VllmEngine, prompts: list[str], in_flight: int, cache: PrefixCache) -> tuple[float, float]:
    """(the hit rate that the cache foretells, the one that the engine counts) of the prompts in this order."""
    # Its first words are new, so that no run finds another's blocks.
    system = f"Run {next(NUMBERS)} of a test. Reply with the answer alone."
    before = settled(engine)
    with Engine(Server("vllm", engine.endpoint, engine.model, max_in_flight=in_flight)) as caller:
        sampling = Sampling(max_tokens=2, temperature=0.0, system_prompt=system)
        answers = list(caller.complete(iter(prompts), sampling))
    assert len(answers) == len(prompts)
    after = settled(engine)
    queried, hit = (after[name] - before[name] for name in ("prefix_cache_queries_total", "prefix_cache_hits_total"))
    for tokens in load_tokenizer(find_model())(templated(system, prompts)):
        cache.query(tokens)
    assert cache.queried_tokens == queried  # to the token: template and tokenizer are the engine's
    return cache.hit_rate, hit / queried


def templated(system: str, prompts: list[str]) -> Iterator[str]:
    jinja2 = pytest.importorskip("jinja2")
    template = jinja2.Template(json.loads((find_model() / "tokenizer_config.json").read_text())["chat_template"])
    for prompt in prompts:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": prompt}]
        yield template.render(messages=messages, add_generation_prompt=True)


def test_with_room_for_all(vllm: VllmEngine) -> None:
    table = films(200)
    rates = {}
    for name, ordering in {"original": plan(table, reorder="none"), "planned": plan(table)}.items():
        prompts = list(render(QUESTION, table, ordering))
        rates[name] = measure(vllm, prompts, 256, PrefixCache(BLOCK_SIZE))
    for foretold, counted in rates.values():
        assert foretold == pytest.approx(counted, abs=0.02)
    assert rates["planned"][1] > rates["original"][1] + 0.2


@pytest.fixture(scope="module")
def small_engine() -> Iterator[VllmEngine]:
    """An engine whose cache holds a few prompts only."""
    bounds = ["--num-gpu-blocks-override", str(SMALL_CACHE_BLOCKS), "--max-num-seqs", str(SMALL_IN_FLIGHT)]
    with demo_engine(max_model_len=1024, kv_cache_gib=1, extra=bounds) as running:
        yield running


@pytest.mark.slow  # an engine of its own
def test_with_room_for_few(small_engine: VllmEngine) -> None:
    table = films(200)
    planned = list(render(QUESTION, table, plan(table)))
    shuffled = random.Random(1).sample(planned, len(planned))
    rates = {}
    for name, prompts in {"shuffled": shuffled, "planned": planned}.items():
        cache = PrefixCache(BLOCK_SIZE, SMALL_CACHE_BLOCKS - 1 - SMALL_IN_FLIGHT)
        rates[name] = measure(small_engine, prompts, SMALL_IN_FLIGHT, cache)
    for foretold, counted in rates.values():
        assert foretold == pytest.approx(counted, abs=0.02)
    # The same prompts: with room for all, their order would not matter.
    assert rates["planned"][1] > rates["shuffled"][1] + 0.1
