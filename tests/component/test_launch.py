import os
import socket
import sys
import time
from pathlib import Path

import pytest

from pg_bridge.errors import EngineUnreachable
from pg_bridge.serving import launch
from pg_bridge.serving.children import is_running
from pg_bridge.serving.launch import VllmEngine, diagnose

# A stand-in for `vllm serve`: answers /health after a while, or ends with a message. argv: mode, then vLLM's.
_STAND_IN = """
import http.server, os, subprocess, sys, time
mode, port = sys.argv[1], int(sys.argv[sys.argv.index("--port") + 1])
if mode == "fail":
    sys.exit("ValueError: the KV cache needed is larger than the available KV cache memory")
child = subprocess.Popen(["sleep", "300"])
print("child", child.pid, "offline", os.environ.get("HF_HUB_OFFLINE"), "cache", os.environ["VLLM_CPU_KVCACHE_SPACE"],
      "quiet", os.environ["DO_NOT_TRACK"], "temporary", os.environ["TMPDIR"],
      "fastokens", os.environ.get("VLLM_USE_FASTOKENS"), flush=True)
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
if mode == "hang":
    time.sleep(300)
http.server.HTTPServer(("127.0.0.1", port), Health).serve_forever()
"""


def stand_in(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setattr(launch, "find_vllm", lambda: [sys.executable, "-c", _STAND_IN, mode])


def test_flags_follow_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "serve")
    cpu = VllmEngine("m", device="cpu", port=1).command
    cuda = VllmEngine("m", device="cuda", port=1, prefix_caching=False, max_model_len=99).command
    assert cpu[cpu.index("--block-size") + 1] == "32"
    assert cuda[cuda.index("--block-size") + 1] == "16"
    assert "--enforce-eager" in cpu
    assert "--enforce-eager" not in cuda
    assert "--enable-prefix-caching" in cpu
    assert "--no-enable-prefix-caching" in cuda
    assert cuda[cuda.index("--max-model-len") + 1] == "99"
    assert "--enable-prompt-tokens-details" in cpu


def test_the_machine_decides_on_a_gpu_and_the_caller_overrules_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "serve")
    monkeypatch.setattr(launch, "card_gib", lambda: 80.0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    engine = VllmEngine("m", device="cuda", extra=["--max-num-seqs=64"])
    assert [flag.words for flag in engine.chosen] == [
        ["--block-size", "16"],
        ["--api-server-count", "8"],
        ["--max-num-batched-tokens", "8192"],
    ]
    assert engine.command[-1] == "--max-num-seqs=64"
    assert "--api-server-count 8" in " ".join(engine.command)


@pytest.mark.parametrize(
    ("is_installed", "said", "given"),
    [(True, None, "1"), (True, "0", "0"), (False, None, "None"), (False, "1", "1")],
)
def test_fastokens_is_used_where_it_is_installed_unless_the_user_says_otherwise(
    is_installed: bool, said: str | None, given: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stand_in(monkeypatch, "serve")
    monkeypatch.setattr(launch, "has_fastokens", lambda: is_installed)
    monkeypatch.delenv(launch.FASTOKENS, raising=False)
    if said is not None:
        monkeypatch.setenv(launch.FASTOKENS, said)
    log = tmp_path / "log"
    with VllmEngine("m", device="cpu", log_path=log) as engine:
        assert engine.uses_fastokens == (is_installed and said is None)
        assert log.read_text().split()[10:12] == ["fastokens", given]


def test_a_tokenizer_that_fastokens_does_not_know_has_a_hint() -> None:
    assert "VLLM_USE_FASTOKENS=0" in diagnose(
        "ValueError: pre-tokenizer error: unsupported pre-tokenizer type: Metaspace"
    )


def test_the_callers_own_flags_come_last(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "serve")
    assert VllmEngine("m", device="cpu", extra=["--block-size", "64"]).command[-2:] == ["--block-size", "64"]


def test_starts_waits_and_ends_every_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stand_in(monkeypatch, "serve")
    log = tmp_path / "log"
    with VllmEngine(tmp_path, device="cpu", kv_cache_gib=3, log_path=log, served_name="x") as engine:
        words = log.read_text().split()
        assert words[2:8] == ["offline", "1", "cache", "3", "quiet", "1"]
        assert words[8:10] == ["temporary", str(engine.directory)]
        assert engine.endpoint == f"http://127.0.0.1:{engine.port}"
        assert engine.model == "x"
        assert is_running(int(words[1]))
    deadline = time.monotonic() + 60
    while is_running(int(words[1])) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_running(int(words[1]))
    assert not engine.directory.exists()
    assert log.exists(), "a log that the caller named is the caller's"


def test_a_failed_start_shows_the_log_and_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "fail")
    engine = VllmEngine("m", device="cpu").start()
    log = engine.log_path
    with pytest.raises(EngineUnreachable) as caught:
        engine.wait()
    assert "larger than the available" in caught.value.detail
    assert "--max-model-len" in caught.value.hint
    assert not log.parent.exists(), "our own temporary log goes"


def test_an_engine_that_never_gets_ready_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "hang")
    engine = VllmEngine("m", device="cpu").start()
    pid = engine.pid
    with pytest.raises(EngineUnreachable, match="not ready within"):
        engine.wait(timeout_s=0.3)
    assert not is_running(pid)


