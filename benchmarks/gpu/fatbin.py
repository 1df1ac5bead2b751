"""Makes compiled CUDA libraries small for one kind of card: what was compiled for others becomes zeros.

In: the bytes of a shared library. Out: as many bytes, of which `xz` makes little. Every fat binary in it stays where it
was and is whole; it holds fewer entries.

A fat binary is a header (magic, version, the header's size, the size of what follows), then entries: kind (1 is PTX, 2
machine code), size of the entry's header, size of its payload, architecture.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MAGIC = b"\x50\xed\x55\xba"
HEADER_BYTES = 16
PTX, MACHINE_CODE = 1, 2


@dataclass(frozen=True, slots=True)
class Entry:
    """What a fat binary holds for one architecture.

    Attributes:
        kind: `PTX` or `MACHINE_CODE`.
        architecture: 90 for Hopper.
        data: Its header and payload.
    """

    kind: int
    architecture: int
    data: bytes


def fat_binaries(library: bytes) -> Iterator[tuple[int, list[Entry]]]:
    """Yield the place of every fat binary, and its entries."""
    place = library.find(MAGIC)
    while place >= 0:
        version, header, size = struct.unpack_from("<HHQ", library, place + len(MAGIC))
        end = place + header + size
        sound = (version, header) == (1, HEADER_BYTES) and end <= len(library)
        if sound:
            yield place, list(_entries(library, place + header, end))
        place = library.find(MAGIC, end if sound else place + 1)


def _entries(library: bytes, place: int, end: int) -> Iterator[Entry]:
    while place < end:
        kind, header, size = struct.unpack_from("<HxxIQ", library, place)
        (architecture,) = struct.unpack_from("<I", library, place + 28)
        yield Entry(kind, architecture, library[place : place + header + size])
        place += header + size


def keep_only(library: bytes, architecture: int) -> bytes:
    """Return the library with what a card of one architecture takes of each fat binary."""
    slim = bytearray(library)
    for place, entries in fat_binaries(library):
        kept = b"".join(entry.data for entry in _taken(entries, architecture))
        begin, size = place + HEADER_BYTES, sum(len(entry.data) for entry in entries)
        slim[begin : begin + size] = kept.ljust(size, b"\0")
        struct.pack_into("<Q", slim, begin - 8, len(kept))
    return bytes(slim)


def _taken(entries: Sequence[Entry], architecture: int) -> list[Entry]:
    """Machine code for it; else PTX for it or older cards; else the smallest entry: an empty fat binary is none."""
    own = [entry for entry in entries if entry.kind == MACHINE_CODE and entry.architecture == architecture]
    older = [entry for entry in entries if entry.kind == PTX and entry.architecture <= architecture]
    return own or older or sorted(entries, key=lambda entry: len(entry.data))[:1]
