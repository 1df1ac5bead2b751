"""The model in the box: a small trained Llama that comes with a checkout, and an engine that serves it.

It answers simple questions about rows in English, so that demos and tests have answers which can be right or wrong on
a machine that reaches no model hub. What it can do and what it cannot: models/README.md in the repository. The
installed package is without it, because a database server has no use for it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pg_bridge.errors import OptionError
from pg_bridge.serving.launch import VllmEngine

NAME = "pg-bridge-demo"
VARIABLE = "PG_BRIDGE_DEMO_MODEL"

# vLLM would round to bfloat16. Where two answers are almost equally likely, what is asked beside a prompt could then
# change its answer: rounding depends on the batch.
EXACT = ("--dtype", "float32")


def find_model() -> Path:
    """Return the folder of the model in the box: the one that the variable names, else this checkout's.

    Raises:
        OptionError: There is none.
    """
    named = os.environ.get(VARIABLE)
    folder = Path(named) if named else Path(__file__).parents[2] / "models/demo"
    if not (folder / "config.json").is_file():
        raise OptionError(
            f"there is no model in {folder}"
            if named
            else "the model in the box comes with a checkout of pg_bridge only",
            hint=f"Name a model with --model, or a checkout's folder models/demo in {VARIABLE}.",
        )
    return folder.absolute()


def demo_engine(**options: Any) -> VllmEngine:  # noqa: ANN401 - handed on as they are
    """Return an engine, not yet started, that serves the model in the box.

    Args:
        options: Of `VllmEngine`.

    Raises:
        OptionError: The model is not here.
    """
    options["extra"] = [*EXACT, *options.get("extra", ())]
    return VllmEngine(find_model(), served_name=NAME, **options)
