/*
 * call_inputs.c
 *	  What the input of a call is made of, for EXPLAIN: its columns, how wide they are, and how many values they have.
 *
 * In: an expression of a plan node. Out: JSON, which pg_bridge/plpython/estimates.py reads. Variables are followed down the
 * plan to the tables that they come from; whatever else a value depends on makes it one of which nothing is known. Of a
 * table's column is told what the view pg_stats would show to the current user, and no more: statistics are of all rows,
 * so of a table with row security nothing is.
 */
#include "batch_scan.h"
#include "foreign_scan.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/transam.h"
#include "catalog/pg_class.h"
#include "catalog/pg_statistic.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/plancat.h"
#include "parser/parsetree.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

/* A column of a table that stands in the range table of the plan. */
typedef struct Origin
{
	Index		table;
	AttrNumber	column;
	Plan	   *scan;			/* what reads it; NULL where several nodes do, or that is not known */
} Origin;

/* A column of an input. */
typedef struct InputColumn
{
	const char *name;
	Node	   *value;			/* of `plan`; NULL where it is the column of `origin` */
	Plan	   *plan;
	Origin		origin;
} InputColumn;

typedef struct Tracing
{
	List	   *rtable;
	Plan	   *plan;			/* of the expression at hand */
	List	   *origins;
	bool		lost;			/* something of it comes from nobody knows where */
} Tracing;

/* -- from a variable to a table */

/* The target list that a variable of a plan node points into, and whose it is; NIL where that is a table, or not known. */
static List *
target_list_of(Plan *plan, Var *var, Plan **below)
{
	*below = plan;
	if (var->varno == OUTER_VAR)
		*below = outerPlan(plan);
	else if (var->varno == INNER_VAR)
		*below = innerPlan(plan);
	else if (var->varno == INDEX_VAR)
	{
		switch (nodeTag(plan))
		{
			case T_CustomScan:
				return ((CustomScan *) plan)->custom_scan_tlist;
			case T_ForeignScan:
				return ((ForeignScan *) plan)->fdw_scan_tlist;
			case T_IndexOnlyScan:
				return ((IndexOnlyScan *) plan)->indextlist;
			default:
				return NIL;
		}
	}
	else if (IsA(plan, SubqueryScan) && ((SubqueryScan *) plan)->scan.scanrelid == var->varno)
		*below = ((SubqueryScan *) plan)->subplan;
	else
		return NIL;
	return *below ? (*below)->targetlist : NIL;
}

/* The whole row of a subquery, as an expression of its plan. */
static Node *
row_of_subquery(RangeTblEntry *subquery, List *columns)
{
	RowExpr    *row = makeNode(RowExpr);
	ListCell   *cell;

	foreach(cell, columns)
	{
		TargetEntry *entry = lfirst(cell);

		if (!entry->resjunk)
			row->args = lappend(row->args, entry->expr);
	}
	row->row_typeid = RECORDOID;
	row->colnames = subquery->eref->colnames;
	return (Node *) row;
}

/*
 * Follow a variable down to where its value is made: to an expression of `*plan`, which is returned, or to a table, or to
 * nowhere; then NULL is returned, and the origin's table is 0 in the latter case.
 */
static Node *
follow(List *rtable, Var *var, Plan **plan, Origin *origin)
{
	memset(origin, 0, sizeof(Origin));
	for (;;)
	{
		Plan	   *below;
		List	   *columns = target_list_of(*plan, var, &below);
		bool		is_scan = columns == NIL && !IS_SPECIAL_VARNO(var->varno);
		Index		table = is_scan ? var->varno : var->varnosyn;
		AttrNumber	column = is_scan ? var->varattno : var->varattnosyn;

		if (columns != NIL && var->varattno > 0 && var->varattno <= list_length(columns))
		{
			TargetEntry *entry = list_nth_node(TargetEntry, columns, var->varattno - 1);

			*plan = below;
			if (!IsA(entry->expr, Var))
				return (Node *) entry->expr;
			var = (Var *) entry->expr;
			continue;
		}
		if (columns != NIL && var->varattno == 0 && IsA(*plan, SubqueryScan) && !IS_SPECIAL_VARNO(var->varno))
		{
			*plan = below;
			return row_of_subquery(rt_fetch(var->varno, rtable), columns);
		}
		/* Above the scans of a table's parts a variable still tells which of the whole table's columns it is. */
		if (columns == NIL && table > 0 && table <= list_length(rtable) &&
			rt_fetch(table, rtable)->rtekind == RTE_RELATION)
		{
			origin->table = table;
			origin->column = column;
			origin->scan = is_scan ? *plan : NULL;
		}
		return NULL;
	}
}

