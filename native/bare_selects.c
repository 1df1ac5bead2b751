/*
 * bare_selects.c
 *	  Subqueries that only compute, such as (SELECT call(…)), are replaced by what they compute.
 *
 * A subquery that reads columns of the query around it has a plan of its own, which is run once a row, and so are the
 * calls in it. Where it has no FROM and nothing else that matters, its expressions can stand in its place: also in UPDATE …
 * SET (a, b) = (SELECT …, …). One that depends on no row stays: it is run once. So does one that is volatile, and one
 * without calls is none of our business.
 */
#include "pg_bridge.h"

#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "rewrite/rewriteManip.h"

typedef struct Bare
{
	Registry   *registry;
	bool		may_replace;	/* at the place at hand */
} Bare;

static bool
only_computes(Query *query)
{
	return query->commandType == CMD_SELECT && query->rtable == NIL && query->cteList == NIL &&
		query->jointree->fromlist == NIL && query->jointree->quals == NULL && query->setOperations == NULL &&
		!query->hasAggs && !query->hasWindowFuncs && !query->hasTargetSRFs && query->groupClause == NIL &&
		query->groupingSets == NIL && query->havingQual == NULL && query->distinctClause == NIL &&
		query->sortClause == NIL && query->limitCount == NULL && query->limitOffset == NULL && query->rowMarks == NIL;
}

/* Can a subquery's expressions stand in its place, and is there a reason to? */
static bool
is_bare(SubLink *link, Registry *registry)
{
	Query	   *query = (Query *) link->subselect;

	return only_computes(query) && contains_call((Node *) query->targetList, registry) &&
		contain_vars_of_level((Node *) query->targetList, 1) && !contain_volatile_functions((Node *) query->targetList);
}

/* What a bare subquery computes for a column, as an expression of the query around it. */
static Node *
column_of_bare(SubLink *link, int number)
{
	TargetEntry *entry = list_nth(((Query *) link->subselect)->targetList, number - 1);
	Node	   *expr = copyObject((Node *) entry->expr);

	IncrementVarSublevelsUp(expr, -1, 1);
	return expr;
}

/* -- UPDATE … SET (a, b) = (SELECT …, …) */

static Node *
multiple_mutator(Node *node, void *context)
{
	SubLink    *link = context;

	if (node == NULL)
		return NULL;
	if (IsA(node, Param))
	{
		Param	   *param = (Param *) node;

		if (param->paramkind == PARAM_MULTIEXPR && param->paramid >> 16 == link->subLinkId)
			return column_of_bare(link, param->paramid & 0xFFFF);
	}
	return expression_tree_mutator(node, multiple_mutator, context);
}

/* The subquery is a column of its own in the target list; its values stand where they go, as parameters. */
static List *
replace_multiple(List *targets, Registry *registry)
{
	List	   *links = NIL;
	List	   *kept = NIL;
	ListCell   *cell;

	foreach(cell, targets)
	{
		TargetEntry *entry = lfirst(cell);
		SubLink    *link = (SubLink *) entry->expr;

		if (entry->resjunk && IsA(link, SubLink) && link->subLinkType == MULTIEXPR_SUBLINK && is_bare(link, registry))
			links = lappend(links, link);
		else
			kept = lappend(kept, entry);
	}
	foreach(cell, links)
		kept = (List *) multiple_mutator((Node *) kept, lfirst(cell));
	return kept;
}

/* -- all of a statement */

static Node *
bare_mutator(Node *node, void *context)
{
	Bare	   *outer = context;

	if (node == NULL)
		return NULL;
	if (IsA(node, Query))
	{
		Query	   *query = (Query *) node;

		/* As in constants.c: what is like a grouping expression would be taken for it. */
		Bare		inner = {outer->registry, query->groupingSets == NIL};

		if (query->commandType == CMD_UPDATE)
		{
			Query	   *copy = makeNode(Query);

			*copy = *query;
			copy->targetList = replace_multiple(query->targetList, outer->registry);
			query = copy;
		}
		return (Node *) query_tree_mutator(query, bare_mutator, &inner, 0);
	}
	if (IsA(node, FromExpr))	/* comes before grouping */
	{
		Bare		inner = {outer->registry, true};

		return expression_tree_mutator(node, bare_mutator, &inner);
	}
	if (IsA(node, SubLink) && ((SubLink *) node)->subLinkType == EXPR_SUBLINK && outer->may_replace &&
		is_bare((SubLink *) node, outer->registry))
		return bare_mutator(column_of_bare((SubLink *) node, 1), context);
	return expression_tree_mutator(node, bare_mutator, context);
}

static bool
has_bare_walker(Node *node, void *registry)
{
	if (node == NULL)
		return false;
	if (IsA(node, SubLink) && only_computes((Query *) ((SubLink *) node)->subselect))
		return true;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, has_bare_walker, registry, 0);
	return expression_tree_walker(node, has_bare_walker, registry);
}

/* Return the query with the expressions of subqueries that only compute in the places of these. */
Query *
replace_bare_selects(Query *query, Registry *registry)
{
	Bare		bare = {registry, true};

	return has_bare_walker((Node *) query, registry) ? (Query *) bare_mutator((Node *) query, &bare) : query;
}
