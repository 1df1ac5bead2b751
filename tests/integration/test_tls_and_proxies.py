"""TLS and proxies, seen from SQL: who may say what, on whose behalf files are read, and what an error tells."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from pg_bridge.testing.cluster import Cluster
from pg_bridge.testing.double import EngineDouble
from tests.certificates import Authority, Certificate
from tests.conftest import WRAPPER, Connect, Database, create_server
from tests.hostile import HostileEngine, raw
from tests.proxies import Proxy

KEEP_DATABASE = True
MULTICORN_IS_SLOW = True

Conn = psycopg.Connection[Any]

DENIED = psycopg.errors.InsufficientPrivilege
LOGIN = "Basic YW5hOnMzLWNyZXQ="  # ana:s3-cret
FILES = {"ca_file": "/ca.pem", "cert_file": "/cert.pem", "key_file": "/key.pem"}


@pytest.fixture(scope="module")
def own(authority: Authority) -> Certificate:
    """An engine's certificate."""
    return authority.certify("IP:127.0.0.1")


@pytest.fixture(scope="module")
def read_by_server(cluster: Cluster) -> Callable[[Path], str]:
    """Copy a file to where PostgreSQL's operating system user reads it; returns the copy's path."""

    def copy(path: Path) -> str:
        copied = cluster.directory / path.name
        copied.write_bytes(path.read_bytes())
        copied.chmod(0o644)
        return str(copied)

    return copy


@pytest.fixture
def builder(db: Conn, connect: Connect) -> Iterator[Conn]:
    """A role that may make servers, as an owner of an application would."""
    db.execute("CREATE ROLE builder LOGIN; GRANT USAGE ON FOREIGN DATA WRAPPER pg_bridge TO builder")
    conn = connect(user="builder")
    yield conn
    conn.close()


@pytest.fixture
def tls_engine(own: Certificate) -> Iterator[EngineDouble]:
    with EngineDouble(tls=own.served()) as engine:
        yield engine


def answer(conn: Conn, prompt: str = "Is it?") -> str:
    row = conn.execute("SELECT llm.complete(%s)", [prompt]).fetchone()
    assert row is not None
    return str(row[0])


def failure(conn: Conn, prompt: str = "Is it?") -> psycopg.Error:
    with pytest.raises(psycopg.Error) as caught:
        answer(conn, prompt)
    return caught.value


def everything(error: psycopg.Error) -> str:
    return " ".join(filter(None, (str(error), error.diag.message_detail, error.diag.message_hint, error.diag.context)))


# -- who may set what


@pytest.mark.parametrize("option", [*FILES, "proxy", "no_verify"])
def test_an_ordinary_owner_sets_nothing_that_reaches_past_his_rights(builder: Conn, option: str) -> None:
    value = {"proxy": "http://proxy:3128", "no_verify": "true", **FILES}[option]
    add = sql.SQL("ALTER SERVER vllm OPTIONS (ADD {} {})").format(sql.Identifier(option), value)
    with pytest.raises(DENIED, match=f'permission denied to set the option "{option}"') as caught:
        create_server(builder, "https://127.0.0.1:9", **{option: value})
    files = "superusers and members of pg_read_server_files" if option in FILES else "superusers may"
    assert files in (caught.value.diag.message_hint or "")
    create_server(builder, "https://127.0.0.1:9")
    with pytest.raises(DENIED):
        builder.execute(add)
    builder.execute("ALTER SERVER vllm OPTIONS (ADD no_verify 'false')")  # as it is anyway


def test_who_reads_the_server_s_files_may_name_some(db: Conn, builder: Conn) -> None:
    db.execute("GRANT pg_read_server_files TO builder")
    create_server(builder, "https://127.0.0.1:9", **FILES)
    with pytest.raises(DENIED):
        builder.execute("ALTER SERVER vllm OPTIONS (ADD proxy 'http://proxy:3128')")
    with pytest.raises(DENIED):
        builder.execute("ALTER SERVER vllm OPTIONS (DROP ca_file, ADD no_verify 'true')")


@pytest.mark.parametrize("option", ["cert_file", "key_file"])
def test_a_user_names_no_file_in_his_own_mapping(db: Conn, builder: Conn, option: str) -> None:
    create_server(db, "https://127.0.0.1:9")
    db.execute("GRANT USAGE ON FOREIGN SERVER vllm TO builder")
    with pytest.raises(DENIED, match=option):
        builder.execute(f"CREATE USER MAPPING FOR builder SERVER vllm OPTIONS ({option} '/etc/passwd')".encode())
    builder.execute("CREATE USER MAPPING FOR builder SERVER vllm OPTIONS (proxy_user 'ana', proxy_password 's3-cret')")
    with pytest.raises(DENIED, match=option):
        builder.execute(f"ALTER USER MAPPING FOR builder SERVER vllm OPTIONS (ADD {option} '/etc/passwd')".encode())


