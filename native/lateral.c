/*
 * lateral.c
 *	  The calls that the inner side of a nested loop makes of the outer side's rows.
 *
 *		SELECT … FROM a, jsonb_array_elements(llm.extract('…', a) -> 'items')
 *
 * A nested loop hands columns of its outer side to its inner side as executor parameters, and runs the inner side once
 * for each outer row. A call there whose inputs are such parameters is one that each outer row makes: it becomes a
 * column of a batch node over the outer side, and its place takes one more parameter, which the loop sets from that
 * column. So the inner side stays what it is: a function, a row of VALUES, a SELECT without FROM, a look-up in an index.
 *
 * This is done for what is evaluated whenever the inner side is asked for its first row. What is evaluated for each row
 * of the inner side, and not if there is none, stays, and so does what reads a parameter that is set within the inner
 * side, or has a subquery: its plan may read the loop's parameters without its expression telling.
 */
#include "foresee.h"

#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"

typedef struct Lateral
{
	Foresight	foresight;
	PlannedStmt *stmt;
	NestLoop   *loop;
	List	   *supplied;		/* for each of the batch's calls its parameter, an int; -1 for none */
	Bitmapset  *added;			/* all of these */
	bool		only_looking;	/* whether there is a call to be foreseen */
	bool		found;
} Lateral;

/* -- parameters */

/* The parameter in the place of a call; the loop sets it from the call's column. */
static Node *
parameter_of_call(Lateral *lateral, Var *column)
{
	Batch	   *batch = lateral->foresight.batch;
	Param	   *param = makeNode(Param);
	ListCell   *cell;

	while (list_length(lateral->supplied) < list_length(batch->calls))
		lateral->supplied = lappend_int(lateral->supplied, -1);
	cell = list_nth_cell(lateral->supplied, column->varattno - batch->columns - 1);
	if (lfirst_int(cell) < 0)
	{
		NestLoopParam *parameter = makeNode(NestLoopParam);

		parameter->paramno = lfirst_int(cell) = list_length(lateral->stmt->paramExecTypes);
		parameter->paramval = copyObject(column);
		parameter->paramval->varno = OUTER_VAR;
		lateral->added = bms_add_member(lateral->added, parameter->paramno);
		lateral->stmt->paramExecTypes = lappend_oid(lateral->stmt->paramExecTypes, column->vartype);
		lateral->loop->nestParams = lappend(lateral->loop->nestParams, parameter);
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
columns_to_parameters(Node *node, void *lateral)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Var) && ((Var *) node)->varno == INDEX_VAR)
		return parameter_of_call(lateral, (Var *) node);
	return expression_tree_mutator(node, columns_to_parameters, lateral);
}

/* What the calls of the inner side read of the loop's parameters are columns for the batch node. */
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

/* -- expressions */

/*
 * Foresee the calls of an expression that is evaluated once a run of the inner side, and note which of the new
 * parameters it reads. guards: it must be true for what follows to be evaluated.
 */
static Node *
supply(Lateral *lateral, Node *expr, bool guards, Bitmapset **reads)
{
	Foresight  *foresight = &lateral->foresight;

	/* What has a value beforehand is what comes from outside of the inner side. */
	foresight->unset = bms_difference(executor_parameters(expr), innerPlan(&lateral->loop->join.plan)->extParam);
	if (lateral->only_looking)
	{
		lateral->found |= holds_foreseeable(foresight, expr);
		return expr;
	}
	expr = foresee_mutator(expr, foresight);
	if (guards)
		guard_by(foresight, (Expr **) &expr);
	expr = columns_to_parameters(expr, lateral);
	*reads = bms_add_members(*reads, bms_intersect(executor_parameters(expr), lateral->added));
	return expr;
}

static List *
supply_each(Lateral *lateral, List *exprs, bool guards, Bitmapset **reads)
{
	List	   *supplied = NIL;
	ListCell   *cell;

	foreach(cell, exprs)
		supplied = lappend(supplied, supply(lateral, lfirst(cell), guards, reads));
	return supplied;
}

/* -- plan nodes, as far as they are evaluated when their first row is asked for */

static void supply_plan(Lateral *lateral, Plan *plan, Consumer consumer, Bitmapset **reads);

