"""One more row in the table of options, in a real server: its argument is taken, and its value reaches Python."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from pg_bridge import EXTENSION_VERSION
from pg_bridge.cli.install import extension_files
from tests.conftest import EXTENSIONS, Connect, Database, create_server
from tests.more_options import MORE

SQL = Path(__file__).parents[2] / "sql"
OF_EXTENSIONS = ("foreign.sql", "kept_extension.sql")


def test_one_more_option_is_taken_by_every_function(database: Database, connect: Connect) -> None:
    extension = EXTENSIONS[database.host]
    # Without what only an extension can do, and psql's line.
    script = extension_files(MORE)[f"{extension}--{EXTENSION_VERSION}.sql"]
    for part in OF_EXTENSIONS:
        script = script.replace((SQL / part).read_text().replace("@schema@", "llm"), "")
    with connect() as db:
        db.execute(f"DROP EXTENSION {extension} CASCADE".encode())
        db.execute("SET check_function_bodies = off")  # as CREATE EXTENSION does
        db.execute("\n".join(line for line in script.splitlines() if not line.startswith("\\echo")).encode())
        create_server(db, "http://127.0.0.1:9")
        for call in (
            "llm.complete('Hello', top_p => 0.5)",
            "llm.complete('{a}', r, top_p => 0.5)",
            "llm.is_true('{a}', r, top_p => 0.5)",
            "llm.classify('{a}', r, '{x,y}', top_p => 0.5)",
            "llm.score('{a}', r, top_p => 0.5)",
            "llm.extract('{a}', r, '{}'::jsonb, top_p => 0.5)",
            "(llm.map('SELECT 1 AS a', '{a}', top_p => 0.5)).output",
        ):
            # The package that the server has knows nothing of it.
            with pytest.raises(psycopg.Error, match='invalid option "top_p"'):
                db.execute(f"SELECT {call} FROM (SELECT 1 AS a) AS r".encode())
        with pytest.raises(psycopg.Error, match='invalid value for option "top_p"') as caught:
            db.execute("SELECT llm._validate('{prompt=x,top_p=7}', 'pg_attribute'::regclass)")
        assert caught.value.diag.message_hint == "It must be between 0 and 1."
