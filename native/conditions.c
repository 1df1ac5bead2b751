/*
 * conditions.c
 *	  The calls that PostgreSQL evaluates only under a condition.
 *
 * The branches of a CASE, what stands behind a false AND, the subscripts of what may be NULL: the calls in there get the
 * condition as their guard, and are made only for rows where it holds. The guards of several calls and the expression
 * itself evaluate the same condition; one that is dear (a subquery, say) becomes a column of the batch node, as a call
 * does, and is computed once. A condition that can't be computed beforehand leaves the calls behind it where they are.
 *
 * All else that PostgreSQL does not evaluate to the end (ROW (...) < ROW (...), XML and JSON constructors) is left alone
 * by foresee.c.
 */
#include "foresee.h"

#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "nodes/subscripting.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "utils/lsyscache.h"

/* As dear as a function in a procedural language, or has an effect that is counted. */
static bool
is_dear(Batch *batch, Node *node)
{
	QualCost	cost;

	if (contains_subplan(node) || contains_call(node, batch->registry))
		return true;
	cost_qual_eval_node(&cost, node, NULL);
	return cost.startup + cost.per_tuple >= 100 * cpu_operator_cost && cpu_operator_cost > 0;
}

/*
 * A value decides whether calls behind it are made. Their guards and the expression itself would compute it several
 * times; if that is dear it becomes a column, as a call does, and is computed once.
 */
static Expr *
computed_once(Foresight *foresight, Expr *value)
{
	if (foresight->blind || !may_go_ahead(foresight, (Node *) value) || !is_dear(foresight->batch, (Node *) value))
		return value;
	return (Expr *) column_of_value(foresight, value);
}

static void
add_guard(Foresight *foresight, Expr *condition, BoolTestType type)
{
	BooleanTest *test;

	if (foresight->blind || !may_go_ahead(foresight, (Node *) condition))
	{
		foresight->blind = true;
		return;
	}
	test = makeNode(BooleanTest);
	test->arg = copyObject(condition);
	test->booltesttype = type;
	test->location = -1;
	foresight->guard = lappend(list_copy(foresight->guard), test);
}

static void
add_null_guard(Foresight *foresight, Expr *value, NullTestType type)
{
	NullTest   *test = makeNode(NullTest);

	test->arg = value;
	test->nulltesttype = type;
	test->argisrow = false;
	test->location = -1;
	add_guard(foresight, (Expr *) test, IS_TRUE);
}

/* The place of the last node with a call to be foreseen, to which those before it decide the way; -1 if there is none. */
static int
last_call(Foresight *foresight, List *nodes)
{
	int			place = list_length(nodes) - 1;

	while (place >= 0 && !holds_foreseeable(foresight, list_nth(nodes, place)))
		place--;
	return place;
}

/* What is foreseen from now on is evaluated only where a condition, whose own calls have been foreseen, is true. */
void
guard_by(Foresight *foresight, Expr **condition)
{
	*condition = computed_once(foresight, *condition);
	add_guard(foresight, *condition, IS_TRUE);
}

/* A filter lets what it guards be evaluated. */
void
foresee_filter(Foresight *foresight, Expr **filter, Node *guarded)
{
	*filter = (Expr *) foresee_mutator((Node *) *filter, foresight);
	if (*filter && holds_foreseeable(foresight, guarded))
		guard_by(foresight, filter);
}

