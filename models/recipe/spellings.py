"""Embeddings in training: a word has one vector, and each way to spell it adds another that all words share.

So what is learnt of "memory" is learnt of " memory" and "Memory", and one is known again in the other. The file gets
the sums: an embedding of the published architecture.
"""

from __future__ import annotations

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from models.recipe.vocabulary import SPACE

EMBEDDING_SCALE = 0.5
_SHIFT = 0.7  # length of a spelling's vector beside a word's, at first


class Spellings(nn.Module):
    """A table of embeddings, computed anew in each step; it takes the place of `nn.Embedding`.

    Args:
        tokenizer: Whose tokens.
        hidden: Width.
    """

    words_of: Tensor
    spellings_of: Tensor

    def __init__(self, tokenizer: Tokenizer, hidden: int) -> None:
        super().__init__()
        words, spellings = _analysed(tokenizer)
        self.register_buffer("words_of", torch.tensor(words))
        self.register_buffer("spellings_of", torch.tensor(spellings))
        self.words = nn.Parameter(torch.randn(max(words) + 1, hidden) * EMBEDDING_SCALE)
        self.shifts = nn.Parameter(torch.randn(max(spellings) + 1, hidden) * EMBEDDING_SCALE * _SHIFT)
        with torch.no_grad():
            self.shifts[:, 0] = 0
            self.words[:, 0] = 4 * EMBEDDING_SCALE

    @property
    def weight(self) -> Tensor:
        """The table: (vocabulary, hidden)."""
        return functional.embedding(self.words_of, self.words) + functional.embedding(self.spellings_of, self.shifts)

    def forward(self, tokens: Tensor) -> Tensor:
        """Look tokens up."""
        return functional.embedding(self.words_of[tokens], self.words) + functional.embedding(
            self.spellings_of[tokens], self.shifts
        )


def _analysed(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Return for each token the number of its word, and that of its spelling; 0 is lower case and no space."""
    ids = tokenizer.get_vocab()
    numbers: dict[str, int] = {}
    words, spellings = [0] * len(ids), [0] * len(ids)
    for token, place in sorted(ids.items(), key=lambda item: item[1]):
        spaced = token.startswith(SPACE) and token[1:] in ids
        bare = token[1:] if spaced else token
        case = 0
        if bare.isascii() and bare.isalpha() and bare != bare.lower() and bare.lower() in ids:
            case = 2 if bare.isupper() and len(bare) > 1 else 1
            bare = bare.lower()
        words[place] = numbers.setdefault(bare, len(numbers))
        spellings[place] = 3 * spaced + case
    return words, spellings
