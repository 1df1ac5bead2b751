"""The lines of a CSV file.

In: a path. Out: lists of cells. It guesses no types: a number or an empty cell is text, as the file has it.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

from pg_bridge.errors import OptionError


def csv_lines(path: Path) -> Iterator[list[str]]:
    """Yield the header and the rows, each as wide as the header; blank lines are skipped.

    Raises:
        OptionError: The file cannot be read, or is no CSV file in UTF-8.
    """
    csv.field_size_limit(sys.maxsize)
    width = 0
    reader = None
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)  # else an unclosed quote swallows the rest of the file
            for cells in reader:
                if not cells:
                    continue
                width = width or len(cells)
                if len(cells) != width:
                    raise OptionError(
                        f"line {reader.line_num} of {path} has {len(cells)} cells, the header has {width}",
                        hint="Quote a cell that holds a comma, a quote or a line break.",
                    )
                yield cells
    except OSError as error:
        raise OptionError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise OptionError(f"{path} is not UTF-8", hint="Convert it, for example with iconv.") from error
    except csv.Error as error:
        place = f" at line {reader.line_num}" if reader is not None else ""
        raise OptionError(f"{path} is not a CSV file{place}: {error}") from error
