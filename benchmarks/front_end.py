"""What vLLM's front end costs: CPU milliseconds per prompt of everything that stands before its scheduler.

A real vLLM with a model so small that its front end is what there is, the prompts that `llm.is_true` sends about the
paper's Movies in planned order, and several ways to bring them there: chat requests of one prompt and of several,
completions of texts and of token ids. Every repeat takes all ways in turn. CPU seconds are the kernel's own count of
each thread (/proc, so Linux only), so others on the machine cost them little; rows a second are printed, but are not
what this is about.

What stands after `--` goes to vLLM (`-- --disable-log-stats`). `--model` names the folder of a model whose tokenizer is
like those of real ones: that of the model in the box knows few words.
"""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, Literal

import aiohttp

from benchmarks.machine import describe
from benchmarks.paper_tables import make
from benchmarks.report import Report, parser_of
from pg_bridge.asking.prompt import Question, render
from pg_bridge.dev.random_model import ModelSize, random_model
from pg_bridge.engine.payload import Payload
from pg_bridge.engine.records import Sampling
from pg_bridge.engine.survey import read_tokens
from pg_bridge.ordering import plan
from pg_bridge.serving.launch import VllmEngine

MODEL = "front-end"
TABLE_ROWS = 4000
CHOICES = ("yes", "no")
CONTEXT_TOKENS = 4096
CACHE_GIB = 2
ENGINE_PARTS = ("VLLM::EngineCor", "VLLM::Worker")  # as the kernel cuts their names
SCRAPES = 20
SETTLE_S = 0.3

Form = Literal["chat", "texts", "ids"]


@dataclass(frozen=True, slots=True)
class Way:
    """A way to bring prompts to the engine.

    Attributes:
        form: Conversations, whole texts, or the ids of their tokens.
        size: Prompts of a request.
    """

    form: Form
    size: int


WAYS = tuple(Way(form, size) for form in ("chat", "texts", "ids") for size in (1, 4, 8, 16, 32, 128))


@dataclass(slots=True)
class Cost:
    """What one way took; each list has an entry a repeat, in milliseconds per prompt.

    Attributes:
        main: CPU of the API servers' main threads.
        others: CPU of their other threads, which render and tokenize.
        client: CPU of this process.
        first: Until the first answer, in milliseconds.
        rows_per_s: Prompts answered in a second.
    """

    main: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)
    client: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    rows_per_s: list[float] = field(default_factory=list)


def front_end_cpu(group: int) -> tuple[float, float]:
    """CPU seconds so far of the main threads, and of the other threads, of a vLLM's processes before its engine."""
    main = others = 0.0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            after_name = (process / "stat").read_text().rpartition(")")[2].split()
            if int(after_name[2]) != group or (process / "comm").read_text().strip() in ENGINE_PARTS:
                continue
            for thread in (process / "task").iterdir():
                seconds = int((thread / "schedstat").read_text().split()[0]) / 1e9
                if thread.name == process.name:
                    main += seconds
                else:
                    others += seconds
        except OSError:  # it has just ended
            continue
    return main, others


class Prompts:
    """The prompts in every form.

    Args:
        endpoint: The engine's, which is asked for their tokens.
        system: The system prompt.
        prompts: What is asked.

    Attributes:
        tokens: Of an average prompt, template and system prompt included.
    """

    def __init__(self, endpoint: str, system: str, prompts: Sequence[str]) -> None:
        self._prompts = prompts
        self._payload = Payload("chat", MODEL, Sampling(4, 0.0, system, CHOICES))
        self._constant = {
            "model": MODEL,
            "max_tokens": 4,
            "temperature": 0.0,
            "structured_outputs": {"choice": CHOICES},
            "add_special_tokens": False,  # the template has written them
        }
        ids = [read_tokens(_ask(endpoint, "/tokenize", self._payload.tokenized(prompt))) for prompt in prompts]
        self._ids = [tokens for tokens in ids if tokens is not None]
        if len(self._ids) < len(prompts):
            raise RuntimeError("the engine does not tell its tokens")
        bodies = [json.dumps({"model": MODEL, "tokens": tokens}).encode() for tokens in self._ids]
        self._texts: list[str] = [json.loads(_ask(endpoint, "/detokenize", body))["prompt"] for body in bodies]
        self.tokens = sum(map(len, self._ids)) / len(prompts)

    def requests(self, way: Way) -> list[tuple[str, bytes, int]]:
        """The path and the body of each request, and how many prompts are in it."""
        if way.form == "chat":
            parts = _parts(self._prompts, way.size)
            return [(self._payload.path(len(part)), self._payload.body(part), len(part)) for part in parts]
        forms: Sequence[Any] = self._ids if way.form == "ids" else self._texts
        parts = _parts(forms, way.size)
        return [
            ("/v1/completions", json.dumps({**self._constant, "prompt": part}).encode(), len(part)) for part in parts
        ]


