"""The development database, with the engine double in vLLM's place."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pg_bridge.serving.children import is_running

DEVDB = [sys.executable, "-m", "pg_bridge.dev.devdb", "--engine", "double", "--state"]


def devdb(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*DEVDB, str(folder), *words], capture_output=True, text=True, check=False)


def listens(url: str) -> bool:
    host, port = url.removeprefix("http://").split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "devdb"
    devdb(tmp_path / "devdb", "down")


@pytest.mark.slow
def test_up_twice_then_down(folder: Path) -> None:
    first, second = devdb(folder, "up"), devdb(folder, "up")
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    dsn, engine = (line.partition("=")[2] for line in first.stdout.splitlines()[-2:])
    with psycopg.connect(dsn) as connection:
        answers = connection.execute("SELECT output FROM llm.map('VALUES (1), (2)', 'Is it?')").fetchall()
        endpoint = connection.execute("SELECT srvoptions FROM pg_foreign_server WHERE srvname = 'vllm'").fetchone()
    assert len(answers) == 2
    assert endpoint is not None
    assert f"endpoint={engine}" in endpoint[0]
    state = json.loads((folder / "state.json").read_text())
    assert devdb(folder, "down").returncode == 0
    assert not is_running(state["engine_pid"])
    assert not Path(state["cluster"]).exists()
    assert devdb(folder, "status").returncode == 3


@pytest.mark.slow
def test_up_mends_a_half_that_died(folder: Path) -> None:
    assert devdb(folder, "up").returncode == 0
    before = json.loads((folder / "state.json").read_text())
    os.kill(before["engine_pid"], signal.SIGKILL)
    assert devdb(folder, "up").returncode == 0
    after = json.loads((folder / "state.json").read_text())
    assert is_running(after["engine_pid"])
    assert not Path(before["cluster"]).exists()


def test_down_without_up_is_harmless(folder: Path) -> None:
    outcome = devdb(folder, "down")
    assert outcome.returncode == 0
    assert "nothing was running" in outcome.stderr


@pytest.mark.slow
def test_run_gives_the_command_its_environment_and_returns_its_status(folder: Path) -> None:
    script = "psql -XAtc 'SELECT srvname FROM pg_foreign_server'; echo $PG_BRIDGE_ENGINE $PG_BRIDGE_DSN; exit 7"
    outcome = devdb(folder, "run", "--", "sh", "-c", script)
    assert outcome.returncode == 7
    server, urls = outcome.stdout.splitlines()[-2:]
    assert server == "vllm"
    assert urls.startswith("http://127.0.0.1:")
    assert "postgresql://" in urls
    assert not list(folder.glob("*.log"))
    assert devdb(folder, "status").returncode == 3


@pytest.mark.slow
def test_run_of_a_command_that_is_not_there(folder: Path) -> None:
    outcome = devdb(folder, "run", "--", "no-such-command")
    assert outcome.returncode == 1
    assert "cannot run no-such-command" in outcome.stderr


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        signal.SIGKILL,  # which it cannot catch: its guards end what it has started
    ],
)
def test_run_leaves_nothing_when_it_is_stopped(folder: Path, how: signal.Signals) -> None:
    # The engine's process is told by its listening port.
    script = """psql -XAtc "SELECT current_setting('data_directory')"; echo $PG_BRIDGE_ENGINE; exec sleep 10"""
    command = [*DEVDB, str(folder), "run", "--", "sh", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        data, engine = Path(process.stdout.readline().strip()), process.stdout.readline().strip()
        started = time.monotonic()
        process.send_signal(how)
        # `sleep` holds our end of the pipe open, so do not read on to its end.
        process.wait(timeout=60)
        process.stdout.close()
    deadline = started + 60
    while (data.parent.exists() or listens(engine)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not data.parent.exists()
    assert not listens(engine)
