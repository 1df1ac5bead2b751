"""The SQL of ALTER EXTENSION … UPDATE, made of the install script of the new version.

In: an install script, and what an old version needs by hand. Out: a script after which the old catalog is the new one.
Functions are made anew, all of them; what keeps something of the user's (the wrapper with its servers, foreign tables,
the schema) is left as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.resources import files

_THERE: Mapping[str, str] = {
    "CREATE SCHEMA llm": "",
    "GRANT USAGE ON SCHEMA llm": "",
    "CREATE FOREIGN DATA WRAPPER pg_bridge": "SET LOCAL client_min_messages = error;  -- it warns of what is meant\n"
    "ALTER FOREIGN DATA WRAPPER pg_bridge VALIDATOR llm._validate;\nSET LOCAL client_min_messages = warning;",
    "CREATE SERVER pg_bridge_session": "",
    "CREATE FOREIGN TABLE llm.rowset": "",
    "CREATE FOREIGN TABLE llm.result": "",
    "CREATE FOREIGN TABLE llm._connection": "",
    "CREATE FOREIGN TABLE llm._state": "",
    "GRANT SELECT, INSERT ON llm.rowset": "",
    "GRANT SELECT ON llm.result": "",
}
"""How statements begin whose work 0.1 has done, and what stands in their place. Rights are the database's own."""


def join(old: str, by_hand: Sequence[str], script: str) -> str:
    """Make an upgrade script, with the marks of the install script in it.

    Args:
        old: The version that there is.
        by_hand: What it needs before the functions are made, and what after.
        script: The install script of the new version.
    """
    for begins, instead in _THERE.items():
        script = re.sub(rf"^{re.escape(begins)}\b[^;]*;\n", f"{instead}\n" if instead else "", script, flags=re.M)
    before, *after = by_hand
    frame = [(files("pg_bridge.sql") / f"upgrade_{part}.sql").read_text() for part in ("before", "after")]
    text = "\n".join((frame[0], before, re.sub(r"^\\echo .*\n", "", script, flags=re.M), *after, frame[1]))
    return text.replace("@old_prefix@", f"_{old.replace('.', '_')}_").replace("@old@", old)