static void
supply_functions(Lateral *lateral, FunctionScan *scan, Bitmapset **reads)
{
	ListCell   *cell;

	foreach(cell, scan->functions)
	{
		RangeTblFunction *function = lfirst(cell);
		Bitmapset  *of_function = NULL;

		function->funcexpr = supply(lateral, function->funcexpr, false, &of_function);
		function->funcparams = bms_union(function->funcparams, of_function);	/* it is run anew when they change */
		*reads = bms_add_members(*reads, of_function);
	}
}

/* Only the first row is surely asked for, unless every one is. */
static void
supply_values(Lateral *lateral, ValuesScan *scan, Consumer consumer, Bitmapset **reads)
{
	ListCell   *cell;

	foreach(cell, scan->values_lists)
	{
		lfirst(cell) = supply(lateral, lfirst(cell), false, reads);
		if (consumer.takes == MAY_STOP)
			break;
	}
}

static void
supply_result(Lateral *lateral, Result *result, Consumer consumer, Bitmapset **reads)
{
	List	   *guard = lateral->foresight.guard;
	bool		blind = lateral->foresight.blind;

	result->resconstantqual = (Node *) supply_each(lateral, (List *) result->resconstantqual, true, reads);
	if (outerPlan(result))
		supply_plan(lateral, outerPlan(result), consumer, reads);
	else
		result->plan.targetlist = (List *) supply(lateral, (Node *) result->plan.targetlist, false, reads);
	lateral->foresight.guard = guard;
	lateral->foresight.blind = blind;
}

static void
supply_append(Lateral *lateral, List *plans, Consumer consumer, bool all_at_once, Bitmapset **reads)
{
	ListCell   *cell;

	foreach(cell, plans)
	{
		supply_plan(lateral, lfirst(cell), consumer, reads);
		if (consumer.takes == MAY_STOP && !all_at_once)
			break;
	}
}

/* What is looked up in an index is compared with the index's columns, which are Vars of INDEX_VAR here. */
static List *
supply_index_quals(Lateral *lateral, List *quals, Bitmapset **reads)
{
	Node	   *supplied = supply(lateral, swap_sides((Node *) quals, INDEX_VAR, OUTER_VAR), false, reads);

	return (List *) swap_sides(supplied, OUTER_VAR, INDEX_VAR);
}

