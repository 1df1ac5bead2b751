/*
 * foreign_plan.c
 *	  Planning a scan of a foreign table: its size, its paths, its plan.
 *
 * How many rows the source has and what a model's answers cost is asked of llm._foreign_size(). Answers dwarf all other
 * costs, so that a join asks about the rows that it leaves, wherever it can. There are up to three kinds of paths: the
 * source's rows as they come; in an order of the source's columns; and those that have the key which a join hands over.
 */
#include "foreign_scan.h"

#include <math.h>

#include "access/stratnum.h"
#include "access/sysattr.h"
#include "access/transam.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/paths.h"
#include "optimizer/planmain.h"
#include "optimizer/restrictinfo.h"
#include "parser/parsetree.h"
#include "utils/array.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/selfuncs.h"
#include "utils/snapmgr.h"
#include "utils/typcache.h"

#define STARTUP_COST 100.0		/* of a scan: a query of the source and a round trip to the engine */
#define ALONE 10.0				/* a question that is asked alone takes as long as so many that are asked together */
#define IN_WINDOWS 1.5			/* the same for those of a join on the key, of which the first windows are small */

/* What is known of a table while a statement is planned; stands in fdw_private of its RelOptInfo. */
typedef struct Planned
{
	List	   *quals;			/* ForeignQuals of the table's own restrictions, then those of joins on the key */
	List	   *joins;			/* RestrictInfos of joins on the key */
	double		asked;			/* rows about which a model is asked: conditions that only PostgreSQL knows come after */
	Cost		row_cost;		/* of one of them */
	List	   *sortable;		/* attribute numbers of columns that the source can sort by */
	bool		discreet;		/* nothing may be told of rows that the reader might not see */
} Planned;

static Oid
user_of(PlannerInfo *root, RelOptInfo *rel)
{
#if PG_VERSION_NUM >= 160000
	Oid			user = rel->userid;
#else
	Oid			user = planner_rt_fetch(rel->relid, root)->checkAsUser;
#endif

	return OidIsValid(user) ? user : GetUserId();
}

/* -- joins on the key */

static AttrNumber
key_of(Oid table)
{
	ListCell   *cell;

	foreach(cell, GetForeignTable(table)->options)
	{
		DefElem    *option = lfirst(cell);

		if (strcmp(option->defname, "key") == 0)
			return get_attnum(table, defGetString(option));
	}
	return InvalidAttrNumber;
}

static bool
is_key(PlannerInfo *root, RelOptInfo *rel, EquivalenceClass *class, EquivalenceMember *member, void *key)
{
	Var		   *column = column_of_table((Node *) member->em_expr, rel->relid);

	return column && column->varattno == *(AttrNumber *) key;
}

/* Find the join clauses that compare the key with something of other tables. */
static void
find_joins(PlannerInfo *root, RelOptInfo *rel, AttrNumber key, Planned *planned)
{
	List	   *candidates = NIL;
	ListCell   *cell;

	if (key <= 0)
		return;
	if (rel->has_eclass_joins)
		candidates = generate_implied_equalities_for_column(root, rel, is_key, &key, rel->lateral_referencers);
	foreach(cell, rel->joininfo)
	{
		if (join_clause_is_movable_to(lfirst(cell), rel))
			candidates = lappend(candidates, lfirst(cell));
	}
	foreach(cell, candidates)
	{
		ForeignQual *qual = make_foreign_qual(root, rel, lfirst(cell));

		if (qual == NULL || qual->column != key || strcmp(qual->operator, "=") != 0 || qual->value == NULL)
			continue;
		planned->joins = lappend(planned->joins, lfirst(cell));
		planned->quals = lappend(planned->quals, qual);
	}
}

/* -- size */

/*
 * The share of rows that satisfy conditions of which llm._foreign_size knows no value. The planner would evaluate a stable
 * function to tell; that is not done for an EXPLAIN, so such a condition is taken for one of its kind.
 */
