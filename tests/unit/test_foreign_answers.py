"""Answers as values of a column's type, on every version of Python."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

import pytest

from pg_bridge.foreign import answers
from pg_bridge.foreign.answers import TIMESTAMP, ColumnType, answer_type


class OfPython314(datetime):
    """Reads hour 24 as Python does from 3.14 on."""

    @classmethod
    def fromisoformat(cls, text: str) -> OfPython314:
        midnight = re.sub(r"([T ])24", r"\g<1>00", text)
        moment = datetime.fromisoformat(midnight)
        later = moment + timedelta(days=midnight != text)
        return cls.combine(later.date(), later.timetz())


@pytest.mark.parametrize("written", ["2024-02-29T{}:00:00", "20240229T{}0000", "2024-W09-4T{}:00", "2024-W09-7 {}:00Z"])
@pytest.mark.parametrize("own", [True, False])
def test_hour_24_is_no_time(written: str, own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if own:
        monkeypatch.setattr(answers, "datetime", OfPython314)
    read = answer_type(ColumnType(TIMESTAMP, -1, "timestamp"), (), None, lambda _: ()).value
    assert read(written.format("23")).startswith("2024-0")
    with pytest.raises(ValueError):  # noqa: PT011 - that is all a value says
        read(written.format("24"))
