"""Pictures, recordings and documents in messages: how they are sent, to whom they are not, how many at once."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from pg_bridge.engine import Completion, Engine, Sampling, parts
from pg_bridge.engine.messages import LEAST_CHARS
from pg_bridge.engine.parts import Hold
from pg_bridge.options import Server
from pg_bridge.rows.media import lift, shown
from pg_bridge.testing.double import EngineDouble
from pg_bridge.testing.messages import MessagesDouble

FREE = Sampling(16, 0.0, "")


def data_of(size_bytes: int, mark: str = "a") -> str:
    return base64.b64encode(mark.encode() * size_bytes).decode()


def prompt_of(mime: str, *, size_bytes: int = 8, mark: str = "a", before: str = "Look: ", behind: str = "!") -> str:
    return lift(f'{before}{{"": "data:{mime};base64,{data_of(size_bytes, mark)}"}}{behind}')


def ask(engine: EngineDouble, prompts: list[str], sampling: Sampling = FREE, **options: Any) -> list[Completion]:
    known = Server("s", engine.url, **{"model": "double", **options})
    return sorted(Engine(known).complete(iter(prompts), sampling, eager=True), key=lambda each: each.index)


@pytest.mark.parametrize(
    ("mime", "part"),
    [
        ("image/webp", {"type": "image_url", "image_url": {"url": f"data:image/webp;base64,{data_of(8)}"}}),
        ("audio/wav", {"type": "input_audio", "input_audio": {"data": data_of(8), "format": "wav"}}),
        ("audio/mpeg", {"type": "input_audio", "input_audio": {"data": data_of(8), "format": "mp3"}}),
        (
            "application/pdf",
            {
                "type": "file",
                "file": {"filename": "document.pdf", "file_data": f"data:application/pdf;base64,{data_of(8)}"},
            },
        ),
    ],
)
def test_what_openai_is_sent(mime: str, part: dict[str, Any]) -> None:
    with EngineDouble() as engine:
        (found,) = ask(engine, [prompt_of(mime)], dialect="openai")
        assert found.error is None
        text = [{"type": "text", "text": text} for text in ("Look: ", "!")]
        assert engine.received.contents == [[text[0], part, text[1]]]


def test_what_anthropic_is_sent() -> None:
    system = "x" * LEAST_CHARS
    prompts = [prompt_of("image/png", before=f"{i % 2}" * LEAST_CHARS, behind=f" and {i}") for i in (0, 2, 4)] + [
        prompt_of("application/pdf"),
        prompt_of("audio/wav"),
    ]
    with MessagesDouble() as engine:
        found = ask(engine, prompts, Sampling(16, 0.0, system), dialect="anthropic", max_in_flight=1)
        assert [each.error is None for each in found] == [True] * 4 + [False]
        assert "dialect is anthropic" in (found[-1].error or "")
        assert engine.received.prompts == list(map(shown, prompts[:4]))
        source = {"type": "base64", "media_type": "image/png", "data": data_of(8)}
        of_second = [block for block in engine.received.contents[1] if block["type"] == "image"]
        assert [block["source"] for block in of_second] == [source]
        # What prompts share is marked, and that ends with the picture or behind it.
        marked = [block for block in engine.received.contents[2] if "cache_control" in block]
        assert len(marked) == 1
        assert engine.received.contents[3][1]["type"] == "document"


def test_a_picture_goes_alone_and_texts_go_together() -> None:
    prompts = [f"text {i}" for i in range(20)] + [prompt_of("image/png", mark=mark) for mark in "abc"]
    with EngineDouble(batch_endpoint=True) as engine:
        found = ask(engine, prompts)
        assert all(each.error is None for each in found)
        assert [path for path, count in engine.received.requests if count == 1].count("/v1/chat/completions") >= 3
        assert len(engine.received.contents) == 3
        assert len(engine.received.requests) < len(prompts)


def test_an_answer_out_of_form_is_asked_for_with_the_picture_again() -> None:
    with EngineDouble(ignore_choices=True, answer=lambda prompt: "perhaps") as engine:
        ask(engine, [prompt_of("image/png")], Sampling(16, 0.0, "", choices=("yes", "no")))
        assert len(engine.received.contents) == 2
        assert engine.received.contents[0][1] == engine.received.contents[1][1]


def test_few_bodies_are_held_at_one_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts.Hold.__init__, "__defaults__", (100,))
    with EngineDouble(delay_s=0.01) as engine:
        found = ask(engine, [prompt_of("image/png", size_bytes=40, mark=mark) for mark in "abcdefgh"])
        assert all(each.error is None for each in found)
        assert engine.received.peak_prompts == 2


def test_room_is_given_back_whatever_happens() -> None:
    async def use() -> list[str]:
        hold, said = Hold(100), list[str]()

        async def one(name: str, size: int, trouble: bool = False) -> None:
            async with hold.room(size):
                said.append(name)
                await asyncio.sleep(0)
                if trouble:
                    raise ValueError

        waiting = asyncio.create_task(one("never", 10**9))
        first = asyncio.create_task(one("large", 1000, trouble=True))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, first, one("next", 60), one("last", 60), return_exceptions=True)
        async with asyncio.timeout(60):
            await one("free", 100)
        return said

    assert asyncio.run(use())[-1] == "free"
