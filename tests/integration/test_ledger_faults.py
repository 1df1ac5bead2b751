"""Faults in the middle of a statement: run again, it asks again what was in flight, and nothing else.

`make bench-faults` does the same with 5,000 questions in every way in, and prints what was sent again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from benchmarks.faults import CASES, FAULTS, Skipped, Stage, ways_of
from benchmarks.hosts import Host
from pg_bridge.testing.cluster import Cluster

pytestmark = pytest.mark.multicorn

ROWS, IN_FLIGHT = 240, 16
HOSTS, EVERY_WAY = ("plpython", "multicorn"), ("llm.map", "foreign table", "SELECT")
# Each fault once, on either host in turn and in each way in turn; all the rest is slow.
MULTICORN_IS_SLOW = True

EACH = [
    pytest.param(
        name,
        way,
        host,
        marks=() if (nth % 3, nth % 2) == (place, number) else pytest.mark.slow,
        id=f"{name}-{way}-{host}",
    )
    for nth, name in enumerate(CASES)
    for place, way in enumerate(EVERY_WAY)
    for number, host in enumerate(HOSTS)
]


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Cluster(settings={"autovacuum": "off"}, environment={"SSL_CERT_FILE": os.devnull}) as cluster:
        made = Stage(cluster, ROWS, IN_FLIGHT, 0.02).open()
        yield made
        made.stop_engine()


@pytest.fixture(scope="module")
def hosts(stage: Stage) -> dict[str, Host]:
    return {host.name: host for host in stage.hosts()}


@pytest.mark.some(1)
@pytest.mark.parametrize(("name", "way", "host"), EACH)
def test_only_what_was_in_flight_is_asked_again(
    stage: Stage, hosts: dict[str, Host], name: str, way: str, host: str
) -> None:
    its = hosts[host]
    if its.skipped:
        pytest.skip(its.skipped)
    if way not in ways_of(its):
        way = "llm.map"
    if host == "plpython" and way != "llm.map" and not stage.cluster.has_module:
        pytest.skip("this PostgreSQL has not the module pg_bridge")
    try:
        got = CASES[name](stage, its, way)
    except Skipped as why:
        pytest.skip(str(why))
    assert got.wrong == 0
    assert got.sent > 0
    assert got.again == got.sent - got.kept
    if name in FAULTS:
        assert got.again <= IN_FLIGHT
        assert got.kept > 0
    elif name == "two sessions at once":
        assert got.again <= ROWS
        assert got.kept == ROWS
    else:
        assert 0 < got.kept < ROWS