static double
share_of(PlannerInfo *root, RelOptInfo *rel, List *conditions)
{
	List	   *immutable = NIL;
	double		share = 1;
	ListCell   *cell;

	foreach(cell, conditions)
	{
		RestrictInfo *rinfo = lfirst(cell);
		OpExpr	   *expr = (OpExpr *) rinfo->clause;

		if (!contain_mutable_functions((Node *) expr))
			immutable = lappend(immutable, rinfo);
		else if (IsA(expr, OpExpr) && get_oprrest(expr->opno) == F_EQSEL)
			share *= DEFAULT_EQ_SEL;
		else
			share *= DEFAULT_INEQ_SEL;
	}
	return share * clauselist_selectivity(root, immutable, rel->relid, JOIN_INNER, NULL);
}

static List *
needed_columns(PlannerInfo *root, RelOptInfo *rel, Oid table, Bitmapset *used)
{
	List	   *columns = NIL;
	bool		all = bms_is_member(0 - FirstLowInvalidHeapAttributeNumber, used);
	AttrNumber	column;

	for (column = 1; column <= rel->max_attr; column++)
		if ((all || bms_is_member(column - FirstLowInvalidHeapAttributeNumber, used)) &&
			OidIsValid(get_atttype(table, column)))	/* else it has been dropped */
			columns = lappend_int(columns, column);
	return columns;
}

static void
append_quals_to_plan(StringInfo request, Oid table, List *quals, List *joins, bool discreet)
{
	ListCell   *cell;
	const char *separator = "";

	appendStringInfoString(request, ", \"quals\": [");
	foreach(cell, quals)
	{
		ForeignQual *qual = lfirst(cell);

		appendStringInfoString(request, separator);
		append_qual(request, table, qual);
		if (list_member_ptr(joins, qual->rinfo))
			appendStringInfoString(request, ", \"join\": true");
		if (qual->value && IsA(qual->value, Const) && !((Const *) qual->value)->constisnull && !discreet)
			append_value(request, qual, ((Const *) qual->value)->constvalue);
		appendStringInfoChar(request, '}');
		separator = ", ";
	}
	appendStringInfo(request, "], \"discreet\": %s", discreet ? "true" : "false");
}

void
foreign_rel_size(PlannerInfo *root, RelOptInfo *rel, Oid table)
{
	Planned    *planned = palloc0(sizeof(Planned));
	Bitmapset  *used = NULL;
	List	   *later = NIL;	/* restrictions that are handed over, with values that are not known yet */
	List	   *own = NIL;		/* those that only PostgreSQL can apply */
	Oid			reader = user_of(root, rel);
	ForeignSource *source;
	StringInfoData request;
	Datum		values[5];
	bool		nulls[5];
	Identity	before;
	Datum	   *exact;
	int			count;
	ListCell   *cell;

	planned->discreet = !may_learn_of_all_rows(table, reader) || is_behind_barrier(root, rel, table);
	foreach(cell, rel->baserestrictinfo)
	{
		ForeignQual *qual = make_foreign_qual(root, rel, lfirst(cell));

		if (qual)
			planned->quals = lappend(planned->quals, qual);
		if (qual == NULL)
			own = lappend(own, lfirst(cell));
		else if (planned->discreet || (qual->value && !IsA(qual->value, Const)))
			later = lappend(later, lfirst(cell));
	}
	find_joins(root, rel, key_of(table), planned);
	pull_varattnos((Node *) rel->reltarget->exprs, rel->relid, &used);
	begin_request(&request, table);
	append_columns(&request, table, needed_columns(root, rel, table, used));
	append_quals_to_plan(&request, table, planned->quals, planned->joins, planned->discreet);
	appendStringInfoChar(&request, '}');

	source = new_source(owner_of(table), ActiveSnapshotSet() ? GetActiveSnapshot() : GetTransactionSnapshot());
	before = become(reader, 0);
	ask("_foreign_size", request.data, source, 5, values, nulls);
	close_source(source);
	resume(before);
	deconstruct_array(DatumGetArrayTypeP(values[3]), BOOLOID, 1, true, TYPALIGN_CHAR, &exact, NULL, &count);
	if (count != list_length(planned->quals))
		elog(ERROR, "llm._foreign_size told of %d of %d conditions", count, list_length(planned->quals));
	foreach(cell, planned->quals)
		((ForeignQual *) lfirst(cell))->exact = DatumGetBool(exact[foreach_current_index(cell)]);
	foreach(cell, strings_of(values[4]))
		planned->sortable = lappend_int(planned->sortable, get_attnum(table, lfirst(cell)));
	planned->row_cost = DatumGetFloat8(values[2]);

	rel->tuples = Max(DatumGetFloat8(values[0]), 1);
	planned->asked = clamp_row_est(rel->tuples * share_of(root, rel, later));
	rel->rows = clamp_row_est(planned->asked * share_of(root, rel, own));
	rel->reltarget->width = DatumGetInt32(values[1]);
	rel->fdw_private = planned;
}

