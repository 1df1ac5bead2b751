/*
 * lift.c
 *	  Batchable quals go above joins that leave fewer rows, and out of inner sides that run once per outer row.
 *
 * PostgreSQL evaluates a qual at the lowest node that has its columns, whatever it costs. A qual that asks somebody
 * else is worth carrying up: to where the fewest rows are left, or where many rows can be asked about at once. This
 * happens on the finished plan: the columns that a qual needs are passed through the nodes in between.
 */
#include "pg_bridge.h"

#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"

/* Nodes that compute quals and target lists over the rows of one relation, so that a batch node may do it instead. */
bool
is_split_scan(Plan *plan)
{
	switch (nodeTag(plan))
	{
		case T_SeqScan:
		case T_SampleScan:
		case T_IndexScan:
		case T_IndexOnlyScan:
		case T_BitmapHeapScan:
		case T_TidScan:
		case T_TidRangeScan:
		case T_SubqueryScan:
		case T_FunctionScan:
		case T_TableFuncScan:
		case T_ValuesScan:
		case T_CteScan:
		case T_NamedTuplestoreScan:
		case T_WorkTableScan:
			return true;
		case T_ForeignScan:
			return ((ForeignScan *) plan)->operation == CMD_SELECT;
		default:
			return false;
	}
}

bool
is_join(Plan *plan)
{
	return IsA(plan, NestLoop) || IsA(plan, MergeJoin) || IsA(plan, HashJoin);
}

/*
 * Part a list of quals at the first one that holds a call. Those behind it stay behind it: the planner puts a cheap
 * qual there only if the ones before guard rows from it.
 */
void
set_calls_apart(List *quals, Registry *registry, List **cheap, List **rest)
{
	ListCell   *cell;

	*cheap = *rest = NIL;
	foreach(cell, quals)
	{
		Node	   *qual = lfirst(cell);

		if (*rest == NIL && !contains_call(qual, registry))
			*cheap = lappend(*cheap, qual);
		else
			*rest = lappend(*rest, qual);
	}
}

/* Go down through nodes that hand on their child's columns as they are; collect them, the lowest first. */
Plan *
below_pass_through(Plan *plan, List **passed)
{
	*passed = NIL;
	while (IsA(plan, Hash) || IsA(plan, Sort) || IsA(plan, IncrementalSort) || IsA(plan, Material) ||
		   IsA(plan, Memoize))
	{
		*passed = lcons(plan, *passed);
		plan = outerPlan(plan);
	}
	return plan;
}

/* Below Gather workers run the plan; what a node of another provider does with the plans below it is its own affair. */
bool
is_left_alone(Plan *plan)
{
	return IsA(plan, Gather) || IsA(plan, GatherMerge) || IsA(plan, CustomScan) || IsA(plan, ForeignScan);
}

/* The place of an expression in a node's target list; appended if it is not there. */
AttrNumber
column_of(Plan *plan, Expr *expr)
{
	ListCell   *cell;

	foreach(cell, plan->targetlist)
	{
		TargetEntry *entry = lfirst(cell);

		if (equal(entry->expr, expr))
			return entry->resno;
	}
	plan->targetlist = lappend(plan->targetlist,
							   makeTargetEntry(copyObject(expr), list_length(plan->targetlist) + 1, NULL, false));
	return list_length(plan->targetlist);
}

typedef struct Carrying
{
	Plan	   *source;			/* where the qual was */
	int			side;			/* the side of the join that it comes from */
	List	   *parameters;		/* of the join, if it is a nested loop */
} Carrying;

static Node *
carry_mutator(Node *node, void *context)
{
	Carrying   *carrying = context;

	if (node == NULL)
		return NULL;
	if (IsA(node, Var))
	{
		Var		   *var = (Var *) node;

		return (Node *) makeVar(carrying->side, column_of(carrying->source, (Expr *) var),
								var->vartype, var->vartypmod, var->varcollid, 0);
	}
	if (IsA(node, Param) && ((Param *) node)->paramkind == PARAM_EXEC)
	{
		ListCell   *cell;

		foreach(cell, carrying->parameters)
		{
			NestLoopParam *parameter = lfirst(cell);

			if (parameter->paramno == ((Param *) node)->paramid)
				return copyObject((Node *) parameter->paramval);
		}
	}
	return expression_tree_mutator(node, carry_mutator, context);
}

/* Does a join return every row of this side that has partners, whatever quals on this side alone say? */
static bool
may_wait(JoinType type, int side)
{
	switch (type)
	{
		case JOIN_INNER:
			return true;
		case JOIN_LEFT:
		case JOIN_SEMI:
		case JOIN_ANTI:
			return side == OUTER_VAR;
		case JOIN_RIGHT:
			return side == INNER_VAR;
		default:
			return false;
	}
}

static void
lift_from_side(Plan *join, int side, Registry *registry)
{
	List	   *passed;
	Plan	   *source = below_pass_through(side == OUTER_VAR ? outerPlan(join) : innerPlan(join), &passed);
	double		source_rows = source->plan_rows;
	Carrying	carrying = {source, side, NIL};
	List	   *cheap;
	List	   *carried;
	ListCell   *cell;

	if (!may_wait(((Join *) join)->jointype, side) || !(is_split_scan(source) || is_join(source)))
		return;
	set_calls_apart(source->qual, registry, &cheap, &carried);
	/*
	 * What is volatile has a value a row of this side, and not one a row of the join; and what a nested loop runs once
	 * a row must not be run for rows that would have been thrown out, if it could be noticed.
	 */
	if (carried == NIL || contain_volatile_functions((Node *) carried) ||
		(IsA(join, NestLoop) && side == OUTER_VAR && computes_volatile(innerPlan(join))))
		return;
	if (IsA(join, NestLoop) && side == INNER_VAR)
	{
		carrying.parameters = ((NestLoop *) join)->nestParams;
		if (passed == NIL || !IsA(llast(passed), Material))
			source_rows *= outerPlan(join)->plan_rows;
	}
	if (join->plan_rows >= source_rows)
		return;
	if (side == INNER_VAR)
		forget_uniqueness(join);
	source->qual = cheap;
	join->qual = list_concat(join->qual, (List *) carry_mutator((Node *) carried, &carrying));
	foreach(cell, passed)
	{
		Plan	   *node = lfirst(cell);
		List	   *columns = outerPlan(node)->targetlist;

		if (IsA(node, Memoize))
			((Memoize *) node)->singlerow = false;
		while (list_length(node->targetlist) < list_length(columns))
		{
			TargetEntry *entry = list_nth(columns, list_length(node->targetlist));

			column_of(node, (Expr *) makeVarFromTargetEntry(OUTER_VAR, entry));
		}
	}
}

/* Lift what can be lifted, from the leaves up, so that a qual may pass several joins. */
void
lift_quals(Plan *plan, Registry *registry)
{
	List	   *children = NIL;
	ListCell   *cell;

	if (plan == NULL || is_left_alone(plan))
		return;
	if (IsA(plan, Append))
		children = ((Append *) plan)->appendplans;
	else if (IsA(plan, MergeAppend))
		children = ((MergeAppend *) plan)->mergeplans;
	else if (IsA(plan, SubqueryScan))
		children = list_make1(((SubqueryScan *) plan)->subplan);
	foreach(cell, children)
		lift_quals(lfirst(cell), registry);
	lift_quals(outerPlan(plan), registry);
	lift_quals(innerPlan(plan), registry);
	if (is_join(plan))
	{
		lift_from_side(plan, OUTER_VAR, registry);
		lift_from_side(plan, INNER_VAR, registry);
	}
}
