"""Invented English-like prose, by slots and word lists, many texts at once.

In: how many sentences each text has. Out: the texts. Words follow Zipf's law within their part of speech, so that a
tokenizer finds its usual mix of frequent and rare words. The sentences mean nothing.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.paper_tables import words
from benchmarks.paper_tables.draw import by_rank


def _plural(noun: str) -> str:
    """Write the regular plural.

    >>> _plural("story"), _plural("church"), _plural("day")
    ('stories', 'churches', 'days')
    """
    if noun.endswith("y") and noun[-2] not in "aeou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")


_LISTS = {
    "n": words.NOUNS,
    "N": tuple(map(_plural, words.NOUNS)),
    "v": words.VERBS,
    "p": words.PAST,
    "a": words.ADJECTIVES,
    "r": words.ADVERBS,
    "d": words.DETERMINERS,
    "D": words.PLURAL_DETERMINERS,
    "i": tuple(words.PREPOSITIONS),
    "c": words.CONNECTIVES,
    "o": words.PRONOUNS,
    "x": words.AUXILIARIES,
    "P": words.PEOPLE,
    "L": words.PLACES,
    "y": words.YEARS,
}
_SENTENCES = (
    "d n p d a n i d n",
    "o p d n i L, c D N p i d n",
    "i y, P p d a n i d n i L",
    "d a n x r a, c o v d n i d n",
    "P p d n i N, N c d a n, i d n i D N",
    "r, d n i d n x a c a i d n",
    "D N i L p i d n i y, i d a n i n",
    "o v d n c o x r a",
    "d n, i d n i N, p d a n, c P p d n i D N",
    "o x a i d n, c d n x a",
    "a N c a N p i d n i d a n c i d n i L",
    "c o p d n, d n x d a n i d n",
)
_CHUNK_SENTENCES = 100_000


def _compile() -> tuple[list[str], dict[str, tuple[int, int]], list[NDArray[np.int8]], list[NDArray[np.bool_]]]:
    """Number the words: a piece is ' word' as it stands; piece + m is the capitalised one, + 2 m the one with comma."""
    pieces: list[str] = []
    ranges: dict[str, tuple[int, int]] = {}
    for slot, listed in _LISTS.items():
        ranges[slot] = (len(pieces), len(listed))
        pieces += [" " + word for word in listed]
    pieces.append(" an")
    capital = [" " + piece[1].upper() + piece[2:] for piece in pieces]
    comma = [piece + "," for piece in pieces]
    capital_comma = [piece + "," for piece in capital]
    stop = [piece + "." for piece in pieces]
    slots = list(_LISTS)
    shapes = [np.array([slots.index(token[0]) for token in sentence.split()], np.int8) for sentence in _SENTENCES]
    commas = [np.array([token.endswith(",") for token in sentence.split()]) for sentence in _SENTENCES]
    return pieces + capital + comma + capital_comma + stop, ranges, shapes, commas


_PIECES, _RANGES, _SHAPES, _COMMAS = _compile()
_WORDS = len(_PIECES) // 5
_A, _AN = _PIECES.index(" a"), _PIECES.index(" an")
_VOWEL = np.array([piece[1] in "aeiou" for piece in _PIECES[:_WORDS]])
_SIZES = np.array([len(shape) for shape in _SHAPES])
WORDS_A_SENTENCE = float(_SIZES.mean())


def prose(chance: np.random.Generator, sentences: NDArray[np.integer[Any]]) -> list[str]:
    """Write texts.

    Args:
        chance: The generator.
        sentences: (n,) integer; how many sentences each of the n texts has, at least one.
    """
    made: list[str] = []
    if not len(sentences):
        return made
    for start, end in _chunks(sentences):
        made += _write(chance, sentences[start:end])
    return made


def _chunks(sentences: NDArray[np.integer[Any]]) -> list[tuple[int, int]]:
    """Where to cut the texts so that a chunk has about `_CHUNK_SENTENCES`."""
    number = np.cumsum(sentences) // _CHUNK_SENTENCES
    cuts = np.flatnonzero(np.diff(number)) + 1
    return list(itertools.pairwise([0, *cuts.tolist(), len(sentences)]))


def _write(chance: np.random.Generator, sentences: NDArray[np.integer[Any]]) -> list[str]:
    kinds = chance.integers(len(_SHAPES), size=int(sentences.sum()))
    slots = np.concatenate([_SHAPES[kind] for kind in kinds.tolist()])
    comma = np.concatenate([_COMMAS[kind] for kind in kinds.tolist()])
    pieces = np.empty(len(slots), np.intp)
    for number, (first, count) in enumerate(_RANGES.values()):
        (here,) = np.nonzero(slots == number)
        pieces[here] = first + by_rank(chance, len(here), count, 0.9, 3.0)
    ends = np.cumsum(_SIZES[kinds])
    pieces[np.flatnonzero((pieces[:-1] == _A) & _VOWEL[pieces[1:]])] = _AN
    pieces += 2 * _WORDS * comma
    pieces[np.concatenate([[0], ends[:-1]])] += _WORDS
    pieces[ends - 1] += 4 * _WORDS
    found = list(map(_PIECES.__getitem__, pieces.tolist()))
    text_ends = ends[np.cumsum(sentences) - 1].tolist()
    return ["".join(found[start:end])[1:] for start, end in itertools.pairwise([0, *text_ends])]


def lengths(chance: np.random.Generator, count: int, mean_words: float, spread: float = 0.5) -> NDArray[np.int64]:
    """Draw (count,) int64 numbers of sentences, log-normal, for texts of so many words on average."""
    mean = mean_words / WORDS_A_SENTENCE
    drawn = chance.lognormal(np.log(mean) - spread * spread / 2, spread, count)
    sentences: NDArray[np.int64] = np.maximum(1, np.floor(drawn + chance.random(count))).astype(np.int64)
    return sentences


def titles(chance: np.random.Generator, count: int) -> list[str]:
    """Write short titles; some are equal."""
    forms = (
        ("d", "n"), ("a", "n"), ("d", "a", "n"), ("n", "i", "L"), ("L",), ("P",), ("d", "n", "i", "N"), ("a", "N"),
        ("n", "c", "n"), ("p", "i", "d", "n"),
    )  # fmt: skip
    shapes = chance.integers(len(forms), size=count).tolist()
    drawn = {slot: iter(by_rank(chance, 3 * count, len(listed), 0.6, 8.0).tolist()) for slot, listed in _LISTS.items()}
    made = []
    for shape in shapes:
        chosen = [_LISTS[slot][next(drawn[slot])] for slot in forms[shape]]
        made.append(" ".join(word[0].upper() + word[1:] for word in chosen))
    return made
