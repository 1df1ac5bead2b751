/*
 * supply.c
 *	  The calls that a plan makes once a run, of its parameters, become parameters themselves.
 *
 * The inner side of a nested loop, and a subquery that reads columns of the query around it, are run once a row of
 * somebody else's, with values of that row as executor parameters. A call in there whose inputs are such parameters is one
 * that each of these rows makes. lateral.c makes it a column of a batch node over these rows; here its place takes one
 * more parameter, which whoever runs the plan sets from that column. So the plan stays what it is: a function in FROM, a
 * row of VALUES, a SELECT without FROM, a look-up in an index.
 *
 * This is done for what is evaluated whenever the plan is asked for its first row. What is evaluated for each row of the
 * plan, and not if there is none, stays, and so does what reads a parameter that is set within the plan, or has a
 * subquery: its plan may read the parameters without its expression telling.
 */
#include "foresee.h"

#include "miscadmin.h"
#include "nodes/nodeFuncs.h"

/* -- parameters */

/* The parameter in the place of a call. */
static Node *
parameter_of_call(Supply *supply, Var *column)
{
	Batch	   *batch = supply->foresight.batch;
	Param	   *param = makeNode(Param);
	ListCell   *cell;

	while (list_length(supply->numbers) < list_length(batch->calls))
		supply->numbers = lappend_int(supply->numbers, -1);
	cell = list_nth_cell(supply->numbers, column->varattno - batch->columns - 1);
	if (lfirst_int(cell) < 0)
	{
		lfirst_int(cell) = list_length(supply->stmt->paramExecTypes);
		supply->stmt->paramExecTypes = lappend_oid(supply->stmt->paramExecTypes, column->vartype);
		supply->added = bms_add_member(supply->added, lfirst_int(cell));
	}
	param->paramkind = PARAM_EXEC;
	param->paramid = lfirst_int(cell);
	param->paramtype = column->vartype;
	param->paramtypmod = column->vartypmod;
	param->paramcollid = column->varcollid;
	param->location = -1;
	return (Node *) param;
}

static Node *
columns_to_parameters(Node *node, void *supply)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Var) && ((Var *) node)->varno == INDEX_VAR)
		return parameter_of_call(supply, (Var *) node);
	return expression_tree_mutator(node, columns_to_parameters, supply);
}

/* -- expressions */

/*
 * Foresee the calls of an expression that is evaluated once a run of the plan, and note which of the new
 * parameters it reads. guards: it must be true for what follows to be evaluated.
 */
static Node *
supply_expr(Supply *supply, Node *expr, bool guards, Bitmapset **reads)
{
	Foresight  *foresight = &supply->foresight;

	/* What has a value beforehand is what comes from outside of the plan. */
	foresight->unset = bms_difference(executor_parameters(expr), supply->outside);
	if (supply->only_looking)
	{
		supply->found |= holds_foreseeable(foresight, expr);
		return expr;
	}
	expr = foresee_mutator(expr, foresight);
	if (guards)
		guard_by(foresight, (Expr **) &expr);
	expr = columns_to_parameters(expr, supply);
	*reads = bms_add_members(*reads, bms_intersect(executor_parameters(expr), supply->added));
	return expr;
}

static List *
supply_each(Supply *supply, List *exprs, bool guards, Bitmapset **reads)
{
	List	   *supplied = NIL;
	ListCell   *cell;

	foreach(cell, exprs)
		supplied = lappend(supplied, supply_expr(supply, lfirst(cell), guards, reads));
	return supplied;
}

/* -- plan nodes, as far as they are evaluated when their first row is asked for */

static void supply_plan(Supply *supply, Plan *plan, Consumer consumer, Bitmapset **reads);

static void
supply_functions(Supply *supply, FunctionScan *scan, Bitmapset **reads)
{
	ListCell   *cell;

	foreach(cell, scan->functions)
	{
		RangeTblFunction *function = lfirst(cell);
		Bitmapset  *of_function = NULL;

		function->funcexpr = supply_expr(supply, function->funcexpr, false, &of_function);
		function->funcparams = bms_union(function->funcparams, of_function);	/* it is run anew when they change */
		*reads = bms_add_members(*reads, of_function);
	}
}

