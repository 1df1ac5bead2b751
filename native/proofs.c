/*
 * proofs.c
 *	  What the planner proved of a plan holds for the quals where it saw them: who moves quals takes the proof back.
 *
 * A join whose inner side is unique stops at an outer row's first partner, forgets where it was on the inner side, and a
 * Memoize node below it keeps one row a key. The proof rests on the join's own conditions and on the quals of the inner
 * side; without one of them the first partner may be the wrong one. No other node stops early for a proof: a semijoin
 * does for what it is, and its conditions stay where they are.
 */
#include "pg_bridge.h"

#include "access/transam.h"
#include "nodes/extensible.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"

/* Make a join right whatever its inner side holds. A merge join then needs an inner side that can go back to a mark. */
void
forget_uniqueness(Plan *join)
{
	((Join *) join)->inner_unique = false;
	if (IsA(join, MergeJoin))
		((MergeJoin *) join)->skip_mark_restore = false;
}

/* Can a node of a finished plan go back to a mark? As ExecSupportsMarkRestore(), which needs the path. */
bool
can_go_back(Plan *plan)
{
	switch (nodeTag(plan))
	{
		case T_IndexScan:
		case T_IndexOnlyScan:	/* a merge join reads ordered ones only, and those can */
		case T_Material:
		case T_Sort:
			return true;
		case T_CustomScan:
			return (((CustomScan *) plan)->flags & CUSTOMPATH_SUPPORT_MARK_RESTORE) != 0;
		case T_Result:
			return outerPlan(plan) && can_go_back(outerPlan(plan));
		default:
			return false;
	}
}

static bool
contains_subplan_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	return IsA(node, SubPlan) || expression_tree_walker(node, contains_subplan_walker, context);
}

/* The parameters that a node's expressions may read, some of which have moved elsewhere; a superset. */
static Bitmapset *
parameters_of(Plan *user, List *exprs)
{
	if (contains_subplan_walker((Node *) exprs, NULL))
		return user->allParam;	/* a subplan's own are not in sight */
	return pull_paramids((Expr *) exprs);
}

/* A node now depends on the parameters of expressions that were another's: it must be run anew when they change. */
void
take_parameters(Plan *plan, Plan *user, List *exprs)
{
	Bitmapset  *taken = parameters_of(user, exprs);

	plan->allParam = bms_add_members(bms_copy(plan->allParam), taken);
	plan->extParam = bms_union(plan->extParam, bms_intersect(taken, user->extParam));
}

static bool
is_own_function(Oid function, void *context)
{
	return function >= FirstNormalObjectId;
}

static bool
is_noticed_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	switch (nodeTag(node))
	{
		case T_List:
		case T_Const:
		case T_Param:			/* or a subquery that is run once for all */
		case T_RelabelType:
		case T_FuncExpr:
		case T_OpExpr:
			break;
		default:
			return true;
	}
	return check_functions_in_node(node, is_own_function, NULL) ||
		expression_tree_walker(node, is_noticed_walker, context);
}

/* Does a plan compute anything volatile, so that it matters how often it is run? */
bool
computes_volatile(Plan *plan)
{
	ListCell   *cell;

	if (plan == NULL)
		return false;
	if (contain_volatile_functions((Node *) plan->targetlist) || contain_volatile_functions((Node *) plan->qual) ||
		(IsA(plan, FunctionScan) && contain_volatile_functions((Node *) ((FunctionScan *) plan)->functions)) ||
		(IsA(plan, SubqueryScan) && computes_volatile(((SubqueryScan *) plan)->subplan)))
		return true;
	if (IsA(plan, Append))
		foreach(cell, ((Append *) plan)->appendplans)
			if (computes_volatile(lfirst(cell)))
				return true;
	return computes_volatile(outerPlan(plan)) || computes_volatile(innerPlan(plan));
}

/* May LIMIT and OFFSET be computed once more than they are written? Not if anybody could tell. */
bool
is_plain_bound(List *bound)
{
	return !contain_volatile_functions((Node *) bound) && !is_noticed_walker((Node *) bound, NULL);
}