def _parts(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _ask(endpoint: str, path: str, body: bytes | None = None) -> bytes:
    request = urllib.request.Request(f"{endpoint}{path}", body, {"Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request) as response:  # noqa: S310
        page: bytes = response.read()
    return page


async def send(endpoint: str, requests: list[tuple[str, bytes, int]], in_flight: int) -> tuple[list[str], float, float]:
    """Send requests, so many prompts at once; returns the answers, seconds to the first, and seconds of all."""
    answers: list[list[str]] = [[] for _ in requests]
    first: list[float] = []
    room = asyncio.Semaphore(max(1, in_flight // requests[0][2]))
    started = time.perf_counter()

    async def ask(number: int) -> None:
        path, body, count = requests[number]
        headers = {"Content-Type": "application/json"}
        async with room, session.post(f"{endpoint}{path}", data=body, headers=headers) as response:
            page = json.loads(await response.read())
            first.append(time.perf_counter() - started)
        choices = sorted(page["choices"], key=lambda choice: choice["index"])
        answers[number] = [
            choice["message"]["content"] if "message" in choice else choice["text"] for choice in choices
        ]
        if len(choices) != count:
            raise RuntimeError("not every prompt was answered")

    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=4.0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session:
        await asyncio.gather(*map(ask, range(len(requests))))
    return [answer for each in answers for answer in each], min(first), time.perf_counter() - started


def measure(engine: VllmEngine, prompts: Prompts, ways: Sequence[Way], repeats: int, in_flight: int) -> dict[Way, Cost]:
    """Take all ways in turn, as often as is said.

    Raises:
        RuntimeError: Two ways got different answers.
    """
    costs = {way: Cost() for way in ways}
    told: list[str] = []
    for repeat in range(repeats + 1):
        # The first round warms up: grammar, kernels, the prefix cache.
        for way in ways if repeat % 2 else ways[::-1]:
            requests = prompts.requests(way)
            before, client_before_s = front_end_cpu(engine.pid), time.process_time()
            answers, first_s, seconds = asyncio.run(send(engine.endpoint, requests, in_flight))
            client_s = time.process_time() - client_before_s
            time.sleep(SETTLE_S)  # what is done after the last answer
            main_s, others_s = (now - then for now, then in zip(front_end_cpu(engine.pid), before, strict=True))
            if answers != (told or answers):
                raise RuntimeError(f"{way} got other answers")
            told = answers
            if repeat:
                each = 1000 / len(answers)
                cost = costs[way]
                cost.main.append(main_s * each)
                cost.others.append(others_s * each)
                cost.client.append(client_s * each)
                cost.first.append(first_s * 1000)
                cost.rows_per_s.append(len(answers) / seconds)
    return costs


def scrape(engine: VllmEngine) -> tuple[float, float, int]:
    """CPU milliseconds of the main threads and of the others for a look at /metrics, and the page's bytes."""
    before = front_end_cpu(engine.pid)
    sizes = [len(_ask(engine.endpoint, "/metrics")) for _ in range(SCRAPES)]
    main_s, others_s = (now - then for now, then in zip(front_end_cpu(engine.pid), before, strict=True))
    return 1000 * main_s / SCRAPES, 1000 * others_s / SCRAPES, sizes[-1]


def line(way: Way, cost: Cost) -> str:
    """Return one line of the table; medians."""
    main, others = median(cost.main), median(cost.others)
    sums = [one + other for one, other in zip(cost.main, cost.others, strict=True)]
    return (
        f"{way.form:<6} {way.size:>4} {main:>6.2f} {others:>7.2f} {main + others:>6.2f} {max(sums) - min(sums):>7.2f}"
        f" {median(cost.client):>7.2f} {median(cost.first):>9.0f} {median(cost.rows_per_s):>7.0f}"
    )


def main() -> int:
    """Run the benchmark."""
    parser = parser_of("benchmarks.front_end", __doc__)
    parser.add_argument("--model", type=Path, help="a model's folder (default: random weights, one layer, 128 wide)")
    parser.add_argument("--prompts", type=int, default=300, help="(default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--in-flight", type=int, default=256, help="prompts at once (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the rows (default: %(default)s)")
    parser.add_argument("extra", nargs="*", metavar="-- ARGUMENT", help="more arguments for vLLM")
    arguments = parser.parse_args()
    report = Report(arguments)
    report.add(*describe(arguments), "")
    table = make("movies", max(TABLE_ROWS, arguments.prompts), arguments.seed)
    rows = table.table()
    asked = list(islice(render(Question(table.question, ()), rows, plan(rows)), arguments.prompts))
    with VllmEngine(
        arguments.model or random_model(ModelSize(hidden=128, layers=1)),
        served_name=MODEL,
        device="cpu",
        kv_cache_gib=CACHE_GIB,
        max_model_len=CONTEXT_TOKENS,
        extra=arguments.extra,
    ) as engine:
        prompts = Prompts(engine.endpoint, table.system_prompt, asked)
        costs = measure(engine, prompts, WAYS, arguments.repeats, arguments.in_flight)
        main_ms, others_ms, page_bytes = scrape(engine)
    report.add(
        f"{len(asked)} prompts of Movies in planned order, {prompts.tokens:.0f} tokens each, all of them in the cache",
        f"before they are asked; {arguments.in_flight} in flight, {arguments.repeats} repeats, medians.",
        "main, others: CPU ms a prompt of the threads of vLLM's API servers; spread: of their sum, over the repeats.",
        "client: CPU ms a prompt of the script that asks. first: ms until the first answer.",
        "All ways got the same answers.",
        "",
        f"{'way':<6} {'size':>4} {'main':>6} {'others':>7} {'sum':>6} {'spread':>7} {'client':>7} {'first':>9}"
        f" {'rows/s':>7}",
        *(line(way, cost) for way, cost in costs.items()),
        "",
        f"GET /metrics: {main_ms:.2f} ms of main threads, {others_ms:.2f} of others, {page_bytes} bytes",
    )
    return report.close()


if __name__ == "__main__":
    raise SystemExit(main())
