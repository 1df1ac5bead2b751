"""Joins by a condition that a model answers: what each way to ask about the pairs costs, and how good the join is.

Asked of an engine double that knows the truth, errs about some of the pairs, and gives no answer to some of the lists
and blocks. It errs about a pair, whichever way that is asked about: questions and tokens are what an engine was sent,
but the quality is that of the ways themselves. A real model errs more in long lists than in short ones; how much more,
only the model tells. Each way begins with an empty ledger and an empty prefix cache; tokens are of four characters.

Embeddings are of a double of its own: the words of a text, spread over 256 numbers by their digests, which know nothing
of the truth. A model's tell more; these find a name that a review says, and nothing in a sentiment.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import Any, NamedTuple

import psycopg

from benchmarks import counters
from benchmarks.hosts import make_hosts
from benchmarks.machine import describe
from benchmarks.planner.tables import SHARED_DATA
from benchmarks.report import Report, parser_of
from benchmarks.sembench.gold import load_reviews
from benchmarks.sembench.questions import QUANTUMANIA, f1
from pg_bridge.testing.cluster import Cluster
from pg_bridge.testing.double import EngineDouble

CONTEXT_TOKENS = 8_192  # of the engine
NEAREST = 5
WAYS = {
    "each": "pairs => 'each'",
    "listed": "pairs => 'listed'",
    "blocks": "pairs => 'blocks'",
    "auto": "pairs => 'auto'",
    f"each, {NEAREST} nearest": f"nearest => {NEAREST}, embedder => 'words'",
    f"listed, {NEAREST} nearest": f"nearest => {NEAREST}, embedder => 'words', pairs => 'listed'",
}
WAY_CHARS = max(map(len, WAYS))
DIMENSIONS = 256  # of an embedding
_COLUMNS = f"{'questions':>9} {'prompt tokens':>13} {'computed':>9} {'answers':>8} {'F1':>5} {'recall':>6}  as"
HEAD = f"{'':<{WAY_CHARS}} {_COLUMNS}"
_ASKED = ("blocks", "lists", "alone", "repairs")
_CANDIDATE = re.compile(r"^([0-9]+)\. (\{.*\})$", re.M)
_WORD = re.compile(r"\w+")
_WORDS = ("light", "sturdy", "loud", "warm", "cheap", "lovely", "odd", "slow", "bright", "heavy")

Row = dict[str, str]


class Join(NamedTuple):
    """Two tables of texts, and which pairs belong together."""

    name: str
    prompt: str
    columns: tuple[str, str]
    sides: tuple[list[str], list[str]]
    belong: Callable[[str, str], bool]


def shop(seed: int) -> Join:
    """300 reviews of 40 products."""
    rng = random.Random(seed)
    products = [f"{rng.choice(_WORDS)} thing no. {i:02d}" for i in range(40)]
    reviews = []
    for number in range(300):
        said = " ".join(f"It is {rng.choice(_WORDS)} and {rng.choice(_WORDS)}." for _ in range(rng.randint(3, 9)))
        reviews.append(f"{number}: I bought the {rng.choice(products)}. {said}")
    belong = lambda review, name: f" {name}. " in review  # noqa: E731 - as short as it says
    prompt = "Does {review} concern the product {name}?"
    return Join("300 reviews of 40 products", prompt, ("review", "name"), (reviews, products), belong)


def film(_: int) -> Join | None:
    """SemBench's seventh question about some reviews, as a condition over pairs."""
    if not (SHARED_DATA / "movie_reviews.csv").exists():
        return None
    positive = {each.text: each.is_positive for each in load_reviews() if each.film == QUANTUMANIA}
    texts = list(positive)[:120]
    left, right = texts[::2], texts[1::2]
    belong = lambda one, other: positive[one] != positive[other]  # noqa: E731
    prompt = "Are the sentiments of {one} and {other} opposite?"
    name = f"SemBench's reviews, {len(left)} x {len(right)}: half of all pairs belong together"
    return Join(name, prompt, ("one", "other"), (left, right), belong)


def knowing(join: Join, noise: float, nonsense: float, seed: int) -> Callable[[str], str]:
    """What answers about a pair, a list or a block, as the docstring above says."""
    first, second = join.columns

    def luck(*texts: str) -> float:
        return random.Random(blake2b("\0".join([str(seed), *texts]).encode(), digest_size=8).digest()).random()

    def belong(pair: Row) -> bool:
        one, other = pair[first], pair[second]
        return join.belong(one, other) != (luck(one, other) < noise)

    def answer(prompt: str) -> str:
        row, end = _row_of(prompt)
        question = prompt[end:] if prompt.startswith("{") else prompt[: prompt.rindex("\n{")]
        candidates = [(int(number), json.loads(found)) for number, found in _CANDIDATE.findall(question)]
        if not candidates:
            return "yes" if belong(row) else "no"
        if luck(prompt) < nonsense:
            return '{"yes": [[0, 0]]}'
        if "rows" not in row:
            return json.dumps({"yes": [number for number, each in candidates if belong(row | each)]})
        numbered = [(int(n), number, one | each) for n, one in row["rows"].items() for number, each in candidates]
        return json.dumps({"yes": [[n, number] for n, number, pair in numbered if belong(pair)]})

    return answer


