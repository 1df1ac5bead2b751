"""What stands for a picture in a text: only llm.media makes one, and the message has all of both in their order."""

from __future__ import annotations

import base64
import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from pg_bridge.asking.prompt import parse_question, render
from pg_bridge.engine.dialects import ANTHROPIC, VLLM
from pg_bridge.engine.messages import payload_of
from pg_bridge.engine.records import Sampling
from pg_bridge.ordering import plan
from pg_bridge.rows.cutting import as_row, columns_of
from pg_bridge.rows.media import (
    COUNTED_TOKENS,
    KINDS,
    Illustrated,
    Medium,
    is_medium,
    joined,
    lift,
    shown,
    without_media,
)
from pg_bridge.rows.table import Table
from pg_bridge.testing.wire import text_of

FREE = Sampling(16, 0.0, "")
MARK = '{"": "data:image/png;base64,iVBORw=="}'
TEXTS = st.one_of(st.text(), st.sampled_from([MARK, f'"{MARK}"', '{""', '"data:', "\\", '{"": "data:image/png']))
MEDIA = st.builds(
    lambda mime, data: Medium(mime, base64.b64encode(data).decode()),
    st.sampled_from([mime for mime, kind in KINDS.items() if kind != "audio"]),
    st.binary(max_size=12),
)


def json_of(medium: Medium) -> str:
    return json.dumps({"": f"data:{medium.mime};base64,{medium.data}"})


def is_free_of(value: object) -> bool:
    """Whether a JSON value is and has no object as llm.media makes them."""
    if isinstance(value, dict):
        return list(value) != [""] and all(map(is_free_of, value.values()))
    return all(map(is_free_of, value)) if isinstance(value, list) else True


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
).filter(is_free_of)


@given(value=VALUES, ascii_only=st.booleans())
@example(value={"a": MARK, "b": ["{", "", ""]}, ascii_only=False)
@example(value=["x{", "", "data:image/png;base64,iVBORw=="], ascii_only=False)
def test_no_text_of_a_row_becomes_a_picture(value: object, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert lift(text) is text
    assert not is_medium(text)


@given(before=VALUES, media=st.lists(MEDIA, min_size=1, max_size=4), behind=VALUES)
def test_a_text_is_parted_and_nothing_lost(before: object, media: list[Medium], behind: object) -> None:
    text = f"[{json.dumps(before)}, {', '.join(map(json_of, media))}, {json.dumps(behind)}]"
    lifted = lift(text)
    assert isinstance(lifted, Illustrated)
    assert lifted.own() == media
    assert "".join(json_of(part) if isinstance(part, Medium) else part for part in lifted.parts()) == text
    plain, tokens = without_media(lifted)
    assert tokens == sum(COUNTED_TOKENS[medium.kind] for medium in media)
    assert len(plain) == len(text) - sum(len(json_of(medium)) for medium in media)
    assert joined("", (lifted, " and ", lift(text))).own() == media * 2  # type: ignore[attr-defined]
    assert "\0" not in shown(lifted)


@given(one=MEDIA, other=MEDIA)
def test_equal_pictures_alone_are_one(one: Medium, other: Medium) -> None:
    assert (one.stand_in == other.stand_in) == (one == other)
    assert is_medium(json_of(one))
    assert columns_of(as_row(json_of(one)) or "") == ("input",)


ROWS = st.lists(
    st.tuples(TEXTS, st.sampled_from(["a", "b"]), st.one_of(st.none(), MEDIA)), min_size=1, max_size=6, unique=True
)


@given(rows=ROWS, words=st.booleans())
def test_a_message_has_what_the_row_has(rows: list[tuple[str, str, Medium | None]], words: bool) -> None:
    sent = [
        f'{{"text": {json.dumps(text)}, "of": "{of}", "photo": {"null" if photo is None else json_of(photo)}}}'
        for text, of, photo in rows
    ]
    table = Table.from_json(sent, ["text", "of", "photo"])
    prompts = list(render(parse_question("Well?"), table, plan(table)))
    assert len(prompts) == len(rows)
    openai, anthropic = payload_of("chat", "m", FREE, VLLM), payload_of("chat", "m", FREE, ANTHROPIC)
    for prompt in prompts:
        body = json.loads(openai.reminding(prompt) if words else openai.body([prompt]))
        content: Any = body["messages"][-1]["content"]
        assert text_of(content).removesuffix("\n\n") == prompt
        assert isinstance(content, list) == isinstance(prompt, Illustrated)
        blocks: Any = json.loads(anthropic.body([prompt]))["messages"][-1]["content"]
        assert text_of(blocks) == prompt
        assert all(block["text"].strip() for block in blocks if block["type"] == "text")
