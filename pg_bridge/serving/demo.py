"""The model in the box: a small trained Llama that comes with pg_bridge, and an engine that serves it.

It answers simple questions about rows in English, so that demos and tests have answers which can be right or wrong on
a machine that reaches no model hub. What it can do and what it cannot: models/README.md in the repository.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pg_bridge.serving.launch import VllmEngine

NAME = "pg-bridge-demo"
DIRECTORY = Path(__file__).parents[1] / "model"

# vLLM would round to bfloat16. Where two answers are almost equally likely, what is asked beside a prompt could then
# change its answer: rounding depends on the batch.
EXACT = ("--dtype", "float32")


def demo_engine(**options: Any) -> VllmEngine:  # noqa: ANN401 - handed on as they are
    """Return an engine, not yet started, that serves the model in the box.

    Args:
        options: Of `VllmEngine`.
    """
    options["extra"] = [*EXACT, *options.get("extra", ())]
    return VllmEngine(DIRECTORY, served_name=NAME, **options)