/* Only the first row is surely asked for, unless every one is. */
static void
supply_values(Supply *supply, ValuesScan *scan, Consumer consumer, Bitmapset **reads)
{
	ListCell   *cell;

	foreach(cell, scan->values_lists)
	{
		lfirst(cell) = supply_expr(supply, lfirst(cell), false, reads);
		if (consumer.takes == MAY_STOP)
			break;
	}
}

static void
supply_result(Supply *supply, Result *result, Consumer consumer, Bitmapset **reads)
{
	List	   *guard = supply->foresight.guard;
	bool		blind = supply->foresight.blind;

	result->resconstantqual = (Node *) supply_each(supply, (List *) result->resconstantqual, true, reads);
	if (outerPlan(result))
		supply_plan(supply, outerPlan(result), consumer, reads);
	else
		result->plan.targetlist = (List *) supply_expr(supply, (Node *) result->plan.targetlist, false, reads);
	supply->foresight.guard = guard;
	supply->foresight.blind = blind;
}

static void
supply_append(Supply *supply, List *plans, Consumer consumer, bool all_at_once, Bitmapset **reads)
{
	ListCell   *cell;

	foreach(cell, plans)
	{
		supply_plan(supply, lfirst(cell), consumer, reads);
		if (consumer.takes == MAY_STOP && !all_at_once)
			break;
	}
}

/* What is looked up in an index is compared with the index's columns, which are Vars of INDEX_VAR here. */
static List *
supply_index_quals(Supply *supply, List *quals, Bitmapset **reads)
{
	Node	   *supplied = supply_expr(supply, swap_sides((Node *) quals, INDEX_VAR, OUTER_VAR), false, reads);

	return (List *) swap_sides(supplied, OUTER_VAR, INDEX_VAR);
}

static void
supply_index(Supply *supply, Plan *plan, Bitmapset **reads)
{
	switch (nodeTag(plan))
	{
		case T_IndexScan:
			{
				IndexScan  *scan = (IndexScan *) plan;

				scan->indexqual = supply_index_quals(supply, scan->indexqual, reads);
				scan->indexqualorig = (List *) supply_expr(supply, (Node *) scan->indexqualorig, false, reads);
				break;
			}
		case T_IndexOnlyScan:
			{
				IndexOnlyScan *scan = (IndexOnlyScan *) plan;

				scan->indexqual = supply_index_quals(supply, scan->indexqual, reads);
				scan->recheckqual = supply_index_quals(supply, scan->recheckqual, reads);
				break;
			}
		case T_BitmapIndexScan:
			{
				BitmapIndexScan *scan = (BitmapIndexScan *) plan;

				scan->indexqual = supply_index_quals(supply, scan->indexqual, reads);
				scan->indexqualorig = (List *) supply_expr(supply, (Node *) scan->indexqualorig, false, reads);
				break;
			}
		default:
			break;
	}
}

/* Are there plans that are left out when it is run? */
static bool
is_pruned(Append *append)
{
#if PG_VERSION_NUM >= 180000
	return append->part_prune_index >= 0;
#else
	return append->part_prune_info != NULL;
#endif
}

/*
 * A run that has the same keys as another gets the other's rows. The new parameters follow from
 * others, so nothing else is to be told apart: they are keys, lest each change of theirs empty the cache.
 */
static void
supply_memoize(Supply *supply, Memoize *memoize, Bitmapset **reads)
{
	memoize->param_exprs = (List *) supply_expr(supply, (Node *) memoize->param_exprs, false, reads);
	memoize->keyparamids = bms_union(memoize->keyparamids, *reads);
}

/* Whatever is asked for a row asks this node for one. */
static bool
surely_has_row(Limit *limit)
{
	Const	   *count = (Const *) limit->limitCount;

	return count == NULL || (IsA(count, Const) && (count->constisnull || DatumGetInt64(count->constvalue) > 0));
}

