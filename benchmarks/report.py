"""What a benchmark prints: to the terminal at once and, with `--output`, to a file at the end.

In: lines. Out: the same lines. It computes nothing.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def parser_of(module: str, docstring: str | None) -> argparse.ArgumentParser:
    """Return a parser with what every benchmark takes."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=docstring,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(module=module)
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write what is printed to this file")
    return parser


class Report:
    """The text of one benchmark.

    Args:
        arguments: Of the benchmark; says where the text goes.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._output: Path | None = arguments.output
        self._lines: list[str] = []

    def add(self, *lines: str) -> None:
        """Print lines."""
        for line in lines:
            print(line, flush=True)
        self._lines += lines

    def close(self) -> int:
        """Write the file, if one was asked for; returns the exit status."""
        if self._output is not None:
            self._output.parent.mkdir(parents=True, exist_ok=True)
            self._output.write_text("\n".join(self._lines) + "\n")
        return 0
