/*
 * clauses.c
 *	  Quals as the planner knows them: which hold calls, in which order they are evaluated, which columns they read.
 */
#include "batch_paths.h"

#include "nodes/nodeFuncs.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"

#if PG_VERSION_NUM >= 140000
#define varnos_of(root, node) pull_varnos(root, node)
#else
#define varnos_of(root, node) pull_varnos(node)
#endif

#define COLUMNS (PVC_RECURSE_AGGREGATES | PVC_RECURSE_WINDOWFUNCS | PVC_INCLUDE_PLACEHOLDERS)


/* Does a qual, which is not the same for all rows, hold a call that can be made ahead? */
bool
is_asked_ahead(RestrictInfo *clause)
{
	return !clause->pseudoconstant &&
		may_be_foreseen(planning_now->registry, planning_now->volatile_subqueries, (Node *) clause->clause);
}

bool
holds_asked_ahead(List *clauses)
{
	ListCell   *cell;

	foreach(cell, clauses)
		if (is_asked_ahead(lfirst(cell)))
			return true;
	return false;
}

static bool
crossing_walker(Node *node, void *root)
{
	if (node == NULL)
		return false;
	if (as_call(node, planning_now->registry) &&
		bms_membership(varnos_of((PlannerInfo *) root, node)) == BMS_MULTIPLE)
		return true;
	return expression_tree_walker(node, crossing_walker, root);
}

/*
 * Is a clause's call about several relations? Those of an equivalence class the planner makes as it needs them, and an
 * operator that is a call itself tells it how to hash or to merge what it compares.
 */
bool
is_crossing(PlannerInfo *root, RestrictInfo *clause)
{
	Node	   *expr = (Node *) clause->clause;

	if (clause->parent_ec || bms_membership(clause->clause_relids) != BMS_MULTIPLE)
		return false;
	if (OidIsValid(clause->hashjoinoperator) || clause->mergeopfamilies != NIL)
		expr = (Node *) ((OpExpr *) expr)->args;
	return crossing_walker(expr, root) && is_asked_ahead(clause);
}

bool
holds_crossing(PlannerInfo *root, List *clauses)
{
	ListCell   *cell;

	foreach(cell, clauses)
		if (is_crossing(root, lfirst(cell)))
			return true;
	return false;
}

List *
without_crossing(PlannerInfo *root, List *clauses)
{
	List	   *rest = NIL;
	ListCell   *cell;

	foreach(cell, clauses)
		if (!is_crossing(root, lfirst(cell)))
			rest = lappend(rest, lfirst(cell));
	return rest;
}

Place
place_of(PlannerInfo *root, RestrictInfo *clause)
{
	QualCost	cost;
	Place		place;

	cost_qual_eval_node(&cost, (Node *) clause, root);
	place.cost = cost.per_tuple;
	/* One that tells nobody anything may go before those that guard, if it is cheap. */
	place.level = clause->leakproof && cost.per_tuple < 10 * cpu_operator_cost ? 0 : clause->security_level;
	return place;
}

/* Clauses in the order in which the planner evaluates quals: by level, then by price. */
List *
in_order(PlannerInfo *root, List *clauses)
{
	List	   *ordered = NIL;
	ListCell   *cell;

	foreach(cell, clauses)
	{
		Place		place = place_of(root, lfirst(cell));
		int			number = list_length(ordered);

		while (number > 0)
		{
			Place		before = place_of(root, list_nth(ordered, number - 1));

			if (before.level < place.level || (before.level == place.level && before.cost <= place.cost))
				break;
			number--;
		}
		ordered = list_insert_nth(ordered, number, lfirst(cell));
	}
	return ordered;
}

/* Is a column that is computed among others? Which outer joins may have made it NULL since is noted in the one asked for. */
static bool
is_given(Expr *column, List *columns)
{
	ListCell   *cell;

	foreach(cell, columns)
	{
		Expr	   *given = lfirst(cell);

		if (IsA(column, PlaceHolderVar) && IsA(given, PlaceHolderVar) ?
			((PlaceHolderVar *) column)->phid == ((PlaceHolderVar *) given)->phid : equal(column, given))
			return true;
	}
	return false;
}

/* Does a relation hand on only columns that are its tables' or were computed below it? */
bool
computes_nothing(PathTarget *target, List *given)
{
	ListCell   *cell;

	foreach(cell, target->exprs)
		if (!IsA(lfirst(cell), Var) && !is_given(lfirst(cell), given))
			return false;
	return true;
}

/* Columns that are computed are placeholders, and what a subquery of a UNION ALL selects. */
static void
add_column(PathTarget *target, Expr *column, Relids relids, List *given)
{
	Node	   *computed = (Node *) column;
	ListCell   *cell;

	if (IsA(column, Var))
	{
		if (bms_is_member(((Var *) column)->varno, relids))
			add_new_column_to_pathtarget(target, column);
	}
	else if (is_given(column, given))
		add_new_column_to_pathtarget(target, column);
	else
	{
		if (IsA(column, PlaceHolderVar))
			computed = (Node *) ((PlaceHolderVar *) column)->phexpr;
		foreach(cell, pull_var_clause(computed, COLUMNS))
			add_column(target, lfirst(cell), relids, given);
	}
}

/*
 * The columns of a relation's twin: the relation's own, and those that the clauses read that it lacks. What the relation
 * computes for the nodes above it is computed for rows that have passed these clauses, so not by the twin; given are
 * the columns that are computed below it.
 */
PathTarget *
columns_below(PlannerInfo *root, PathTarget *target, List *waiting, Relids relids, List *given)
{
	PathTarget *below = create_empty_pathtarget();
	ListCell   *cell;
	ListCell   *column;

	foreach(column, target->exprs)
		add_column(below, lfirst(column), relids, given);
	foreach(cell, waiting)
		foreach(column, pull_var_clause((Node *) ((RestrictInfo *) lfirst(cell))->clause, COLUMNS))
			add_column(below, lfirst(column), relids, given);
	return set_pathtarget_cost_width(root, below);
}
