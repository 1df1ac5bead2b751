"""An engine behind a proxy, a proxy that will not, and proxies that nobody has asked for."""

from __future__ import annotations

import json
import os
import socket

import pytest

from pg_bridge.engine.proxies import unused_variable
from pg_bridge.errors import (
    EngineError,
    EngineUnreachable,
    OptionError,
    PgBridgeError,
    ProxyDenied,
    Redirected,
    Untrusted,
    WrongScheme,
)
from pg_bridge.options import Server
from pg_bridge.testing.double import EngineDouble
from tests.certificates import Authority, Certificate
from tests.component.test_engine_faults import everything_said
from tests.component.test_engine_tls import HERE, ask
from tests.hostile import HostileEngine, Reply, Request, completion, raw, well
from tests.proxies import Proxy

LOGIN = "Basic YW5hOnMzLWNyZXQgZm9yIHRoZSBwcm94eQ=="  # ana:s3-cret for the proxy
USER = {"proxy_user": "ana", "proxy_password": "s3-cret for the proxy"}
VARIABLES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy")


@pytest.fixture(scope="module")
def own(authority: Authority) -> Certificate:
    """An engine's certificate, and a proxy's."""
    return authority.certify(HERE)


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a test names none."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("engine_tls", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("proxy_tls", [False, True], ids=["http proxy", "https proxy"])
def test_an_engine_is_asked_over_a_proxy(
    authority: Authority, own: Certificate, engine_tls: bool, proxy_tls: bool
) -> None:
    known = {"ca_file": str(authority.certificate)} if engine_tls or proxy_tls else {}
    with (
        EngineDouble(tls=own.served() if engine_tls else None) as engine,
        Proxy(login=LOGIN, tls=own.served() if proxy_tls else None) as proxy,
    ):
        assert len(ask(engine.url, proxy=proxy.url, **known, **USER)) == 20
        assert {line.partition(" ")[0] for line, _ in proxy.heard} == ({"CONNECT"} if engine_tls else {"GET", "POST"})


def test_who_sees_which_secret() -> None:
    """The proxy has its own login; the engine never has that."""
    with HostileEngine(lambda request: [completion(request)]) as engine, Proxy(login=LOGIN) as proxy:
        ask(engine.url, 3, proxy=proxy.url, api_key="sk-of-the-engine", **USER)
        assert all(request.headers["Authorization"] == "Bearer sk-of-the-engine" for request in engine.requests)
        assert not any("Proxy-Authorization" in request.headers for request in engine.requests)


def test_over_tls_a_proxy_sees_no_key(authority: Authority, own: Certificate) -> None:
    with EngineDouble(tls=own.served(), api_key="sk-1") as engine, Proxy(login=LOGIN) as proxy:
        ask(engine.url, proxy=proxy.url, ca_file=str(authority.certificate), api_key="sk-1", **USER)
        assert proxy.heard
        assert not any("sk-1" in str(headers) for _, headers in proxy.heard)


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("given", [{}, {"proxy_user": "ana", "proxy_password": "wrong secret"}], ids=["none", "wrong"])
def test_a_proxy_that_wants_another_user(
    authority: Authority, own: Certificate, tls: bool, given: dict[str, str]
) -> None:
    known = {"ca_file": str(authority.certificate)} if tls else {}
    with EngineDouble(tls=own.served() if tls else None) as engine, Proxy(login=LOGIN) as proxy:
        says = "refused its user" if given else "wants a user"
        with pytest.raises(ProxyDenied, match=f'the proxy of server "vllm" {says}') as caught:
            ask(engine.url, proxy=proxy.url, patience_s="300", **known, **given)
        assert caught.value.sqlstate == "28000"
        assert "proxy_password" in caught.value.hint
        assert "secret" not in everything_said(caught.value)
        assert engine.received.requests == []


