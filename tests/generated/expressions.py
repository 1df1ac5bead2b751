"""Values and conditions over the columns in scope, with calls of batched functions in them.

Nothing here fails at run time: no division, no number that grows, no cast that can be refused. What one evaluation
order may raise and another not would be no difference worth a look.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.generated.choices import Choices
from tests.generated.schema import GUARDED, OPEN, Relation

Maker = Callable[[], str]


@dataclass(frozen=True)
class Scope:
    """What an expression can name.

    Attributes:
        columns: SQL and type of each column.
        rows: Aliases of rows that have an id.
    """

    columns: tuple[tuple[str, str], ...]
    rows: tuple[str, ...] = ()

    def of(self, kind: str) -> list[str]:
        """The columns of a type."""
        return [sql for sql, type_ in self.columns if type_ == kind]

    def __add__(self, other: Scope) -> Scope:
        return Scope(self.columns + other.columns, self.rows + other.rows)


@dataclass
class Expressions:
    """Makes expressions.

    Attributes:
        choices: Where chance comes from.
        parallel: Only functions that parallel plans allow.
        as_reader: The statement runs as `generated_reader`.
        flat: Nothing with a query of its own, and no constant where a column can stand: a call of constants is
            computed beforehand with batching, and so the conditions cost, and are ordered, differently.
        parameters: SQL type of each parameter of a prepared statement; None where there are none.
    """

    choices: Choices
    parallel: bool = False
    as_reader: bool = False
    flat: bool = False
    parameters: list[str] | None = None
    _aliases: int = 0

    def alias(self) -> str:
        """A name that was not used before."""
        self._aliases += 1
        return f"r{self._aliases}"

    def relation(self) -> tuple[str, str, Scope, Relation]:
        """A relation: how it is written, its alias, what it brings into scope."""
        groups = (OPEN, GUARDED) if not self.as_reader else (GUARDED, OPEN)
        group = groups[1] if self.choices.chance(30) else groups[0]
        if self.parallel:  # the other functions have no parallel plan
            group = tuple(relation for relation in group if not relation.calls)
        relation = self.choices.pick(group)
        alias = self.alias()
        sql = relation.sql.format(self.choices.below(4))
        columns = tuple((f"{alias}.{name}", type_) for name, type_ in relation.columns)
        has_id = any(name == "id" for name, _ in relation.columns)
        return f"{sql} AS {alias}", alias, Scope(columns, (alias,) if has_id else ()), relation

    # -- values

    def value(self, scope: Scope, kind: str, depth: int = 2) -> str:
        """An expression of a type."""
        makers = {
            "text": self.text,
            "int": self.number,
            "bool": self.condition,
            "text[]": self.texts,
            "pair": self.pair,
        }
        return makers[kind](scope, depth)

    def call(self, scope: Scope, depth: int) -> str:
        """A call of a batched function that returns text."""
        names = (
            ("psafe", "psafe", "prestricted")
            if self.parallel
            else ("word", "word", "word", "strictly", "leak", "leak", "label")
        )
        name = self.choices.pick(names)
        if name == "label":
            kind = self.choices.pick(("int", "bool", "text[]", "pair", "text"))
            value = self.value(scope, kind, min(depth - 1, 1))
            return f"label({'(' + value + ')::text' if kind == 'text' else value}, {self.number(scope, 0)})"
        text, number = self.text(scope, depth - 1), self.number(scope, min(depth - 1, 1))
        if name == "word" and self.choices.chance(15):
            return f"(({text}) <~> ({number}))"
        return f"{name}({text}, {number})"

    def text(self, scope: Scope, depth: int = 2) -> str:
        """A text."""
        make, chance = self.choices.make, self.choices.chance
        columns = scope.of("text")

        def simple() -> str:
            if columns and (self.flat or not chance(8)):
                return self.choices.pick(columns)
            if self.parameters is not None and chance(60):
                return self.parameter("text")
            return self.choices.pick(("'lit'::text", "'K'::text", "NULL::text", "'v1'::text"))

        if depth <= 0:
            return simple()

        def one() -> str:
            return self.text(scope, depth - 1)

        def call() -> str:
            return self.call(scope, depth)

        def number() -> str:
            return self.number(scope, depth - 1)

        def sublink() -> str:
            relation, _, inner = self._inner(scope)
            aggregate = self.choices.pick(("max", "min"))
            rows = f"SELECT {self.text(inner, depth - 1)} AS m FROM {relation} {self._where(inner, depth - 1)}"
            return f"(SELECT {aggregate}(m) FROM ({rows}) AS {self.alias()})"

        def first() -> str:
            relation, _, inner = self._inner(scope)
            shown = self.text(inner, depth - 1)
            return f"(SELECT {shown} FROM {relation} {self._where(inner, depth - 1)} ORDER BY {shown} LIMIT 1)"

        def looped() -> str:
            return f"(SELECT max(m) FROM run('SELECT word(t, 1) FROM b WHERE id < 9') AS m WHERE m > {one()})"

        def gathered() -> str:
            return f"array_to_string(ARRAY(SELECT {call()} ORDER BY 1), '+')"

        def bare() -> str:
            return f"(SELECT {self.choices.pick((call, one))()}{self.choices.pick(('', '', ' LIMIT 1'))})"

        def elements() -> str:
            item = self.alias()
            inner = Scope(((item, "text"), *scope.columns), scope.rows)
            shown = self.choices.pick((f"max({item})", f"string_agg({item}, '+' ORDER BY {item})", "count(*)::text"))
            return f"(SELECT {shown} FROM {self._elements(scope, item)} {self._where(inner, depth - 1)})"

        queries: tuple[Maker, ...] = (sublink, first, gathered, call if self.parallel else looped, bare, bare, elements)
        return make(
            (
                simple,
                call,
                call,
                lambda: f"coalesce({one()}, {call()})",
                lambda: f"nullif({call()}, {one()})",
                lambda: f"upper({call()}) || {one()}",
                lambda: f"CASE WHEN {self.condition(scope, depth - 1)} THEN {call()} ELSE {one()} END",
                lambda: f"CASE {number()} WHEN 1 THEN {call()} WHEN {number()} THEN {one()} END",
                lambda: f"CASE {one()} WHEN {call()} THEN {one()} ELSE {call()} END",
                lambda: self._case_over_arrays(scope, depth),
                lambda: f"greatest({one()}, {call()})",
                lambda: f"({self.texts(scope, depth - 1)})[{number()}]",
                lambda: f"({call()})::varchar(6)",
                lambda: f"({call()})::plain_text",
                lambda: f"shout({one()})" if not self.parallel else call(),
                lambda: f"({self.pair(scope, depth - 1)}).y",
                lambda: f"array_to_string({self.texts(scope, depth - 1)}, ',', '-')",
                lambda: f"({number()})::text",
                *(queries if not self.flat else ()),
            )
        )

    def number(self, scope: Scope, depth: int = 1) -> str:
        """A small integer."""
        columns = scope.of("int")

        def simple() -> str:
            if columns and (self.flat or not self.choices.chance(25)):
                return self.choices.pick(columns)
            if self.parameters is not None and self.choices.chance(50):
                return self.parameter("int")
            return str(self.choices.below(5))

        if depth <= 0:
            return simple()

        def measured() -> str:
            text = self.text(scope, depth - 1)
            return f"length({text})" if self.parallel else f"measure({text}, {self.number(scope, depth - 1)})"

        def volatile() -> str:
            return f"vol({self.number(scope, depth - 1)})"

        def counted() -> str:
            relation, _, inner = self._inner(scope)
            return f"(SELECT count(*)::int FROM {relation} {self._where(inner, depth - 1)})"

        queries: tuple[Maker, ...] = (counted, volatile)
        return self.choices.make(
            (
                simple,
                simple,
                measured,
                measured,
                lambda: f"length({self.call(scope, depth)})",
                lambda: f"coalesce({self.number(scope, depth - 1)}, {measured()})",
                lambda: f"({self.number(scope, depth - 1)} % 3)",
                lambda: f"cardinality({self.texts(scope, depth - 1)})",
                lambda: f"({self.pair(scope, depth - 1)}).x",
                lambda: f"CASE WHEN {self.condition(scope, depth - 1)} THEN {measured()} ELSE 1 END",
                *(queries if not self.flat else ()),
            )
        )

    def texts(self, scope: Scope, depth: int = 1) -> str:
        """An array of texts."""
        columns = scope.of("text[]")
        simple = self.choices.pick(columns) if columns else "'{v1,NULL,v2}'::text[]"
        if self.flat and not columns:
            simple = f"ARRAY[{self.text(scope, 0)}]"
        if depth <= 0:
            return simple
        return self.choices.make(
            (
                lambda: simple,
                lambda: f"ARRAY[{self.text(scope, depth - 1)}, {self.call(scope, depth)}]",
                lambda: f"({simple})[{self.number(scope, depth - 1)}:{self.number(scope, depth - 1)}]",
                lambda: f"({simple})::varchar(2)[]::text[]",
                lambda: f"array_append({simple}, {self.call(scope, depth)})",
                lambda: f"(ARRAY[{self.call(scope, depth)}, {self.text(scope, depth - 1)}]::varchar(3)[])::text[]",
                lambda: f"CASE WHEN {self.condition(scope, depth - 1)} THEN {simple} END",
            )
        )

    def pair(self, scope: Scope, depth: int = 1) -> str:
        """A composite value."""
        columns = scope.of("pair")
        x, y = self.number(scope, depth - 1), self.text(scope, depth - 1)
        made = [lambda: f"ROW({x}, {y})::pair"]
        if columns:
            made.append(lambda: self.choices.pick(columns))
        if not self.parallel:
            made.append(lambda: f"paired({y}, {x})")
        return self.choices.make(made)

    # -- conditions

    def condition(self, scope: Scope, depth: int = 2) -> str:
        """A condition."""
        simple = self.choices.make(
            (
                lambda: f"{self.number(scope, 0)} > {self.choices.below(40)}",
                lambda: f"{self.number(scope, 0)} IS NOT NULL",
                lambda: f"{self._asked(scope)} LIKE '%{self.choices.below(10)}%'",
                lambda: self._passes(scope),
                lambda: self._passes(scope),
                lambda: f"tell({self.text(scope, 0)})" if not self.parallel else "true",
                lambda: f"{self.call(scope, 1)} IS NOT NULL",
            )
        )
        if depth <= 0:
            return simple

        def deeper() -> str:
            return self.condition(scope, depth - 1)

        def one() -> str:
            return self.text(scope, depth - 1)

        def sublink() -> str:
            return self._sublink(scope, depth)

        queries: tuple[Maker, ...] = (sublink,) * (
            6 if self.parallel else 2
        )  # a worker's subquery is a place of its own
        return self.choices.make(
            (
                lambda: simple,
                lambda: simple,
                lambda: f"{simple} AND {self._atom(deeper())}",
                lambda: f"({simple} OR {deeper()})",
                lambda: f"NOT {self._atom(deeper())}",
                lambda: f"CASE WHEN {simple} THEN {deeper()} ELSE true END",
                lambda: f"{self._atom(deeper())} IS NOT FALSE",
                lambda: f"{one()} = {self.call(scope, depth)}",
                lambda: f"{one()} IS DISTINCT FROM {one()}",
                lambda: f"{one()} <> {one()}",
                lambda: f"{self.number(scope, depth - 1)} BETWEEN {self.number(scope, depth - 1)} AND 9",
                lambda: f"{one()} = ANY ({self.texts(scope, depth - 1)})",
                lambda: f"{one()} <> ALL (ARRAY[{one()}, {self.call(scope, depth)}])",
                lambda: f"{one()} IN ({self.call(scope, depth)}, 'word 1-1', {one()})",
                lambda: f"ROW({self.number(scope, 0)}, {one()}) < ROW(2, {one()})",
                lambda: f"({self.pair(scope, depth - 1)}) IS NOT NULL",
                lambda: f"slow({self.number(scope, 0)})" if not self.parallel else simple,
                *(queries if not self.flat else ()),
            )
        )

    def _elements(self, scope: Scope, item: str) -> str:
        """What can stand in the FROM of a subquery and calls functions of the row at hand."""
        return self.choices.make(
            (
                lambda: f"unnest({self.texts(scope, 2)}) AS {item}",
                lambda: f"unnest({self.texts(scope, 2)}) AS {item}",
                lambda: f"(VALUES ({self.call(scope, 1)}), ({self.text(scope, 1)})) AS v{item} ({item})",
                lambda: f"(SELECT {self.call(scope, 1)} AS {item} OFFSET 0) AS v{item}",
                lambda: f"coalesce({self.call(scope, 1)}, 'none') AS {item}",
            )
        )

    def _sublink(self, scope: Scope, depth: int) -> str:
        if self.choices.chance(25):
            item = self.alias()
            where = self._where(Scope(((item, "text"), *scope.columns), scope.rows), depth - 1)
            elements = f"{self._elements(scope, item)} {where}"
            return self.choices.pick(
                (
                    f"EXISTS (SELECT FROM {elements})",
                    f"NOT EXISTS (SELECT FROM {elements})",
                    f"{self.text(scope, 0)} IN (SELECT {item} FROM {elements})",
                    f"{self.text(scope, 0)} NOT IN (SELECT {item} FROM {elements})",
                    f"{self.call(scope, 1)} > ALL (SELECT {item} FROM {elements})",
                    f"cardinality(ARRAY(SELECT {item} FROM {elements})) > 1",
                )
            )
        relation, _, inner = self._inner(scope, correlated=self.choices.chance(25 if self.parallel else 60))
        where = self._where(inner, depth - 1)
        text = self.text(scope, depth - 1)
        return self.choices.make(
            (
                lambda: f"EXISTS (SELECT FROM {relation} {where})",
                lambda: f"NOT EXISTS (SELECT FROM {relation} {where})",
                lambda: f"{self.number(scope, 0)} IN (SELECT {self.number(inner, 0)} FROM {relation} {where})",
                lambda: f"{text} IN (SELECT {self.text(inner, depth - 1)} FROM {relation} {where})",
                lambda: f"{text} NOT IN (SELECT {self.text(inner, depth - 1)} FROM {relation} {where})",
                lambda: f"{text} > ALL (SELECT {self.text(inner, depth - 1)} FROM {relation} {where})",
                lambda: f"{text} < ANY (SELECT {self.text(inner, depth - 1)} FROM {relation} {where})",
                lambda: (
                    f"({self.number(scope, 0)}, {text}) IN"
                    f" (SELECT {self.number(inner, 0)}, {self.text(inner, depth - 1)} FROM {relation} {where})"
                ),
            )
        )

    # -- parts

    def _inner(self, scope: Scope, *, correlated: bool = True) -> tuple[str, str, Scope]:
        """A relation of a sublink, and what is in scope there."""
        relation, alias, inner, _ = self.relation()
        return relation, alias, inner + scope if correlated else inner

    def _where(self, inner: Scope, depth: int) -> str:
        parts = []
        numbers = inner.of("int")
        if len(numbers) > 1 and not self.choices.chance(30):
            parts.append(f"{numbers[0]} = {self.choices.pick(numbers[1:])}")
        if self.choices.chance(60):
            parts.append(self._atom(self.condition(inner, depth)))
        return "WHERE " + " AND ".join(parts) if parts else ""

    def _asked(self, scope: Scope) -> str:
        return self.call(scope, 1)

    def _passes(self, scope: Scope) -> str:
        if self.parallel or not scope.rows:
            return f"{self.call(scope, 1)} >= 'p'"
        return f"passes({self.choices.pick(scope.rows)}, {self.choices.below(4) + 2})"

    def _case_over_arrays(self, scope: Scope, depth: int) -> str:
        array = self.texts(scope, depth - 1)
        return self.choices.make(
            (
                lambda: f"CASE {array} WHEN {array}::varchar(2)[]::text[] THEN {self.call(scope, depth)} ELSE 'no' END",
                lambda: (
                    f"CASE {self.number(scope, 0)} WHEN cardinality({array}::varchar(2)[])"
                    f" THEN {self.call(scope, depth)} ELSE 'no' END"
                ),
                lambda: (
                    f"CASE {self.text(scope, 0)}::varchar(4) WHEN {self.call(scope, depth)}::plain_text THEN 'is'"
                    f" ELSE {self.call(scope, depth)} END"
                ),
            )
        )

    def parameter(self, kind: str) -> str:
        """A parameter of that type."""
        assert self.parameters is not None
        self.parameters.append(kind)
        return f"${len(self.parameters)}"

    @staticmethod
    def _atom(condition: str) -> str:
        return f"({condition})"
