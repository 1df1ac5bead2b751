"""What is done with a query, and the settings under which it is done: from a seed, a case."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.generated.choices import Choices
from tests.generated.expressions import Expressions, Scope
from tests.generated.queries import Queries, Query

# A setting, how many of a hundred cases have it, the values it has there.
SETTINGS: tuple[tuple[str, int, tuple[str, ...]], ...] = (
    ("pg_bridge.window_rows", 40, ("7", "1", "2", "33")),
    ("enable_hashjoin", 25, ("off",)),
    ("enable_mergejoin", 20, ("off",)),
    ("enable_nestloop", 20, ("off",)),
    ("enable_hashagg", 20, ("off",)),
    ("enable_sort", 15, ("off",)),
    ("enable_incremental_sort", 10, ("off",)),
    ("enable_material", 15, ("off",)),
    ("enable_memoize", 10, ("off",)),
    ("enable_seqscan", 20, ("off",)),
    ("enable_indexscan", 20, ("off",)),
    ("enable_bitmapscan", 15, ("off",)),
    ("enable_indexonlyscan", 10, ("off",)),
    ("enable_partitionwise_join", 15, ("on",)),
    ("enable_partitionwise_aggregate", 15, ("on",)),
    ("plan_cache_mode", 30, ("force_generic_plan", "force_custom_plan")),
    ("work_mem", 10, ("64kB",)),
    ("join_collapse_limit", 10, ("1",)),
    ("from_collapse_limit", 5, ("1",)),
    ("geqo_threshold", 5, ("2",)),
    ("cursor_tuple_fraction", 10, ("1.0", "0.001")),
)
JIT = {"jit": "on", "jit_above_cost": "0", "jit_inline_above_cost": "-1", "jit_optimize_above_cost": "-1"}
PARALLEL = {
    "parallel_tuple_cost": "0",
    "min_parallel_table_scan_size": "0",
    "max_parallel_workers_per_gather": "2",
}
LITERALS = {"text": ("'Word 1'", "'v1'", "NULL", "''", "'WORD 2'"), "int": ("0", "1", "3", "NULL", "7")}


@dataclass(frozen=True)
class Case:
    """Statements that must do the same with batching on and off.

    Attributes:
        settings: What is set before them, name to value; `debug_parallel_query` has its old name before 16.
        role: Who runs them.
        steps: The statements.
        ordered: The order of rows is part of the answer.
        together: The rows of all steps are one answer: that of a cursor.
        prepare: Run before each side, while batching is off.
        counted: No more calls may be made with batching than without.
    """

    settings: dict[str, str]
    role: str
    steps: tuple[str, ...]
    ordered: bool = False
    together: bool = False
    prepare: str = ""
    counted: bool = False


@dataclass
class Statements:
    """Makes cases.

    Attributes:
        choices: Where chance comes from.
    """

    choices: Choices

    def case(self) -> Case:
        """Any case."""
        choices = self.choices
        settings = {name: choices.pick(values) for name, percent, values in SETTINGS if choices.chance(percent)}
        settings |= JIT if choices.chance(1) else {"jit": "off"}  # it compiles for longer than all else takes
        parallel = choices.chance(6)
        if parallel:
            # Free workers go into every subquery; dear ones above it, so that the subquery is a worker's.
            settings |= PARALLEL | {"parallel_setup_cost": choices.pick(("0", "300"))}
        if choices.chance(3) or parallel:
            settings["debug_parallel_query"] = choices.pick(("on", "off", "regress"))
        reader = choices.chance(40)
        self.expressions = Expressions(choices, parallel=parallel, as_reader=reader)
        self.queries = Queries(self.expressions)
        case = choices.make(
            (
                *[self.select] * 9,
                *[self.flat] * 3,
                *[self.prepared] * 3,
                *[self.cursor] * 2,
                self.scrolled,
                self.explained,
                self.looped,
                self.stored,
                *[self.locking] * 2,
                self.current_of,
                self.insert,
                self.update,
                self.delete,
                self.merge,
                self.modifying_cte,
                *[self.sequences] * 2,
            )
        )
        return replace(case, settings=settings, role="generated_reader" if reader else "postgres")

    # -- reading

    def select(self) -> Case:
        """The query alone."""
        query = self.queries.query()
        return _case(query.sql, ordered=query.ordered)

    def flat(self) -> Case:
        """A table, conditions and values: whose calls can be counted, for nothing may end before its last row."""
        self.expressions.flat = True
        relation, _, scope, what = self.expressions.relation()
        values, _ = self.queries.shown(scope)
        where = " AND ".join(f"({self.expressions.condition(scope)})" for _ in range(self.choices.below(3) + 1))
        return _case(f"SELECT {', '.join(values)} FROM {relation} WHERE {where}", counted=what.kind == "table")

    def explained(self) -> Case:
        """EXPLAIN changes nothing and does not fail."""
        query = self.queries.query()
        options = self.choices.pick(("VERBOSE", "VERBOSE, COSTS OFF", "ANALYZE, VERBOSE, TIMING OFF"))
        hidden = f"DO $explain$ BEGIN EXECUTE $q$EXPLAIN ({options}) {query.sql}$q$; END $explain$"
        return _case(hidden, query.sql, ordered=query.ordered)

    def prepared(self) -> Case:
        """A prepared statement with parameters, executed some times, prepared before or after the switch."""
        self.expressions.parameters = []
        query = self.queries.query()
        kinds = self.expressions.parameters
        prepare = f"PREPARE q ({', '.join(kinds)}) AS {query.sql}" if kinds else f"PREPARE q AS {query.sql}"
        calls = []
        for _ in range(self.choices.pick((1, 2, 3, 7))):
            values = ", ".join(self.choices.pick(LITERALS[kind]) for kind in kinds)
            calls.append(f"EXECUTE q({values})" if kinds else "EXECUTE q")
        if self.choices.chance(50):
            return _case(*calls, ordered=query.ordered, prepare=prepare)
        return _case(prepare, *calls, "DEALLOCATE q", ordered=query.ordered)

    def cursor(self) -> Case:
        """A cursor that is read forward, to its end."""
        query = self.queries.query()
        hold = self.choices.chance(40)
        declare = (
            f"DECLARE c {self.choices.pick(('', 'NO SCROLL '))}CURSOR {'WITH HOLD ' if hold else ''}FOR {query.sql}"
        )
        fetches = [f"FETCH {self.choices.below(9)} FROM c" for _ in range(self.choices.below(3))]
        end = ["COMMIT", "FETCH 2 FROM c", "FETCH ALL FROM c", "CLOSE c"] if hold else ["FETCH ALL FROM c", "COMMIT"]
        return _case("BEGIN", declare, *fetches, *end, ordered=query.ordered, together=True)

    def scrolled(self) -> Case:
        """A cursor that is read forward and backward."""
        query = self.queries.query()
        hold = self.choices.pick(("", "WITH HOLD "))
        ordered = f"SELECT * FROM ({query.sql}) AS shown ORDER BY {_all(query)}"
        moves = (
            "NEXT",
            "PRIOR",
            "FORWARD 5",
            "BACKWARD 3",
            "FIRST",
            "LAST",
            "ABSOLUTE 4",
            "RELATIVE -2",
            "ABSOLUTE -3",
        )
        fetches = [f"FETCH {self.choices.pick(moves)} FROM c" for _ in range(self.choices.below(6) + 1)]
        return _case("BEGIN", f"DECLARE c SCROLL CURSOR {hold}FOR {ordered}", *fetches, "COMMIT", ordered=True)

    def looped(self) -> Case:
        """Rows that PL/pgSQL loops over."""
        query = self.queries.query()
        return _case(f"SELECT * FROM run($run${query.sql}$run$)", ordered=query.ordered)

    def stored(self) -> Case:
        """CREATE TABLE AS."""
        query = self.queries.query()
        return _case("BEGIN", f"CREATE TEMP TABLE stored AS {query.sql}", "SELECT * FROM stored", "ROLLBACK")

    def sequences(self) -> Case:
        """What depends on how often, and in which order, volatile functions are called."""
        expressions, choices = self.expressions, self.choices
        table = choices.pick(("a", "b", "p", "d", "secret", "vault"))
        scope = Scope(((f"{table}.id", "int"), (f"{table}.t", "text")), (table,))
        where = f"WHERE {expressions.condition(scope, 0)}" if choices.chance(50) else ""
        call, name = expressions.call(scope, 1), "psafe" if expressions.parallel else "word"
        query = choices.pick(
            (
                f"SELECT nextval('s1'), {name}('x', currval('s1')::int), {table}.id FROM {table} {where}",
                f"SELECT {name}({table}.t, nextval('s2')::int), {call} FROM {table} {where}",
                f"SELECT nextval('s1'), {call}, currval('s1') FROM {table} {where} ORDER BY {table}.id",
                f"SELECT nextval('s1'), {call} FROM {table} {where} ORDER BY {table}.id LIMIT 5",
                f"SELECT {table}.id, {call} FROM {table} {where} ORDER BY {table}.id LIMIT nextval('s1') + 2",
                f"SELECT {table}.id, {call} FROM {table} {where} ORDER BY {table}.id OFFSET nextval('s1') LIMIT 3",
                f"SELECT count(*), max({call}) FROM {table} WHERE nextval('s2') % 3 <> 0",
                f"SELECT nextval('s1') AS n, {call} AS w FROM {table} {where} ORDER BY w, {table}.id",
                f"SELECT CASE WHEN nextval('s1') % 2 = 0 THEN {call} ELSE {name}('y', 1) END FROM {table} {where}",
                f"SELECT generate_series(1, 2), nextval('s1'), {call} FROM {table} {where} ORDER BY {table}.id",
                f"SELECT (SELECT {name}({table}.t, nextval('s1')::int)), {call} FROM {table} {where}",
            )
        )
        return _case(query)

    # -- locking and changing

    def locking(self) -> Case:
        """FOR UPDATE and its kin; another session has rows of `locked` locked."""
        expressions, choices = self.expressions, self.choices
        how = choices.pick(
            ("FOR UPDATE", "FOR UPDATE SKIP LOCKED", "FOR SHARE SKIP LOCKED", "FOR NO KEY UPDATE", "FOR KEY SHARE")
        )
        tables = ("a", "d", "b", "p", "i", "secret", "vault", "psecret") + (("locked",) * 4 if "SKIP" in how else ())
        one, two = choices.pick(tables), choices.pick(tables)
        scope = Scope((("x.id", "int"), ("x.t", "text")), ("x",))
        source, of = f"{one} AS x", ""
        if choices.chance(40):
            source = f"{one} AS x JOIN {two} AS y ON {choices.pick(('x.id = y.id', 'x.t = y.t', 'x.id = y.id + 1'))}"
            scope = scope + Scope((("y.id", "int"), ("y.t", "text")), ("y",))
            of = choices.pick(("", " OF x", " OF y"))
        mode, _, wait = how.partition(" SKIP")
        values, _ = self.queries.shown(scope)
        where = f" WHERE {expressions.condition(scope, 2)}" if choices.chance(60) else ""
        listed = ", ".join(f"{value} AS c{n}" for n, value in enumerate(values, 1))
        limit = f" LIMIT {choices.below(9) + 1}" if choices.chance(40) else ""
        order = f" ORDER BY {', '.join(sql for sql, _ in scope.columns)}{limit}" if limit or choices.chance(40) else ""
        sql = f"SELECT {listed} FROM {source}{where}{order} {mode}{of}{' SKIP' + wait if wait else ''}"
        if choices.chance(20):
            sql = f"SELECT x.c1, {expressions.call(Scope((('x.c1::text', 'text'),)), 1)} FROM ({sql}) AS x"
        return _case("BEGIN", sql, "ROLLBACK")

    def current_of(self) -> Case:
        """WHERE CURRENT OF a cursor that locks."""
        scope = Scope((("d.id", "int"), ("d.t", "text")), ("d",))
        shown, where = self.expressions.text(scope, 1), self.expressions.condition(scope, 1)
        query = f"SELECT d.id, {shown} FROM d WHERE d.id > 9 OR {where}"
        steps = ("FETCH 1 FROM c", "UPDATE d SET g = g + 1 WHERE CURRENT OF c")
        return _case("BEGIN", f"DECLARE c CURSOR FOR {query} FOR UPDATE", *steps, *steps, "SELECT * FROM d", "ROLLBACK")

    def insert(self) -> Case:
        """INSERT … SELECT … RETURNING, with and without ON CONFLICT."""
        expressions = self.expressions
        query = self.queries.query()
        columns = [f"c{n}::text" for n in range(1, len(query.kinds) + 1)]
        first = self.choices.pick((1000, 10))
        shown = f"SELECT {first} + row_number() OVER (ORDER BY {_all(query)}), 1, {columns[-1]} FROM ({query.sql}) AS s"
        scope = Scope((("d.t", "text"), ("d.id", "int")))
        both = Scope((("excluded.t", "text"), ("d.t", "text"), ("d.id", "int")))
        conflict = self.choices.pick((f"DO UPDATE SET t = {expressions.call(both, 1)}", "DO NOTHING"))
        returning = f"RETURNING d.id, {expressions.text(scope, 1)}"
        return self._changing(f"INSERT INTO d (id, g, t) {shown} ON CONFLICT (id) {conflict} {returning}", "d")

    def update(self) -> Case:
        """UPDATE, with and without FROM, RETURNING."""
        expressions, choices = self.expressions, self.choices
        table, scope = self._target()
        other, joined = "", ""
        if choices.chance(50):
            source, added = self._source()
            other, joined, scope = f" FROM {source}", "x.id = s.id AND ", scope + added
        value, where = f"left({expressions.text(scope, 2)}, 40)", expressions.condition(scope, 2)
        returning = f" RETURNING x.id, {expressions.text(scope, 1)}" if choices.chance(60) else ""
        what = f"t = {value}"
        if choices.chance(40):
            read = choices.pick(("", "", " FROM b AS more WHERE more.id = x.id"))
            what = f"(t, g) = (SELECT {value}, {expressions.number(scope, 2)} * 2 % 4{read})"  # seen by all
        return self._changing(f"UPDATE {table} AS x SET {what}{other} WHERE {joined}({where}){returning}", table)

    def delete(self) -> Case:
        """DELETE, with and without USING, RETURNING."""
        expressions, choices = self.expressions, self.choices
        table, scope = self._target()
        other, joined = "", ""
        if choices.chance(50):
            source, added = self._source()
            other, joined, scope = f" USING {source}", "x.id = s.id AND ", scope + added
        where = expressions.condition(scope, 2)
        returning = f" RETURNING x.id, {expressions.text(scope, 1)}" if choices.chance(60) else ""
        return self._changing(f"DELETE FROM {table} AS x{other} WHERE {joined}({where}){returning}", table)

    def merge(self) -> Case:
        """MERGE."""
        expressions = self.expressions
        source, added = self._source()
        scope = Scope((("x.id", "int"), ("x.g", "int"), ("x.t", "text")), ("x",)) + added
        value = f"left({expressions.text(scope, 1)}, 40)"
        matched = f"WHEN MATCHED AND {expressions.condition(scope, 1)} THEN UPDATE SET t = {value}"
        gone = f"WHEN MATCHED AND {expressions.condition(scope, 1)} THEN DELETE"
        new = f"WHEN NOT MATCHED AND {expressions.condition(added, 1)}"
        new += f" THEN INSERT (id, g, t) VALUES (s.id, 1, left({expressions.text(added, 1)}, 40))"
        return self._changing(f"MERGE INTO d AS x USING {source} ON x.id = s.id {matched} {gone} {new}", "d")

    def modifying_cte(self) -> Case:
        """What a data-modifying CTE returns."""
        table, scope = self._target()
        value = f"left({self.expressions.text(scope, 1)}, 40)"
        change = f"UPDATE {table} AS x SET t = {value} WHERE x.id < 20 RETURNING x.id, x.t"
        shown = Scope((("changed.id", "int"), ("changed.t", "text")), ("changed",))
        values, _ = self.queries.shown(shown)
        where = self.expressions.condition(shown, 1)
        return self._changing(
            f"WITH changed AS ({change}) SELECT {', '.join(values)} FROM changed WHERE {where}", table
        )

    def _target(self) -> tuple[str, Scope]:
        table = self.choices.pick(("d", "d", "p", "i", "secret", "vault", "guarded", "layered"))
        if table == "layered":
            table = "guarded"
        return table, Scope((("x.id", "int"), ("x.g", "int"), ("x.t", "text")), ("x",))

    def _source(self) -> tuple[str, Scope]:
        table = self.choices.pick(("a", "b", "secret", "vault", "judged"))
        if self.choices.chance(40):
            inner = Scope((("q.id", "int"), ("q.t", "text")), ("q",))
            shown = self.expressions.text(inner, 1)
            table = f"(SELECT q.id, {shown} AS t FROM {table} AS q WHERE {self.expressions.condition(inner, 1)})"
        return f"{table} AS s", Scope((("s.id", "int"), ("s.t", "text")), ("s",))

    def _changing(self, sql: str, table: str) -> Case:
        return _case("BEGIN", sql, f"SELECT * FROM {table}", "ROLLBACK")


def make_case(choices: Choices) -> Case:
    """The case that these choices lead to."""
    return Statements(choices).case()


def _case(*steps: str, ordered: bool = False, together: bool = False, prepare: str = "", counted: bool = False) -> Case:
    return Case({}, "postgres", steps, ordered, together, prepare, counted)


def _all(query: Query) -> str:
    return ", ".join(f"c{number}" for number in range(1, len(query.kinds) + 1))
