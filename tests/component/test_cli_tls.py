"""pg-bridge doctor and pg-bridge map, where the engine is behind TLS and a proxy."""

from __future__ import annotations

from pathlib import Path

import pytest

from pg_bridge import map_rows
from pg_bridge.cli import main
from pg_bridge.options import Server
from pg_bridge.testing.double import EngineDouble
from tests.certificates import Authority, Certificate
from tests.hostile import HostileEngine, raw
from tests.proxies import Proxy

LOGIN = "Basic YW5hOnMzLWNyZXQ="  # ana:s3-cret


@pytest.fixture(scope="module")
def own(authority: Authority) -> Certificate:
    """An engine's certificate."""
    return authority.certify("IP:127.0.0.1")


@pytest.fixture
def _user_of_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PG_BRIDGE_PROXY_USER", "ana")
    monkeypatch.setenv("PG_BRIDGE_PROXY_PASSWORD", "s3-cret")


@pytest.mark.usefixtures("_user_of_proxy")
def test_doctor_looks_behind_tls_and_a_proxy(
    authority: Authority, own: Certificate, capsys: pytest.CaptureFixture[str]
) -> None:
    client = authority.certify("DNS:client")
    with EngineDouble(tls=own.served(clients_of=authority.certificate)) as engine, Proxy(login=LOGIN) as proxy:
        way = ["--ca-file", str(authority.certificate), "--proxy", proxy.url]
        way += ["--cert-file", str(client.certificate), "--key-file", str(client.key)]
        assert main(["doctor", "--endpoint", engine.url, *way]) == 0
        assert proxy.heard
    assert "all is well" in capsys.readouterr().out


@pytest.mark.parametrize(("flags", "status"), [([], 1), (["--no-verify"], 0), (["--no-verify", "false"], 1)])
def test_doctor_says_whom_it_does_not_trust(
    own: Certificate, flags: list[str], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with EngineDouble(tls=own.served()) as engine:
        assert main(["doctor", "--endpoint", engine.url, *flags]) == status
    said = capsys.readouterr().out
    assert ("its certificate is of an authority that is not known here" in said) == bool(status)
    assert ("mend: Set the server's option ca_file" in said) == bool(status)


def test_doctor_says_where_an_engine_is(capsys: pytest.CaptureFixture[str]) -> None:
    def redirects(_: object) -> list[bytes]:
        return [raw(b"", status="301 Moved", headers="Location: https://new.example/v1/models\r\n")]

    with HostileEngine(redirects, everything=True) as engine:
        assert main(["doctor", "--endpoint", engine.url]) == 1
    assert "redirects to https://new.example/v1/models" in capsys.readouterr().out


def test_doctor_says_which_proxy_is_not_used(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://ana:s3-cret@proxy.example")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with EngineDouble() as engine:
        assert main(["doctor", "--endpoint", engine.url]) == 0
    said = capsys.readouterr().out
    assert "warn  http_proxy is set in this environment, and is not used" in said
    assert "s3-cret" not in said


@pytest.mark.usefixtures("_user_of_proxy")
def test_map_asks_over_tls_and_a_proxy(authority: Authority, own: Certificate, tmp_path: Path) -> None:
    rows, answers = tmp_path / "rows.csv", tmp_path / "answers.csv"
    rows.write_text("a\n1\n2\n")
    asked = ["map", "--quiet", "--from", str(rows), "--into", str(answers), "--prompt", "What is {a}?"]
    with EngineDouble(tls=own.served()) as engine, Proxy(login=LOGIN) as proxy:
        way = ["--endpoint", engine.url, "--proxy", proxy.url]
        assert main([*asked, *way]) == 1  # at once: it is not waited for what will not change
        assert main([*asked, *way, "--ca-file", str(authority.certificate)]) == 0
        assert proxy.heard
    assert len(answers.read_text().splitlines()) == 3


def test_map_rows_takes_a_server_as_it_is(authority: Authority, own: Certificate) -> None:
    with EngineDouble(tls=own.served()) as engine:
        server = Server.from_options("vllm", {"endpoint": engine.url, "ca_file": str(authority.certificate)})
        assert len(list(map_rows([{"a": 1}, {"a": 2}], "What is {a}?", server=server))) == 2


def test_secret_headers_come_from_the_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("a\nx\n")
    with EngineDouble() as engine:
        job = ["map", "--from", str(rows), "--prompt", "Is {a} kind?", "--into", str(tmp_path / "answered.csv")]
        job += ["--endpoint", engine.url, "--headers", '{"X-Key": null, "X-Team": "films"}']
        assert main(job) == 2
        assert "PG_BRIDGE_SECRET_HEADERS" in capsys.readouterr().err
        monkeypatch.setenv("PG_BRIDGE_SECRET_HEADERS", '{"X-Key": "s3cret"}')
        assert main(job) == 0
        assert all(sent["x-key"] == "s3cret" and sent["x-team"] == "films" for sent in engine.received.headers)
        assert engine.received.headers
    assert "s3cret" not in "".join(capsys.readouterr())