def test_a_server_that_was_given_away_is_led_nowhere_else(db: Conn, builder: Conn) -> None:
    create_server(db, "https://127.0.0.1:9", **FILES)
    db.execute("ALTER SERVER vllm OWNER TO builder")
    with pytest.raises(DENIED):
        builder.execute("ALTER SERVER vllm OPTIONS (SET endpoint 'https://127.0.0.2:9')")
    builder.execute("ALTER SERVER vllm OPTIONS (DROP ca_file, DROP cert_file, DROP key_file)")
    builder.execute("ALTER SERVER vllm OPTIONS (SET endpoint 'http://127.0.0.1:9')")


# -- what counts when it is used


@pytest.mark.parametrize(
    ("options", "right"),
    [
        ({"ca_file": "CA"}, "pg_read_server_files"),
        ({"no_verify": "true"}, None),
        ({"ca_file": "CA", "proxy": "PROXY"}, None),
    ],
    ids=["ca_file", "no_verify", "proxy"],
)
def test_a_server_s_owner_must_have_had_the_right(
    db: Conn,
    builder: Conn,
    tls_engine: EngineDouble,
    authority: Authority,
    read_by_server: Callable[[Path], str],
    options: dict[str, str],
    right: str | None,
) -> None:
    """As a dump leaves it: made by a superuser, and then given to its owner."""
    with Proxy() as proxy:
        values = {"CA": read_by_server(authority.certificate), "PROXY": proxy.url}
        given = {name: values.get(value, value) for name, value in options.items()}
        create_server(db, tls_engine.url, **given)
        assert answer(db)
        db.execute("ALTER SERVER vllm OWNER TO builder")
        option = "proxy" if "proxy" in options else next(iter(options))
        for conn in (db, builder):  # whoever asks
            said = failure(conn, "Or is it?")
            assert said.sqlstate == "42501"
            assert "its owner may not set it" in str(said)
        with pytest.raises(DENIED):
            builder.execute("SELECT * FROM llm.map('SELECT 1 AS a', 'What is {a}?')")
        with pytest.raises(DENIED):
            builder.execute("SELECT * FROM llm.estimate('SELECT 1 AS a', 'What is {a}?')")
        had = len(tls_engine.received.prompts)
        assert had == 1
        db.execute("ALTER ROLE builder SUPERUSER" if right is None else f"GRANT {right} TO builder".encode())
        assert answer(builder, "Or is it?")
        if option == "proxy":
            assert proxy.heard


def test_a_file_in_a_mapping_takes_the_owner_s_right_too(db: Conn, builder: Conn) -> None:
    create_server(db, "https://127.0.0.1:9", connect_timeout_s="0.3")
    db.execute("CREATE USER MAPPING FOR builder SERVER vllm OPTIONS (cert_file '/no such')")
    db.execute("GRANT USAGE ON FOREIGN SERVER vllm TO builder")
    assert failure(builder).sqlstate == "F0000"  # a superuser has said so for him
    db.execute("ALTER SERVER vllm OWNER TO builder")
    assert failure(builder).sqlstate == "42501"


def test_a_foreign_table_over_tls(
    db: Conn,
    builder: Conn,
    database: Database,
    tls_engine: EngineDouble,
    authority: Authority,
    read_by_server: Callable[[Path], str],
) -> None:
    if database.host == "plpython" and not database.cluster.has_module:
        pytest.skip("this PostgreSQL has not the module pg_bridge")
    create_server(db, tls_engine.url, ca_file=read_by_server(authority.certificate), **WRAPPER[database.host])
    db.execute("CREATE USER MAPPING FOR CURRENT_USER SERVER vllm OPTIONS (user 'postgres')")
    db.execute(
        "CREATE TABLE reviews AS SELECT i AS id FROM generate_series(1, 30) AS i;"
        "CREATE FOREIGN TABLE asked (id int, kind text OPTIONS (prompt 'What is {id}?')) SERVER vllm "
        "OPTIONS (source 'public.reviews')"
    )
    assert len(db.execute("SELECT * FROM asked").fetchall()) == 30
    db.execute("ALTER SERVER vllm OWNER TO builder")
    db.execute("EXPLAIN (VERBOSE) SELECT * FROM asked WHERE id < 5")  # tells of the table, not of who cannot be asked
    with pytest.raises(psycopg.Error, match="its owner may not set it") as caught:
        db.execute("SELECT * FROM asked WHERE id > 3").fetchall()
    # Multicorn raises errors of one kind alone.
    assert "42501" in (caught.value.sqlstate or "", (caught.value.diag.message_detail or "")[-5:])


# -- what it does


