import socket

import pytest

from pg_bridge.serving import ports
from pg_bridge.serving.ports import PORTS, free_port, port_is_taken


def test_a_free_port_is_none_that_the_system_hands_out() -> None:
    assert PORTS.stop <= 32_768, "else any outgoing connection may get it before the server binds it"
    assert all(free_port() in PORTS for _ in range(20))


def test_a_taken_port_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", free_port()))
        other.listen()
        taken = other.getsockname()[1]
        assert port_is_taken("127.0.0.1", taken)
        free = free_port()
        monkeypatch.setattr(ports, "PORTS", [taken, free])
        assert free_port() == free
        monkeypatch.setattr(ports, "PORTS", range(taken, taken + 1))
        with pytest.raises(OSError, match="each is taken"):
            free_port()
