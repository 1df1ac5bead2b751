"""`make test-matrix`: builds and tests this checkout on each Debian that people run, and prints what passed.

In: the lines to run; the default is all. Out: a table PostgreSQL, Python and what passed, on stdout, and with
`--write FILE` between that file's two marks. Each line gets a fresh root (scripts/roots.py) and the checkout as it
stands, and does in it what a new user does: `make demo` where vLLM is wanted, `make test`, and the commands of
docs/install.md. It needs root, debootstrap and the network; all that stays on this machine is the base roots in the
cache and the logs.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import documented
from roots import Failed, Root, Unreachable, check, main_mirror

CHECKOUT = Path(__file__).parents[1]
MARKS = ("<!-- what make test-matrix printed -->", "<!-- end of it -->")
QUIET = "DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends"


def plain(root: Root) -> None:
    """A fresh Debian."""


def upgraded(root: Root) -> None:
    """Debian 13 upgraded from 12, with another Python first on the path, for which torch may be to be had.

    PostgreSQL 15 is still there, and PL/Python for it is offered no more.
    """
    debian_13 = (root.folder / "etc/apt/sources.list").read_text()
    root.write("/etc/apt/sources.list", f"deb {main_mirror()} bookworm main\n{debian_13}")
    root.run(f"apt-get update -q && {QUIET} install postgresql-15 python3 && ls /usr/lib/postgresql/15/bin/postgres")
    root.write("/etc/apt/sources.list", debian_13)
    root.run('apt-get update -q && apt-get clean && test -z "$(apt-cache madison postgresql-plpython3-15)"')
    other = _python_of_this_machine()
    if other is None:
        _say("no Python 3.11 of pyenv on this machine: this root has Debian's alone")
        return
    # What the shared objects of pyenv's Python were linked with.
    root.run(f"{QUIET} install libssl3 libffi8 libbz2-1.0 liblzma5 libsqlite3-0 libreadline8 libncursesw6 zlib1g")
    left_out = shutil.ignore_patterns("site-packages", "test", "__pycache__")
    shutil.copytree(other, root.folder / str(other).lstrip("/"), symlinks=True, ignore=left_out)
    root.path = f"{other}/bin:{root.path}"
    root.run('python3 -c "import sys, ssl, lzma, sqlite3; assert sys.version_info[:2] == (3, 11)"')


def _python_of_this_machine() -> Path | None:
    found = sorted(Path.home().glob(".pyenv/versions/3.11.*"))
    return found[-1] if found else None


@dataclass(frozen=True)
class Line:
    """One line of the table.

    Attributes:
        name: How `--only` and the table call it.
        suite: The Debian that its root is made of.
        user: Who types the commands; any other than root has sudo.
        engine: `vllm`, or `double` where the engine double will do.
        prepare: What happens to the root before the user comes.
    """

    name: str
    suite: str
    user: str = "root"
    engine: str = "vllm"
    prepare: Callable[[Root], None] = plain


LINES = (
    Line("12", "bookworm"),
    Line("13", "trixie", user="ana"),
    Line("13, upgraded from 12", "trixie", prepare=upgraded),
    Line("sid", "sid", engine="double"),
)


def commit_of(checkout: Path) -> str:
    """The commit of a checkout, marked where it was changed since."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False).stdout.strip()


@dataclass
class Outcome:
    """What came of a line: a cell for each column, in the order in which they were had."""

    line: Line
    cells: dict[str, str] = field(default_factory=dict)
    failed: bool = False
    commit: str = field(default_factory=lambda: commit_of(CHECKOUT))  # as it is when the line begins


