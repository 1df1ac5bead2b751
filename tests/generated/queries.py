"""SELECT in its many forms: joins of what a FROM clause can hold, grouping, windows, set operations, CTEs.

A query's rows are the same however it is executed: what depends on an order is ordered by every column that is shown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.generated.expressions import Expressions, Scope

KINDS = ("text", "text", "text", "int", "int", "bool")


@dataclass(frozen=True)
class Query:
    """A query and what it shows.

    Attributes:
        sql: The query.
        kinds: The type of each column; they are named c1, c2, ….
        ordered: The order of its rows is part of its answer.
    """

    sql: str
    kinds: tuple[str, ...]
    ordered: bool = False


@dataclass
class Queries:
    """Makes queries.

    Attributes:
        expressions: Makes what stands in them.
    """

    expressions: Expressions

    def query(self, depth: int = 2, outer: Scope | None = None) -> Query:
        """Any query."""
        return self.expressions.choices.make(
            (
                lambda: self.plain(depth, outer),
                lambda: self.plain(depth, outer),
                lambda: self.plain(depth, outer),
                lambda: self.limited(depth, outer),
                lambda: self.limited(depth, outer),
                lambda: self.grouped(depth, outer),
                lambda: self.grouped(depth, outer),
                lambda: self.distinct(depth, outer),
                lambda: self.distinct_on(depth, outer),
                lambda: self.windowed(depth, outer),
                lambda: self.united(depth, outer),
                lambda: self.with_cte(depth, outer),
                lambda: self.recursive(depth, outer),
                lambda: self.unnested(depth, outer),
            )
        )

    # -- what is read

    def read(self, depth: int, outer: Scope | None) -> tuple[str, Scope]:
        """`FROM … WHERE …`, and what is in scope."""
        choices = self.expressions.choices
        sql, scope = self._item(depth, outer)
        if choices.chance(55):
            sql, scope = self._joined(sql, scope, depth, outer)
            if choices.chance(30):
                sql, scope = self._joined(sql, scope, depth, outer)
        if outer is not None:
            scope = scope + outer
        if choices.chance(65):
            sql += f" WHERE {self.expressions.condition(scope, 2)}"
        return f"FROM {sql}", scope

    def _item(self, depth: int, outer: Scope | None) -> tuple[str, Scope]:
        expressions, choices = self.expressions, self.expressions.choices

        def relation() -> tuple[str, Scope]:
            sql, _, scope, what = expressions.relation()
            if what.kind == "table" and choices.chance(7):
                sql += f" TABLESAMPLE BERNOULLI ({choices.below(80) + 20}) REPEATABLE ({choices.below(9)})"
            return sql, scope

        def values() -> tuple[str, Scope]:
            alias = expressions.alias()
            rows = "(1, 'X', 2), (2, NULL, 3), (3, 'Word 1', NULL)"
            return f"(VALUES {rows}) AS {alias} (id, t, g)", _scope(alias, (("id", "int"), ("t", "text"), ("g", "int")))

        def series() -> tuple[str, Scope]:
            alias = expressions.alias()
            return f"generate_series(1, {choices.below(30)}) AS {alias} (id)", _scope(alias, (("id", "int"),))

        def subquery() -> tuple[str, Scope]:
            query, alias = self.query(depth - 1, outer), expressions.alias()
            return f"({query.sql}) AS {alias}", _scope(alias, _columns(query))

        items: list[Callable[[], tuple[str, Scope]]] = [relation] * 7 + [values, series]
        return choices.make(items + [subquery] * 3 if depth > 0 else items)

    def _joined(self, sql: str, scope: Scope, depth: int, outer: Scope | None) -> tuple[str, Scope]:
        """One more item joined to `sql`."""
        expressions, choices = self.expressions, self.expressions.choices
        visible = scope if outer is None else scope + outer
        if depth > 0 and choices.chance(15):
            query, alias = self.query(0, visible), expressions.alias()
            kind = choices.pick(("CROSS JOIN LATERAL", "LEFT JOIN LATERAL"))
            joined = f"{sql} {kind} ({query.sql}) AS {alias}"
            return joined + (" ON true" if kind.startswith("LEFT") else ""), scope + _scope(alias, _columns(query))
        if choices.chance(20):
            called, added = self._called(visible)
            kind = choices.pick(("CROSS JOIN LATERAL", "LEFT JOIN LATERAL"))
            condition = expressions.condition(scope + added, 0) if choices.chance(30) else "true"
            return f"{sql} {kind} {called}" + (f" ON {condition}" if kind.startswith("LEFT") else ""), scope + added
        other, added = self._item(depth - 1, outer)
        kind = choices.pick(("JOIN", "JOIN", "JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"))
        both = scope + added
        return f"{sql} {kind} {other} ON {self._join_condition(kind, scope, added, both)}", both

    def _called(self, visible: Scope) -> tuple[str, Scope]:
        """What can stand in FROM and calls functions of the rows before it, without reading a table."""
        expressions, choices = self.expressions, self.expressions.choices
        alias, item = expressions.alias(), expressions.alias()

        def texts() -> str:
            return expressions.texts(visible, 2)

        def call() -> str:
            return expressions.call(visible, 2)

        def where() -> str:
            return f"WHERE {expressions.condition(visible, 1)}" if choices.chance(40) else ""

        text, both = (("t", "text"),), (("t", "text"), ("g", "int"))
        made, columns = choices.make(
            (
                lambda: (f"unnest({texts()}) AS {alias} (t)", text),
                lambda: (f"unnest({texts()}) WITH ORDINALITY AS {alias} (t, o)", text),
                lambda: (f"generate_series(1, {expressions.number(visible, 2)} % 4) AS {alias} (g)", (("g", "int"),)),
                lambda: (f"coalesce({call()}, 'none') AS {alias} (t)", text),
                lambda: (f"ROWS FROM (unnest({texts()}), generate_series(1, 2)) AS {alias} (t, g)", both),
                lambda: (f"(VALUES ({call()}, 1), ({call()}, 2)) AS {alias} (t, g)", both),
                lambda: (f"(SELECT {call()} AS t, 3 AS g {where()} OFFSET 0) AS {alias}", both),
                lambda: (f"(SELECT {call()} AS t {where()} LIMIT 1) AS {alias}", text),
                lambda: (f"(SELECT unnest({texts()}) AS t {where()}) AS {alias}", text),
                lambda: (
                    f"(SELECT max({item}) AS t, count(*)::int AS g FROM unnest({texts()}) AS {item} {where()})"
                    f" AS {alias}",
                    both,
                ),
                lambda: (
                    f"(SELECT {item} AS t FROM unnest({texts()}) AS {item} {where()} ORDER BY {item}"
                    f" LIMIT {choices.below(3)}) AS {alias}",
                    text,
                ),
                lambda: (f"(SELECT {call()} AS t UNION ALL SELECT {call()} {where()}) AS {alias}", text),
            )
        )
        return made, _scope(alias, columns)

    def _join_condition(self, kind: str, left: Scope, right: Scope, both: Scope) -> str:
        expressions, choices = self.expressions, self.expressions.choices

        def numbers() -> str:
            return f"{expressions.number(left, 0)} = {expressions.number(right, 0)}"

        def texts() -> str:
            return f"{expressions.text(left, 1)} = {expressions.text(right, 1)}"

        def unique() -> str:
            return self._unique_condition(left, right, both)

        equal = choices.make((numbers, numbers, texts, lambda: f"{numbers()} AND {texts()}", unique, unique))
        if kind == "FULL JOIN":  # without a condition that can be merged or hashed PostgreSQL refuses it
            pairs = [(x, y) for sort in ("int", "text") for x in left.of(sort) for y in right.of(sort)]
            if not pairs:
                return "true"
            one, two = choices.pick(pairs)
            return f"{one} = {two}"
        return choices.make(
            (
                lambda: equal,
                lambda: equal,
                lambda: f"{equal} AND ({expressions.condition(both, 1)})",
                lambda: f"{equal} AND ({expressions.condition(right, 1)})",
                lambda: f"{equal} AND ({expressions.condition(left, 1)})",
                lambda: f"({equal} OR {expressions.condition(both, 0)})",
                lambda: f"{equal} AND {expressions.text(left, 1)} <> {expressions.text(both, 1)}",
            )
        )

    def _unique_condition(self, left: Scope, right: Scope, both: Scope) -> str:
        """A key of the right side equals something of the left, which the planner takes for a proof; and a call."""
        expressions, choices = self.expressions, self.expressions.choices
        names = {column.split(".")[-1]: column for column, _ in right.columns}
        parts = []
        if {"x", "y"} <= names.keys():  # of u
            parts += [
                f"{expressions.number(left, 0)} = {names['x']}",
                f"{names['y']} = {self._key(left, 'left({}, 2)')}",
            ]
        elif "name" in names:
            parts += [f"{names['name']} = {self._key(left, '{}')}"]
            numbers = [column for column, kind in right.columns if kind == "int"]
            parts += [f"{numbers[0]} = {expressions.number(left, 1)}"] if choices.chance(50) else []
        elif "id" in names:
            parts += [f"{names['id']} = {expressions.number(left, 1)}"]
        else:
            parts += [f"{expressions.number(left, 0)} = {expressions.number(right, 0)}"]
        parts += [f"{expressions.call(both, 1)} {choices.pick(('<>', '>'))} 'k'"] if choices.chance(60) else []
        return " AND ".join(parts)

    def _key(self, left: Scope, form: str) -> str:
        """What `u.y` and `names.name` really hold, made by a call of the other side."""
        expressions, choices = self.expressions, self.expressions.choices
        if choices.chance(30):
            return expressions.text(left, 1)
        texts = [*left.of("text"), "'V1'", "CASE WHEN now() > '2000-01-01' THEN 'V2' END", "'Word 2'"]
        function = "initcap" if expressions.parallel else "word"
        if not expressions.parallel and choices.chance(40):  # a call about several tables, perhaps
            return form.format(f"word({choices.pick(texts)}, {expressions.number(left, 0)})")
        return form.format(f"{function}({choices.pick(texts)}{'' if expressions.parallel else ', 1'})")

    # -- what is shown

    def shown(self, scope: Scope, count: int | None = None, depth: int = 2) -> tuple[list[str], tuple[str, ...]]:
        """Expressions for a target list, and their types."""
        choices = self.expressions.choices
        kinds = tuple(choices.pick(KINDS) for _ in range(count or choices.below(3) + 1))
        return [self.expressions.value(scope, kind, depth) for kind in kinds], kinds

    def plain(self, depth: int, outer: Scope | None = None) -> Query:
        """SELECT … FROM … WHERE …"""
        read, scope = self.read(depth, outer)
        values, kinds = self.shown(scope)
        return Query(f"SELECT {_named(values)} {read}", kinds)

    def limited(self, depth: int, outer: Scope | None = None) -> Query:
        """… ORDER BY all that is shown LIMIT … OFFSET …"""
        choices = self.expressions.choices
        read, scope = self.read(depth, outer)
        values, kinds = self.shown(scope)
        limit = choices.make(
            (
                lambda: f"LIMIT {choices.below(30)}",
                lambda: f"LIMIT {choices.below(12)} OFFSET {choices.below(5)}",
                lambda: f"FETCH FIRST {choices.below(9) + 1} ROWS WITH TIES",
                lambda: f"OFFSET {choices.below(9)}",
                lambda: "LIMIT NULL",
                lambda: f"LIMIT {self._limit_of(outer)}",
                lambda: f"LIMIT {self._limit_of(outer)}",
            )
        )
        order = _all(kinds)
        if choices.chance(25):
            order = order.replace("c1", f"c1 {choices.pick(('DESC', 'NULLS FIRST', 'DESC NULLS LAST'))}", 1)
        return Query(f"SELECT {_named(values)} {read} ORDER BY {order} {limit}", kinds, ordered=True)

    def _limit_of(self, outer: Scope | None) -> str:
        expressions = self.expressions
        if expressions.parameters is not None:
            return expressions.parameter("int")
        if outer is not None and expressions.choices.chance(50):
            return f"abs({expressions.number(outer, 0)})"
        return (
            f"(SELECT count(*) / 4 FROM a AS counted WHERE {expressions.condition(Scope((('counted.t', 'text'),)), 0)})"
        )

    def distinct(self, depth: int, outer: Scope | None = None) -> Query:
        """SELECT DISTINCT."""
        query = self.plain(depth, outer)
        return Query(query.sql.replace("SELECT", "SELECT DISTINCT", 1), query.kinds)

    def distinct_on(self, depth: int, outer: Scope | None = None) -> Query:
        """SELECT DISTINCT ON: the first row of each, in an order of all columns."""
        query = self.plain(depth, outer)
        shown = query.sql.replace("SELECT", "SELECT DISTINCT ON (c1)", 1)
        return Query(f"{shown} ORDER BY {_all(query.kinds)}", query.kinds, ordered=True)

    def grouped(self, depth: int, outer: Scope | None = None) -> Query:
        """GROUP BY, ROLLUP, CUBE and GROUPING SETS."""
        expressions, choices = self.expressions, self.expressions.choices
        read, scope = self.read(depth, outer)
        if outer is not None:  # an aggregate of outer columns would be the outer query's
            scope = Scope(tuple(column for column in scope.columns if column not in outer.columns), scope.rows)
        keys, kinds = self.shown(scope, choices.below(2) + 1, 1)
        keys = [f"{key}::int" if key.isdecimal() else key for key in keys]  # GROUP BY 1 would be the first column
        if choices.chance(12):
            keys[0], kinds = ("psafe('k', 1)" if expressions.parallel else "word('k', 1)"), ("text", *kinds[1:])
        found = [self._aggregate(scope) for _ in range(choices.below(2) + 1)]
        inside = Scope(tuple(zip(keys, kinds, strict=True)) + tuple(found))
        listed = ", ".join(keys)
        by = choices.pick(
            (
                listed,
                listed,
                f"ROLLUP ({listed})",
                f"CUBE ({listed})",
                f"GROUPING SETS (({listed}), ({keys[0]}), ())",
            )
        )
        sets = by != listed
        values, shown = [*keys, *(sql for sql, _ in found)], (*kinds, *(kind for _, kind in found))
        if sets and choices.chance(50):
            values, shown = [*values, f"GROUPING({keys[0]})"], (*shown, "int")
        plain = Expressions(choices, expressions.parallel, expressions.as_reader)  # no parameters: $1 is not $2
        if choices.chance(50):
            values, shown = [*values, plain.call(inside, 1)], (*shown, "text")
        having = f" HAVING {plain.condition(inside, 0)}" if choices.chance(30) else ""
        return Query(f"SELECT {_named(values)} {read} GROUP BY {by}{having}", shown)

    def _aggregate(self, scope: Scope) -> tuple[str, str]:
        expressions, choices = self.expressions, self.expressions.choices
        text, number = expressions.text(scope, 1), expressions.number(scope, 1)
        sql, kind = choices.pick(
            (
                ("count(*)::int", "int"),
                (f"max({text})", "text"),
                (f"min({number})", "int"),
                (f"sum({number})::int", "int"),
                (f"count(DISTINCT {text})::int", "int"),
                (f"string_agg({text}, ',' ORDER BY {text})", "text"),
                (f"array_to_string(array_agg({number} ORDER BY {number}, {text}), ',')", "text"),
                (f"percentile_disc(0.5) WITHIN GROUP (ORDER BY {text})", "text"),
                (f"bool_or({expressions.condition(scope, 1)})", "bool"),
            )
        )
        if kind == "int" and sql.startswith("count(*)") and choices.chance(60):
            return f"(count(*) FILTER (WHERE {expressions.condition(scope, 1)}))::int", kind
        return sql, kind

    def windowed(self, depth: int, outer: Scope | None = None) -> Query:
        """Window functions, in an order of all columns that are shown."""
        choices = self.expressions.choices
        query = self.plain(depth, outer)
        columns = _all(query.kinds)
        call = "psafe" if self.expressions.parallel else "word"
        function, kind = choices.pick(
            (
                (f"row_number() OVER (ORDER BY {columns})::int", "int"),
                (f"rank() OVER (PARTITION BY c1 ORDER BY {columns})::int", "int"),
                (f"count(*) OVER (PARTITION BY {call}(c1::text, 1))::int", "int"),
                (f"{call}((lag(c1::text) OVER (ORDER BY {columns})), 2)", "text"),
                (f"max({call}(c1::text, 3)) OVER (ORDER BY {columns})", "text"),
                (f"string_agg({call}(c1::text, 3), ',') OVER (ORDER BY {columns} ROWS 2 PRECEDING)", "text"),
                (f"{call}('w', row_number() OVER (ORDER BY {columns})::int)", "text"),
            )
        )
        alias, kinds = self.expressions.alias(), (*query.kinds, kind)
        inner = f"SELECT {alias}.*, {_cast_first(function)} AS c{len(kinds)} FROM ({query.sql}) AS {alias}"
        if choices.chance(50):
            return Query(inner, kinds)
        outside, last = self.expressions.alias(), f"c{len(kinds)}"
        limit = f"{last} < {choices.below(9)}" if kind == "int" else f"{last} > 'm'"
        return Query(f"SELECT * FROM ({inner}) AS {outside} WHERE {limit}", kinds)

    def united(self, depth: int, outer: Scope | None = None) -> Query:
        """UNION, INTERSECT, EXCEPT, with and without ALL."""
        choices = self.expressions.choices
        first = self.plain(depth - 1, outer)
        read, scope = self.read(depth - 1, outer)
        values = [self.expressions.value(scope, kind, 1) for kind in first.kinds]
        operator = choices.pick(
            ("UNION ALL", "UNION ALL", "UNION", "EXCEPT", "INTERSECT", "EXCEPT ALL", "INTERSECT ALL")
        )
        sql = f"SELECT {_named(values)} {read}"
        if choices.chance(20):
            order = f"ORDER BY {_all(first.kinds)} LIMIT {choices.below(20)}"
            return Query(f"{first.sql} {operator} {sql} {order}", first.kinds, ordered=True)
        return Query(f"{first.sql} {operator} {sql}", first.kinds)

    def with_cte(self, depth: int, outer: Scope | None = None) -> Query:
        """WITH, read once or twice."""
        choices, name = self.expressions.choices, self.expressions.alias()
        inner = self.query(depth - 1, outer)
        how = choices.pick(("", "MATERIALIZED ", "NOT MATERIALIZED "))
        one, two = self.expressions.alias(), self.expressions.alias()
        scope = _scope(one, _columns(inner))
        other = ""
        if choices.chance(40):
            other, scope = f" JOIN {name} AS {two} ON {one}.c1 = {two}.c1", scope + _scope(two, _columns(inner))
        values, kinds = self.shown(scope, depth=1)
        where = f" WHERE {self.expressions.condition(scope, 1)}" if choices.chance(50) else ""
        return Query(
            f"WITH {name} AS {how}({inner.sql}) SELECT {_named(values)} FROM {name} AS {one}{other}{where}", kinds
        )

    def recursive(self, depth: int, outer: Scope | None = None) -> Query:
        """WITH RECURSIVE, a few steps deep."""
        expressions, choices = self.expressions, self.expressions.choices
        name, one = expressions.alias(), expressions.alias()
        first_read, first = self.read(0, outer)
        start = f"SELECT {expressions.number(first, 0)} AS n, ({expressions.text(first, 1)})::text AS t {first_read}"
        scope = _scope(one, (("n", "int"), ("t", "text")))
        step = f"SELECT {one}.n - 5, left({expressions.text(scope, 1)}, 12) FROM {name} AS {one} WHERE {one}.n > 0"
        if choices.chance(50):
            step += f" AND {expressions.condition(scope, 0)}"
        values, kinds = self.shown(scope, depth=1)
        union = choices.pick(("UNION ALL", "UNION"))
        rows = f"WITH RECURSIVE {name} (n, t) AS ({start} {union} {step})"
        return Query(f"{rows} SELECT {_named(values)} FROM {name} AS {one}", kinds)

    def unnested(self, depth: int, outer: Scope | None = None) -> Query:
        """A set-returning function in the target list."""
        read, scope = self.read(depth, outer)
        one, number = self.expressions.texts(scope, 2), self.expressions.number(scope, 1)
        function = self.expressions.choices.pick((f"unnest({one})", f"generate_series(1, {number} % 4)::text"))
        return Query(f"SELECT {_named([function, number])} {read}", ("text", "int"))


def _scope(alias: str, columns: tuple[tuple[str, str], ...]) -> Scope:
    has_id = any(name == "id" for name, _ in columns)
    return Scope(tuple((f"{alias}.{name}", kind) for name, kind in columns), (alias,) if has_id else ())


def _columns(query: Query) -> tuple[tuple[str, str], ...]:
    return tuple((f"c{number}", kind) for number, kind in enumerate(query.kinds, 1))


def _named(values: list[str]) -> str:
    return ", ".join(f"{value} AS c{number}" for number, value in enumerate(values, 1))


def _all(kinds: tuple[str, ...]) -> str:
    return ", ".join(f"c{number}" for number in range(1, len(kinds) + 1))


def _cast_first(function: str) -> str:
    """`f() OVER (…)::int` needs its cast around all of it."""
    return f"({function.removesuffix('::int')})::int" if function.endswith("::int") else function
