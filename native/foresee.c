/*
 * foresee.c
 *	  The calls in an expression become columns of a batch node.
 *
 * In: an expression over the batch node's scan tuple: the child's columns as Vars of INDEX_VAR. Out: the same
 * expression with a Var in the place of each call that is foreseen, and the calls in the Batch, inner ones before
 * those that take their results. PostgreSQL evaluates some parts of an expression only under a condition: the
 * branches of a CASE, what stands behind a false AND. The calls in there get that condition as their guard, and are
 * made only for rows where it holds. What this file does not know, it leaves alone, with the calls in it.
 */
#include "pg_bridge.h"

#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"

typedef struct Foresight
{
	Batch	   *batch;
	List	   *guard;			/* quals that hold wherever the expression at hand is evaluated */
	bool		blind;			/* such a condition exists but can't be evaluated beforehand */
} Foresight;

static Node *foresee_mutator(Node *node, void *context);

Batch *
new_batch(Registry *registry, int columns)
{
	Batch	   *batch = palloc0(sizeof(Batch));

	batch->registry = registry;
	batch->columns = columns;
	batch->needs = list_make1(NIL);
	return batch;
}

/* What is foreseen from now on is needed later: after the qual before has let rows through. */
void
next_stage(Batch *batch)
{
	batch->needs = lappend(batch->needs, NIL);
}

/* Can an expression not be evaluated over the scan tuple alone? in_case: a CASE around it gives its test expression. */
static bool
is_open_walker(Node *node, void *in_case)
{
	bool		inside = true;

	if (node == NULL)
		return false;
	switch (nodeTag(node))
	{
		case T_Var:
			return ((Var *) node)->varno != INDEX_VAR;
		case T_CaseTestExpr:
			return !*(bool *) in_case;
		case T_CaseExpr:
			if (((CaseExpr *) node)->arg == NULL)
				break;
			return is_open_walker((Node *) ((CaseExpr *) node)->arg, in_case) ||
				is_open_walker((Node *) ((CaseExpr *) node)->args, &inside) ||
				is_open_walker((Node *) ((CaseExpr *) node)->defresult, &inside);
		case T_CaseWhen:
			return is_open_walker((Node *) ((CaseWhen *) node)->expr, in_case) ||
				is_open_walker((Node *) ((CaseWhen *) node)->result, in_case);
		case T_ArrayCoerceExpr:	/* an element is the test expression of its own elemexpr */
			return is_open_walker((Node *) ((ArrayCoerceExpr *) node)->arg, in_case);
		case T_Aggref:
		case T_GroupingFunc:
		case T_WindowFunc:
		case T_CoerceToDomainValue:
		case T_SetToDefault:
		case T_CurrentOfExpr:
			return true;
		default:
			break;
	}
	return expression_tree_walker(node, is_open_walker, in_case);
}

static bool
is_open(Node *node)
{
	bool		in_case = false;

	return is_open_walker(node, &in_case) || expression_returns_set(node);
}

/* Note that the stage at hand needs a call, and return the column that holds its result. */
static Node *
result_column(Batch *batch, int number)
{
	FuncExpr   *call = list_nth(batch->calls, number);
	ListCell   *stage = list_nth_cell(batch->needs, list_length(batch->needs) - 1);

	lfirst(stage) = list_append_unique_int(lfirst(stage), number);
	return (Node *) makeVar(INDEX_VAR, batch->columns + number + 1, call->funcresulttype,
							exprTypmod((Node *) call), call->funccollid, 0);
}

static Node *
foresee_call(FuncExpr *call, Foresight *foresight)
{
	Batch	   *batch = foresight->batch;
	int			number = 0;
	ListCell   *known;
	ListCell   *guard;

	if (foresight->blind || call->funcretset || is_open((Node *) call) || is_open((Node *) foresight->guard))
		return (Node *) call;
	if (!contain_volatile_functions((Node *) call))
	{
		forboth(known, batch->calls, guard, batch->guards)
		{
			/* The same call, made at least where this one is. */
			if (equal(lfirst(known), call) && (lfirst(guard) == NIL || equal(lfirst(guard), foresight->guard)))
				return result_column(batch, number);
			number++;
		}
	}
	batch->calls = lappend(batch->calls, call);
	batch->guards = lappend(batch->guards, copyObject(foresight->guard));
	return result_column(batch, list_length(batch->calls) - 1);
}