class Visit:
    """A user in a root, with a checkout.

    Args:
        root: Where.
        line: Who, and what for.
        logs: Where the output of the commands goes.
    """

    def __init__(self, root: Root, line: Line, logs: Path) -> None:
        self._root = root
        self._line = line
        self._logs = logs
        home = "/root" if line.user == "root" else f"/home/{line.user}"
        self.checkout = f"{home}/pg_bridge"

    def arrive(self) -> None:
        """A Debian with what one needs to type `make`, a user, and a checkout of theirs."""
        user = self._line.user
        self._root.run(f"apt-get update -q && {QUIET} install make sudo")
        if user != "root":
            self._root.run(f"useradd --create-home --shell /bin/bash {user}")
            self._root.write(f"/etc/sudoers.d/{user}", f"{user} ALL=(ALL) NOPASSWD: ALL\n")
        self._root.copy_checkout(CHECKOUT, self.checkout)
        self._root.run(f"chown -R {user} {self.checkout}")

    def type(self, command: str, name: str, timeout_s: float) -> tuple[str, float]:
        """Run a command in the checkout; returns what it printed and the seconds it took."""
        log = self._logs / f"{re.sub('[^a-z0-9]+', '-', self._line.name)}-{name}.log"
        started = time.monotonic()
        said = self._root.run(command, user=self._line.user, cwd=self.checkout, timeout_s=timeout_s, log=log)
        return said, time.monotonic() - started


def set_up(visit: Visit, outcome: Outcome, _: str) -> None:
    """The first command of a new user, and that a second set-up finds nothing to do."""
    line = outcome.line
    command = "make demo" if line.engine == "vllm" else f"make setup ENGINE={line.engine}"
    said, took_s = visit.type(command, "demo", 5400)
    ready = re.search(r"ready: PostgreSQL (\d+) .*?, Python ([\d.]+) .*?, (?:torch (\S+) on Python (\S+))?", said)
    if ready is None:
        raise Failed(f"set-up did not say what it took: {said[-1000:]}")
    major, python, torch, engine_python = ready.groups()
    outcome.cells |= {"PostgreSQL": major, "Python": python}
    outcome.cells["vLLM with"] = f"torch {torch}, Python {engine_python}" if torch else "none"
    if line.engine == "vllm" and "of the remaining prompt tokens came from the prefix cache" not in said:
        raise Failed(f"the demo did not come to its end: {said[-3000:]}")
    outcome.cells["first command"] = f"`{command}`, {took_s:.0f} s"
    again, took_s = visit.type(f"make setup ENGINE={line.engine}", "again", 600)
    if again.count("[setup]") != 1:
        raise Failed(f"a second set-up did something: {again}")


def test(visit: Visit, outcome: Outcome, tests: str) -> None:
    """`make test`: lint and all tests, or those that were asked for."""
    options = f"PYTEST_ADDOPTS='{tests}' " if tests else ""
    said, took_s = visit.type(f"{options}make test ENGINE={outcome.line.engine}", "test", 7200)
    counts = re.findall(r"(\d+ (?:passed|skipped|deselected)[^\n]*?) in [\d.]+s", said)
    outcome.cells["tests"] = f"{counts[0] if counts else '?'}, {took_s:.0f} s"


def read_install(visit: Visit, outcome: Outcome, _: str) -> None:
    """Every command of docs/install.md, on a cluster made with pg_createcluster."""
    count, script = documented.script(CHECKOUT / "docs/install.md")
    said, took_s = visit.type(script, "install", 1800)
    if "all is well" not in said:
        raise Failed(f"doctor is not content: {said[-2000:]}")
    if outcome.line.user != "root":
        visit.type('left="$(find . -user root)"; echo "$left"; test -z "$left"', "left", 60)
    outcome.cells["docs/install.md"] = f"{count} blocks, {took_s:.0f} s"


STEPS: dict[str, Callable[[Visit, Outcome, str], None]] = {"setup": set_up, "test": test, "install": read_install}


def run_line(line: Line, steps: Sequence[str], tests: str, logs: Path) -> Outcome:
    """Run one line; a step that fails ends it."""
    outcome = Outcome(line)
    step = "root"
    try:
        with Root(line.suite) as root:
            line.prepare(root)
            visit = Visit(root, line, logs)
            visit.arrive()
            for step in steps:
                _say(f"Debian {line.name}: {step}")
                STEPS[step](visit, outcome, tests)
    except (Failed, OSError, subprocess.SubprocessError) as failure:
        _say(f"Debian {line.name}: {step} failed\n{failure}")
        outcome.failed = True
        outcome.cells[{"test": "tests", "install": "docs/install.md"}.get(step, "first command")] = "**failed**"
    return outcome