Node *
foresee_case(CaseExpr *expr, Foresight *foresight)
{
	CaseExpr   *copy = makeNode(CaseExpr);
	int			last = last_call(foresight, expr->args);
	ListCell   *cell;

	if (holds_foreseeable(foresight, (Node *) expr->defresult))
		last = list_length(expr->args);

	*copy = *expr;
	copy->args = NIL;
	copy->arg = (Expr *) foresee_mutator((Node *) expr->arg, foresight);
	if (copy->arg && last >= 0)
		copy->arg = computed_once(foresight, copy->arg);
	foreach(cell, expr->args)
	{
		CaseWhen   *when = makeNode(CaseWhen);
		List	   *guard = foresight->guard;
		bool		blind = foresight->blind;
		Expr	   *condition = NULL;

		*when = *(CaseWhen *) lfirst(cell);
		when->expr = (Expr *) foresee_mutator((Node *) when->expr, foresight);
		if (foreach_current_index(cell) < last || holds_foreseeable(foresight, (Node *) when->result))
		{
			condition = copy->arg ? with_operand(when->expr, copy->arg) : when->expr;
			if (condition)
			{
				Expr	   *value = computed_once(foresight, condition);

				if (value != condition)
					when->expr = condition = value;
				add_guard(foresight, condition, IS_TRUE);
			}
			else
				foresight->blind = blind = true;
		}
		when->result = (Expr *) foresee_mutator((Node *) when->result, foresight);
		copy->args = lappend(copy->args, when);
		foresight->guard = guard;
		foresight->blind = blind;
		if (condition)
			add_guard(foresight, condition, IS_NOT_TRUE);
	}
	copy->defresult = (Expr *) foresee_mutator((Node *) expr->defresult, foresight);
	return (Node *) copy;
}

Node *
foresee_bool(BoolExpr *expr, Foresight *foresight)
{
	BoolExpr   *copy = makeNode(BoolExpr);
	int			last = last_call(foresight, expr->args);
	ListCell   *cell;

	*copy = *expr;
	copy->args = NIL;
	foreach(cell, expr->args)
	{
		Expr	   *argument = (Expr *) foresee_mutator(lfirst(cell), foresight);

		if (expr->boolop != NOT_EXPR && foreach_current_index(cell) < last)
		{
			argument = computed_once(foresight, argument);
			add_guard(foresight, argument, expr->boolop == AND_EXPR ? IS_NOT_FALSE : IS_NOT_TRUE);
		}
		copy->args = lappend(copy->args, argument);
	}
	return (Node *) copy;
}

Node *
foresee_coalesce(CoalesceExpr *expr, Foresight *foresight)
{
	CoalesceExpr *copy = makeNode(CoalesceExpr);
	int			last = last_call(foresight, expr->args);
	ListCell   *cell;

	*copy = *expr;
	copy->args = NIL;
	foreach(cell, expr->args)
	{
		Expr	   *argument = (Expr *) foresee_mutator(lfirst(cell), foresight);

		if (foreach_current_index(cell) < last)
		{
			argument = computed_once(foresight, argument);
			add_null_guard(foresight, argument, IS_NULL);
		}
		copy->args = lappend(copy->args, argument);
	}
	return (Node *) copy;
}

/* Subscripts are evaluated only if there is something to look into. */
Node *
foresee_subscripts(SubscriptingRef *expr, Foresight *foresight)
{
	SubscriptingRef *copy = makeNode(SubscriptingRef);
	const SubscriptRoutines *routines = getSubscriptingRoutines(expr->refcontainertype, NULL);

	*copy = *expr;
	copy->refexpr = (Expr *) foresee_mutator((Node *) expr->refexpr, foresight);
	if (expr->refassgnexpr == NULL && routines && routines->fetch_strict &&
		(holds_foreseeable(foresight, (Node *) expr->refupperindexpr) ||
		 holds_foreseeable(foresight, (Node *) expr->reflowerindexpr)))
	{
		copy->refexpr = computed_once(foresight, copy->refexpr);
		add_null_guard(foresight, copy->refexpr, IS_NOT_NULL);
	}
	copy->refupperindexpr = (List *) foresee_mutator((Node *) expr->refupperindexpr, foresight);
	copy->reflowerindexpr = (List *) foresee_mutator((Node *) expr->reflowerindexpr, foresight);
	copy->refassgnexpr = (Expr *) foresee_mutator((Node *) expr->refassgnexpr, foresight);
	return (Node *) copy;
}
