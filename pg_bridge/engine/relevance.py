"""What is sent to the engine's reranking endpoint, and what is read from its answers.

In: texts and a `Sampling` that reranks; the bytes of an answer. Out: the bytes of a request; for each text its
relevance or why there is none. A text is a query and a document, as `pg_bridge.rows.joined` makes one of them; all
texts of a request have one query.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from json.encoder import encode_basestring

from pg_bridge.engine.checking import Answer
from pg_bridge.engine.pooling import PooledPayload, Service
from pg_bridge.rows.joined import document_of, query_of

TOO_LONG_TOGETHER = "Compare with a shorter document, or have the engine cut it: docs/search.md has how."
NO_SCORE = "the engine's answer holds no score"
NOT_FINITE = "the engine's score is not a finite number"

RELEVANCES = Service(
    path="/v1/rerank",
    makes="relevance scores",
    asked_by="llm.relevance",
    whose="reranking",
    lists=("results", "data"),  # Cohere's form, which most have, and Voyage's
    value="relevance_score",
    wrong_count="the engine's answer has not one score for each document",
    none=re.compile(
        r"(not|n't|no|without) (support|have|implement|provide|for)?\W*(the )?(task\W*)?(text )?(re-?rank|scor)"
        r"|(re-?rank(ing)?|scor(e|ing)?)\W*( api| endpoint| model)?\W*(is|are)? (not|un)\W*"
        r"(support|implement|enabl|avail)",
        re.I,
    ),
    optional={},
)


class RelevancePayload(PooledPayload):
    """Bodies of one run's requests for relevances, and the reading of their answers; arguments as for `Payload`."""

    service = RELEVANCES
    too_long = TOO_LONG_TOGETHER

    def body(self, prompts: Sequence[str]) -> bytes:
        """The request's body; all prompts have one query.

        Raises:
            UnicodeEncodeError: A text holds half of a surrogate pair.
        """
        query, documents = encode_basestring(query_of(prompts[0])), map(document_of, prompts)
        return f'{self._head}"query": {query}, "documents": [{", ".join(map(encode_basestring, documents))}]}}'.encode()

    @staticmethod
    def read(found: object) -> Answer:
        """A score as PostgreSQL writes a double precision, or why it is none."""
        if type(found) not in (int, float):
            return None, NO_SCORE
        try:
            score = float(found)  # type: ignore[arg-type]
        except OverflowError:  # an integer of hundreds of digits
            score = math.inf
        return (repr(score), None) if math.isfinite(score) else (None, NOT_FINITE)