COLUMNS = ["PostgreSQL", "Python", "vLLM with", "first command", "tests", "docs/install.md"]
HEAD = ["Debian", "user", *COLUMNS, "when"]


def row_of(outcome: Outcome, tests: str) -> list[str]:
    """One row of the table."""
    if outcome.line.engine == "double":
        outcome.cells["vLLM with"] = "engine double"
    if tests and "tests" in outcome.cells:
        outcome.cells["tests"] = f"{outcome.cells['tests']}: `{tests}`"
    # How busy the machine was says what the seconds are worth.
    load = f"{os.getloadavg()[2]:.0f} processes on {os.cpu_count()} cores"
    user = "root" if outcome.line.user == "root" else "with sudo"
    cells = [outcome.cells.get(column, "not run") for column in COLUMNS]
    return [outcome.line.name, user, *cells, f"{datetime.now(UTC):%Y-%m-%d}, {outcome.commit}, {load}"]


def table(rows: Sequence[Sequence[str]]) -> str:
    """The table in Markdown."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (HEAD, ["---"] * len(HEAD), *rows))


def write(file: Path, rows: Sequence[Sequence[str]]) -> None:
    """Put rows between a file's two marks; those of other lines, or of the other engine, stay."""
    before, _, rest = file.read_text().partition(MARKS[0])
    old, _, after = rest.partition(MARKS[1])
    kept = {_key(row): row for row in _rows(old)} | {_key(row): row for row in rows}
    order = [line.name for line in LINES]
    merged = sorted(kept.values(), key=lambda row: (order.index(row[0]), row[4] == "engine double"))
    file.write_text(f"{before}{MARKS[0]}\n\n{table(merged)}\n\n{MARKS[1]}{after}")


def _rows(text: str) -> list[list[str]]:
    cells = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [row for row in cells if row[0] in {line.name for line in LINES}]


def _key(row: Sequence[str]) -> tuple[str, bool]:
    return row[0], row[4] == "engine double"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="matrix", description=__doc__.split("\n", maxsplit=1)[0])
    names = [line.name for line in LINES]
    parser.add_argument("--only", action="append", choices=names, help="one line; may be given again")
    parser.add_argument("--step", action="append", choices=list(STEPS), help="one step; may be given again")
    parser.add_argument("--engine", choices=("vllm", "double"), help="for all lines, instead of each line's own")
    parser.add_argument("--tests", default="", metavar="OPTIONS", help="options of pytest (default: the whole run)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table into this file, between its marks")
    parser.add_argument(
        "--if-possible", action="store_true", help="on a machine that can make no roots, say so and end well"
    )
    arguments = parser.parse_args(argv)
    try:
        check()
    except Unreachable as reason:
        _say(f"{'skipped' if arguments.if_possible else 'failed'}: {reason}")
        return 0 if arguments.if_possible else 2
    # As Ctrl-C does: the command that runs is killed, with all in its namespace, and the root is removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    logs = Path(tempfile.mkdtemp(prefix="pg_bridge-matrix-logs-"))
    _say(f"what the commands print is in {logs}")
    rows, failed = [], False
    for line in LINES:
        if not arguments.only or line.name in arguments.only:
            chosen = Line(line.name, line.suite, line.user, arguments.engine or line.engine, line.prepare)
            outcome = run_line(chosen, arguments.step or list(STEPS), arguments.tests, logs)
            failed |= outcome.failed
            rows.append(row_of(outcome, arguments.tests))
            if arguments.write:
                write(arguments.write, rows)
    print(table(rows), flush=True)
    return int(failed)


def _say(line: str) -> None:
    print(f"[matrix] {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
