"""By which plans a query is read page by page; that PostgreSQL makes such plans is tested beside it."""

from __future__ import annotations

from typing import Any

import pytest

from pg_bridge.jobs.query import MOST_PAGE_ROWS, is_cheap_page

WHOLE = {"Plan Rows": 100 * MOST_PAGE_ROWS, "Total Cost": 1000.0}


def limited(node: dict[str, Any], cost: float = 50.0) -> dict[str, Any]:
    return {"Node Type": "Limit", "Total Cost": cost, "Plans": [node]}


@pytest.mark.parametrize(
    ("page", "is_cheap"),
    [
        (limited({"Node Type": "Index Scan", "Index Cond": "(id >= $0)"}), True),
        (limited({"Node Type": "Index Scan", "Index Cond": "(id >= (InitPlan 1).col1)"}), True),  # from 17 on
        (limited({"Node Type": "Index Scan", "Index Cond": "(id >= $0)"}, cost=101.0), False),
        (limited({"Node Type": "Index Scan", "Index Cond": "(id >= 5)"}), False),
        (limited({"Node Type": "Index Scan", "Filter": "(id >= $0)"}), False),
        (limited({"Node Type": "Sort", "Plans": [{"Node Type": "Seq Scan", "Filter": "(id >= $0)"}]}), False),
    ],
)
def test_an_index_must_lead_to_where_a_page_begins(page: dict[str, Any], is_cheap: bool) -> None:
    assert is_cheap_page(page, WHOLE) is is_cheap