static void
add_origin(Tracing *tracing, Origin *origin)
{
	Origin	   *copy = palloc(sizeof(Origin));

	*copy = *origin;
	tracing->origins = lappend(tracing->origins, copy);
}

static TupleDesc
columns_of_table(Oid relation)
{
	return lookup_rowtype_tupdesc_copy(get_rel_type_id(relation), -1);
}

/* Add the columns that a value is made of. */
static bool
trace(Node *node, void *context)
{
	Tracing    *tracing = context;

	check_stack_depth();
	if (node == NULL || tracing->lost)
		return false;
	if (IsA(node, Var))
	{
		Plan	   *plan = tracing->plan;
		Origin		origin;
		Node	   *made_of = follow(tracing->rtable, (Var *) node, &plan, &origin);

		if (made_of)
		{
			Plan	   *above = tracing->plan;

			tracing->plan = plan;
			tracing->lost |= contain_volatile_functions(made_of);
			trace(made_of, tracing);
			tracing->plan = above;
		}
		else if (origin.table == 0 || origin.column < 0)
			tracing->lost = true;
		else if (origin.column > 0)
			add_origin(tracing, &origin);
		else
		{
			TupleDesc	columns = columns_of_table(rt_fetch(origin.table, tracing->rtable)->relid);

			for (origin.column = 1; origin.column <= columns->natts; origin.column++)
				if (!TupleDescAttr(columns, origin.column - 1)->attisdropped)
					add_origin(tracing, &origin);
		}
		return false;
	}
	switch (nodeTag(node))
	{
		case T_Aggref:
		case T_GroupingFunc:
		case T_WindowFunc:
		case T_SubPlan:
		case T_AlternativeSubPlan:
			tracing->lost = true;
			return false;
		default:
			tracing->lost |= expression_returns_set(node);
			return expression_tree_walker(node, trace, tracing);
	}
}

/* -- the columns of an input */

static void
add_column(List **columns, const char *name, Node *value, Plan *plan, Origin *origin)
{
	InputColumn *column = palloc0(sizeof(InputColumn));

	column->name = name;
	column->value = value;
	column->plan = plan;
	if (origin)
		column->origin = *origin;
	*columns = lappend(*columns, column);
}

/* A key of jsonb_build_object(); NULL where it is no constant. */
static const char *
constant_key(Node *node)
{
	Const	   *constant = (Const *) node;

	if (!IsA(node, Const) || constant->constisnull)
		return NULL;
	if (constant->consttype == TEXTOID)
		return TextDatumGetCString(constant->constvalue);
	return constant->consttype == UNKNOWNOID ? DatumGetCString(constant->constvalue) : NULL;
}

static bool find_columns(List *rtable, Node *input, Plan *plan, List **columns);

/* The columns of what llm.row() puts side by side. */
static bool
find_columns_of_parts(List *rtable, List *parts, Plan *plan, List **columns)
{
	ListCell   *cell;

	foreach(cell, parts)
		if (!find_columns(rtable, lfirst(cell), plan, columns))
			return false;
	return true;
}

static bool
find_columns_of_function(List *rtable, FuncExpr *call, Plan *plan, List **columns)
{
	const char *name = get_func_name(call->funcid);
	const char *schema = get_namespace_name(get_func_namespace(call->funcid));
	int			i;

	if (name == NULL || schema == NULL)
		return false;
	if (strcmp(schema, "llm") == 0 && strcmp(name, "row") == 0 && !call->funcvariadic)
		return find_columns_of_parts(rtable, call->args, plan, columns);
	if (strcmp(schema, "pg_catalog") != 0)
		return false;
	if (strcmp(name, "to_json") == 0 || strcmp(name, "to_jsonb") == 0 || strcmp(name, "row_to_json") == 0)
		return find_columns(rtable, linitial(call->args), plan, columns);
	if ((strcmp(name, "json_build_object") != 0 && strcmp(name, "jsonb_build_object") != 0) || call->funcvariadic)
		return false;
	for (i = 0; i + 1 < list_length(call->args); i += 2)
	{
		const char *key = constant_key(list_nth(call->args, i));

		if (key == NULL)
			return false;
		add_column(columns, key, list_nth(call->args, i + 1), plan, NULL);
	}
	return true;
}