def test_a_taken_port_is_named_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "serve")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(EngineUnreachable, match=f"port {port} .* is taken"):
            VllmEngine("m", device="cpu", port=port).start()


@pytest.mark.parametrize(
    ("host", "endpoint"),
    [("0.0.0.0", "http://127.0.0.1:7"), ("::", "http://[::1]:7"), ("10.1.2.3", "http://10.1.2.3:7")],  # noqa: S104
)
def test_the_endpoint_is_what_a_client_here_can_use(host: str, endpoint: str) -> None:
    assert VllmEngine("m", device="cpu", host=host, port=7).endpoint == endpoint


def test_the_reason_is_found_far_from_the_end_of_the_log() -> None:
    prefix = "(EngineCore pid=7) ERROR 01-02 03:04:05 [core.py:1] "
    lines = [f"{prefix}Traceback", f"{prefix}RuntimeError: the reason", *["  more"] * 200, "SystemError: the end"]
    first, second, *rest = launch.pick_reasons("\n".join(lines)).splitlines()
    assert (first, second) == ("RuntimeError: the reason", "SystemError: the end")
    assert len(rest) < 20


def test_a_reason_that_goes_on_below_its_name() -> None:
    """As vLLM 0.32 wrote it when `--max-model-len` was above the model's positions."""
    log = """\
(APIServer pid=7) INFO 11-28 02:15:16 [model.py:733] Resolved architecture: LlamaForCausalLM
  File "/venv/lib/python3.11/site-packages/pydantic/_internal/_dataclasses.py", line 121, in __init__
    s.__pydantic_validator__.validate_python(ArgsKwargs(args, kwargs), self_instance=s)
pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, User-specified max_model_len (39984) is greater than the derived max_model_len (8192)
    For further information visit https://errors.pydantic.dev/2.14/v/value_error
"""
    assert launch.pick_reasons(log).splitlines()[:2] == [
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig",
        "  Value error, User-specified max_model_len (39984) is greater than the derived max_model_len (8192)",
    ]
    assert "--max-model-len" in diagnose(log)


@pytest.mark.parametrize("colon", [":", ": "])
def test_a_reason_that_begins_below_its_name_and_ends_where_the_text_does(colon: str) -> None:
    prefix = "(EngineCore pid=7) ERROR 11-28 02:18:43 [core.py:1510] "
    lines = ["EngineCore failed to start.", f"torch.cuda.DriverError{colon}", "no kernel image", "  for sm_90"]
    log = [*(prefix + line for line in [*lines, "Traceback (most recent call last):"]), *["more"] * 20]
    assert launch.pick_reasons("\n".join(log)).splitlines()[:4] == [
        f"torch.cuda.DriverError{colon}",
        "no kernel image",
        "  for sm_90",
        "...",
    ]


def test_a_long_reason_is_cut() -> None:
    log = "\n".join(["ValueError: these are unknown:", *["  one more"] * 100, "the end"])
    assert len(launch.pick_reasons(log).splitlines()) < 20


def test_unknown_trouble_points_at_the_log() -> None:
    assert "vLLM's own log" in diagnose("something new")