static void
add_guard(Foresight *foresight, Expr *condition, BoolTestType type)
{
	BooleanTest *test;

	if (contain_volatile_functions((Node *) condition))
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

/* Replace the test expression of a simple CASE by what is tested. */
static Node *
case_test_mutator(Node *node, void *tested)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, CaseTestExpr))
		return copyObject((Node *) tested);
	if (IsA(node, CaseExpr) && ((CaseExpr *) node)->arg)
		return node;			/* has test expressions of its own */
	return expression_tree_mutator(node, case_test_mutator, tested);
}

static Node *
foresee_case(CaseExpr *expr, Foresight *foresight)
{
	CaseExpr   *copy = makeNode(CaseExpr);
	ListCell   *cell;

	*copy = *expr;
	copy->args = NIL;
	copy->arg = (Expr *) foresee_mutator((Node *) expr->arg, foresight);
	foreach(cell, expr->args)
	{
		CaseWhen   *when = makeNode(CaseWhen);
		List	   *guard = foresight->guard;
		bool		blind = foresight->blind;
		Expr	   *condition;

		*when = *(CaseWhen *) lfirst(cell);
		when->expr = (Expr *) foresee_mutator((Node *) when->expr, foresight);
		condition = copy->arg ? (Expr *) case_test_mutator((Node *) when->expr, copy->arg) : when->expr;
		add_guard(foresight, condition, IS_TRUE);
		when->result = (Expr *) foresee_mutator((Node *) when->result, foresight);
		copy->args = lappend(copy->args, when);
		foresight->guard = guard;
		foresight->blind = blind;
		add_guard(foresight, condition, IS_NOT_TRUE);
	}
	copy->defresult = (Expr *) foresee_mutator((Node *) expr->defresult, foresight);
	return (Node *) copy;
}

static Node *
foresee_bool(BoolExpr *expr, Foresight *foresight)
{
	BoolExpr   *copy = makeNode(BoolExpr);
	ListCell   *cell;

	*copy = *expr;
	copy->args = NIL;
	foreach(cell, expr->args)
	{
		Expr	   *argument = (Expr *) foresee_mutator(lfirst(cell), foresight);

		copy->args = lappend(copy->args, argument);
		if (expr->boolop != NOT_EXPR)
			add_guard(foresight, argument, expr->boolop == AND_EXPR ? IS_NOT_FALSE : IS_NOT_TRUE);
	}
	return (Node *) copy;
}

static Node *
foresee_coalesce(CoalesceExpr *expr, Foresight *foresight)
{
	CoalesceExpr *copy = makeNode(CoalesceExpr);
	ListCell   *cell;

	*copy = *expr;
	copy->args = NIL;
	foreach(cell, expr->args)
	{
		Expr	   *argument = (Expr *) foresee_mutator(lfirst(cell), foresight);
		NullTest   *test = makeNode(NullTest);

		copy->args = lappend(copy->args, argument);
		test->arg = argument;
		test->nulltesttype = IS_NULL;
		test->argisrow = false;
		test->location = -1;
		add_guard(foresight, (Expr *) test, IS_TRUE);
	}
	return (Node *) copy;
}

