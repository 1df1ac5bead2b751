"""Which tests run in one process, one after the other, where pytest-xdist runs several processes.

All tests that need vLLM, which is started once; those of one file, where it is an integration test's, which share a
database and a session; and the cases of one test, which often share what is costly to make.
Not by xdist's own groups, which are marks: pytest-xdist 3.8 writes them where pytest 9.2 no longer looks.
"""

from __future__ import annotations

from typing import Any

import pytest

USE_VLLM = (
    "test_vllm.py",
    "test_foreign_vllm.py",
    "test_prefix_cache.py",
    "test_demo_model.py",
    "test_reasoning_vllm.py",
    "test_bench_feed.py",
    "test_docs_vllm.py",
    "test_tools_vllm.py",
)


def needs_vllm(nodeid: str) -> bool:
    """Whether a test stands in one of the integration tests' files of which some tests need vLLM."""
    path = nodeid.partition("::")[0]
    return path.startswith("tests/integration/") and path.endswith(USE_VLLM)


def scope_of(nodeid: str) -> str:
    """What a test shares with all that run in its process; the same for two tests that must."""
    if needs_vllm(nodeid):
        return "vllm"
    return nodeid.partition("::" if nodeid.startswith("tests/integration/") else "[")[0]


def turn_of(nodeid: str) -> int:
    """What takes longest comes first, so that no process is idle at the end."""
    return 0 if needs_vllm(nodeid) else 2 if nodeid.startswith(("tests/unit/", "tests/component/")) else 1


@pytest.hookimpl(optionalhook=True)  # unknown without pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hand out scopes in the order in which the tests were collected."""
    from xdist.scheduler import LoadScopeScheduling  # noqa: PLC0415 - see above

    class Scheduler(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return scope_of(nodeid)

    config.option.loadscopereorder = False
    return Scheduler(config, log)
