"""The commands of a page of the documentation, as one script that does what a reader does.

In: a Markdown file. Out: a bash script. Blocks marked `sh` run as they stand, one after the other in one shell; blocks
marked `sql` go to psql as the superuser, into the database `shop`; other blocks are output or configuration to look
at. A comment before a block says what is different about it:

    <!-- as ana -->         SQL of this role, who is no superuser
    <!-- not run: reason -->
"""

from __future__ import annotations

import re
from pathlib import Path

_BLOCK = re.compile(r"(?:<!-- (?P<mark>[^\n]*) -->\n\n?)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)


def script(page: Path) -> tuple[int, str]:
    """Return how many blocks the script runs, and the script."""
    parts = ["set -euo pipefail"]
    for block in _BLOCK.finditer(page.read_text()):
        mark, text = block["mark"] or "", block["text"]
        if mark.startswith("not run"):
            continue
        if block["language"] == "sh":
            parts.append(f"set -x\n{text}{{ set +x; }} 2>/dev/null")
        elif block["language"] == "sql":
            role = f"SET ROLE {mark.removeprefix('as ')};\n" if mark.startswith("as ") else ""
            parts.append(
                "sudo -u postgres psql --cluster \"$PG/main\" -X -e -v ON_ERROR_STOP=1 -d shop <<'END_OF_SQL'\n"
                f"{role}{text}END_OF_SQL"
            )
    return len(parts) - 1, "\n".join(parts)
