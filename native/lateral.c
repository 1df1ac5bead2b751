/*
 * lateral.c
 *	  The calls that a plan makes of the rows of another, for each of which it is run.
 *
 *		SELECT … FROM a, jsonb_array_elements(llm.extract('…', a) -> 'items')
 *		SELECT (SELECT count(*) FROM jsonb_array_elements(llm.extract('…', a) -> 'items')) FROM a
 *
 * A nested loop hands columns of its outer side to its inner side as executor parameters, an expression with a subquery
 * hands values to the subquery's plan. The calls that are made of these once a run (supply.c) become columns of a batch
 * node over the outer side, or over the rows that the expression is evaluated for, and are handed on as well.
 */
#include "foresee.h"

#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"

/* -- nested loops */

static Bitmapset *
parameters_of_loop(NestLoop *loop)
{
	Bitmapset  *numbers = NULL;
	ListCell   *cell;

	foreach(cell, loop->nestParams)
		numbers = bms_add_member(numbers, ((NestLoopParam *) lfirst(cell))->paramno);
	return numbers;
}

/* What is a parameter on the inner side is a column of the outer side. */
static Node *
parameters_to_columns(Node *node, void *parameters)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Param) && ((Param *) node)->paramkind == PARAM_EXEC)
	{
		ListCell   *cell;

		foreach(cell, (List *) parameters)
		{
			NestLoopParam *parameter = lfirst(cell);

			if (parameter->paramno == ((Param *) node)->paramid)
				return swap_sides((Node *) parameter->paramval, OUTER_VAR, INDEX_VAR);
		}
	}
	return expression_tree_mutator(node, parameters_to_columns, parameters);
}

/* A parameter that a loop sets from a call's column. */
static NestLoopParam *
loop_parameter(int number, Node *call, AttrNumber column)
{
	NestLoopParam *parameter = makeNode(NestLoopParam);

	parameter->paramno = number;
	parameter->paramval = makeVar(OUTER_VAR, column, exprType(call), exprTypmod(call), exprCollation(call), 0);
	return parameter;
}

/*
 * Foresee the calls that the inner side of a nested loop makes of the outer side's rows, with a batch over the outer side.
 * The inner side must not have been rewritten; true if there were some.
 */
bool
foresee_inner_side(Batch *batch, NestLoop *loop, PlannedStmt *stmt)
{
	Join	   *join = &loop->join;
	bool		first_only = join->inner_unique || join->jointype == JOIN_SEMI || join->jointype == JOIN_ANTI;
	Takes		takes = first_only ? MAY_STOP : TAKES_EVERY_ROW;
	List	   *parameters = list_copy(loop->nestParams);
	Supply		supply = {{batch}, stmt};
	ListCell   *call;
	ListCell   *number;
	AttrNumber	column = batch->columns;

	supply.foresight.inputs = parameters_of_loop(loop);
	batch->volatile_subqueries = true;
	if (parameters == NIL || !is_to_be_supplied(&supply, innerPlan(&join->plan), takes))
		return false;
	supply_calls(&supply, innerPlan(&join->plan), takes);
	forboth(call, batch->calls, number, supply.numbers)
	{
		column++;
		if (lfirst_int(number) >= 0)
			loop->nestParams = lappend(loop->nestParams, loop_parameter(lfirst_int(number), lfirst(call), column));
	}
	batch->calls = (List *) parameters_to_columns((Node *) batch->calls, parameters);
	batch->guards = (List *) parameters_to_columns((Node *) batch->guards, parameters);
	return batch->calls != NIL;
}

/* -- subqueries */

static void
note_init_plan(Plan **place, Consumer consumer, void *found)
{
	*(bool *) found |= (*place)->initPlan != NIL;
	visit_children(*place, consumer, note_init_plan, found);
}

/* A plan is copied with all that is in it but the subqueries of its expressions; what is run once for all must not be two. */
static bool
may_be_copied(Plan *plan)
{
	Consumer	any = {MAY_STOP, NIL};
	bool		found = false;

	note_init_plan(&plan, any, &found);
	return !found;
}

