/*
 * plans.c
 *	  What is known of the nodes of a finished plan: which compute what, and what they can do.
 */
#include "pg_bridge.h"

#include "access/transam.h"
#include "nodes/extensible.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
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

/* May LIMIT and OFFSET be computed once more than they are written? Not if anybody could tell. */
bool
is_plain_bound(List *bound)
{
	return !contain_volatile_functions((Node *) bound) && !is_noticed_walker((Node *) bound, NULL);
}