def test_all_ways_to_ask_go_over_tls_and_a_proxy(
    db: Conn,
    own: Certificate,
    authority: Authority,
    read_by_server: Callable[[Path], str],
) -> None:
    client = authority.certify("DNS:client")
    shown = {"cert_file": read_by_server(client.certificate), "key_file": read_by_server(client.key)}
    with EngineDouble(tls=own.served(clients_of=authority.certificate)) as engine, Proxy(login=LOGIN) as proxy:
        create_server(db, engine.url, ca_file=read_by_server(authority.certificate), proxy=proxy.url)
        listed = ", ".join(f"{name} '{value}'" for name, value in shown.items())
        db.execute(
            "CREATE USER MAPPING FOR CURRENT_USER SERVER vllm "
            f"OPTIONS (proxy_user 'ana', proxy_password 's3-cret', {listed})".encode()
        )
        assert answer(db)
        assert (
            len(db.execute("SELECT * FROM llm.map('SELECT generate_series(1, 50) AS a', 'Is {a}?')").fetchall()) == 50
        )
        assert len(db.execute("SELECT llm.complete('Is {a}?', r) FROM (SELECT 1 AS a) AS r").fetchall()) == 1
        assert engine.received.answered >= 51
        assert {line.partition(" ")[0] for line, _ in proxy.heard} == {"CONNECT"}


def test_each_trouble_has_its_words(
    db: Conn,
    own: Certificate,
    tls_engine: EngineDouble,
    engine: EngineDouble,
    authority: Authority,
    read_by_server: Callable[[Path], str],
) -> None:
    ca_file = read_by_server(authority.certificate)
    moved = HostileEngine(
        lambda _: [raw(b"", status="308 Moved", headers="Location: https://new.example/v1/models\r\n")], everything=True
    )
    cases: list[tuple[str, dict[str, str], str, str]] = [
        (tls_engine.url, {}, "08001", "its certificate is of an authority that is not known here"),
        (tls_engine.url.replace("https", "http"), {}, "08P01", "it speaks TLS"),
        (engine.url.replace("http", "https"), {"ca_file": ca_file}, "08P01", "it does not speak TLS"),
        (tls_engine.url, {"ca_file": "/no such"}, "F0000", "there is none of that name"),
        (tls_engine.url, {"ca_file": ca_file, "proxy": "http://127.0.0.1:1"}, "08001", "no connection to its proxy"),
        (moved.url, {}, "58000", "redirects to https://new.example/v1/models"),
        (engine.url, {"ca_file": ca_file}, "22023", "is asked without TLS"),
    ]
    with moved, Proxy(login=LOGIN) as proxy:
        cases.append((tls_engine.url, {"ca_file": ca_file, "proxy": proxy.url}, "28000", "wants a user"))
        for endpoint, options, state, says in cases:
            db.execute("DROP SERVER IF EXISTS vllm CASCADE")
            create_server(db, endpoint, connect_timeout_s="0.5", **options)
            said = failure(db)
            assert (said.sqlstate, says in str(said)) == (state, True), everything(said)
            assert said.diag.message_hint
    assert engine.received.requests == tls_engine.received.requests == []


def test_no_error_tells_what_is_in_a_file(
    db: Conn, tls_engine: EngineDouble, cluster: Cluster, connect: Connect
) -> None:
    secret = cluster.directory / "hush hush"
    secret.write_text("the password is hush\n-----BEGIN CERTIFICATE-----\nhush\n-----END CERTIFICATE-----\n")
    secret.chmod(0o644)
    db.execute("CREATE ROLE reader LOGIN")
    for option in ("ca_file", "cert_file"):
        db.execute("DROP SERVER IF EXISTS vllm CASCADE")
        create_server(db, tls_engine.url, **{option: str(secret)})
        db.execute("GRANT USAGE ON FOREIGN SERVER vllm TO reader")
        reader = connect(user="reader")
        said = failure(reader)
        reader.close()
        assert said.sqlstate == "F0000"
        assert "hush" not in everything(said)


def test_a_changed_file_counts_at_once(
    db: Conn, own: Certificate, tls_engine: EngineDouble, authority: Authority, cluster: Cluster
) -> None:
    path = cluster.directory / "changes.pem"
    other = authority.certify("IP:127.0.0.1", self_signed=True)
    path.write_bytes(other.certificate.read_bytes())
    path.chmod(0o644)
    create_server(db, tls_engine.url, ca_file=str(path))
    assert failure(db).sqlstate == "08001"
    path.write_bytes(authority.certificate.read_bytes())
    assert answer(db)


def test_a_proxy_of_the_postmaster_s_environment_is_not_used(
    db: Conn, database: Database, engine: EngineDouble
) -> None:
    """A backend's environment is the postmaster's; here the session itself writes into its own."""
    if database.host != "plpython":
        pytest.skip("the database of this host has no language that could write an environment")
    with Proxy() as proxy:
        names = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
        try:
            for name in names:
                db.execute(f"DO LANGUAGE plpython3u $$ import os; os.environ['{name}'] = '{proxy.url}' $$".encode())
            create_server(db, engine.url)
            assert answer(db)
            assert proxy.heard == []
            db.execute("ALTER SERVER vllm OPTIONS (SET endpoint 'http://127.0.0.1:1', ADD connect_timeout_s '0.2')")
            said = failure(db)
            assert "http_proxy is not used" in (said.diag.message_hint or "")
            assert proxy.url not in everything(said)
        finally:
            for name in names:
                db.execute(f"DO LANGUAGE plpython3u $$ import os; os.environ.pop('{name}', None) $$".encode())