/* -- paths */

static void
add_foreign_path(PlannerInfo *root, RelOptInfo *rel, double rows, List *pathkeys, Relids outer, List *sort,
				 bool joined)
{
	Planned    *planned = rel->fdw_private;
	double		price = joined ? (pg_bridge_batching ? IN_WINDOWS : ALONE) : 1;
	Cost		startup = (joined && pg_bridge_batching ? 0 : STARTUP_COST) + rel->baserestrictcost.startup;
	Cost		total;

	if (pathkeys)				/* sorting is cheap beside answering, but it is not nothing */
		startup += cpu_operator_cost * rows * Max(log2(Max(rows, 2)), 1);
	total = startup + (joined ? 1 : planned->asked) * (planned->row_cost * price + rel->baserestrictcost.per_tuple) +
		rows * cpu_tuple_cost;
	add_path(rel, (Path *) create_foreignscan_path(root, rel, NULL, rows,
#if PG_VERSION_NUM >= 180000
												   0,
#endif
												   startup, total, pathkeys, outer, NULL,
#if PG_VERSION_NUM >= 170000
												   NIL,
#endif
												   sort));
}

/* The key's order as the source can make it: (column, is descending, NULLs come first), or NIL. */
static List *
sort_key(RelOptInfo *rel, PathKey *pathkey)
{
	Planned    *planned = rel->fdw_private;
	EquivalenceClass *class = pathkey->pk_eclass;
	ListCell   *cell;

	if (class->ec_has_volatile)
		return NIL;
	foreach(cell, class->ec_members)
	{
		EquivalenceMember *member = lfirst(cell);
		Var		   *column = column_of_table((Node *) member->em_expr, rel->relid);
		Oid			type;

		if (column == NULL || !list_member_int(planned->sortable, column->varattno))
			continue;
		/* The type's own order, and of texts the one of the database. */
		type = exprType((Node *) member->em_expr);
		if (lookup_type_cache(type, TYPECACHE_BTREE_OPFAMILY)->btree_opf != pathkey->pk_opfamily ||
			(OidIsValid(class->ec_collation) && class->ec_collation != DEFAULT_COLLATION_OID))
			continue;
#if PG_VERSION_NUM >= 180000
		return list_make3_int(column->varattno, pathkey->pk_cmptype == COMPARE_GT, pathkey->pk_nulls_first);
#else
		return list_make3_int(column->varattno, pathkey->pk_strategy == BTGreaterStrategyNumber,
							  pathkey->pk_nulls_first);
#endif
	}
	return NIL;
}

static void
add_sorted_path(PlannerInfo *root, RelOptInfo *rel)
{
	List	   *pathkeys = NIL;
	List	   *sort = NIL;
	ListCell   *cell;

	foreach(cell, root->query_pathkeys)
	{
		List	   *key = sort_key(rel, lfirst(cell));

		if (key == NIL)
			break;				/* PostgreSQL sorts what is left, group by group */
		pathkeys = lappend(pathkeys, lfirst(cell));
		sort = lappend(sort, key);
	}
	if (sort)
		add_foreign_path(root, rel, rel->rows, pathkeys, rel->lateral_relids, sort, false);
}