static Node *
foresee_mutator(Node *node, void *context)
{
	Foresight  *foresight = context;
	List	   *guard = foresight->guard;
	bool		blind = foresight->blind;
	Node	   *result;

	if (node == NULL)
		return NULL;
	switch (nodeTag(node))
	{
		case T_CaseExpr:
			result = foresee_case((CaseExpr *) node, foresight);
			break;
		case T_BoolExpr:
			result = foresee_bool((BoolExpr *) node, foresight);
			break;
		case T_CoalesceExpr:
			result = foresee_coalesce((CoalesceExpr *) node, foresight);
			break;
		case T_FuncExpr:
			result = expression_tree_mutator(node, foresee_mutator, context);
			if (find_batch_function(foresight->batch->registry, ((FuncExpr *) result)->funcid))
				result = foresee_call((FuncExpr *) result, foresight);
			break;
		case T_SubPlan:			/* only what it is given: the rest belongs to its own plan */
			{
				SubPlan    *copy = copyObject((SubPlan *) node);

				copy->args = (List *) foresee_mutator((Node *) copy->args, context);
				result = (Node *) copy;
				break;
			}
		case T_List:
		case T_TargetEntry:
		case T_OpExpr:
		case T_DistinctExpr:
		case T_NullIfExpr:
		case T_ScalarArrayOpExpr:
		case T_RelabelType:
		case T_CoerceViaIO:
		case T_ConvertRowtypeExpr:
		case T_CollateExpr:
		case T_CoerceToDomain:
		case T_ArrayExpr:
		case T_RowExpr:
		case T_MinMaxExpr:
		case T_NullTest:
		case T_BooleanTest:
		case T_FieldSelect:
		case T_SubscriptingRef:
			result = expression_tree_mutator(node, foresee_mutator, context);
			break;
		default:
			return copyObject(node);
	}
	foresight->guard = guard;
	foresight->blind = blind;
	return result;
}

/* Replace the calls of an expression over the scan tuple. */
Node *
foresee(Batch *batch, Node *expr)
{
	Foresight	foresight = {batch, NIL, false};

	return foresee_mutator(expr, &foresight);
}

typedef struct Sides
{
	int			from;
	int			to;
} Sides;

static Node *
sides_mutator(Node *node, void *context)
{
	Sides	   *sides = context;

	if (node == NULL)
		return NULL;
	if (IsA(node, Var))
	{
		Var		   *var = copyObject((Var *) node);

		if (var->varno == sides->from)
			var->varno = sides->to;
		return (Node *) var;
	}
	return expression_tree_mutator(node, sides_mutator, context);
}

static Node *
swap_sides(Node *expr, int from, int to)
{
	Sides		sides = {from, to};

	return sides_mutator(expr, &sides);
}

/*
 * Replace the calls of an expression that stands above the batch node and sees its rows as OUTER_VAR or INNER_VAR.
 * Calls that need the other side as well stay.
 */
Node *
foresee_side(Batch *batch, Node *expr, int side)
{
	return swap_sides(foresee(batch, swap_sides(expr, side, INDEX_VAR)), INDEX_VAR, side);
}

/* The filter and the arguments of an aggregate over the rows of OUTER_VAR; arguments count where the filter holds. */
static void
foresee_input(Batch *batch, Expr **filter, List **arguments)
{
	Foresight	foresight = {batch, NIL, false};

	*filter = (Expr *) foresee_mutator(swap_sides((Node *) *filter, OUTER_VAR, INDEX_VAR), &foresight);
	if (*filter)
		add_guard(&foresight, *filter, IS_TRUE);
	*arguments = (List *) foresee_mutator(swap_sides((Node *) *arguments, OUTER_VAR, INDEX_VAR), &foresight);
	*filter = (Expr *) swap_sides((Node *) *filter, INDEX_VAR, OUTER_VAR);
	*arguments = (List *) swap_sides((Node *) *arguments, INDEX_VAR, OUTER_VAR);
}

static Node *
aggregates_mutator(Node *node, void *context)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Aggref))
	{
		Aggref	   *copy = copyObject((Aggref *) node);

		foresee_input(context, &copy->aggfilter, &copy->args);
		return (Node *) copy;
	}
	if (IsA(node, WindowFunc))
	{
		WindowFunc *copy = copyObject((WindowFunc *) node);

		foresee_input(context, &copy->aggfilter, &copy->args);
		return (Node *) copy;
	}
	return expression_tree_mutator(node, aggregates_mutator, context);
}

/* Replace the calls in the arguments and filters of aggregates and window functions, and no others. */
Node *
foresee_aggregates(Batch *batch, Node *expr)
{
	return aggregates_mutator(expr, batch);
}
