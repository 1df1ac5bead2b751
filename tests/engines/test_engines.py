"""Each engine is asked the demo's questions through SQL; what it can do is what the table of docs/engines.md says."""

from __future__ import annotations

import pytest

from tests.engines.features import CHECKED, FEATURES, KEPT, NO, YES, Conn
from tests.engines.served import Served
from tests.engines.table import Table

KEPT_FORMS = dict.fromkeys(("labels", "numbers", "yes or no", "JSON of a schema"), KEPT)
OF_VLLM = {
    "taken for": "`vllm`",
    "free text": YES,
    **KEPT_FORMS,
    "prompts a request": "many",
    "usage": YES,
    "cached tokens": YES,
    "stages": YES,
    "tokens before asking": YES,
    "priority": "taken",
}
OF_OTHERS = {
    **OF_VLLM,
    "taken for": "`openai-compatible`",
    "prompts a request": "one",
    "stages": NO,
    "tokens before asking": NO,
}

EXPECTED: dict[str, dict[str, str]] = {
    "vLLM": OF_VLLM,
    "vllm-router": OF_VLLM,
    "sglang-router": OF_OTHERS,
    "LiteLLM": {**OF_OTHERS, "taken for": "`litellm`"},
    "llama.cpp": {**OF_OTHERS, "taken for": "`llama.cpp`"},
    "transformers serve": {
        **OF_OTHERS,
        **dict.fromkeys(KEPT_FORMS, CHECKED),
        "JSON of a schema": NO,
        "cached tokens": NO,
        "priority": NO,
    },
}


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("engine_named", EXPECTED, indirect=True)
def test_what_an_engine_can_do(engine_named: tuple[str, Served], db: Conn, feature: str, table: Table) -> None:
    name, engine = engine_named
    found = FEATURES[feature](db)
    table.add(name, engine.version, feature, found)
    assert found == EXPECTED[name][feature]
