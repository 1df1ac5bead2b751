"""Print what the tables are, beside the published figures.

Tokens are of the tokenizer that vLLM's dependency mistral_common carries, on a sample of rows: system instruction,
question and row, without a chat template.
"""

from __future__ import annotations

import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from benchmarks.paper_tables import PAPER_TABLES, PaperTable, make
from benchmarks.report import Report, parser_of
from pg_bridge.analysis.dependencies import functional_dependencies
from pg_bridge.asking.prompt import Question, render
from pg_bridge.ordering import plan
from pg_bridge.rows.table import Table

SAMPLE_ROWS = 300


def prompts(made: PaperTable, table: Table) -> list[str]:
    """Render every row as it came."""
    question = Question(made.question, ())
    return [f"{made.system_prompt}\n{text}" for text in render(question, table, plan(table, reorder="none"))]


def count_tokens(texts: list[str]) -> int:
    """Count with Tekken."""
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer  # noqa: PLC0415 - optional

    found = find_spec("mistral_common")
    folder = Path(found.origin or "").parent if found else Path()
    tokenizer = Tekkenizer.from_file(folder / "data" / "tekken_240911.json")
    return sum(len(tokenizer.encode(text, bos=False, eos=False)) for text in texts)


def describe(name: str, rows: int | None, seed: int) -> list[str]:
    """Make one table and describe it."""
    spec = PAPER_TABLES[name]
    began = time.perf_counter()
    made = make(name, rows, seed)
    took_s = time.perf_counter() - began
    table = made.table()
    texts = prompts(made, table)
    sample = [texts[row] for row in np.random.default_rng(0).permutation(len(texts))[:SAMPLE_ROWS].tolist()]
    head = count_tokens([f"{made.system_prompt}\n{made.question}"])
    tokens, chars = count_tokens(sample), sum(map(len, sample))
    cardinality = {column: len(values) for column, values in zip(table.columns, table.values, strict=True)}
    lines = [
        f"{name}: {table.rows} x {len(table.columns)} (published {spec.rows}), "
        f"{chars / len(sample):.0f} characters and {tokens / len(sample):.0f} tokens a prompt "
        f"(published {spec.tokens}, instruction {head}), {chars / tokens:.2f} characters a token, "
        f"made in {took_s:.1f} s",
        "  cardinalities: "
        + ", ".join(
            f"{column} {count}" + (f" (published {spec.published[column]})" if column in spec.published else "")
            for column, count in cardinality.items()
        ),
    ]
    found = functional_dependencies(table)
    keys = [column for column, count in cardinality.items() if count == table.rows]
    constants = [column for column, count in cardinality.items() if count == 1]
    one_way = [
        f"{table.columns[a]} -> {', '.join(table.columns[b] for b in others)}"
        for a, determined in enumerate(found)
        if table.columns[a] not in keys + constants
        and (others := [b for b in determined if table.columns[b] not in constants])
    ]
    lines.append(
        f"  dependencies: {'; '.join(one_way) or 'none'}; keys: {', '.join(keys) or 'none'}; "
        f"constants: {', '.join(constants) or 'none'}; published groups: "
        + ("; ".join("{" + ", ".join(group) + "}" for group in spec.dependencies) or "none")
    )
    return lines


def main() -> int:
    """Describe the tables."""
    parser = parser_of("benchmarks.paper_tables", __doc__)
    parser.add_argument("--rows", type=int, help="rows of each table (the paper's)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", action="append", choices=list(PAPER_TABLES), help="only this one; may be repeated")
    arguments = parser.parse_args()
    report = Report(arguments)
    for name in arguments.table or PAPER_TABLES:
        report.add(*describe(name, arguments.rows, arguments.seed))
    return report.close()


if __name__ == "__main__":
    raise SystemExit(main())
