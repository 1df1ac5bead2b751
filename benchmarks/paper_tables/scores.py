"""PDMX: what a collection of music scores knows about each score, in 57 columns.

In: a generator and the number of rows. Out: columns. Many are flags, counts and licences that repeat; the paths, the
song's name and its measures hardly do.
"""

from __future__ import annotations

import numpy as np

from benchmarks.paper_tables import words
from benchmarks.paper_tables.draw import by_rank, distinct, every_one, identifiers, pick, scaled
from benchmarks.paper_tables.prose import titles
from benchmarks.paper_tables.shape import Column, booleans, doubles, integers, texts

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_GENRES = ("classical", "folk", "pop", "soundtrack", "rock", "jazz", "religiousmusic", "worldmusic", "rbfunksoul")
_TAGS = ("piano", "violin", "solo", "easy", "choir", "guitar", "band", "duet", "flute", "quartet", "etude", "christmas")
_LICENSES = (
    ("publicdomain", "https://creativecommons.org/publicdomain/mark/1.0/"),
    ("zero", "https://creativecommons.org/publicdomain/zero/1.0/"),
)


def scores(chance: np.random.Generator, rows: int, full_rows: int) -> list[Column]:
    """Music scores, one a row."""
    hashes = identifiers(chance, rows, _BASE58, 44, "Qm")
    path = [f"./data/{name[2]}/{name[3]}/{name}.json" for name in hashes]
    numbers = chance.permutation(np.arange(1, 6 * rows + 1))[:rows].tolist()
    metadata = [f"./metadata/{number % 10}/{number % 97}/{number}.json" for number in numbers]
    songs = scaled(8600, rows, full_rows)
    song = every_one(chance, rows, songs, 0.6, 10)
    composers = scaled(2900, rows, full_rows)
    composer = every_one(chance, rows, composers, 1.0, 2)
    composer_names = distinct(pick(words.PEOPLE, by_rank(chance, composers, len(words.PEOPLE), 0.2)))
    title = distinct(titles(chance, songs))
    license_ = (chance.random(rows) < 0.2).astype(np.intp)
    rated = chance.random(rows) < 0.15
    nratings = np.where(rated, 5 + by_rank(chance, rows, 300, 1.2), 0)
    rating = np.where(rated, np.round(np.clip(chance.normal(4.6, 0.25, rows), 1, 5), 2), 0.0)
    ntracks = 1 + by_rank(chance, rows, 20, 1.6)
    bars = 4 + by_rank(chance, rows, 250, 0.3)
    notes = np.maximum(4, (bars * ntracks * chance.gamma(3, 2.2, rows)).astype(np.int64))
    lyrics = np.where(chance.random(rows) < 0.12, (notes * 0.4).astype(np.int64), 0)
    best = chance.random(rows) < 0.85
    first_of = np.zeros(songs, np.intp)
    first_of[song[::-1]] = np.arange(rows)[::-1]
    best_of = np.where(best, np.arange(rows), first_of[song])
    deduplicated = best & (chance.random(rows) < 0.9)
    draw = chance.random

    def some(name: str, values: tuple[str, ...], share: float, most: int) -> Column:
        present = (draw(rows) < share).tolist()
        sizes = (1 + by_rank(chance, rows, most, 1.5)).tolist()
        chosen = iter(by_rank(chance, rows * most, len(values), 0.9).tolist())
        return texts(
            name,
            [
                "-".join(dict.fromkeys(values[next(chosen)] for _ in range(size))) if has else None
                for has, size in zip(present, sizes, strict=True)
            ],
        )

    def flag(name: str, share: float) -> Column:
        return booleans(name, (draw(rows) < share).tolist())

    def constant(name: str, value: bool) -> Column:
        return booleans(name, [value] * rows)

    def measure(name: str, mean: float, spread: float, most: float = 1e9, digits: int = 4) -> Column:
        return doubles(name, np.round(np.clip(chance.normal(mean, spread, rows), 0.1, most), digits).tolist())

    song_names = pick(title, song)
    return [
        texts("path", path),
        texts("metadata", metadata),
        constant("hasmetadata", True),
        texts("version", pick(("3.01", "2.06", "2.03", "3.02", "1.3"), by_rank(chance, rows, 5, 2.0))),
        flag("isuserpro", 0.3),
        constant("isuserpublisher", False),
        flag("isuserstaff", 0.01),
        flag("haspaywall", 0.02),
        booleans("israted", rated.tolist()),
        constant("isofficial", False),
        flag("isoriginal", 0.2),
        constant("isdraft", False),
        flag("hascustomaudio", 0.03),
        flag("hascustomvideo", 0.03),
        integers("ncomments", by_rank(chance, rows, 200, 2.0).tolist()),
        integers("nfavorites", by_rank(chance, rows, 900, 1.7).tolist()),
        integers("nviews", (chance.lognormal(5.3, 1.6, rows)).astype(int).tolist()),
        integers("nratings", nratings.tolist()),
        doubles("rating", rating.tolist()),
        texts("license", pick([each[0] for each in _LICENSES], license_)),
        texts("licenseurl", pick([each[1] for each in _LICENSES], license_)),
        flag("licenseconflict", 0.1),
        some("genres", _GENRES, 0.45, 2),
        some("groups", tuple(place.lower() + "-singers" for place in words.PLACES[::7]), 0.1, 1),
        some("tags", _TAGS, 0.3, 4),
        texts("songname", song_names),
        texts("title", song_names),
        texts(
            "subtitle",
            [text if has else None for text, has in zip(titles(chance, rows), draw(rows) < 0.35, strict=True)],
        ),
        texts(
            "artistname",
            [name if has else None for name, has in zip(pick(composer_names, composer), draw(rows) < 0.3, strict=True)],
        ),
        texts("composername", pick(composer_names, composer)),
        some("publisher", words.PEOPLE[::29], 0.05, 1),
        integers("complexity", by_rank(chance, rows, 4, 0.8).tolist()),
        integers("ntracks", ntracks.tolist()),
        texts("tracks", ["-".join(["0"] * count) for count in ntracks.tolist()]),
        doubles("songlength", (bars * 4.0).tolist()),
        doubles("songlengthseconds", np.round(bars * chance.normal(2.2, 0.4, rows).clip(0.8), 3).tolist()),
        integers("songlengthbars", bars.tolist()),
        integers("songlengthbeats", (bars * 4).tolist()),
        integers("nnotes", notes.tolist()),
        doubles("notesperbar", np.round(notes / bars, 4).tolist()),
        integers("nannotations", (1 + notes // 15 + by_rank(chance, rows, 50, 0.8)).tolist()),
        constant("hasannotations", True),
        integers("nlyrics", lyrics.tolist()),
        booleans("haslyrics", (lyrics > 0).tolist()),
        integers("ntokens", (notes + lyrics + 12).tolist()),
        measure("pitchclassentropy", 2.6, 0.35),
        measure("scaleconsistency", 0.95, 0.05, 1.0),
        measure("grooveconsistency", 0.97, 0.03, 1.0),
        texts("bestpath", pick(path, best_of)),
        booleans("isbestpath", best.tolist()),
        texts("bestarrangement", pick(path, best_of)),
        booleans("isbestarrangement", best.tolist()),
        texts("bestuniquearrangement", pick(path, best_of)),
        booleans("isbestuniquearrangement", deduplicated.tolist()),
        constant("subset:all", True),
        booleans("subset:rated", rated.tolist()),
        booleans("subset:deduplicated", deduplicated.tolist()),
    ]
