"""Every number that was chosen by measuring, and what was measured.

"Points" are of whole prompts' characters. "PDMX", "beer", "reviews" and others are the ten tables of `make
bench-planner`; "real" are twelve that nobody tuned for (flights, weather, planes, football, baseball, films, diamonds,
surveys; 3,322 to 20,000 rows of 7 to 40 columns). Each measurement changes one number.
"""

# Which strategies a table gets, by its cells

TINY_CELLS = 2_000
"""Up to here one order is refined, not three, and one tree grown: an engine answers so few rows in a moment. 105
films: a second and a third tree gain 0.00 points."""

SMALL_CELLS = 1 << 16
"""Up to here three trees are grown, for 1.07 points of the reviews (1,865 x 11; the third, from beginnings, brings
0.71 of them) and 0.00 of all others, real ones included. Beyond it, two camps instead: a tree of 30,000 x 9 takes
0.2 s."""

MOVED_CELLS = 1 << 19
"""Up to here rows may stand in camps and branches move; as many cells are looked at in all sweeps together. Twice as
many: 0.14 points of weather and baseball, 0.04 of flights, 0.02 of beer and films (real), 0.00 of the others, and
30 % more time, which 30,000 x 9 in half a second leaves no room for. None: up to 0.25 less on real tables, 1.63
on FEVER."""

TREE_CELLS = 100_000_000
"""Beyond it no tree is grown. A million x 10 takes 7 s, so this is a minute; the product's windows are smaller."""

# Fixed orders

REFINED_CELLS = 1 << 17
"""Cells of the even sample on which orders are refined. A quarter: PDMX 0.04 points less, beer, flights and reviews
the same; four times as many: PDMX 0.02 more, for a tenth more time, and of a million rows four times 0.1 s."""

WEIGHED_CELLS = 1 << 20
"""Cells of the even sample on which the best refined order is chosen: 0.2 s of a million rows saved, no plan
changed. Refining one order only saves no more and costs 4 % of what a million beers share."""

MOVE_REACH = 8
"""Places that a column is moved at most. Three: PDMX 0.01 less, flights 0.03 more, beer and reviews the same.
Sixteen: the same everywhere, for up to 15 % more time."""

MOVABLE_COLUMNS = 64
"""Columns at an order's beginning that move: all 57 of PDMX. It bounds the time of tables of a thousand columns and
more."""

CAMP_RARE = 2
"""Rows that hold a rare value. Four: flights 0.34 points less, beer 0.01 less, films (real) 0.05 more. Camps at all:
beer 0.45, flights 0.14, films (real) 0.07 more, no other table."""

CAMP_RARE_SHARE = 0.005
"""Of all rows, that hold a column's rare values, for it to divide them. A hundredth of it, which lets other columns
divide: flights 0.12, films 0.07 less."""

CAMP_ROUNDS = 4
"""In which rows choose their camp anew. Two: beer 0.03 less. Eight: nothing more, for 3 to 10 % more time."""

CAMP_HOPELESS = 0.02
"""Of what one order shares less, before rows choose. None or 0.1: no plan changed, but tables without camps (FEVER,
weather) took 15 to 30 % longer with 0.1."""

CAMP_SAMPLE_CELLS = 1 << 15
"""Cells of the sample, whole values each, on which a camp's order is found. Four times as many: 0.01 more of beer,
flights and films, for a fifth more time. A quarter: flights 0.40, films 0.07 less."""

# The tree

LOOKED_AT = 4
"""Columns tried as a node's first. Eight: up to 0.01 points more (products, films, 40 columns of cars 0.06), 0.31
less of the reviews, 0.28 of flights and 0.10 of PDMX once branches have moved, and 5 to 15 % more time."""

HOPELESS_TREE = 0.05
"""Of what the best tree shares: one further behind is not moved. On 35 tables of 168 to 4,000 rows the tree that won
had been 1.8 % behind at most. All moved: no plan changed, and the reviews took twice the time."""

# Moves of branches

MOST_SWEEPS = 16
"""Over one tree. Four: the reviews 0.02 points less, beer, flights, films and joined reviews the same."""

SWEEP_GAIN = 0.001
"""Of what is shared, for another sweep. 0: the reviews 0.02, joined with films 0.04 more, for twice the time. 0.005:
the reviews 0.06 less, for a third less time."""

ASKED_COLUMNS = 16
"""By which better places are looked for. All 57 of PDMX: 0.1 points more for three times the seconds. Eight: flights
0.04, the reviews and PDMX 0.01 less."""

# What was sent before

MOST_PREFIXES = 1_000_000
"""Remembered, in 16 MB with what follows them: two levels or more of 500,000 rows, whose plan then stays below 100 ms
between two calls of `check_interrupts`; with two million it took 175."""

SENT_WAYS = 2
"""Followed at once for each branch. One: 0.2 to 0.3 points less of FEVER, flights and films (real) in halves; four:
0.04 more of films, 0.00 of others."""

# Time alone

CHUNK_ROWS = 1 << 16
"""Rows, or pairs of them, treated together where more would leave the caches: a seventh of a million rows' time, an
eighth of their memory. Moves are as fast with a quarter or four times as many."""

SPLIT_TOGETHER = 1 << 13
"""Rows, times columns, split in one go. One column at a time: 57 x 57 takes 250 ms instead of 190, 10,000 x 57 and
57 x 8 the same within 8 %."""
