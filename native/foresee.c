/*
 * foresee.c
 *	  The calls in an expression become columns of a batch node.
 *
 * In: an expression over the batch node's scan tuple: the child's columns as Vars of INDEX_VAR. Out: the same
 * expression with a Var in the place of each call that is foreseen, and the calls in the Batch, inner ones before
 * those that take their results. What stands under a condition goes to conditions.c. What this file does not know, it
 * leaves alone, with the calls in it, and so calls whose arguments are volatile: those must be evaluated in their turn.
 */
#include "foresee.h"

#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"

Batch *
new_batch(Registry *registry, bool volatile_subqueries, int columns)
{
	Batch	   *batch = palloc0(sizeof(Batch));

	batch->registry = registry;
	batch->volatile_subqueries = volatile_subqueries;
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

/* -- columns */

static bool
contains_subplan_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	return IsA(node, SubPlan) || expression_tree_walker(node, contains_subplan_walker, context);
}

bool
contains_subplan(Node *node)
{
	return contains_subplan_walker(node, NULL);
}

static bool
executor_parameters_walker(Node *node, void *numbers)
{
	if (node == NULL)
		return false;
	if (IsA(node, Param) && ((Param *) node)->paramkind == PARAM_EXEC)
		*(Bitmapset **) numbers = bms_add_member(*(Bitmapset **) numbers, ((Param *) node)->paramid);
	return expression_tree_walker(node, executor_parameters_walker, numbers);
}

/* The executor parameters that an expression reads itself: what the plan of a subquery in it reads is not in sight. */
Bitmapset *
executor_parameters(Node *node)
{
	Bitmapset  *numbers = NULL;

	executor_parameters_walker(node, &numbers);
	return numbers;
}

/* Does a value depend on when it is computed, so that it can't be computed for a whole window beforehand? */
static bool
is_volatile(Batch *batch, Node *node)
{
	return contain_volatile_functions(node) || (batch->volatile_subqueries && contains_subplan(node));
}

/* Can an expression be computed for a whole window beforehand? */
bool
may_go_ahead(Foresight *foresight, Node *node)
{
	return !is_open(node) && !is_volatile(foresight->batch, node) &&
		!bms_overlap(executor_parameters(node), foresight->unset);
}

static bool
depends_on_rows(Foresight *foresight, Node *node)
{
	return foresight->inputs == NULL || contain_var_clause(node) ||
		bms_overlap(executor_parameters(node), foresight->inputs);
}

/* Can a call be made beforehand, whatever it stands in? What is volatile in it are its arguments: it is registered. */
static bool
is_foreseeable(Foresight *foresight, FuncExpr *call)
{
	return may_go_ahead(foresight, (Node *) call->args) && depends_on_rows(foresight, (Node *) call->args);
}

static bool
holds_foreseeable_walker(Node *node, void *foresight)
{
	FuncExpr   *call;

	if (node == NULL)
		return false;
	call = as_call(node, ((Foresight *) foresight)->batch->registry);
	if (call && is_foreseeable(foresight, call))
		return true;
	if (IsA(node, SubPlan) && ((Foresight *) foresight)->inputs == NULL &&
		asks_about_row((SubPlan *) node, ((Foresight *) foresight)->batch->registry))
		return true;
	if (IsA(node, CaseWhen))	/* which walkers of CaseExpr never see */
		return holds_foreseeable_walker((Node *) ((CaseWhen *) node)->expr, foresight) ||
			holds_foreseeable_walker((Node *) ((CaseWhen *) node)->result, foresight);
	return expression_tree_walker(node, holds_foreseeable_walker, foresight);
}

/* Is there a call in an expression that could be foreseen? */
bool
holds_foreseeable(Foresight *foresight, Node *node)
{
	return holds_foreseeable_walker(node, foresight);
}