static void
supply_node(Supply *supply, Plan *plan, Consumer consumer, Bitmapset **reads)
{
	Consumer	below = consumer_below(plan, OUTER_VAR, consumer);

	switch (nodeTag(plan))
	{
		case T_FunctionScan:
			supply_functions(supply, (FunctionScan *) plan, reads);
			break;
		case T_TableFuncScan:
			((TableFuncScan *) plan)->tablefunc->docexpr =
				supply_expr(supply, ((TableFuncScan *) plan)->tablefunc->docexpr, false, reads);
			break;
		case T_ValuesScan:
			supply_values(supply, (ValuesScan *) plan, consumer, reads);
			break;
		case T_Result:
			supply_result(supply, (Result *) plan, below, reads);
			break;
		case T_ProjectSet:		/* over one row, if that has no condition */
			if (IsA(outerPlan(plan), Result) && outerPlan(outerPlan(plan)) == NULL &&
				((Result *) outerPlan(plan))->resconstantqual == NULL)
				plan->targetlist = (List *) supply_expr(supply, (Node *) plan->targetlist, false, reads);
			supply_plan(supply, outerPlan(plan), below, reads);
			break;
		case T_SubqueryScan:
			supply_plan(supply, ((SubqueryScan *) plan)->subplan, below, reads);
			break;
		case T_Append:
			if (!is_pruned((Append *) plan))
				supply_append(supply, ((Append *) plan)->appendplans, below, false, reads);
			break;
		case T_MergeAppend:
			supply_append(supply, ((MergeAppend *) plan)->mergeplans, below, true, reads);
			break;
		case T_Memoize:
			supply_plan(supply, outerPlan(plan), below, reads);
			supply_memoize(supply, (Memoize *) plan, reads);
			break;
		case T_Limit:
			if (surely_has_row((Limit *) plan))
				supply_plan(supply, outerPlan(plan), below, reads);
			break;
		case T_IndexScan:
		case T_IndexOnlyScan:
		case T_BitmapIndexScan:
			supply_index(supply, plan, reads);
			break;
		case T_BitmapHeapScan:
			supply_plan(supply, outerPlan(plan), below, reads);
			((BitmapHeapScan *) plan)->bitmapqualorig =
				(List *) supply_expr(supply, (Node *) ((BitmapHeapScan *) plan)->bitmapqualorig, false, reads);
			break;
		case T_BitmapOr:
			supply_append(supply, ((BitmapOr *) plan)->bitmapplans, below, true, reads);
			break;
		case T_BitmapAnd:		/* ends where nothing is left */
			supply_plan(supply, linitial(((BitmapAnd *) plan)->bitmapplans), below, reads);
			break;
		case T_Material:
		case T_Sort:
		case T_IncrementalSort:
		case T_Unique:
		case T_Group:
		case T_Agg:
		case T_WindowAgg:
		case T_NestLoop:
			supply_plan(supply, outerPlan(plan), below, reads);
			break;
		case T_CustomScan:
			if (is_batch_scan(plan))
				supply_plan(supply, outerPlan(plan), below, reads);
			break;
		default:
			break;
	}
}

static void
supply_plan(Supply *supply, Plan *plan, Consumer consumer, Bitmapset **reads)
{
	Bitmapset  *here = NULL;

	check_stack_depth();
	supply_node(supply, plan, consumer, &here);
	plan->extParam = bms_union(plan->extParam, here);
	plan->allParam = bms_union(plan->allParam, here);
	*reads = bms_add_members(*reads, here);
}

/* Is there anything to supply a plan with, of whose rows as many are asked for? */
bool
is_to_be_supplied(Supply *supply, Plan *plan, Takes takes)
{
	Consumer	consumer = {takes, NIL};
	Bitmapset  *reads = NULL;

	supply->outside = plan->extParam;
	supply->only_looking = true;
	supply->found = false;
	supply_plan(supply, plan, consumer, &reads);
	return supply->found;
}

/* Put parameters in the places of a plan's calls, which are then the batch's. */
void
supply_calls(Supply *supply, Plan *plan, Takes takes)
{
	Consumer	consumer = {takes, NIL};
	Bitmapset  *reads = NULL;

	supply->outside = plan->extParam;
	supply->only_looking = false;
	supply_plan(supply, plan, consumer, &reads);
	while (list_length(supply->numbers) < list_length(supply->foresight.batch->calls))
		supply->numbers = lappend_int(supply->numbers, -1);
}
