"""Jobs in the hands of somebody who means harm: to a worker, to other roles, to what they are about."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.integration.test_jobs_worker import Shop, bob, on_rented, schema, shop
from tests.traps import set_traps

__all__ = ["bob", "schema", "shop"]  # fixtures

EXTENSION_IS_SLOW = True


@on_rented
def test_operators_that_others_made_are_not_a_jobs(shop: Shop, bob: psycopg.Connection[Any]) -> None:
    """Who may create in a schema of somebody's path has nothing run as them by what a worker adds to a query."""
    set_traps(bob)
    with pytest.raises(psycopg.Error, match="trapped as ana"):
        shop.rows("SELECT 'a'::varchar = 'a'::varchar")
    shop.conn.execute("CREATE TABLE named (name varchar, place int, review text, PRIMARY KEY (name, place))")
    shop.conn.execute("INSERT INTO named SELECT i, i, 'review ' || i FROM generate_series(1, 3000) AS i")
    shop.conn.execute("ANALYZE named")
    for asked in (3000, 0):  # the second one finds what is known
        job = shop.one(
            "SELECT llm.submit('SELECT name, place, review FROM named', 'Is {review} kind?', 'kinds', 'name, place')"
        )
        assert shop.work() == asked, shop.job(job, "error")
        assert shop.state(job) == "done", shop.job(job, "error")
