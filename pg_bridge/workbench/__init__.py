"""A page for finding a prompt: versions of it, side by side, about a sample of rows; `pg-bridge workbench` shows it."""

from pg_bridge.workbench.bench import Bench
from pg_bridge.workbench.sample import Sample, take_sample
from pg_bridge.workbench.server import serve

__all__ = ["Bench", "Sample", "serve", "take_sample"]
