"""`pg-bridge serve --litellm`, with the engine double for a provider: started, asked from SQL, and ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg

from pg_bridge.serving.children import group_is_running, wait_until_gone
from pg_bridge.testing.double import EngineDouble
from tests.conftest import MakeDatabase
from tests.engines.started import QUIET, environment_of

MASTER_KEY, PROVIDERS_KEY = "sk-of-who-asks", "sk-of-the-provider"


def test_a_providers_model_is_asked_from_sql_and_no_key_is_to_be_seen(
    make_database: MakeDatabase, tmp_path: Path
) -> None:
    program = environment_of("litellm") / "bin"
    log = tmp_path / "log"
    keys = {"LITELLM_MASTER_KEY": MASTER_KEY, "OPENAI_API_KEY": PROVIDERS_KEY, "DATABASE_URL": "postgresql://nowhere"}
    environment = {**os.environ, **QUIET, **keys, "PATH": f"{program}:{os.environ['PATH']}"}
    with EngineDouble(api_key=PROVIDERS_KEY, owned_by="", batch_endpoint=False) as provider:
        words = ["serve", "--litellm", "openai/double", "--api-base", f"{provider.url}/v1", "--port", "0", "--log", log]
        serving = subprocess.Popen(
            [sys.executable, "-c", "from pg_bridge.cli import main; raise SystemExit(main())", *map(str, words)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert serving.stdout is not None
            line = serving.stdout.readline()
            assert line.startswith("engine=http://127.0.0.1:"), serving.communicate()[1]
            children = _descendants(serving.pid)
            shown = "".join(Path(f"/proc/{pid}/cmdline").read_bytes().decode() for pid in children)
            assert "litellm" in shown
            with make_database("plpython") as database, psycopg.connect(database.dsn, autocommit=True) as db:
                _connect(db, line.strip().removeprefix("engine="))
                query = "SELECT llm.is_true('Is {} odd?', i, server => 'litellm') FROM generate_series(1, 5) AS t(i)"
                assert len(db.execute(query.encode()).fetchall()) == 5
            assert len(provider.received.prompts) >= 5
        finally:
            serving.send_signal(signal.SIGTERM)
            said = serving.communicate(timeout=60)[1]
    assert "CREATE SERVER litellm FOREIGN DATA WRAPPER pg_bridge OPTIONS (endpoint" in said
    for key in (MASTER_KEY, PROVIDERS_KEY):
        assert key not in shown + said + log.read_text()
    assert all(wait_until_gone(pid, 10) for pid in children)
    assert not any(map(group_is_running, children))


def _connect(db: psycopg.Connection[object], endpoint: str) -> None:
    """As it is told to say, psql's variable apart."""
    options = f"endpoint '{endpoint}', model 'openai/double'"
    db.execute(f"CREATE SERVER litellm FOREIGN DATA WRAPPER pg_bridge OPTIONS ({options})".encode())
    db.execute(f"CREATE USER MAPPING FOR CURRENT_USER SERVER litellm OPTIONS (api_key '{MASTER_KEY}')".encode())


def _descendants(pid: int) -> list[int]:
    """The processes below one."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        tasks = Path(f"/proc/{waiting.pop()}/task")
        own = [int(each) for task in tasks.iterdir() for each in (task / "children").read_text().split()]
        found += own
        waiting += own
    return found
