"""The prompts of a table in any ordering, as texts and as tokens.

In: a table and its orderings. Out: one text a row (system prompt, question and row), and its token ids by the Tekken
tokenizer. Each text is tokenised once, in however many orderings it comes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.paper_tables import PaperTable
from benchmarks.planner.fresh import Arrays
from benchmarks.planner.prefixes import Integers
from pg_bridge.analysis.tokenizer import Tokenizer, load_tokenizer
from pg_bridge.asking.prompt import Question, render
from pg_bridge.ordering import Ordering
from pg_bridge.rows.table import Table

TOKENIZER = "tekken_240911.json"
"""The tokenizer that vLLM's dependency mistral_common carries."""


class Prompts:
    """The prompts of one table, in any ordering; each text is tokenised once.

    Args:
        made: Where the table comes from; has the system prompt and the question.
        table: Its unique rows.
    """

    def __init__(self, made: PaperTable, table: Table) -> None:
        self.table = table
        self._system_prompt = made.system_prompt
        self._question = Question(made.question, ())
        self._tokenize = tekken()
        self._tokens: dict[bytes, Integers] = {}  # by the text's digest

    @property
    def as_they_came(self) -> Arrays:
        """The ordering that moves nothing."""
        n, k = self.table.codes.shape
        return np.arange(n, dtype=np.intp), np.broadcast_to(np.arange(k, dtype=np.int16), (n, k))

    def texts(self, row_order: NDArray[np.intp], column_order: NDArray[np.int16]) -> list[str]:
        """The prompts as they are sent."""
        ordering = Ordering(row_order, column_order, "", 0, 0)
        return [f"{self._system_prompt}\n{text}" for text in render(self._question, self.table, ordering)]

    def tokens(self, row_order: NDArray[np.intp], column_order: NDArray[np.int16]) -> list[Integers]:
        """The prompts' token ids, as they are sent."""
        return self.tokens_of(self.texts(row_order, column_order))

    def tokens_of(self, texts: Sequence[str]) -> list[Integers]:
        """The token ids of prompts."""
        keys = [blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest() for text in texts]
        new = [i for i, key in enumerate(keys) if key not in self._tokens]
        for i, tokens in zip(new, self._tokenize([texts[i] for i in new]), strict=True):
            self._tokens[keys[i]] = tokens
        return [self._tokens[key] for key in keys]

    def count(self, texts: Iterable[str]) -> Iterator[int]:
        """How many tokens each text is."""
        return map(len, self._tokenize(texts))

    def head_tokens(self) -> int:
        """Tokens of what stands before the row."""
        return next(self.count([self._head()]))

    @property
    def head_chars(self) -> int:
        """Characters of what stands before the row."""
        return len(self._head())

    def _head(self) -> str:
        return f"{self._system_prompt}\n{self._question.text}\n"


def tekken() -> Tokenizer:
    """Load the tokenizer; `benchmarks.planner` needs what vLLM needs."""
    found = find_spec("mistral_common")
    if found is None or found.origin is None:
        raise RuntimeError("the package mistral_common, which has the tokenizer, is not installed; vLLM brings it")
    return load_tokenizer(Path(found.origin).parent / "data" / TOKENIZER)
