"""What an engine understands is learnt from what it says of itself, once."""

import pytest

from pg_bridge.engine import Acquaintance, Completion, Engine, Sampling
from pg_bridge.options import Server
from pg_bridge.testing.double import EngineDouble
from tests.hostile import HostileEngine, Reply, Request, completion, well

YES_OR_NO = Sampling(max_tokens=16, temperature=0.0, system_prompt="", choices=("yes", "no"))


def ask(server: Server, acquaintance: Acquaintance) -> list[Completion]:
    with Engine(server, acquaintance=acquaintance) as engine:
        return sorted(engine.complete(iter(["a", "b", "c"]), YES_OR_NO), key=lambda completion: completion.index)


@pytest.mark.parametrize("model", ["double", None])
@pytest.mark.parametrize("owner", ["llamacpp", "sglang", "vllm", "library", "openai", ""])
def test_an_engine_is_asked_as_it_understands(owner: str, model: str | None) -> None:
    argument = {"llamacpp": "grammar", "sglang": "regex", "vllm": "structured_outputs"}.get(owner, "response_format")
    known = Acquaintance()
    with EngineDouble(answer=lambda _: "no", owned_by=owner) as engine:
        server = Server(name="s", endpoint=engine.url, model=model)
        for _ in range(2):
            assert ask(server, known) == [Completion(i, "no", None) for i in range(3)]
        forms = [
            set(body) & {"grammar", "response_format", "regex", "structured_outputs"} for body in engine.received.bodies
        ]
        paths = {path for path, _ in engine.received.requests}
        listed = engine.received.listed
    assert all(form == {argument} for form in forms)
    assert ("/v1/chat/completions/batch" in paths) == (owner == "vllm")
    assert listed == (1 if model else 2)  # an engine without a name for its model lists it to each run


def test_a_server_that_says_its_dialect_is_not_asked() -> None:
    with EngineDouble(answer=lambda _: '{"answer": "yes"}', owned_by="vllm") as engine:
        server = Server(name="s", endpoint=engine.url, model="double", dialect="openai-compatible")
        assert [each.text for each in ask(server, Acquaintance())] == ["yes"] * 3
        assert engine.received.listed == 0


@pytest.mark.parametrize(("status", "asked"), [("404 Not Found", 1), ("503 Service Unavailable", 2)])
def test_an_engine_without_a_list_is_asked_for_it_once(status: str, asked: int) -> None:
    def reply(request: Request) -> Reply:
        if request.path != "/v1/models":
            return [completion(request, "yes")] if request.json else [well({}, status="404 Not Found")]
        return [well({}, status=status)]

    known = Acquaintance()
    with HostileEngine(reply, everything=True) as engine:
        server = Server(name="s", endpoint=engine.url, model="hostile")
        for _ in range(2):
            with Engine(server, acquaintance=known) as each:
                assert [answer.text for answer in each.complete(iter(["a"]), YES_OR_NO) if answer] == ["yes"]
        paths = [request.path for request in engine.requests]
    assert paths.count("/v1/models") == asked
