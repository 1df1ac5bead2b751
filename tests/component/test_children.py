import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pg_bridge.serving.children import Guard, birth, end_group, group_is_running, interrupt_on_sigterm, wait_until_gone


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "300"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def test_guard_ends_what_a_killed_process_left(sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    program = (
        "import os, signal, sys; from pathlib import Path; from pg_bridge.serving.children import Guard;"
        "guard = Guard(int(sys.argv[1]), signal.SIGTERM, Path(sys.argv[2]));"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program, str(sleeper.pid), str(mine)], check=False)
    assert sleeper.wait(timeout=60) == -signal.SIGTERM
    deadline = time.monotonic() + 60
    while mine.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not mine.exists()
    assert tmp_path.exists()


def test_a_released_guard_touches_nothing(sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    guard = Guard(sleeper.pid, signal.SIGTERM, tmp_path)
    guard.release()
    assert sleeper.poll() is None
    assert tmp_path.exists()


def test_end_group_ends_a_program_and_its_children_even_if_they_refuse() -> None:
    script = "trap '' TERM; (trap '' TERM; sleep 300) & echo ready; wait"
    process = subprocess.Popen(["sh", "-c", script], start_new_session=True, stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        assert group_is_running(process.pid)
        end_group(process.pid, timeout_s=0.2)
        assert process.wait(timeout=60) == -signal.SIGKILL
    deadline = time.monotonic() + 60
    while group_is_running(process.pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not group_is_running(process.pid)


def test_end_group_of_nothing_is_harmless(sleeper: subprocess.Popen[bytes]) -> None:
    sleeper.kill()
    sleeper.wait()
    end_group(sleeper.pid, timeout_s=0.1)


def test_birth_tells_processes_apart(sleeper: subprocess.Popen[bytes]) -> None:
    assert birth(sleeper.pid) == birth(sleeper.pid) != birth(os.getpid())
    sleeper.kill()
    sleeper.wait()
    assert birth(sleeper.pid) == 0
    assert wait_until_gone(sleeper.pid, timeout_s=1)


def test_sigterm_runs_finally_clauses_and_the_old_handlers_return() -> None:
    before = signal.getsignal(signal.SIGTERM)
    cleaned = []

    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # an impatient second one does not stop the cleaning
            cleaned.append(True)

    with pytest.raises(KeyboardInterrupt), interrupt_on_sigterm():
        work()
    assert cleaned
    assert signal.getsignal(signal.SIGTERM) == before