def test_a_proxy_that_is_down() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        for endpoint in ("http://engine.example:8000", "https://engine.example"):
            with pytest.raises(EngineUnreachable, match="no connection to its proxy: connection refused") as caught:
                ask(endpoint, proxy=url, connect_timeout_s="0.3")
            assert url in caught.value.detail
            assert endpoint in caught.value.detail
            assert "proxy" in caught.value.hint


def test_a_proxy_whose_name_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(EngineUnreachable, match="no connection to its proxy: the host name is not known"):
        ask("http://127.0.0.1:9", proxy="http://proxy.invalid:3128", connect_timeout_s="0.3")


def test_a_proxy_that_nobody_trusts(own: Certificate) -> None:
    with EngineDouble() as engine, Proxy(tls=own.served()) as proxy:
        with pytest.raises(Untrusted, match="to its proxy: its certificate is of an authority"):
            ask(engine.url, proxy=proxy.url)
        with pytest.raises(WrongScheme, match="to its proxy: it does not speak TLS") as caught:
            ask(engine.url, proxy=engine.url.replace("http:", "https:"))
        assert f"server's proxy to {engine.url}" in caught.value.hint


def test_a_proxy_that_will_not_connect(authority: Authority, own: Certificate) -> None:
    known = {"ca_file": str(authority.certificate)}
    with EngineDouble(tls=own.served()) as engine:
        with Proxy(status=403) as proxy:
            with pytest.raises(
                EngineUnreachable, match=r"its proxy does not connect to it \(HTTP status 403\)"
            ) as caught:
                ask(engine.url, proxy=proxy.url, patience_s="300", **known)
            assert len(proxy.heard) <= 3  # nobody waits for what will not change
            assert "what the proxy allows" in caught.value.hint
        with Proxy(status=503) as proxy:
            with pytest.raises(EngineUnreachable, match=r"HTTP status 503"):
                ask(engine.url, proxy=proxy.url, connect_timeout_s="0.5", max_retries="2", **known)
            assert len(proxy.heard) > 1


def test_an_engine_that_a_proxy_leads_to_is_not_trusted_for_that(own: Certificate) -> None:
    with EngineDouble(tls=own.served()) as engine, Proxy() as proxy, pytest.raises(Untrusted) as caught:
        ask(engine.url, proxy=proxy.url)
    assert "to its proxy" not in caught.value.message
    assert engine.received.requests == []


@pytest.mark.parametrize(
    "url", ["http://[", "http://p:0", "http://p:99999", "ftp://p", "http://u:p@host", "http://p/x"]
)
def test_a_proxy_that_is_no_url(url: str) -> None:
    with pytest.raises(OptionError, match='"proxy"'):
        Server.from_options("vllm", {"endpoint": "http://engine", "proxy": url})


def test_a_proxys_page_shows_no_password() -> None:
    """One that repeats what it was told is no reason to tell others."""
    said = f"cannot serve ana:{USER['proxy_password']} ({LOGIN}) today"
    page = json.dumps({"error": {"message": said}}).encode()
    with (
        HostileEngine(lambda _: [raw(page, status="400 Bad Request")]) as engine,
        Proxy() as proxy,
        pytest.raises(EngineError, match="every prompt") as caught,
    ):
        ask(engine.url, proxy=proxy.url, **USER)
    assert "today" in caught.value.detail
    assert "s3-cret" not in everything_said(caught.value)
    assert LOGIN[-20:] not in everything_said(caught.value)


