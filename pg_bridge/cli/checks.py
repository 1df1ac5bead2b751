"""What one check of `pg-bridge doctor` says. Nothing else lives here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Check:
    """One finding.

    Attributes:
        verdict: How it is; `warn` means it works, but not as well as it could.
        says: What was found, in plain words; never a key.
        mend: What to do about it; empty where nothing is to be done.
    """

    verdict: Literal["ok", "warn", "FAIL"]
    says: str
    mend: str = ""
