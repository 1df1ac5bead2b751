"""CPU seconds by thread, as the front end's benchmark counts them."""

import subprocess
import sys

from benchmarks.front_end import Cost, Way, front_end_cpu, line

_WORKERS = """
import sys, threading, time
def work(seconds):
    while time.thread_time() < seconds:
        pass
def other():
    work(0.4)
    print("done", flush=True)
    sys.stdin.read()
threading.Thread(target=other).start()
work(0.1)
"""


def test_main_threads_and_others_are_told_apart() -> None:
    command = [sys.executable, "-c", _WORKERS]
    with subprocess.Popen(command, stdin=-1, stdout=-1, start_new_session=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"done\n"
        main, others = front_end_cpu(process.pid)
        assert main > 0.05
        assert others > 0.3
        process.stdin.close()
    assert front_end_cpu(process.pid) == (0.0, 0.0)


def test_a_line_has_the_medians() -> None:
    cost = Cost([1.0, 1.2, 9.0], [0.5, 0.5, 0.5], [0.1, 0.1, 0.1], [50, 60, 70], [100, 200, 300])
    assert line(Way("chat", 8), cost).split() == ["chat", "8", "1.20", "0.50", "1.70", "8.00", "0.10", "60", "200"]