static bool
find_columns_of_row(RowExpr *row, Plan *plan, List **columns)
{
	TupleDesc	type = row->row_typeid == RECORDOID ? NULL : lookup_rowtype_tupdesc_copy(row->row_typeid, -1);
	ListCell   *cell;

	foreach(cell, row->args)
	{
		int			i = foreach_current_index(cell);

		if (type == NULL && i < list_length(row->colnames))
			add_column(columns, strVal(list_nth(row->colnames, i)), lfirst(cell), plan, NULL);
		else if (type && i < type->natts && !TupleDescAttr(type, i)->attisdropped)
			add_column(columns, NameStr(TupleDescAttr(type, i)->attname), lfirst(cell), plan, NULL);
		else if (type == NULL)
			return false;
	}
	return true;
}

/* Is a value of a type no JSON object, whatever it is? */
static bool
is_single_value(Oid type)
{
	Oid			base = getBaseType(type);

	return base != JSONOID && base != JSONBOID && !type_is_rowtype(base) &&
		(base < FirstNormalObjectId || type_is_enum(base));
}

/* Find out which columns a whole row, a JSON object or a single value has; false where that is not known. */
static bool
find_columns(List *rtable, Node *input, Plan *plan, List **columns)
{
	Origin		origin;
	TupleDesc	type;

	check_stack_depth();
	if (is_single_value(exprType(input)))
	{
		add_column(columns, "input", input, plan, NULL);	/* as in pg_bridge/rows/cutting.py */
		return true;
	}
	if (IsA(input, Const))
		return true;			/* an object that is the same for all calls, mostly the empty one of those without an input */
	if (IsA(input, Var))
	{
		input = follow(rtable, (Var *) input, &plan, &origin);
		if (input)
			return find_columns(rtable, input, plan, columns);
		if (origin.table == 0 || origin.column != 0)
			return false;
		type = columns_of_table(rt_fetch(origin.table, rtable)->relid);
		for (origin.column = 1; origin.column <= type->natts; origin.column++)
		{
			Form_pg_attribute column = TupleDescAttr(type, origin.column - 1);

			if (!column->attisdropped)
				add_column(columns, NameStr(column->attname), NULL, plan, &origin);
		}
		return true;
	}
	if (IsA(input, ConvertRowtypeExpr))
		return find_columns(rtable, (Node *) ((ConvertRowtypeExpr *) input)->arg, plan, columns);
	if (IsA(input, RowExpr))
		return find_columns_of_row((RowExpr *) input, plan, columns);
	return IsA(input, FuncExpr) && find_columns_of_function(rtable, (FuncExpr *) input, plan, columns);
}

/* -- what PostgreSQL's statistics tell */

/* May the current user know what is in all rows of a column? This is what pg_stats asks. */
bool
may_see_statistics(Oid relation, AttrNumber column)
{
	return (pg_attribute_aclcheck(relation, column, GetUserId(), ACL_SELECT) == ACLCHECK_OK ||
			pg_class_aclcheck(relation, GetUserId(), ACL_SELECT) == ACLCHECK_OK) &&
		check_enable_rls(relation, InvalidOid, true) != RLS_ENABLED;
}

