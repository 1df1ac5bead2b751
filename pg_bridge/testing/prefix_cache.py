"""Counts prefix cache hits in blocks, as vLLM does, without a model.

In: the text of one prompt after another. Out: how many of its tokens a prefix cache would have held. A token
is 4 characters. Only whole blocks are cached; a block's key is a hash of itself and of all before it; and at
least the last token is always computed anew, so a prompt is never a full hit. The least recently used blocks
go first.

    With blocks of 2 tokens, "aaaabbbbccccddddeeee" is 5 tokens, [aaaa bbbb] [cccc dddd] eeee: asked twice,
    the second time hits 2 blocks, 4 tokens. Without "eeee" it is 4 tokens; the second time hits 1 block, 2
    tokens, for the second block holds the last token.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

CHARS_PER_TOKEN = 4


def token_count(text: str) -> int:
    """The tokens of a text; the last may be shorter than 4 characters.

    >>> [token_count("x" * chars) for chars in (0, 1, 4, 5)]
    [0, 1, 1, 2]
    """
    return -(-len(text) // CHARS_PER_TOKEN)


@dataclass(slots=True)
class PrefixCache:
    """A prefix cache that holds keys only.

    Attributes:
        block_size: Tokens of a block.
        capacity: Blocks it holds at most.
        queried_tokens: Tokens looked up so far.
        hit_tokens: Those of them that were found.
    """

    block_size: int = 16
    capacity: int = 65_536
    queried_tokens: int = 0
    hit_tokens: int = 0
    _blocks: OrderedDict[int, None] = field(default_factory=OrderedDict, init=False, repr=False)

    def query(self, text: str) -> tuple[int, int]:
        """Look a prompt up and remember its blocks; returns (its tokens, those of them that were found)."""
        blocks = self._blocks
        block_chars = self.block_size * CHARS_PER_TOKEN
        tokens = -(-len(text) // CHARS_PER_TOKEN)
        findable_chars = (tokens - 1) // self.block_size * block_chars
        hit_blocks = 0
        searching = True
        key = 0
        for start in range(0, tokens // self.block_size * block_chars, block_chars):
            key = hash((key, text[start : start + block_chars]))
            if key in blocks:
                blocks.move_to_end(key)
                if searching and start < findable_chars:
                    hit_blocks += 1
            else:
                searching = False
                blocks[key] = None
        while len(blocks) > self.capacity:
            blocks.popitem(last=False)
        hits = hit_blocks * self.block_size
        self.queried_tokens += tokens
        self.hit_tokens += hits
        return tokens, hits

    def clear(self) -> None:
        """Forget every block; the counters go on, as the engine's do."""
        self._blocks.clear()
