/*
 * constants.c
 *	  What is looked at before planning: whether a statement calls anything of interest, and calls without rows.
 *
 * A batchable function may be STABLE. The planner evaluates a STABLE call of constants when it estimates a qual, and
 * the executor makes it again for every row. As a subquery of its own it is an InitPlan: made at most once, when its
 * value is first needed, and never while planning.
 */
#include "pg_bridge.h"

#include "access/transam.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"

static bool
is_own_function(Oid function, void *context)
{
	return function >= FirstNormalObjectId;
}

static bool
mentions_own_functions_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (check_functions_in_node(node, is_own_function, NULL))
		return true;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, mentions_own_functions_walker, context, 0);
	return expression_tree_walker(node, mentions_own_functions_walker, context);
}

/* Does a statement call, anywhere, a function that is not built in? */
bool
mentions_own_functions(Query *query)
{
	if (query->commandType == CMD_UTILITY)
		return false;
	return mentions_own_functions_walker((Node *) query, NULL);
}

static bool
has_volatile_subquery_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, SubLink) && contain_volatile_functions(((SubLink *) node)->subselect))
		return true;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, has_volatile_subquery_walker, context, 0);
	return expression_tree_walker(node, has_volatile_subquery_walker, context);
}

/* Does a subquery in an expression call a volatile function? In the plan its expression no longer tells. */
bool
has_volatile_subquery(Query *query)
{
	return has_volatile_subquery_walker((Node *) query, NULL);
}

/* Does an expression's value depend on a row, or on what surrounds it? */
static bool
depends_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	switch (nodeTag(node))
	{
		case T_Const:
			return false;
		case T_Param:
			return ((Param *) node)->paramkind != PARAM_EXTERN;
		case T_FuncExpr:
			if (((FuncExpr *) node)->funcretset)
				return true;
			break;
		case T_OpExpr:
		case T_DistinctExpr:
		case T_NullIfExpr:
		case T_ScalarArrayOpExpr:
		case T_BoolExpr:
		case T_RelabelType:
		case T_CoerceViaIO:
		case T_ArrayExpr:
		case T_RowExpr:
		case T_NamedArgExpr:
		case T_List:
			break;
		default:
			return true;
	}
	return expression_tree_walker(node, depends_walker, context);
}

typedef struct Constants
{
	Registry   *registry;
	bool		may_replace;	/* at the place at hand */
	bool		found;			/* in the query at hand */
} Constants;

static Node *constants_mutator(Node *node, void *context);

static Node *
once(FuncExpr *call)
{
	Query	   *query = makeNode(Query);
	SubLink    *link = makeNode(SubLink);

	query->commandType = CMD_SELECT;
	query->canSetTag = true;
	query->targetList = list_make1(makeTargetEntry((Expr *) call, 1, pstrdup("once"), false));
	query->jointree = makeFromExpr(NIL, NULL);
	link->subLinkType = EXPR_SUBLINK;
	link->subselect = (Node *) query;
	link->location = -1;
	return (Node *) link;
}

/* Replace calls below a node, or none but those in its subqueries. */
static Node *
constants_below(Node *node, Constants *outer, bool may_replace)
{
	Constants	here = {outer->registry, may_replace, false};

	node = expression_tree_mutator(node, constants_mutator, &here);
	outer->found |= here.found;
	return node;
}

static Node *
constants_mutator(Node *node, void *context)
{
	Constants  *outer = context;
	FuncExpr   *call;

	if (node == NULL)
		return NULL;
	if (IsA(node, Query))
	{
		Query	   *query = (Query *) node;
		bool		has_from = query->jointree && query->jointree->fromlist != NIL;

		/*
		 * Where rows are grouped in several ways, the planner finds grouping expressions in other ones by their being
		 * equal, and what was replaced is equal to nothing: only what is evaluated before grouping may be.
		 */
		Constants	inner = {outer->registry, has_from && query->groupingSets == NIL, false};

		query = query_tree_mutator(query, constants_mutator, &inner, 0);
		query->hasSubLinks |= inner.found;
		return (Node *) query;
	}
	/* FROM and WHERE come before grouping; an aggregate of an outer query belongs to that query. */
	if (IsA(node, FromExpr))
		return constants_below(node, outer, ((FromExpr *) node)->fromlist != NIL);
	if (IsA(node, Aggref) && ((Aggref *) node)->agglevelsup > 0)
		return constants_below(node, outer, false);
	call = outer->may_replace ? as_call(node, outer->registry) : NULL;
	if (call && !depends_walker((Node *) call, NULL) && !contain_volatile_functions((Node *) call->args))
	{
		outer->found = true;
		return once(copyObject(call));
	}
	return expression_tree_mutator(node, constants_mutator, context);
}

/* Return the query with its calls that depend on no row as subqueries of their own. */
Query *
ask_constants_once(Query *query, Registry *registry)
{
	Constants	none = {registry, false, false};

	return (Query *) constants_mutator((Node *) query, &none);
}
