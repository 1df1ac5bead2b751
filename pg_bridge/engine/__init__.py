"""The engine room's last door: prompts go to vLLM over HTTP, completions and its own figures come back."""

from pg_bridge.engine.checking import Form
from pg_bridge.engine.embeddings import array_text, dimensions_of, numbers_of
from pg_bridge.engine.engine import AHEAD_PROMPTS, Engine
from pg_bridge.engine.failures import Notice
from pg_bridge.engine.payload import UNFIT, is_cut_off
from pg_bridge.engine.records import NOTHING_YET, Completion, Model, Portion, Sampling, Sure, Usage
from pg_bridge.engine.survey import EngineFacts, EngineTokenizer, survey
from pg_bridge.engine.waiting import Acquaintance

__all__ = [
    "AHEAD_PROMPTS",
    "NOTHING_YET",
    "UNFIT",
    "Acquaintance",
    "Completion",
    "Engine",
    "EngineFacts",
    "EngineTokenizer",
    "Form",
    "Model",
    "Notice",
    "Portion",
    "Sampling",
    "Sure",
    "Usage",
    "array_text",
    "dimensions_of",
    "is_cut_off",
    "numbers_of",
    "survey",
]