/* The column that holds an expression's value for the rows where the guard at hand lets it be computed. */
Node *
column_of_value(Foresight *foresight, Expr *expr)
{
	Batch	   *batch = foresight->batch;
	ListCell   *stage = list_nth_cell(batch->needs, list_length(batch->needs) - 1);
	int			number = list_length(batch->calls);
	ListCell   *known;
	ListCell   *guard;

	if (!contain_volatile_functions((Node *) expr))
	{
		forboth(known, batch->calls, guard, batch->guards)
		{
			/* The same, computed at least where this one is. */
			if (equal(lfirst(known), expr) && (lfirst(guard) == NIL || equal(lfirst(guard), foresight->guard)))
			{
				number = foreach_current_index(known);
				break;
			}
		}
	}
	if (number == list_length(batch->calls))
	{
		batch->calls = lappend(batch->calls, expr);
		batch->guards = lappend(batch->guards, copyObject(foresight->guard));
	}
	lfirst(stage) = list_append_unique_int(lfirst(stage), number);
	return (Node *) makeVar(INDEX_VAR, batch->columns + number + 1, exprType((Node *) expr),
							exprTypmod((Node *) expr), exprCollation((Node *) expr), 0);
}

/* The column of a call whose arguments have been foreseen, or the expression as it is. */
static Node *
foresee_call(Node *node, Foresight *foresight)
{
	FuncExpr   *call = as_call(node, foresight->batch->registry);

	if (call == NULL || foresight->blind || !is_foreseeable(foresight, call))
		return node;
	return column_of_value(foresight, (Expr *) call);
}

/*
 * Of a subquery what it is given, what its rows are compared with, and what it asks about the row at hand; the rest is its own
 * plan's affair. That its rows are in sight of the comparison only is what unset tells. Each part of a comparison stays by
 * itself: a hashed subquery takes them apart.
 */
static Node *
foresee_subplan(SubPlan *subplan, Foresight *foresight)
{
	SubPlan    *copy = copyObject(subplan);
	Bitmapset  *unset = foresight->unset;
	ListCell   *cell;

	copy->args = (List *) foresee_mutator((Node *) copy->args, foresight);
	foreach(cell, copy->paramIds)
		foresight->unset = bms_add_member(bms_copy(foresight->unset), lfirst_int(cell));
	if (copy->testexpr && is_andclause(copy->testexpr))
		((BoolExpr *) copy->testexpr)->args =
			(List *) foresee_mutator((Node *) ((BoolExpr *) copy->testexpr)->args, foresight);
	else
		copy->testexpr = foresee_mutator(copy->testexpr, foresight);
	foresight->unset = unset;
	foresee_inside(copy, foresight);
	return (Node *) copy;
}

/* -- all of an expression */

Node *
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
		case T_SubscriptingRef:
			result = foresee_subscripts((SubscriptingRef *) node, foresight);
			break;
		case T_ArrayCoerceExpr: /* its elemexpr is evaluated for each element */
			{
				ArrayCoerceExpr *copy = copyObject((ArrayCoerceExpr *) node);

				copy->arg = (Expr *) foresee_mutator((Node *) copy->arg, context);
				result = (Node *) copy;
				break;
			}
		case T_FuncExpr:
		case T_OpExpr:
			result = foresee_call(expression_tree_mutator(node, foresee_mutator, context), foresight);
			break;
		case T_SubPlan:
			result = foresee_subplan((SubPlan *) node, foresight);
			break;
		case T_List:
		case T_TargetEntry:
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
	Foresight	foresight = {batch};

	return foresee_mutator(expr, &foresight);
}

static Node *
scan_tuple_mutator(Node *node, void *context)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Var))
	{
		Var		   *var = copyObject((Var *) node);

		var->varno = INDEX_VAR;
		return (Node *) var;
	}
	if (IsA(node, PlaceHolderVar))
		return scan_tuple_mutator((Node *) ((PlaceHolderVar *) node)->phexpr, context);
	return expression_tree_mutator(node, scan_tuple_mutator, context);
}

/* Would a batch node make a call of an expression that the planner still works at? */
bool
may_be_foreseen(Registry *registry, bool volatile_subqueries, Node *expr)
{
	Batch	   *batch;

	if (!contains_call(expr, registry))
		return false;
	batch = new_batch(registry, volatile_subqueries, 0);
	foresee(batch, scan_tuple_mutator(expr, NULL));
	return batch->calls != NIL;
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

/* An expression that sees the rows of one side as those of another. */
Node *
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
	Foresight	foresight = {batch};
	Node	   *given = swap_sides((Node *) *arguments, OUTER_VAR, INDEX_VAR);

	*filter = (Expr *) swap_sides((Node *) *filter, OUTER_VAR, INDEX_VAR);
	foresee_filter(&foresight, filter, given);
	*arguments = (List *) foresee_mutator(given, &foresight);
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