static void
supply_index(Lateral *lateral, Plan *plan, Bitmapset **reads)
{
	switch (nodeTag(plan))
	{
		case T_IndexScan:
			{
				IndexScan  *scan = (IndexScan *) plan;

				scan->indexqual = supply_index_quals(lateral, scan->indexqual, reads);
				scan->indexqualorig = (List *) supply(lateral, (Node *) scan->indexqualorig, false, reads);
				break;
			}
		case T_IndexOnlyScan:
			{
				IndexOnlyScan *scan = (IndexOnlyScan *) plan;

				scan->indexqual = supply_index_quals(lateral, scan->indexqual, reads);
				scan->recheckqual = supply_index_quals(lateral, scan->recheckqual, reads);
				break;
			}
		case T_BitmapIndexScan:
			{
				BitmapIndexScan *scan = (BitmapIndexScan *) plan;

				scan->indexqual = supply_index_quals(lateral, scan->indexqual, reads);
				scan->indexqualorig = (List *) supply(lateral, (Node *) scan->indexqualorig, false, reads);
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
 * A row of the outer side that has the same keys as another gets the other's rows. The new parameters follow from
 * others, so nothing else is to be told apart: they are keys, lest each change of theirs empty the cache.
 */
static void
supply_memoize(Lateral *lateral, Memoize *memoize, Bitmapset **reads)
{
	memoize->param_exprs = (List *) supply(lateral, (Node *) memoize->param_exprs, false, reads);
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
supply_node(Lateral *lateral, Plan *plan, Consumer consumer, Bitmapset **reads)
{
	Consumer	below = consumer_below(plan, OUTER_VAR, consumer);

	switch (nodeTag(plan))
	{
		case T_FunctionScan:
			supply_functions(lateral, (FunctionScan *) plan, reads);
			break;
		case T_TableFuncScan:
			((TableFuncScan *) plan)->tablefunc->docexpr =
				supply(lateral, ((TableFuncScan *) plan)->tablefunc->docexpr, false, reads);
			break;
		case T_ValuesScan:
			supply_values(lateral, (ValuesScan *) plan, consumer, reads);
			break;
		case T_Result:
			supply_result(lateral, (Result *) plan, below, reads);
			break;
		case T_ProjectSet:		/* over one row, if that has no condition */
			if (IsA(outerPlan(plan), Result) && outerPlan(outerPlan(plan)) == NULL &&
				((Result *) outerPlan(plan))->resconstantqual == NULL)
				plan->targetlist = (List *) supply(lateral, (Node *) plan->targetlist, false, reads);
			supply_plan(lateral, outerPlan(plan), below, reads);
			break;
		case T_SubqueryScan:
			supply_plan(lateral, ((SubqueryScan *) plan)->subplan, below, reads);
			break;
		case T_Append:
			if (!is_pruned((Append *) plan))
				supply_append(lateral, ((Append *) plan)->appendplans, below, false, reads);
			break;
		case T_MergeAppend:
			supply_append(lateral, ((MergeAppend *) plan)->mergeplans, below, true, reads);
			break;
		case T_Memoize:
			supply_plan(lateral, outerPlan(plan), below, reads);
			supply_memoize(lateral, (Memoize *) plan, reads);
			break;
		case T_Limit:
			if (surely_has_row((Limit *) plan))
				supply_plan(lateral, outerPlan(plan), below, reads);
			break;
		case T_IndexScan:
		case T_IndexOnlyScan:
		case T_BitmapIndexScan:
			supply_index(lateral, plan, reads);
			break;
		case T_BitmapHeapScan:
			supply_plan(lateral, outerPlan(plan), below, reads);
			((BitmapHeapScan *) plan)->bitmapqualorig =
				(List *) supply(lateral, (Node *) ((BitmapHeapScan *) plan)->bitmapqualorig, false, reads);
			break;
		case T_BitmapOr:
			supply_append(lateral, ((BitmapOr *) plan)->bitmapplans, below, true, reads);
			break;
		case T_BitmapAnd:		/* ends where nothing is left */
			supply_plan(lateral, linitial(((BitmapAnd *) plan)->bitmapplans), below, reads);
			break;
		case T_Material:
		case T_Sort:
		case T_IncrementalSort:
		case T_Unique:
		case T_Group:
		case T_Agg:
		case T_WindowAgg:
		case T_NestLoop:
			supply_plan(lateral, outerPlan(plan), below, reads);
			break;
		default:
			break;
	}
}

static void
supply_plan(Lateral *lateral, Plan *plan, Consumer consumer, Bitmapset **reads)
{
	Bitmapset  *here = NULL;

	check_stack_depth();
	supply_node(lateral, plan, consumer, &here);
	plan->extParam = bms_union(plan->extParam, here);
	plan->allParam = bms_union(plan->allParam, here);
	*reads = bms_add_members(*reads, here);
}

/* -- the loop */

static Bitmapset *
parameters_of_loop(NestLoop *loop)
{
	Bitmapset  *numbers = NULL;
	ListCell   *cell;

	foreach(cell, loop->nestParams)
		numbers = bms_add_member(numbers, ((NestLoopParam *) lfirst(cell))->paramno);
	return numbers;
}

static void
supply_inner_side(Lateral *lateral, bool only_looking)
{
	Join	   *join = &lateral->loop->join;
	bool		first_only = join->inner_unique || join->jointype == JOIN_SEMI || join->jointype == JOIN_ANTI;
	Consumer	consumer = {first_only ? MAY_STOP : TAKES_EVERY_ROW, NIL};
	Bitmapset  *reads = NULL;

	lateral->only_looking = only_looking;
	supply_plan(lateral, innerPlan(&join->plan), consumer, &reads);
}

/*
 * Foresee the calls that the inner side of a nested loop makes of the outer side's rows, with a batch over the outer side.
 * The inner side must not have been rewritten; true if there were some.
 */
bool
foresee_inner_side(Batch *batch, NestLoop *loop, PlannedStmt *stmt)
{
	Lateral		lateral = {{batch}, stmt, loop};
	List	   *parameters = list_copy(loop->nestParams);

	lateral.foresight.inputs = parameters_of_loop(loop);
	if (lateral.foresight.inputs == NULL)
		return false;
	batch->volatile_subqueries = true;
	supply_inner_side(&lateral, true);
	if (!lateral.found)
		return false;
	supply_inner_side(&lateral, false);
	batch->calls = (List *) parameters_to_columns((Node *) batch->calls, parameters);
	batch->guards = (List *) parameters_to_columns((Node *) batch->guards, parameters);
	return batch->calls != NIL;
}
