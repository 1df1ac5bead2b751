r"""Pictures, recordings and documents among cells: what stands for one in a text, and the thing itself beside it.

In: JSON text in which SQL's `llm.media` has written `{"": "data:image/png;base64,…"}`. Out: the text with a stand-in
there, and a `Medium`. Planning, limits and estimates go by texts: a stand-in is as long as the text that a medium is
counted as, and equal for equal bytes. It has NULs around it, which neither JSON nor PostgreSQL's text can hold, so that
no value of anybody's can be one. Within a JSON string a quote is escaped, so no text of a row can be taken for a medium
either.

It never fetches anything and never looks into a medium.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

MediaKind = Literal["image", "audio", "document"]

KINDS: Mapping[str, MediaKind] = {
    "image/png": "image",
    "image/jpeg": "image",
    "image/gif": "image",
    "image/webp": "image",
    "audio/wav": "audio",
    "audio/mpeg": "audio",
    "audio/flac": "audio",
    "audio/ogg": "audio",
    "application/pdf": "document",
}
"""By the MIME types that SQL's `llm.media` tells."""

COUNTED_TOKENS: Mapping[MediaKind, int] = {"image": 1_000, "audio": 1_000, "document": 4_000}
"""What each is taken for before an engine has said what it took: nobody knows without looking into it."""

CHARS_PER_TOKEN = 4

_TYPES = "|".join(map(re.escape, KINDS))
_MEDIUM = re.compile(rf'\{{\s*""\s*:\s*"data:({_TYPES});base64,([A-Za-z0-9+/]*={{0,2}})"\s*\}}')
_HINT = '"data:'
_STAND_IN = re.compile("(\0[^\0]*\0)")
_SHOWN_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Medium:
    """One picture, recording or document.

    Attributes:
        mime: Its MIME type, one of `KINDS`.
        data: Its bytes, in base64.
    """

    mime: str
    data: str

    @property
    def kind(self) -> MediaKind:
        """What it is."""
        return KINDS[self.mime]

    @property
    def size_bytes(self) -> int:
        """How many bytes it has."""
        return len(self.data) * 3 // 4 - self.data[-2:].count("=")

    @property
    def stand_in(self) -> str:
        """What stands for it in a text."""
        digest = blake2b(self.data.encode(), digest_size=32).hexdigest()
        chars = COUNTED_TOKENS[self.kind] * CHARS_PER_TOKEN
        return f"\0{self.mime} {digest}".ljust(chars - 1) + "\0"


class Illustrated(str):
    """A text with stand-ins in it.

    Attributes:
        media: What they stand for; others may be among them.
    """

    __slots__ = ("media",)
    media: Mapping[str, Medium]

    def __new__(cls, text: str, media: Mapping[str, Medium]) -> Illustrated:
        """Make one."""
        illustrated = super().__new__(cls, text)
        illustrated.media = media
        return illustrated

    def parts(self) -> Iterator[str | Medium]:
        """The texts and the media, in their order; no text is empty."""
        for part in _STAND_IN.split(self):
            if part:
                yield self.media.get(part, part)

    def own(self) -> list[Medium]:
        """Its media, in their order."""
        return [part for part in self.parts() if isinstance(part, Medium)]


def may_hold_media(text: str) -> bool:
    """Whether it is worth looking for media in a JSON text."""
    return _HINT in text


def is_medium(text: str) -> bool:
    """Whether a JSON text is a medium, and not an object of columns.

    >>> is_medium('{"": "data:image/png;base64,iVBORw=="}'), is_medium('{"a": "data:image/png;base64,iVBORw=="}')
    (True, False)
    """
    return may_hold_media(text) and _MEDIUM.fullmatch(text.strip()) is not None


def lift(text: str) -> str:
    """A JSON text with stand-ins in the place of its media; itself if there are none.

    >>> [part for part in lift('[1, {"": "data:image/png;base64,iVBORw=="}]').parts()]
    ['[1, ', Medium(mime='image/png', data='iVBORw=='), ']']
    """
    media: dict[str, Medium] = {}

    def stand_in(match: re.Match[str]) -> str:
        medium = Medium(match[1], match[2])
        stands = medium.stand_in
        media[stands] = medium
        return stands

    lifted = _MEDIUM.sub(stand_in, text)
    return Illustrated(lifted, media) if media else text


def nulls_for_media(text: str) -> str:
    """A JSON text with null where stand-ins are.

    >>> nulls_for_media(lift('{"a": 1, "b": {"": "data:image/png;base64,iVBORw=="}}'))
    '{"a": 1, "b": null}'
    """
    return _STAND_IN.sub("null", text)


def joined(separator: str, texts: Iterable[str]) -> str:
    """As `str.join`, with the media of all of the texts."""
    parts = list(texts)
    media = media_of(parts)
    text = separator.join(parts)
    return Illustrated(text, media) if media else text


def media_of(texts: Iterable[str]) -> dict[str, Medium]:
    """The media of some texts, by what stands for them."""
    media: dict[str, Medium] = {}
    for text in texts:
        if isinstance(text, Illustrated):
            media.update(text.media)
    return media


def shown(text: str) -> str:
    """A text as people may read it, and PostgreSQL can hold it.

    >>> shown(lift('{"": "data:image/png;base64,iVBORw=="}'))
    '<image/png 37409200ea4ab127>'
    """

    def name(match: re.Match[str]) -> str:
        mime, _, digest = match[0][1:-1].strip().partition(" ")
        return f"<{mime} {digest[:_SHOWN_DIGITS]}>"

    return _STAND_IN.sub(name, text) if "\0" in text else text


def without_media(text: str) -> tuple[str, int]:
    """A text without its stand-ins, and how many tokens they are counted as."""
    parts = _STAND_IN.split(text)
    return "".join(parts[::2]), sum(map(len, parts[1::2])) // CHARS_PER_TOKEN
