"""Movies, products, posts and beers: reviews or comments joined with what they are about.

In: a generator and the number of rows. Out: columns. Which figures are published says `benchmarks.paper_tables`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.paper_tables import words
from benchmarks.paper_tables.draw import by_rank, distinct, every_one, identifiers, pick, scaled
from benchmarks.paper_tables.prose import lengths, prose, titles
from benchmarks.paper_tables.shape import Column, booleans, doubles, integers, texts

_MOVIE_GENRES = (
    "Drama", "Comedy", "Action & Adventure", "Mystery & Suspense", "Romance", "Documentary", "Horror",
    "Art House & International", "Kids & Family", "Science Fiction & Fantasy", "Musical & Performing Arts", "Classics",
    "Animation", "Special Interest", "Western", "Television", "Sports & Fitness", "Cult Movies", "Gay & Lesbian",
    "Faith & Spirituality",
)  # fmt: skip
_COMPANY_KINDS = ("Pictures", "Films", "Entertainment", "Studios", "Releasing", "Classics", "Media", "Productions")
_STOCK_REVIEWS = (
    None, "Full review in Spanish", "Full review in Portuguese.", "Full review in French.", "Click for full review.",
)  # fmt: skip
_PRODUCT_KINDS = (
    "Stainless Steel", "Portable", "Wireless", "Adjustable", "Waterproof", "Heavy Duty", "Premium", "Mini",
    "Replacement", "Universal", "Organic", "Vintage", "Kids", "Professional", "Foldable", "Rechargeable",
)  # fmt: skip
_REVIEW_TITLES = ("Five Stars", "Great product", "Good", "Love it", "Not what I expected", "Four Stars", "One Star")
_BEER_BASES = (
    "Pale Ale", "India Pale Ale", "Stout", "Porter", "Lager", "Pilsener", "Wheat Ale", "Dunkel", "Bock", "Bitter",
    "Barley Wine", "Saison", "Tripel", "Lambic", "Amber Ale", "Brown Ale", "Scotch Ale", "Kölsch", "Fruit Beer",
    "Cider",
)  # fmt: skip
_BEER_MODIFIERS = ("", "Imperial ", "American ", "Belgian ", "English ", "German ")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_BASE36 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def movies(chance: np.random.Generator, rows: int, full_rows: int) -> list[Column]:
    """Critics' reviews of films; the film determines all but the review, its type and its critic's rank."""
    films = scaled(1344, rows, full_rows)
    written = scaled(12_327, rows, full_rows)
    stock = min(len(_STOCK_REVIEWS), written // 20)

    # Rows whose review is new, then rows that have a stock line or none, then rows that came twice.
    spare = rows - written
    stocked = int(0.45 * spare) if stock else 0
    film = every_one(chance, written, films, 0.75, 4)
    review = np.arange(written)
    fresh = chance.random(written) < 0.6 + 0.5 * (chance.random(films)[film] - 0.5)
    top = chance.random(written) < 0.28
    twin = chance.integers(written, size=spare - stocked)
    film = np.concatenate([film, by_rank(chance, stocked, films, 0.75, 4), film[twin]])
    review = np.concatenate([review, by_rank(chance, stocked, max(stock, 1), 1.5), twin])
    fresh = np.concatenate([fresh, chance.random(stocked) < 0.6, fresh[twin]])
    top = np.concatenate([top, chance.random(stocked) < 0.1, top[twin]])
    order = chance.permutation(rows)
    film, review, fresh, top = film[order], review[order], fresh[order], top[order]

    reviews = [*_STOCK_REVIEWS[:stock], *distinct(prose(chance, lengths(chance, written - stock, 20)))]
    title = distinct(titles(chance, films))
    year = chance.integers(1950, 2020, size=films).tolist()
    link = [f"m/{_slug(name)}" + (f"_{made}" if made % 3 == 0 else "") for name, made in zip(title, year, strict=True)]
    info = distinct(prose(chance, lengths(chance, films, 80, 0.4)))
    names = _companies(chance, scaled(355, rows, full_rows, films))
    company = pick(names, every_one(chance, films, len(names), 1.0, 1))
    genres = _genres(chance, min(313, films))
    genre = pick(genres, every_one(chance, films, len(genres), 1.0, 1))
    return [
        texts("rottentomatoeslink", pick(distinct(link), film)),
        booleans("topcritic", top.tolist()),
        texts("reviewtype", pick(("Rotten", "Fresh"), fresh.astype(np.intp))),
        texts("reviewcontent", pick(reviews, review)),
        texts("movietitle", pick(title, film)),
        texts("movieinfo", pick(info, film)),
        texts("genres", pick(genre, film)),
        texts("productioncompany", pick(company, film)),
    ]


def products(chance: np.random.Generator, rows: int, full_rows: int) -> list[Column]:
    """Customers' reviews; the variant determines the product, and that its title and description."""
    parents = scaled(5597, rows, full_rows)
    variants = scaled(7100, rows, full_rows)
    described = scaled(1500, rows, full_rows, parents)
    parent_of = np.concatenate([np.arange(parents), by_rank(chance, variants - parents, parents, 0.5)])
    variant = every_one(chance, rows, variants, 0.8, 20)
    parent = parent_of[variant]
    title = [
        f"{place} {_PRODUCT_KINDS[kind]} {name}, {size} {unit}"
        for place, kind, name, size, unit in zip(
            pick(words.PLACES, by_rank(chance, parents, len(words.PLACES), 0.7)),
            chance.integers(len(_PRODUCT_KINDS), size=parents).tolist(),
            titles(chance, parents),
            chance.integers(2, 60, size=parents).tolist(),
            pick(("Inch", "Pack", "oz", "Count", "Piece Set, Black"), chance.integers(5, size=parents)),
            strict=True,
        )
    ]
    description = distinct(prose(chance, lengths(chance, described, 137, 0.6)))
    stock = min(len(_REVIEW_TITLES), rows // 50)
    headline = distinct(titles(chance, rows))
    reused = (chance.random(rows) < 0.25) & (stock > 0)
    for row, line in zip(
        np.flatnonzero(reused).tolist(), by_rank(chance, rows, max(stock, 1), 0.9).tolist(), strict=False
    ):
        headline[row] = _REVIEW_TITLES[line]
    variant_ids = identifiers(chance, variants + parents, _BASE36, 8, "B0")
    return [
        doubles("rating", (5.0 - by_rank(chance, rows, 5, 1.4)).tolist()),
        texts("review_title", headline),
        texts("text", prose(chance, lengths(chance, rows, 26, 0.8))),
        texts("id", pick(variant_ids[:variants], variant)),
        texts("parent_asin", pick(variant_ids[variants:], parent)),
        booleans("verified_purchase", (chance.random(rows) < 0.9).tolist()),
        texts("product_title", pick(distinct(title), parent)),
        texts("description", pick(description, every_one(chance, parents, described, 0.5, 5)[parent])),
    ]


def posts(chance: np.random.Generator, rows: int, full_rows: int) -> list[Column]:
    """Comments under posts; much-discussed posts are longer ones."""
    count = scaled(5165, rows, full_rows)
    post = every_one(chance, rows, count, 0.6, 30)
    comments = np.bincount(post, minlength=count)
    sentences = lengths(chance, count, 320, 0.6) * (comments / comments.mean()) ** 0.8
    body = distinct([_html(text) for text in _paragraphs(chance, np.maximum(1, sentences).astype(np.int64))])
    number = np.sort(chance.choice(np.arange(1, 8 * count + 1), count, replace=False))
    number = chance.permutation(number)
    seconds = 1_279_000_000 + number * (130_000_000 // (8 * count + 1)) + chance.integers(60, size=count)
    date = np.char.add(seconds.astype("datetime64[s]").astype(str), ".0").tolist()
    dates = Column("PostDate", "timestamp", pick([f'"{day.removesuffix(".0")}"' for day in date], post))
    return [
        texts("Body", pick(body, post)),
        dates,
        integers("PostId", number[post].tolist()),
        texts("Text", prose(chance, lengths(chance, rows, 32, 0.6))),
    ]


def beers(chance: np.random.Generator, rows: int, full_rows: int) -> list[Column]:
    """Tasters' marks; the beer determines its name and style."""
    count = scaled(2600, rows, full_rows)
    tasters = scaled(4200, rows, full_rows)
    beer = every_one(chance, rows, count, 0.8, 5)
    ids = chance.permutation(chance.choice(np.arange(1, 28 * count + 1), count, replace=False))
    brewery = pick(words.PLACES, by_rank(chance, count, len(words.PLACES), 0.6, 5))
    style = np.array(every_one(chance, count, min(89, count), 0.8, 3))
    styles = [modifier + base for modifier in _BEER_MODIFIERS for base in _BEER_BASES]
    suffix = pick(_BEER_BASES, style % len(_BEER_BASES))
    own = titles(chance, count)
    plain = (chance.random(count) < 0.7).tolist()
    name = [f"{brewery[b]} {suffix[b]}" if plain[b] else f"{brewery[b]} {own[b]}" for b in range(count)]
    quality = chance.normal(0.68, 0.1, count)[beer] + chance.normal(0, 0.06, rows)

    def marks(column: str, most: int) -> Column:
        drawn = np.clip(np.rint(most * (quality + chance.normal(0, 0.07, rows))), 1, most).astype(np.intp)
        return texts(column, pick([f"{mark}/{most}" for mark in range(most + 1)], drawn))

    return [
        integers("beer/beerId", ids[beer].tolist()),
        texts("beer/name", pick(distinct(name), beer)),
        texts("beer/style", pick(styles, style[beer])),
        marks("review/appearance", 5),
        marks("review/overall", 20),
        marks("review/palate", 5),
        texts("review/profileName", pick(_tasters(chance, tasters), every_one(chance, rows, tasters, 0.9, 5))),
        marks("review/taste", 10),
        integers("review/time", chance.integers(955_000_000, 1_326_000_000, size=rows).tolist()),
    ]


def _slug(text: str) -> str:
    return text.lower().replace(" ", "_")


def _companies(chance: np.random.Generator, count: int) -> list[str]:
    places = pick(words.PLACES, chance.integers(len(words.PLACES), size=count))
    kinds = pick(_COMPANY_KINDS, by_rank(chance, count, len(_COMPANY_KINDS), 0.8))
    return distinct([f"{place} {kind}" for place, kind in zip(places, kinds, strict=True)])


def _genres(chance: np.random.Generator, count: int) -> list[str]:
    """Distinct combinations of one to four genres, the shorter and more usual ones first."""
    found: dict[str, None] = {}
    while len(found) < count:
        size = 1 + int(chance.integers(min(4, 1 + len(found) // 12)))
        chosen = sorted(set(by_rank(chance, size, len(_MOVIE_GENRES), 0.8).tolist()))
        found[", ".join(_MOVIE_GENRES[number] for number in chosen)] = None
    return list(found)


def _paragraphs(chance: np.random.Generator, sentences: NDArray[np.int64]) -> list[list[str]]:
    """Texts as lists of paragraphs of up to four sentences."""
    counts = -(-sentences // 4)
    sizes = np.full(int(counts.sum()), 4, np.int64)
    ends = np.cumsum(counts)
    sizes[ends - 1] = sentences - 4 * (counts - 1)
    made = prose(chance, sizes)
    return [made[end - count : end] for end, count in zip(ends.tolist(), counts.tolist(), strict=True)]


def _html(paragraphs: list[str]) -> str:
    return "\n\n".join(f"<p>{paragraph}</p>" for paragraph in paragraphs) + "\n"


def _tasters(chance: np.random.Generator, count: int) -> list[str]:
    first = pick([place.lower() for place in words.PLACES], by_rank(chance, count, len(words.PLACES), 0.4))
    second = pick(words.NOUNS, by_rank(chance, count, len(words.NOUNS), 0.4, 10))
    short = (chance.random(count) < 0.25).tolist()
    years = chance.integers(60, 99, size=count).tolist()
    return distinct([a + str(y) if s else a + b for a, b, s, y in zip(first, second, short, years, strict=True)])
