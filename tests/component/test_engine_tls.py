"""TLS to an engine: who is trusted, who is not and why, and what is shown of ourselves."""

from __future__ import annotations

import gc
import os
import ssl
from pathlib import Path

import pytest

from pg_bridge.engine import Completion, Engine, Portion, Sampling
from pg_bridge.engine.tls import LARGEST_FILE_BYTES, tls_of
from pg_bridge.errors import (
    CertificateDenied,
    EngineUnreachable,
    FileFault,
    OptionError,
    PgBridgeError,
    Untrusted,
    WrongScheme,
)
from pg_bridge.options import Server
from pg_bridge.testing.double import EngineDouble
from tests.certificates import Authority, Certificate
from tests.component.test_engine_faults import everything_said
from tests.hostile import HostileEngine, completion, raw
from tests.proxies import Proxy

SAMPLING = Sampling(max_tokens=8, temperature=0.0, system_prompt="")
HERE = "IP:127.0.0.1"


def ask(url: str, count: int = 20, /, **options: str) -> list[Completion]:
    """Ask an engine, by options as SQL has them."""
    server = Server.from_options("vllm", {"endpoint": url, "connect_timeout_s": "20", "max_retries": "0", **options})
    return [each for each in Engine(server).complete(iter([f"row {i}" for i in range(count)]), SAMPLING) if each]


@pytest.fixture(scope="module")
def own(authority: Authority) -> Certificate:
    """An engine's certificate."""
    return authority.certify(HERE, "DNS:localhost")


@pytest.fixture(autouse=True)
def _trust_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """No authority of this machine's counts, whatever it has."""
    monkeypatch.setenv("SSL_CERT_FILE", os.devnull)
    monkeypatch.setenv("SSL_CERT_DIR", os.devnull)
    monkeypatch.setattr("pg_bridge.engine.tls._CONTEXTS", {})


def test_an_authority_of_ones_own(authority: Authority, own: Certificate) -> None:
    with EngineDouble(tls=own.served()) as engine:
        assert engine.url.startswith("https:")
        assert len(ask(engine.url, ca_file=str(authority.certificate))) == 20


def test_the_certificate_itself_may_be_trusted(authority: Authority, own: Certificate) -> None:
    alone = authority.certify(HERE, self_signed=True)
    for each in (alone, own):
        with EngineDouble(tls=each.served()) as engine:
            assert len(ask(engine.url, ca_file=str(each.certificate))) == 20