# -- the environment


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_a_proxy_of_the_environment_is_not_used(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with EngineDouble() as engine, Proxy() as proxy:
        monkeypatch.setenv(name, proxy.url)
        assert len(ask(engine.url)) == 20
        assert proxy.heard == []


def test_a_login_of_the_environment_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("home") / "netrc"
    file.write_text("machine 127.0.0.1 login ana password hush\n")
    monkeypatch.setenv("NETRC", str(file))
    with HostileEngine(lambda request: [completion(request)]) as engine:
        ask(engine.url, 1)
        assert engine.requests
        assert not any("Authorization" in request.headers for request in engine.requests)


def test_who_cannot_connect_is_told_of_a_proxy_that_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://user:hush@proxy.example")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(EngineUnreachable) as caught:
            ask(f"https://{endpoint}", connect_timeout_s="0.3")
        assert "environment's HTTPS_PROXY is not used" in caught.value.hint
        assert "hush" not in everything_said(caught.value)
        with pytest.raises(EngineUnreachable) as caught:
            ask(f"http://{endpoint}", connect_timeout_s="0.3")
        assert "HTTPS_PROXY" not in caught.value.hint


@pytest.mark.parametrize(
    ("environment", "options", "found"),
    [
        ({}, {}, None),
        ({"HTTP_PROXY": "http://p"}, {}, "HTTP_PROXY"),
        ({"all_proxy": "http://p"}, {}, "all_proxy"),
        ({"HTTP_PROXY": ""}, {}, None),
        ({"HTTPS_PROXY": "http://p"}, {}, None),
        ({"HTTP_PROXY": "http://p"}, {"proxy": "http://q"}, None),
        ({"HTTP_PROXY": "http://p", "no_proxy": "engine"}, {}, None),
    ],
)
def test_which_variable_is_not_used(
    environment: dict[str, str], options: dict[str, str], found: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setitem(os.environ, name, value)
    assert unused_variable(Server.from_options("vllm", {"endpoint": "http://engine", **options})) == found


# -- redirects


@pytest.mark.parametrize(
    ("location", "target", "base"),
    [
        ("https://other.example/v1/models", "https://other.example/v1/models", "https://other.example"),
        ("https://u:hush@other.example:8443/x/v1/models?token=hush#hush", "https://other.example:8443/x/v1/models", "https://other.example:8443/x"),
        ("/login?next=hush", "HERE/login", None),
        ("//[::1]:9/v1/models", "http://[::1]:9/v1/models", "http://[::1]:9"),
        ("https://it's.example/v1/models", "https://it's.example/v1/models", "https://it''s.example"),
        ("/v1/models/", "HERE/v1/models/", None),
        ("http://[", "nowhere", None),
        ("", "nowhere", None),
        ("javascript:alert(1)", "nowhere", None),
        ("https://sk-very-secret.example/", "https://….example/", None),
    ],
)  # fmt: skip
def test_a_redirect_says_where_to(location: str, target: str, base: str | None) -> None:
    def redirects(_: object) -> list[bytes]:
        return [raw(b"", status="308 Permanent Redirect", headers=f"Location: {location}\r\n")]

    with HostileEngine(redirects, everything=True) as engine, pytest.raises(Redirected) as caught:
        ask(engine.url, 1, api_key="sk-very-secret")
    said = caught.value
    where = target.replace("HERE", engine.url)
    assert said.message == f'the engine of server "vllm" redirects to {where} (HTTP status 308)'
    assert (f"SET endpoint '{base}'" in said.hint) if base else ("SET endpoint" not in said.hint)
    assert "hush" not in everything_said(said)
    assert len(engine.requests) == 1


def test_a_long_redirect_is_cut_off() -> None:
    location = f"https://other.example/{'x' * 4000}\x1b[2J"
    with (
        HostileEngine(
            lambda _: [raw(b"", status="302 Found", headers=f"Location: {location}\r\n")], everything=True
        ) as engine,
        pytest.raises(PgBridgeError) as caught,
    ):
        ask(engine.url, 1)
    assert len(everything_said(caught.value)) < 1000


def test_a_page_that_redirects_is_no_error_where_it_can_be_done_without() -> None:
    def redirects_pages(request: Request) -> Reply:
        if request.path == "/metrics":
            yield raw(b"", status="302 Found", headers="Location: https://login.example/\r\n")
        elif request.path == "/v1/models":
            yield well({"data": [{"id": "hostile"}]})
        else:
            yield completion(request)

    with HostileEngine(redirects_pages, everything=True) as engine:
        assert len(ask(engine.url, 3)) == 3
        assert "/metrics" in [request.path for request in engine.requests]
