"""The model of a fast engine beside what was measured on a GPU: `python -m benchmarks.feed.fit`.

In: `MEASURED`. Out: for every line the seconds that the model says of the same prompts from the same client, and the
constants that fit best where `--search` is given. All of it in virtual time, which no other process disturbs.

The search is a seeded walk: some constants are changed a little, and stay changed where the sum of squared errors, with
the worst of them counted thrice, becomes smaller.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.feed.fixed_client import ask
from benchmarks.feed.measured import CACHE_BLOCKS, MEASURED, ROWS, Measured
from benchmarks.feed.prompts import prompts
from benchmarks.paper_tables import make
from benchmarks.report import Report, parser_of
from pg_bridge.testing.fast_engine import FastEngine, Prompt
from pg_bridge.testing.speeds import H200_1B, H200_8B, EngineSpeed

WITHIN = 0.1
"""How far from what was measured a line may be, as a share of it."""
SEED = 0

_FITTED = ("tokens_per_s", "step_s", "sequence_s", "render_s", "render_token_s", "admit_s", "answer_s")

Asked = dict[tuple[str, str], list[Prompt]]  # by table and way


@dataclass(frozen=True, slots=True)
class Modelled:
    """What the model says of one line.

    Attributes:
        measured: What was measured.
        seconds: Of the same run, with the time outside the engine as it was measured.
        computed_tokens: Of it.
        busy: The share of time in which a step was on.
        rendering: The share of time in which the API server had work.
    """

    measured: Measured
    seconds: float
    computed_tokens: int
    busy: float
    rendering: float

    @property
    def error(self) -> float:
        """How much more seconds than measured, as a share."""
        return self.seconds / self.measured.seconds - 1


def asked() -> Asked:
    """The prompts of all lines."""
    made = {table: make(table, rows, SEED) for table, rows in ROWS.items()}
    return {(line.table, line.way): prompts(made[line.table], line.way, H200_8B.block_size) for line in _each_way()}


def _each_way() -> list[Measured]:
    return list({(line.table, line.way): line for line in MEASURED}.values())


def modelled(asked: Asked, speed_8b: EngineSpeed, speed_1b: EngineSpeed) -> Iterator[Modelled]:
    """Run every line in virtual time."""
    for line in MEASURED:
        speed = speed_8b if line.model == "8b" else speed_1b
        speed = replace(speed, prefix_caching=line.cache is not None, cache_blocks=CACHE_BLOCKS[line.cache or "small"])
        engine = FastEngine(speed)
        sent = asked[line.table, line.way][: line.rows or None]
        seconds = ask(engine, sent, line.in_flight) + line.outside_s
        yield Modelled(line, seconds, engine.computed_tokens, engine.busy_s / seconds, engine.render_busy_s / seconds)


def search(asked: Asked, tries: int, seed: int) -> tuple[EngineSpeed, EngineSpeed]:
    """Walk towards the constants that fit best, from those that are kept."""
    chance = random.Random(seed)
    best = {name: getattr(H200_8B, name) for name in _FITTED} | {"tokens_per_s of 1B": H200_1B.tokens_per_s}
    least, width = _cost(asked, best), 0.2
    for _ in range(tries):
        changed = chance.sample(list(best), chance.choice([1, 2, 3, len(best)]))
        tried = best | {name: best[name] * math.exp(chance.gauss(0, width)) for name in changed}
        cost = _cost(asked, tried)
        if cost < least:
            best, least, width = tried, cost, min(width * 1.3, 0.4)
        else:
            width = max(width * 0.97, 0.02)
    return _speeds(best)


def _speeds(constants: dict[str, float]) -> tuple[EngineSpeed, EngineSpeed]:
    of_both: dict[str, Any] = {name: constants[name] for name in _FITTED}
    speed = replace(H200_8B, **of_both)
    return speed, replace(speed, tokens_per_s=constants["tokens_per_s of 1B"])


def _cost(asked: Asked, constants: dict[str, float]) -> float:
    errors = [math.log1p(each.error) ** 2 for each in modelled(asked, *_speeds(constants))]
    return sum(errors) + 2 * max(errors)


def lines(found: list[Modelled]) -> Iterator[str]:
    """What is printed of it."""
    yield f"{'':<30}{'measured':>9}{'model':>8}{'':>8}{'tokens':>8}{'GPU busy':>10}{'steps':>7}{'render':>8}"
    yield f"{'':<30}{'s':>9}{'s':>8}{'':>8}{'':>8}{'measured':>10}{'model':>7}{'model':>8}"
    for each in found:
        line = each.measured
        tokens = each.computed_tokens / line.computed_tokens - 1
        mark = "" if abs(each.error) <= WITHIN else "  <- beyond 10 %"
        yield (
            f"{line.name:<30}{line.seconds:>9.2f}{each.seconds:>8.2f}{each.error:>+8.1%}{tokens:>+8.1%}"
            f"{line.busy:>10.0%}{each.busy:>7.0%}{each.rendering:>8.0%}{mark}"
        )
    worst = max(found, key=lambda each: abs(each.error))
    mean = sum(abs(each.error) for each in found) / len(found)
    yield f"worst: {worst.error:+.1%} ({worst.measured.name}); mean of the errors' sizes: {mean:.1%}"


def main() -> int:
    """Compare, after a search if one is wanted."""
    parser = parser_of("benchmarks.feed.fit", __doc__)
    parser.add_argument("--search", type=int, default=0, metavar="TRIES", help="constants to try (default: none)")
    parser.add_argument("--seed", type=int, default=0, help="of the search (default: %(default)s)")
    arguments = parser.parse_args()
    report = Report(arguments)
    sent = asked()
    of_8b, of_1b = search(sent, arguments.search, arguments.seed)
    report.add(f"8B: {of_8b}", f"1B: {of_1b}", "")
    report.add(*lines(list(modelled(sent, of_8b, of_1b))))
    return report.close()


if __name__ == "__main__":
    raise SystemExit(main())
