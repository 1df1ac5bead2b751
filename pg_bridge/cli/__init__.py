"""The `pg-bridge` command: one subcommand a module, none of them imported by the server."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from typing import TextIO

from pg_bridge import __version__
from pg_bridge.errors import OptionError, PgBridgeError, QueryError, TemplateError

FAILED, WRONG_USAGE, INTERRUPTED, NOBODY_READS = 1, 2, 130, 141
_OF_OUTPUTS = {errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}  # what print meets, of no file's name
_USAGE = (OptionError, TemplateError, QueryError)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser; each subcommand's module adds its own part."""
    from pg_bridge.cli import (  # noqa: PLC0415 - keep `import pg_bridge.cli` light
        doctor,
        install,
        map,
        plan,
        serve,
        workbench,
        worker,
    )

    parser = argparse.ArgumentParser(
        prog="pg-bridge",
        description="Ask an LLM about whole row sets from PostgreSQL.",
        epilog="Start with: pg-bridge install, then pg-bridge serve, then pg-bridge doctor.",
    )
    parser.add_argument("--version", action="version", version=f"pg-bridge {__version__}")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for module in (install, serve, doctor, plan, workbench, map, worker):
        module.add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status.

    0 is well, 1 failed, 2 wrong usage, 130 interrupted, 141 that nobody reads the output any more; a command may have
    others, which its --help tells.
    """
    arguments = build_parser().parse_args(argv)
    try:
        status = int(arguments.run(arguments))
        if sys.stdout is not None:  # which it is where it was closed before
            sys.stdout.flush()
    except OSError as error:
        if error.filename is not None or error.errno not in _OF_OUTPUTS:
            raise
        _let_go(sys.stdout)
        if isinstance(error, BrokenPipeError):  # as `… | head` leaves us
            return NOBODY_READS
        print_error(PgBridgeError(f"the output cannot be written: {error.strerror}"))
        return FAILED
    except PgBridgeError as error:
        print_error(error)
        return status_of(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    return status


def status_of(error: PgBridgeError) -> int:
    """The exit status for an error: whether it is in what was typed, or elsewhere."""
    return WRONG_USAGE if isinstance(error, _USAGE) else FAILED


def _let_go(output: TextIO | None) -> None:
    """Lead an output that takes no more to nowhere: Python flushes once more when it ends."""
    if output is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())


def print_error(error: PgBridgeError) -> None:
    """Print an error with its detail and its hint."""
    lines = [f"pg-bridge: {error.message}"]
    lines += [f"{label}: {text}" for label, text in (("detail", error.detail), ("hint", error.hint)) if text]
    try:
        print(*lines, sep="\n", file=sys.stderr)
    except OSError:
        _let_go(sys.stderr)