void
foreign_paths(PlannerInfo *root, RelOptInfo *rel, Oid table)
{
	Planned    *planned = rel->fdw_private;
	List	   *done = NIL;		/* of Relids */
	ListCell   *cell;

	add_foreign_path(root, rel, rel->rows, NIL, rel->lateral_relids, NIL, false);
	add_sorted_path(root, rel);
	foreach(cell, planned->joins)
	{
		RestrictInfo *rinfo = lfirst(cell);
		Relids		outer = bms_del_member(bms_union(rinfo->clause_relids, rel->lateral_relids), rel->relid);
		ParamPathInfo *info;
		ListCell   *other;
		bool		is_new = true;

		foreach(other, done)
			is_new &= !bms_equal(lfirst(other), outer);
		if (bms_is_empty(outer) || !is_new)
			continue;
		done = lappend(done, outer);
		info = get_baserel_parampathinfo(root, rel, outer);
		info->ppi_rows = 1;		/* that is what a key is */
		add_foreign_path(root, rel, 1, NIL, outer, NIL, true);
	}
}

/* -- plan */

static bool
are_alike(ForeignQual *one, ForeignQual *other)
{
	return one->column == other->column && strcmp(one->operator, other->operator) == 0 &&
		strcmp(one->quantifier, other->quantifier) == 0 && one->collation == other->collation &&
		one->value && other->value && exprType((Node *) one->value) == exprType((Node *) other->value);
}

/*
 * The condition as it can be handed over, or NULL. The planner makes the clauses of a join anew for each path; whether
 * the source decides one does not depend on the value that the column is compared with.
 */
static ForeignQual *
find_qual(PlannerInfo *root, RelOptInfo *rel, RestrictInfo *rinfo)
{
	Planned    *planned = rel->fdw_private;
	ForeignQual *made;
	ListCell   *cell;

	foreach(cell, planned->quals)
		if (((ForeignQual *) lfirst(cell))->rinfo == rinfo)
			return lfirst(cell);
	made = make_foreign_qual(root, rel, rinfo);
	if (made == NULL)
		return NULL;
	foreach(cell, planned->quals)
		if (are_alike(lfirst(cell), made))
			made->exact = ((ForeignQual *) lfirst(cell))->exact;
	return made;
}

/*
 * Is a whole row needed only for EvalPlanQual? Then the columns do that the plan needs otherwise, for it will look at no
 * other. Without this, UPDATE … FROM and FOR UPDATE would have a model answer every column.
 */
static bool
whole_row_is_for_recheck(PlannerInfo *root, RelOptInfo *rel)
{
	Relids		needed_by = rel->attr_needed[0 - rel->min_attr];
	ListCell   *cell;
	bool		found = false;

	if (root->rowMarks == NIL || bms_membership(needed_by) != BMS_SINGLETON || !bms_is_member(0, needed_by))
		return false;
	foreach(cell, root->processed_tlist)
	{
		TargetEntry *entry = lfirst(cell);
		Bitmapset  *used = NULL;

		pull_varattnos((Node *) entry->expr, rel->relid, &used);
		if (!bms_is_member(0 - FirstLowInvalidHeapAttributeNumber, used))
			continue;
		if (!entry->resjunk || !IsA(entry->expr, Var) || entry->resname == NULL ||
			strncmp(entry->resname, "wholerow", strlen("wholerow")) != 0)
			return false;
		found = true;
	}
	return found;
}

/* What foreign_plan_of() reads. */
static List *
as_list(List *needed, List *quals, List *sort, int key, bool discreet, Takes takes)
{
	return lappend(list_make5(needed, quals, sort, makeInteger(key), makeInteger(discreet)), makeInteger(takes));
}

