"""What the commands beside the database have in common: where the database and the engine are, and how they are ended.

In: arguments, the environment. Out: a connection string, a `Server`, the texts of files; whether a signal has come. No
secret is taken from a command line, and none stands in an error.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from pg_bridge.cli import map_options
from pg_bridge.cli.serve import engine_for
from pg_bridge.errors import OptionError
from pg_bridge.jobs.running import Stopped
from pg_bridge.options import Server
from pg_bridge.serving.children import interrupt_on_sigterm

KEY_VARIABLE, ENDPOINT_VARIABLE, DSN_VARIABLE = "PG_BRIDGE_API_KEY", "PG_BRIDGE_ENDPOINT", "PG_BRIDGE_DSN"


class Interrupts:
    """Whether somebody has asked to end: by Ctrl-C or SIGTERM, once. A second time is not waited for."""

    def __init__(self) -> None:
        self.act: Callable[[], None] = lambda: None  # done at once when it comes
        self._came = False

    def check(self) -> None:
        """Raise `Stopped` once it has come."""
        if self._came:
            raise Stopped

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Take these signals in this block."""
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, self._take) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self._came:
            raise KeyboardInterrupt
        self._came = True
        self.act()


def add_database(parser: argparse._ActionsContainer) -> None:
    """Add the arguments that say where the database is."""
    parser.add_argument("--dsn", help=f"the database, as for psql (default: {DSN_VARIABLE}, or PGSERVICE, PGHOST …)")
    parser.add_argument("--dsn-file", metavar="FILE", type=Path, help="the same, from a file")


def add_engine(parser: argparse._ActionsContainer) -> None:
    """Add the arguments that say where the engine is."""
    parser.add_argument("--endpoint", metavar="URL", help=f"the engine (default: {ENDPOINT_VARIABLE})")
    parser.add_argument("--api-key-file", metavar="FILE", type=Path, help=f"its key (default: {KEY_VARIABLE})")


def dsn(arguments: argparse.Namespace) -> str:
    """The connection string; empty for libpq's defaults.

    Raises:
        OptionError: Its file cannot be read.
    """
    if arguments.dsn_file is not None:
        return file_text(arguments.dsn_file).strip()
    return str(arguments.dsn or os.environ.get(DSN_VARIABLE, ""))


def add_own_engine(parser: argparse._ActionsContainer) -> None:
    """Add the argument that starts an engine for the run."""
    parser.add_argument(
        "--serve",
        metavar="MODEL",
        nargs="?",
        const="",
        help="instead: start a vLLM with this model, a directory or a name on the hub, and end it afterwards",
    )


@contextmanager
def own_engine(arguments: argparse.Namespace, *, quiet: bool) -> Iterator[None]:
    """Where --serve says so, start a vLLM that lives as long as the block, and let it be the endpoint.

    Raises:
        OptionError: There is no such model, or another engine is named.
        EngineUnreachable: vLLM is not installed, or did not start.
    """
    if arguments.serve is None:
        yield
        return
    if arguments.endpoint:
        raise OptionError("--serve and --endpoint do not go together", hint="--serve starts an engine of its own.")
    engine = engine_for(arguments.serve, progress=_hush if quiet else _say)
    with interrupt_on_sigterm(), engine:
        arguments.endpoint = engine.endpoint
        yield


def _say(line: str) -> None:
    print(f"[serve] {line}", file=sys.stderr, flush=True)


def _hush(_: str) -> None:
    pass


def find_engine(arguments: argparse.Namespace, name: str) -> Server | None:
    """The engine that arguments and the environment say; None if they say none.

    Args:
        arguments: Those of `add_engine` and of `map_options.add_arguments`.
        name: What it is to be called.

    Raises:
        OptionError: An option or a file of it is not valid.
    """
    endpoint = arguments.endpoint or os.environ.get(ENDPOINT_VARIABLE)
    if not endpoint:
        return None
    options = {"endpoint": endpoint, **map_options.server_texts(arguments, map_options.server_options())}
    options |= map_options.way_secrets()
    key = file_text(arguments.api_key_file).strip() if arguments.api_key_file else os.environ.get(KEY_VARIABLE)
    if key:
        options["api_key"] = key
    return Server.from_options(name, options)


def file_text(path: Path) -> str:
    """The text of a file that was named.

    Raises:
        OptionError: It cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise OptionError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise OptionError(f"{path} is not UTF-8") from error