def test_what_the_system_trusts_is_trusted(
    authority: Authority, own: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    with EngineDouble(tls=own.served()) as engine:
        assert len(ask(engine.url)) == 20


def test_a_file_of_authorities_stands_in_place_of_the_systems(
    authority: Authority, own: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    other = authority.certify(HERE, self_signed=True)
    with EngineDouble(tls=own.served()) as engine, pytest.raises(Untrusted):
        ask(engine.url, ca_file=str(other.certificate))


@pytest.mark.parametrize(
    ("made", "says", "hint"),
    [
        ({}, "of an authority that is not known here", "ca_file to a file with the certificate of that authority"),
        ({"self_signed": True}, "self-signed, and not known here", "ca_file to a file that holds it"),
        ({"years": (2020, 2021)}, "its certificate has expired", "renewed"),
        ({"years": (2048, 2049)}, "is not valid yet", "clock"),
        ({"hosts": ("DNS:elsewhere.example",)}, "for another host than the endpoint's", "endpoint to a host"),
    ],
    ids=["unknown authority", "self-signed", "expired", "not yet", "another host"],
)
def test_each_reason_not_to_trust_has_its_words(
    authority: Authority, made: dict[str, object], says: str, hint: str
) -> None:
    taken = dict(made)
    hosts = taken.pop("hosts", (HERE,))
    certificate = authority.certify(*hosts, **taken)  # type: ignore[misc, arg-type]
    known = {"ca_file": str(authority.certificate)} if "years" in made or "hosts" in made else {}
    with EngineDouble(tls=certificate.served()) as engine:
        with pytest.raises(Untrusted, match=says) as caught:
            ask(engine.url, patience_s="300", **known)  # it is not waited for what will not change
        assert caught.value.sqlstate == "08001"
        assert hint in caught.value.hint
        assert engine.url in caught.value.detail
        assert engine.received.requests == []


def test_with_no_verify_anybody_is_trusted(authority: Authority) -> None:
    certificate = authority.certify("DNS:elsewhere.example", self_signed=True, years=(2020, 2021))
    with EngineDouble(tls=certificate.served()) as engine:
        assert len(ask(engine.url, no_verify="true")) == 20
        with pytest.raises(Untrusted):
            ask(engine.url, no_verify="false")


def test_a_certificate_is_shown_where_one_is_wanted(authority: Authority, own: Certificate, tmp_path: Path) -> None:
    client = authority.certify("DNS:client")
    both = tmp_path / "both.pem"
    both.write_bytes(client.certificate.read_bytes() + client.key.read_bytes())
    known = {"ca_file": str(authority.certificate)}
    with EngineDouble(tls=own.served(clients_of=authority.certificate)) as engine:
        assert len(ask(engine.url, cert_file=str(client.certificate), key_file=str(client.key), **known)) == 20
        assert len(ask(engine.url, cert_file=str(both), **known)) == 20
        with pytest.raises(PgBridgeError) as caught:
            ask(engine.url, connect_timeout_s="0.5", **known)
        assert "client certificate" in f"{caught.value.message} {caught.value.hint}"
        assert "cert_file" in caught.value.hint


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("shown", [True, False])
def test_a_client_who_is_not_let_in(
    authority: Authority, own: Certificate, version: ssl.TLSVersion, shown: bool
) -> None:
    other = authority.certify("DNS:client", self_signed=True)
    tls = own.served(clients_of=authority.certificate)
    tls.maximum_version = version  # from 1.3 on a client learns of it after the handshake, by an alert
    given = {"cert_file": str(other.certificate), "key_file": str(other.key)} if shown else {}
    with HostileEngine(lambda request: [completion(request)], tls=tls) as engine:
        with pytest.raises((CertificateDenied, EngineUnreachable)) as caught:
            ask(engine.url, connect_timeout_s="0.5", ca_file=str(authority.certificate), **given)
        assert engine.requests == []
    assert "cert_file" in caught.value.hint
    if version == ssl.TLSVersion.TLSv1_2:
        says = "does not take the client certificate" if shown else "handshake failed"
        assert says in caught.value.message
        assert isinstance(caught.value, CertificateDenied) == shown


def test_http_where_tls_is_spoken(own: Certificate) -> None:
    with EngineDouble(tls=own.served()) as engine:
        plain = engine.url.replace("https:", "http:")
        with pytest.raises(WrongScheme, match="it speaks TLS") as caught:
            ask(plain, patience_s="300")
        assert caught.value.sqlstate == "08P01"
        assert f"SET endpoint '{engine.url}'" in caught.value.hint


@pytest.mark.parametrize(
    "page",
    [
        b"<html><center>The plain HTTP request was sent to HTTPS port</center></html>",
        b"Client sent an HTTP request to an HTTPS server.\n",
        b"Reason: You're speaking plain HTTP to an SSL-enabled server port.<br />",
    ],
)
def test_a_refusal_that_speaks_of_tls_is_no_proof_of_it(page: bytes) -> None:
    """A page is looked into, and who wrote it shakes no hands."""
    with HostileEngine(lambda _: [raw(page, status="400 Bad Request")], everything=True) as engine:
        with pytest.raises(PgBridgeError) as caught:
            ask(engine.url, 1)
        assert not isinstance(caught.value, WrongScheme)


def test_tls_where_http_is_spoken() -> None:
    with EngineDouble() as engine:
        with pytest.raises(WrongScheme, match="does not speak TLS") as caught:
            ask(engine.url.replace("http:", "https:"), patience_s="300")
        assert caught.value.sqlstate == "08P01"
        assert engine.url in caught.value.hint


# -- files


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "there is none of that name"),
        (b"the secret of the file", "no certificate in the format PEM"),
        (b"-----BEGIN CERTIFICATE-----\nsecret\n-----END CERTIFICATE-----\n", "no certificate in the format PEM"),
        (b"", "no certificate in the format PEM"),
        (b"secret" * LARGEST_FILE_BYTES, "it has more than 4 MB"),
    ],
    ids=["missing", "no certificate", "broken", "empty", "large"],
)
@pytest.mark.parametrize("option", ["ca_file", "cert_file"])
def test_a_file_that_is_of_no_use(tmp_path: Path, option: str, text: bytes | None, says: str) -> None:
    path = tmp_path / "secret name"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(FileFault, match=f'option "{option}" of server "vllm" names cannot be used') as caught:
        ask("https://127.0.0.1:9", **{option: str(path)})
    assert says in caught.value.message or option == "cert_file"
    assert caught.value.sqlstate == "F0000"
    assert "secret" not in everything_said(caught.value)


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/stdin", "/", "/etc", "a\udc80", "x" * 5000])
def test_a_file_that_is_none(path: str) -> None:
    with pytest.raises(FileFault):
        ask("https://127.0.0.1:9", ca_file=path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileFault, match="no regular file"):
        ask("https://127.0.0.1:9", ca_file=str(tmp_path / "pipe"))