def _row_of(prompt: str) -> tuple[dict[str, Any], int]:
    """The row that a prompt begins or ends with, and where it ends."""
    start = 0 if prompt.startswith("{") else prompt.rindex("\n{") + 1
    found, end = json.JSONDecoder().raw_decode(prompt, start)
    return found, end


def words(text: str) -> list[float]:
    """What a text's words come to, each once."""
    found = [0.0] * DIMENSIONS
    for word in set(_WORD.findall(text.lower())):
        digest = int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "big")
        found[digest % DIMENSIONS] += 1 if digest >> 63 else -1
    return found


def fill(connection: psycopg.Connection[Any], join: Join) -> None:
    """Make the two tables."""
    for table, column, texts in zip(("a", "b"), join.columns, join.sides, strict=True):
        connection.execute(f"DROP TABLE IF EXISTS {table}; CREATE TABLE {table} (id int, {column} text)".encode())
        with connection.cursor() as cursor, cursor.copy(f"COPY {table} FROM STDIN".encode()) as into:
            for row in enumerate(texts):
                into.write_row(row)
    connection.execute("ANALYZE a; ANALYZE b")


def measure(connection: psycopg.Connection[Any], endpoint: str, join: Join, way: str) -> str:
    """Join in one way; a line of the table."""
    before = counters.read(endpoint)
    query = f"SELECT a.id, b.id FROM a JOIN b ON llm.is_true('{join.prompt}', llm.row(a, b), {WAYS[way]})"
    rows = connection.execute(query.encode()).fetchall()
    spent = counters.read(endpoint).since(before)
    left, right = join.sides
    right_pairs = {(i, j) for i, one in enumerate(left) for j, other in enumerate(right) if join.belong(one, other)}
    told = connection.execute("SELECT pairs, completion_tokens FROM llm.last_run()").fetchone()
    pairs, answers = told or (None, 0)
    asked = ", ".join(f"{pairs[name]} {name}" for name in _ASKED if pairs[name]) if pairs else "pairs"
    if pairs and "pruned" in pairs:
        asked += (
            f"\n  {pairs['pruned']} pruned, of a sample of {pairs['sampled']} {pairs['sampled_yes']} were yes:"
            f" at most {pairs['lost_at_most']} of the others, recall at least {pairs['recall_at_least']:.2f}"
        )
    computed = spent.prompt_tokens - spent.cached_tokens
    return (
        f"{way:<{WAY_CHARS}} {spent.prompts:>9} {spent.prompt_tokens:>13} {computed:>9}"
        f" {answers:>8} {f1(rows, right_pairs):>5.2f} {len({*rows} & right_pairs) / len(right_pairs):>6.2f}  {asked}"
    )


def compare(join: Join, noise: float, nonsense: float, seed: int) -> Iterator[str]:
    """Join in all ways."""
    yield join.name
    yield HEAD
    with (
        EngineDouble() as double,
        EngineDouble() as embedder,
        Cluster() as cluster,
        _connect(cluster, double.url) as connection,
    ):
        fill(connection, join)
        embedder.behaviour.embedding = words
        server = f"CREATE SERVER words FOREIGN DATA WRAPPER pg_bridge OPTIONS (endpoint '{embedder.url}')"
        connection.execute(server.encode())
        for way in WAYS:
            double.reset()
            double.behaviour.change({"record": False, "max_model_len": CONTEXT_TOKENS})
            double.behaviour.answer = knowing(join, noise, nonsense, seed)
            yield measure(connection, double.url, join, way)


def _connect(cluster: Cluster, endpoint: str) -> psycopg.Connection[Any]:
    return psycopg.connect(make_hosts(cluster, endpoint)[0].dsn, autocommit=True)


def main() -> int:
    """Join reviews with products, and reviews with reviews."""
    parser = parser_of("benchmarks.joins", __doc__)
    parser.add_argument("--noise", type=float, default=0.05, help="share of pairs about which the double errs (0.05)")
    parser.add_argument(
        "--nonsense", type=float, default=0.05, help="share of lists and blocks that it does not answer (0.05)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the texts and of the errors")
    arguments = parser.parse_args()
    report = Report(arguments)
    report.add(*describe(arguments), "")
    for make in (shop, film):
        if (join := make(arguments.seed)) is None:
            report.add("skipped: SemBench's tables are not here")
            continue
        report.add(*compare(join, arguments.noise, arguments.nonsense, arguments.seed), "")
    return report.close()


if __name__ == "__main__":
    raise SystemExit(main())