ForeignScan *
foreign_plan(PlannerInfo *root, RelOptInfo *rel, Oid table, ForeignPath *path, List *tlist, List *clauses,
			 Plan *outer_plan)
{
	List	   *quals = NIL;
	List	   *values = NIL;
	List	   *checked = NIL;	/* conditions that PostgreSQL applies to the rows that come out */
	List	   *rechecked = NIL;	/* those that it need not, but in EvalPlanQual */
	List	   *needed;
	Bitmapset  *used = NULL;
	int			whole_row = 0 - FirstLowInvalidHeapAttributeNumber;
	ListCell   *cell;

	foreach(cell, clauses)
	{
		RestrictInfo *rinfo = lfirst(cell);
		ForeignQual *qual = rinfo->pseudoconstant ? NULL : find_qual(root, rel, rinfo);

		if (rinfo->pseudoconstant)
			continue;
		if (qual)
		{
			quals = lappend(quals, qual);
			values = lappend(values, qual->value ? qual->value : (Expr *) makeBoolConst(true, false));
		}
		if (qual && qual->exact)
			rechecked = lappend(rechecked, rinfo->clause);
		else
			checked = lappend(checked, rinfo->clause);
	}
	pull_varattnos((Node *) rel->reltarget->exprs, rel->relid, &used);
	if (bms_is_member(whole_row, used) && whole_row_is_for_recheck(root, rel))
	{
		used = bms_del_member(used, whole_row);
		pull_varattnos((Node *) rechecked, rel->relid, &used);
	}
	pull_varattnos((Node *) checked, rel->relid, &used);
	needed = needed_columns(root, rel, table, used);
	check_barrier(root, rel, table, needed, quals);
	return make_foreignscan(tlist, checked, rel->relid, values,
							as_list(needed, quals_as_list(quals), path->fdw_private, -1,
									((Planned *) rel->fdw_private)->discreet, MAY_STOP),
							NIL, rechecked, outer_plan);
}

/* Is this a scan of a foreign table of ours? */
bool
is_foreign_scan(Plan *plan)
{
	return plan && IsA(plan, ForeignScan) && ((ForeignScan *) plan)->scan.scanrelid > 0 &&
		GetFdwRoutineByServerId(((ForeignScan *) plan)->fs_server)->GetForeignPlan == foreign_plan;
}

ForeignPlan *
foreign_plan_of(ForeignScan *scan)
{
	ForeignPlan *plan = palloc(sizeof(ForeignPlan));

	plan->needed = linitial(scan->fdw_private);
	plan->quals = quals_from_list(lsecond(scan->fdw_private), scan->fdw_exprs);
	plan->sort = lthird(scan->fdw_private);
	plan->key = intVal(lfourth(scan->fdw_private));
	plan->discreet = intVal(list_nth(scan->fdw_private, 4));
	plan->takes = intVal(list_nth(scan->fdw_private, 5));
	return plan;
}

/*
 * Note in a plan that the value of one of its quals will be known for many runs of the scan ahead, and have the qual's
 * column returned. False if that would not do: the qual must be an equality, of types whose values are_equal() knows how to
 * compare.
 */
bool
foreign_plan_can_look_ahead(ForeignScan *scan, int place, bool (*are_equal) (Oid, Oid, Oid))
{
	ForeignPlan *plan = foreign_plan_of(scan);
	ForeignQual *qual = list_nth(plan->quals, place);

	if (strcmp(qual->operator, "=") != 0 || qual->quantifier[0] ||
		!are_equal(qual->column_type, exprType((Node *) qual->value), qual->collation))
		return false;
	scan->fdw_private = as_list(list_append_unique_int(plan->needed, qual->column), lsecond(scan->fdw_private),
								plan->sort, place, plan->discreet, plan->takes);
	return true;
}

/* Note in a plan what is taken of the scan's rows. */
void
foreign_plan_tell(ForeignScan *scan, Takes takes)
{
	lfirst(list_nth_cell(scan->fdw_private, 5)) = makeInteger(takes);
}