def test_keys_that_do_not_fit(authority: Authority, own: Certificate) -> None:
    other = authority.certify("DNS:client")
    with pytest.raises(FileFault, match="another certificate's"):
        ask("https://127.0.0.1:9", cert_file=str(own.certificate), key_file=str(other.key))
    with pytest.raises(FileFault, match="lacks a certificate, or its key"):
        ask("https://127.0.0.1:9", cert_file=str(own.certificate))
    with pytest.raises(FileFault, match=r'"key_file".*encrypted'):  # and nobody is asked for a password
        ask("https://127.0.0.1:9", cert_file=str(own.certificate), key_file=str(authority.encrypt(own.key)))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"endpoint": "https://engine", "key_file": "/k"}, "no cert_file"),
        ({"endpoint": "https://engine", "ca_file": "/c", "no_verify": "true"}, "and no_verify"),
        ({"endpoint": "http://engine", "ca_file": "/c"}, "without TLS"),
        ({"endpoint": "http://engine", "cert_file": "/c", "proxy": "http://proxy"}, "without TLS"),
    ],
)
def test_options_that_mean_nothing_together(options: dict[str, str], says: str) -> None:
    with pytest.raises(OptionError, match=says) as caught:
        Server.from_options("vllm", options)
    assert caught.value.hint
    assert Server.from_options("vllm", {"endpoint": "http://engine", "ca_file": "/c", "proxy": "https://proxy"})


# -- what it costs


def test_a_session_reads_its_files_once(authority: Authority, own: Certificate, tmp_path: Path) -> None:
    """Until they change."""
    path = tmp_path / "ca.pem"
    path.write_bytes(authority.certificate.read_bytes())
    server = Server.from_options("vllm", {"endpoint": "https://engine", "ca_file": str(path)})
    first = tls_of(server)
    assert first is not None
    assert tls_of(server) is first
    path.write_bytes(own.certificate.read_bytes())
    assert tls_of(server) is not first
    assert tls_of(Server.from_options("vllm", {"endpoint": "http://engine"})) is None


def test_connections_are_used_again(authority: Authority, own: Certificate, monkeypatch: pytest.MonkeyPatch) -> None:
    handshakes = 0

    def count(*_: object) -> None:
        nonlocal handshakes
        handshakes += 1

    tls = own.served()
    tls.sni_callback = count
    with EngineDouble(tls=tls) as engine:
        url = engine.url.replace("127.0.0.1", "localhost")  # an address is not sent as a server's name
        asked = ask(url, 400, ca_file=str(authority.certificate), max_in_flight="8")
        assert len(asked) == 400
        assert len(engine.received.requests) >= 50
        assert 1 <= handshakes <= 10


@pytest.mark.parametrize("over_proxy", [False, True])
def test_who_stops_early_leaves_no_connection(authority: Authority, own: Certificate, over_proxy: bool) -> None:
    """Not even one that waits for the other side to say goodbye, as TLS would have it."""
    with EngineDouble(tls=own.served(), hang=True) as engine, Proxy(tls=own.served()) as proxy:
        options = {"ca_file": str(authority.certificate), **({"proxy": proxy.url} if over_proxy else {})}
        caller = Engine(Server.from_options("vllm", {"endpoint": engine.url, **options}))
        answers = caller.complete_portions(iter([Portion(iter(["a"])), Portion(iter(["b"]))]), SAMPLING)
        gc.collect()
        gc.disable()  # what closes them must not be that
        try:
            caller.check_interrupts = lambda: _stop_once(engine.received.in_flight > 0)
            with pytest.raises(KeyboardInterrupt):
                list(answers)
            first_hop = proxy.url if over_proxy else engine.url
            assert int(first_hop.rpartition(":")[2]) not in _own_connections()
        finally:
            gc.enable()


def _stop_once(it_is_time: bool) -> None:
    if it_is_time:
        raise KeyboardInterrupt


def _own_connections() -> list[int]:
    """The ports to which sockets lead that somebody still holds; those that are closed are nobody's."""
    lines = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    return [int(fields[2].rpartition(":")[2], 16) for fields in lines if fields[9] != "0"]


def test_keys_of_sessions_are_written_nowhere(
    authority: Authority, own: Certificate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    with EngineDouble(tls=own.served()) as engine:
        ask(engine.url, ca_file=str(authority.certificate))
    assert not (tmp_path / "keys").exists()


def test_a_client_makes_nothing_of_tls_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pg_bridge.engine.tls._make", lambda _: pytest.fail("TLS is of no use here"))
    with EngineDouble() as engine:
        assert len(ask(engine.url)) == 20
