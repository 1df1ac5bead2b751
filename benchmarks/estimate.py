"""What an estimate foretells, beside what the run then counts, on tables of the paper's shape.

Each table is estimated twice, by the engine's own tokenizer and by characters, and then asked; the engine's counters
tell what came. A word that no earlier run had stands before everything, so that its cache holds nothing of them.
The engine is a double that has vLLM's cache rules and the tokenizer of --tokenizer, or that of --endpoint.
Target: prompt tokens and cached tokens within 5 % by the tokenizer.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from benchmarks.machine import describe
from benchmarks.paper_tables import PAPER_TABLES, PaperTable, make
from benchmarks.report import Report, parser_of
from pg_bridge.analysis.tokenizer import load_tokenizer
from pg_bridge.asking.books import Books
from pg_bridge.asking.counting import Engineering, Estimate
from pg_bridge.asking.estimate import estimate
from pg_bridge.asking.inquiry import Ask
from pg_bridge.asking.run import Run
from pg_bridge.asking.streamed import Fetch, ask
from pg_bridge.engine import Engine, EngineTokenizer, survey
from pg_bridge.options import Call, Server
from pg_bridge.testing.double import EngineDouble

TARGET = 0.05
MAX_TOKENS = 4


class NoTokenizer:
    """Tells nothing, so that characters are counted."""

    def prompts(self, prompts: Sequence[str]) -> None:
        """Nothing."""

    def texts(self, texts: Sequence[str]) -> None:
        """Nothing."""


def fetch_from(rows: Sequence[str]) -> Fetch:
    """Hand out rows."""
    rest = iter(rows)

    def fetch(count: int) -> list[str | None]:
        return [row for _, row in zip(range(count), rest, strict=False)]

    return fetch


def foretell(table: PaperTable, rows: Sequence[str], call: Call, server: Server, *, by_tokenizer: bool) -> Estimate:
    """Estimate."""
    with Engine(server) as engine:
        tokenizer = partial(EngineTokenizer, engine, server) if by_tokenizer else lambda _: NoTokenizer()
        facts = Engineering(server, lambda: survey(engine, server), tokenizer)
        return estimate(
            fetch_from(rows),
            table.columns,
            [Ask(table.question, call)],
            facts,
            Books(None, engine, Run()),
            every_row=True,
            work=lambda: None,
        )


def run(table: PaperTable, rows: Sequence[str], call: Call, server: Server) -> Run:
    """Ask."""
    done = Run()
    for _ in ask(fetch_from(rows), table.columns, table.question, call, Engine(server), done, every_row=True):
        pass
    return done


def off(foretold: int, counted: int | None) -> str:
    """How far off, in per cent; what is beyond the target is marked."""
    if not counted:
        return "not told"
    error = foretold / counted - 1
    return f"{error:+7.2%}{' ' if abs(error) <= TARGET else '!'}"


def compare(name: str, count: int, seed: int, server: Server) -> Iterator[str]:
    """Estimate one table both ways, and ask about it."""
    table = make(name, min(count, PAPER_TABLES[name].rows), seed)
    rows = table.rows()
    call = Call(max_tokens=MAX_TOKENS, system_prompt=f"{secrets.token_hex(8)}. {table.system_prompt}", on_error="null")
    began = time.perf_counter()
    foretold = foretell(table, rows, call, server, by_tokenizer=True)
    took_s = time.perf_counter() - began
    by_characters = foretell(table, rows, call, server, by_tokenizer=False)
    done = run(table, rows, call, server)
    usage = done.usage
    for each in (foretold, by_characters):
        yield (
            f"{name:9} {each.rows:6} {each.unique_prompts:6}  {each.counted_by or '':13} "
            f"{each.prompt_tokens:10} {usage.prompt_tokens or 0:10} {off(each.prompt_tokens, usage.prompt_tokens)}  "
            f"{each.cached_tokens:10} {usage.cached_tokens or 0:10} {off(each.cached_tokens, usage.cached_tokens)}  "
            f"{each.requests:5} {usage.requests:5}" + (f"  {took_s:6.2f}" if each is foretold else "")
        )


def default_tokenizer() -> Path | None:
    """Tekken, where vLLM's dependency mistral_common is installed."""
    found = find_spec("mistral_common")
    return Path(found.origin or "").parent / "data" / "tekken_240911.json" if found else None


def tokenizer_of(path: Path | None) -> Callable[[str], np.ndarray] | None:
    """A tokenizer of one text; None where there is none."""
    if path is None:
        return None
    tokenize = load_tokenizer(path)
    return lambda text: next(tokenize([text]))


@contextmanager
def serving(endpoint: str | None, model: str | None, tokenizer: Path | None, block_size: int) -> Iterator[Server]:
    """The server to ask."""
    if endpoint:
        yield Server("engine", endpoint.rstrip("/"), model=model)
        return
    with EngineDouble(block_size=block_size, record=False, tokenizer=tokenizer_of(tokenizer)) as double:
        yield Server("double", double.url, model="double")


def main() -> int:
    """Compare all tables."""
    parser = parser_of("benchmarks.estimate", __doc__)
    parser.add_argument("--rows", type=int, default=2000, help="rows of each table (2,000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", action="append", choices=list(PAPER_TABLES), help="only this one; may be repeated")
    parser.add_argument("--endpoint", help="of a real engine; without it a double is asked")
    parser.add_argument("--model", help="its model; the first that it lists")
    parser.add_argument("--tokenizer", type=Path, default=default_tokenizer(), help="the double's (Tekken)")
    parser.add_argument("--block-size", type=int, default=16, help="tokens of a block of the double's cache (16)")
    arguments = parser.parse_args()
    report = Report(arguments)
    report.add(*describe(arguments), "")
    report.add(
        "table       rows unique  counted       prompt tokens    counted   error  "
        "    cached    counted   error   requests sent  took s"
    )
    with serving(arguments.endpoint, arguments.model, arguments.tokenizer, arguments.block_size) as server:
        for name in arguments.table or PAPER_TABLES:
            report.add(*compare(name, arguments.rows, arguments.seed, server))
    return report.close()


if __name__ == "__main__":
    raise SystemExit(main())