static Takes
takes_of_subquery(SubPlan *subplan)
{
	return subplan->subLinkType == ARRAY_SUBLINK ? TAKES_EVERY_ROW : MAY_STOP;
}

static Supply
supply_of_subquery(SubPlan *subplan, Registry *registry)
{
	Supply		supply = {{new_batch(registry, true, 0)}, registry->stmt};
	ListCell   *cell;

	foreach(cell, subplan->parParam)
		supply.foresight.inputs = bms_add_member(supply.foresight.inputs, lfirst_int(cell));
	return supply;
}

/* Does a subquery make calls, once a run, of what it is given? What else it reads nobody sees who moves its expression. */
bool
asks_about_row(SubPlan *subplan, Registry *registry)
{
	Supply		supply;
	Plan	   *plan;

	if (registry->stmt == NULL || subplan->parParam == NIL)
		return false;
	supply = supply_of_subquery(subplan, registry);
	plan = list_nth(registry->stmt->subplans, subplan->plan_id - 1);
	return bms_is_subset(plan->extParam, supply.foresight.inputs) && may_be_copied(plan) &&
		is_to_be_supplied(&supply, plan, takes_of_subquery(subplan));
}

typedef struct Given
{
	List	   *numbers;		/* of the parameters */
	List	   *values;			/* what they are given, over the scan tuple */
	List	   *columns;		/* of the scan tuple, for the calls so far */
} Given;

static Node *
given_mutator(Node *node, void *context)
{
	Given	   *given = context;

	if (node == NULL)
		return NULL;
	if (IsA(node, Var) && ((Var *) node)->varno == INDEX_VAR)
		return copyObject(list_nth(given->columns, ((Var *) node)->varattno - 1));
	if (IsA(node, Param) && ((Param *) node)->paramkind == PARAM_EXEC)
	{
		ListCell   *number;
		ListCell   *value;

		forboth(number, given->numbers, value, given->values)
			if (lfirst_int(number) == ((Param *) node)->paramid)
				return copyObject(lfirst(value));
	}
	return expression_tree_mutator(node, given_mutator, context);
}

/*
 * Foresee the calls that a subquery makes of what it is given, which has been foreseen. The planner lets several expressions
 * share a plan, the children of an Append say; this one gets a plan of its own.
 */
void
foresee_inside(SubPlan *subplan, Foresight *foresight)
{
	Registry   *registry = foresight->batch->registry;
	List	   *guard = foresight->guard;
	Given		given = {list_copy(subplan->parParam), list_copy(subplan->args), NIL};
	Supply		supply;
	Plan	   *plan;
	ListCell   *call;
	ListCell   *condition;
	ListCell   *number;

	if (foresight->blind || foresight->inputs || !may_go_ahead(foresight, (Node *) subplan->args) ||
		!asks_about_row(subplan, registry))
		return;
	plan = copyObject(list_nth(registry->stmt->subplans, subplan->plan_id - 1));
	registry->stmt->subplans = lappend(registry->stmt->subplans, plan);
	registry->copied = lappend_int(registry->copied, subplan->plan_id);
	subplan->plan_id = list_length(registry->stmt->subplans);

	supply = supply_of_subquery(subplan, registry);
	supply_calls(&supply, plan, takes_of_subquery(subplan));
	forthree(call, supply.foresight.batch->calls, condition, supply.foresight.batch->guards, number, supply.numbers)
	{
		Node	   *column;

		foresight->guard = list_concat(list_copy(guard), (List *) given_mutator(lfirst(condition), &given));
		column = column_of_value(foresight, (Expr *) given_mutator(lfirst(call), &given));
		given.columns = lappend(given.columns, column);
		if (lfirst_int(number) < 0)
			continue;
		subplan->parParam = lappend_int(subplan->parParam, lfirst_int(number));
		subplan->args = lappend(subplan->args, column);
	}
	foresight->guard = guard;
}
