/*
 * sure_calls.c
 *	  A call whose confidence the statement wants, too, is asked together with it.
 *
 *		SELECT llm.is_true('Is {review} kind?', r), llm.is_true_confidence('Is {review} kind?', r) FROM r
 *
 * An answer that was asked for without its confidence has none, so the first of the two would be asked again for the second.
 * Where a statement holds both, of one prompt and the same options, the first gets the argument confidence => true: what it is
 * then answered is what the other one needs, whichever is called first, in whatever part of the plan. What they are about is
 * not compared, for a view's row and that of its table are the same to nobody who plans; at worst an engine tells what is not
 * needed. This happens before planning, for calls as they are written: defaults are not there yet.
 */
#include "pg_bridge.h"

#include "access/transam.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#define SUFFIX "_confidence"
#define ARGUMENT "confidence"
#define INPUT 1					/* the place of what a call is about */

/* Is a function one of the extension's, on whichever host? */
bool
is_of_bridge(Oid function)
{
	return is_of_extension(function, "pg_bridge") || is_of_extension(function, "pg_bridge_multicorn");
}

/* The name of the function of whose answers this one of the extension's tells how sure they are; NULL if it is none. */
static char *
tells_of(Oid function)
{
	char	   *name = function < FirstNormalObjectId ? NULL : get_func_name(function);
	size_t		length = name ? strlen(name) : 0;

	if (length <= strlen(SUFFIX) || strcmp(name + length - strlen(SUFFIX), SUFFIX) != 0 || !is_of_bridge(function))
		return NULL;
	return pnstrdup(name, length - strlen(SUFFIX));
}

/* The place of an argument of some name and type; -1 where the function has none. */
int
place_of_argument(Oid function, const char *name, Oid type)
{
	Oid		   *types;
	char	  **names;
	char	   *modes;
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	int			count;
	int			place = -1;
	int			i;

	if (!HeapTupleIsValid(tuple))
		return -1;
	count = get_func_arg_info(tuple, &types, &names, &modes);
	for (i = 0; names && i < count; i++)
		if (strcmp(names[i], name) == 0 && types[i] == type)
			place = i;
	ReleaseSysCache(tuple);
	return place;
}

/* Give a call one more argument, by its name. */
void
add_argument(FuncExpr *call, const char *name, int place, Expr *value)
{
	NamedArgExpr *named = makeNode(NamedArgExpr);

	named->arg = value;
	named->name = pstrdup(name);
	named->argnumber = place;
	named->location = -1;
	call->args = lappend(call->args, named);
}

/* -- what is wanted */

static bool
wanted_walker(Node *node, void *context)
{
	List	  **wanted = context;

	if (node == NULL)
		return false;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, wanted_walker, context, 0);
	if (IsA(node, FuncExpr) && tells_of(((FuncExpr *) node)->funcid))
		*wanted = lappend(*wanted, node);
	return expression_tree_walker(node, wanted_walker, context);
}

/* -- who is told */

/* Do two lists of arguments say the same, but for the input? Those that are named stand where they are written. */
static bool
ask_alike(List *these, List *those)
{
	ListCell   *this;
	ListCell   *that;

	if (list_length(these) != list_length(those))
		return false;
	forboth(this, these, that, those)
	{
		Node	   *one = lfirst(this);
		Node	   *other = lfirst(that);
		int			place = foreach_current_index(this);

		if (IsA(one, NamedArgExpr) && IsA(other, NamedArgExpr))
		{
			if (((NamedArgExpr *) one)->argnumber == INPUT && ((NamedArgExpr *) other)->argnumber == INPUT)
				continue;
			if (strcmp(((NamedArgExpr *) one)->name, ((NamedArgExpr *) other)->name) != 0)
				return false;
			one = (Node *) ((NamedArgExpr *) one)->arg;
			other = (Node *) ((NamedArgExpr *) other)->arg;
		}
		else if (place == INPUT)
			continue;
		if (!equal(one, other))
			return false;
	}
	return true;
}

static bool
is_wanted(FuncExpr *call, List *wanted)
{
	ListCell   *cell;

	foreach(cell, wanted)
	{
		FuncExpr   *other = lfirst(cell);

		if (ask_alike(other->args, call->args) && strcmp(tells_of(other->funcid), get_func_name(call->funcid)) == 0 &&
			is_of_bridge(call->funcid))
			return true;
	}
	return false;
}

static Node *
sure_mutator(Node *node, void *context)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Query))
		return (Node *) query_tree_mutator((Query *) node, sure_mutator, context, 0);
	if (IsA(node, FuncExpr) && is_wanted((FuncExpr *) node, context))
	{
		FuncExpr   *call = (FuncExpr *) expression_tree_mutator(node, sure_mutator, context);
		int			place = place_of_argument(call->funcid, ARGUMENT, BOOLOID);

		if (place >= list_length(call->args))	/* else it has none, or as many arguments as say it already */
			add_argument(call, ARGUMENT, place, (Expr *) makeBoolConst(true, false));
		return (Node *) call;
	}
	return expression_tree_mutator(node, sure_mutator, context);
}

/* Return the query with confidence => true in the calls whose confidence it wants, too. */
Query *
ask_sure_calls_once(Query *query)
{
	List	   *wanted = NIL;

	(void) wanted_walker((Node *) query, &wanted);
	return wanted ? (Query *) sure_mutator((Node *) query, wanted) : query;
}
