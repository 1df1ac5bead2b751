"""The files of the ledger, opened once a process: where they are, PostgreSQL says."""

from __future__ import annotations

from pathlib import Path

from pg_bridge.backend import postgres
from pg_bridge.ledger.account import Ledger
from pg_bridge.ledger.running import Running

_LEDGERS: dict[str, Ledger] = {}  # by the folder: SQLite wants a file to be open once in a process
_RUNNING: dict[Ledger | None, Running] = {}  # of the one in use


def open_ledger() -> Ledger | None:
    """The cluster's ledger; None if it is switched off."""
    folder, most_bytes = postgres.ledger_folder(), postgres.ledger_bytes()
    if not folder:
        return None
    if folder not in _LEDGERS:
        _LEDGERS[folder] = Ledger(Path(folder), most_bytes)
    ledger = _LEDGERS[folder]
    ledger.most_bytes = most_bytes
    return ledger


def open_running() -> Running:
    """What runs now in the cluster; in this process only, if the ledger is switched off."""
    ledger = open_ledger()
    if ledger not in _RUNNING:
        _RUNNING.clear()
        _RUNNING[ledger] = Running(ledger.running, ledger.warnings.add) if ledger else Running()
    if ledger is not None:
        ledger.running.look()
    return _RUNNING[ledger]
