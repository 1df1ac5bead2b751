"""The `pg-bridge` command: one subcommand a module, none of them imported by the server."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from pg_bridge import __version__
from pg_bridge.errors import PgBridgeError


def build_parser() -> argparse.ArgumentParser:
    """Build the parser; each subcommand's module adds its own part."""
    from pg_bridge.cli import doctor, install, map, plan, serve  # noqa: PLC0415 - keep `import pg_bridge.cli` light

    parser = argparse.ArgumentParser(
        prog="pg-bridge",
        description="Ask an LLM about whole row sets from PostgreSQL.",
        epilog="Start with: pg-bridge install, then pg-bridge serve, then pg-bridge doctor.",
    )
    parser.add_argument("--version", action="version", version=f"pg-bridge {__version__}")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for module in (install, serve, doctor, plan, map):
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
    except BrokenPipeError:
        # As `… | head` leaves us. Python flushes once more when it ends, and must find something that takes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except PgBridgeError as error:
        print_error(error)
        return 1
    except KeyboardInterrupt:
        return 130
    return status


def print_error(error: PgBridgeError) -> None:
    """Print an error with its detail and its hint."""
    print(f"pg-bridge: {error.message}", file=sys.stderr)
    for label, text in (("detail", error.detail), ("hint", error.hint)):
        if text:
            print(f"{label}: {text}", file=sys.stderr)