/* The rows of a table, as the planner takes them; 0 where it does not know. */
static double
rows_of(Oid relation)
{
	Relation	table = table_open(relation, AccessShareLock);
	BlockNumber pages;
	double		rows;
	double		visible;

	/* Its rows are those of its parts; ANALYZE has counted them. */
	if (table->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
		rows = table->rd_rel->reltuples;
	else
		estimate_rel_size(table, NULL, &pages, &rows, &visible);
	table_close(table, NoLock);
	return Max(rows, 0);
}

/*
 * The rows of a table that calls are about: fewer than all where its scan has conditions of its own, for all of its loops.
 * Of a scan right below the node the calls' own number is known, and its own may count conditions in which went up.
 */
static double
rows_read(Origin *origin, double rows, Plan *plan, double calls)
{
	Plan	   *scan = origin->scan;

	if (scan == outerPlan(plan) && scan)
		return Min(calls, rows);
	if (scan == NULL || !bms_is_empty(scan->allParam) || scan->parallel_aware)
		return rows;
	return Min(scan->plan_rows, rows);
}

/* How many values has a column? 0 where nobody knows. */
static double
values_of(RangeTblEntry *entry, AttrNumber column, double rows)
{
	HeapTuple	statistics;
	double		values = 0;

	if (!may_see_statistics(entry->relid, column))
		return 0;
	statistics = SearchSysCache3(STATRELATTINH, ObjectIdGetDatum(entry->relid), Int16GetDatum(column),
								 BoolGetDatum(entry->inh));
	if (HeapTupleIsValid(statistics))
	{
		values = ((Form_pg_statistic) GETSTRUCT(statistics))->stadistinct;
		if (values < 0)
			values *= -rows;
		ReleaseSysCache(statistics);
	}
	return values == 0 && get_atttype(entry->relid, column) == BOOLOID ? 2 : values;
}

/* Append the columns that something is made of, and note their tables; null where that is not known. */
static void
append_origins(StringInfo request, Tracing *tracing, List **tables)
{
	const char *separator = "";
	ListCell   *cell;

	if (tracing->lost)
	{
		appendStringInfoString(request, "null");
		return;
	}
	appendStringInfoChar(request, '[');
	foreach(cell, tracing->origins)
	{
		Origin	   *origin = lfirst(cell);
		RangeTblEntry *entry = rt_fetch(origin->table, tracing->rtable);
		double		values = values_of(entry, origin->column, rows_of(entry->relid));

		appendStringInfo(request, "%s[%u, %d, ", separator, origin->table, origin->column);
		if (values > 0)
			appendStringInfo(request, "%.1f]", values);
		else
			appendStringInfoString(request, "null]");
		*tables = lappend(*tables, origin);
		separator = ", ";
	}
	appendStringInfoChar(request, ']');
}

static int32
width_of(Tracing *tracing, Node *value)
{
	int32		width = 0;

	if (value == NULL || IsA(value, Var))
	{
		Origin	   *origin = tracing->origins ? linitial(tracing->origins) : NULL;

		if (origin && list_length(tracing->origins) == 1)
			width = get_attavgwidth(rt_fetch(origin->table, tracing->rtable)->relid, origin->column);
	}
	return width;
}

static void
append_column(StringInfo request, List *rtable, InputColumn *column, List **tables)
{
	Tracing		tracing = {rtable, column->plan, NIL, false};
	int32		width;

	if (column->value)
		trace(column->value, &tracing);
	else
		add_origin(&tracing, &column->origin);
	width = width_of(&tracing, column->value);
	if (width <= 0 && column->value)
		width = get_typavgwidth(exprType(column->value), exprTypmod(column->value));
	else if (width <= 0)
	{
		Oid			type;
		int32		typmod;
		Oid			collation;

		get_atttypetypmodcoll(rt_fetch(column->origin.table, rtable)->relid, column->origin.column, &type, &typmod,
							  &collation);
		width = get_typavgwidth(type, typmod);
	}
	append_string(request, column->name);
	appendStringInfo(request, ": {\"width\": %d, \"made_of\": ", width);
	append_origins(request, &tracing, tables);
	appendStringInfoChar(request, '}');
}

/* Append the tables that columns come from, with their rows: all of them, and those that are read. */
static void
append_tables(StringInfo request, List *rtable, List *origins, Plan *plan, double calls)
{
	Bitmapset  *known = NULL;
	const char *separator = "";
	ListCell   *cell;

	appendStringInfoString(request, ", \"tables\": {");
	foreach(cell, origins)
	{
		Origin	   *origin = lfirst(cell);
		double		rows;

		if (bms_is_member(origin->table, known))
			continue;
		known = bms_add_member(known, origin->table);
		rows = rows_of(rt_fetch(origin->table, rtable)->relid);
		appendStringInfo(request, "%s\"%u\": [%.0f, %.0f]", separator, origin->table, rows,
						 rows_read(origin, rows, plan, calls));
		separator = ", ";
	}
	appendStringInfoChar(request, '}');
}

/*
 * Append to a request what calls are about.
 *
 *	  input			the row, object or value, or NULL
 *	  others		the other arguments that differ from row to row
 *	  plan			the node that evaluates them, for so many calls
 */
void
append_inputs(StringInfo request, List *rtable, Expr *input, List *others, Plan *plan, double calls)
{
	Tracing		besides = {rtable, plan, NIL, false};
	List	   *columns = NIL;
	List	   *tables = NIL;
	ListCell   *cell;

	if (input && !find_columns(rtable, (Node *) input, plan, &columns))
	{
		others = lappend(list_copy(others), input);
		appendStringInfo(request, ", \"width\": %d", outerPlan(plan)->plan_width);
	}
	else
	{
		appendStringInfoString(request, ", \"columns\": {");
		foreach(cell, columns)
		{
			if (cell != list_head(columns))
				appendStringInfoString(request, ", ");
			append_column(request, rtable, lfirst(cell), &tables);
		}
		appendStringInfoChar(request, '}');
	}
	trace((Node *) others, &besides);
	appendStringInfoString(request, ", \"besides\": ");
	append_origins(request, &besides, &tables);
	append_tables(request, rtable, tables, plan, calls);
}
