"""Starts an engine by its command line, waits until it answers, and ends it with all that it has started."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from pg_bridge.serving.children import Guard, end_group, private_directory, tail

CHECKOUT = Path(__file__).parents[2]
ENVIRONMENTS = CHECKOUT / ".venv-engines"
READY_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 5.0

# Nothing of a test reaches the network, and no engine reports how it is used.
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
}


def environment_of(name: str) -> Path:
    """The environment of an engine; skips the test, with the reason, where that could not be had."""
    folder = ENVIRONMENTS / name
    if not (folder / ".stamp").exists():
        told = folder.with_name(f"{name}.missing")
        pytest.skip(told.read_text().strip() if told.exists() else f"no {name}: `make test-engines` installs it")
    return folder


@contextmanager
def started(
    command: Sequence[str | Path], url: str, ready: str, environment: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Run a command for a `with`; it is ready once `url` has a page `ready`, and its log is shown if it never is."""
    directory = private_directory("pg_bridge-engine")
    log = directory / "log"
    try:
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_environment(directory, environment or {}),
                start_new_session=True,
            )
        guard = Guard(-process.pid, signal.SIGTERM, directory)
        try:
            _wait(process, url + ready, log)
            yield
        finally:
            end_group(process.pid, STOP_TIMEOUT_S)
            process.wait()
            guard.release()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _environment(directory: Path, more: Mapping[str, str]) -> dict[str, str]:
    """Ours, but for what would lead into our own packages, a proxy, or somebody's cache of models."""
    lead = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    kept = {
        name: value for name, value in os.environ.items() if name not in lead and not name.lower().endswith("_proxy")
    }
    cache = directory / "hub"
    cache.mkdir()
    return {**kept, **QUIET, "TMPDIR": str(directory), "HF_HUB_CACHE": str(cache), **more}


def _wait(process: subprocess.Popen[bytes], page: str, log: Path) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not _answers(page):
        if process.poll() is not None:
            pytest.fail(f"it ended while it was starting:\n{tail(log, 30)}", pytrace=False)
        if time.monotonic() > deadline:
            pytest.fail(f"it was not ready within {READY_TIMEOUT_S:.0f} s:\n{tail(log, 30)}", pytrace=False)
        time.sleep(0.1)


def _answers(page: str) -> bool:
    try:
        with urlopen(page, timeout=5) as answer:  # noqa: S310 - our own engine
            return bool(answer.status == HTTPStatus.OK)
    except (URLError, OSError):
        return False
