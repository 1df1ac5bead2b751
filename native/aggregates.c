/*
 * aggregates.c
 *	  Aggregates whose final function is batchable: the function is called with the groups' states above the aggregation.
 *
 * Such an aggregate, agg, has a twin without a final function: _agg, in the same schema, of the same arguments, transition
 * function and state. agg(x) becomes final(_agg(x)), before planning, so that the calls of all groups are gathered as any
 * others are. The same goes for window functions. Without a twin, or where the role may not call all three, the aggregate stays
 * what it is, and its final function is called group by group.
 */
#include "pg_bridge.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

typedef struct Split
{
	Oid			final;
	Oid			twin;
	Oid			state;			/* the type */
} Split;

static bool
read_aggregate(Oid function, FormData_pg_aggregate *aggregate)
{
	HeapTuple	tuple = SearchSysCache1(AGGFNOID, ObjectIdGetDatum(function));

	if (!HeapTupleIsValid(tuple))
		return false;
	memcpy(aggregate, GETSTRUCT(tuple), sizeof(FormData_pg_aggregate));
	ReleaseSysCache(tuple);
	return true;
}

/* As in registry.c: a name is anybody's to take, so the twin is the owner's of the aggregate, or a superuser's. */
static Oid
find_twin(Form_pg_proc called)
{
	char		name[NAMEDATALEN + 1];
	HeapTuple	tuple;
	Oid			twin = InvalidOid;

	snprintf(name, sizeof(name), "_%s", NameStr(called->proname));
	if (strlen(name) >= NAMEDATALEN)
		return InvalidOid;
	tuple = SearchSysCache3(PROCNAMEARGSNSP, CStringGetDatum(name), PointerGetDatum(&called->proargtypes),
							ObjectIdGetDatum(called->pronamespace));
	if (HeapTupleIsValid(tuple))
	{
		Form_pg_proc found = (Form_pg_proc) GETSTRUCT(tuple);

		if (found->prokind == PROKIND_AGGREGATE && (found->proowner == called->proowner || superuser_arg(found->proowner)))
			twin = found->oid;
		ReleaseSysCache(tuple);
	}
	return twin;
}

static bool
may_call(Oid function)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(ProcedureRelationId, function, GetUserId(), ACL_EXECUTE) == ACLCHECK_OK;
#else
	return pg_proc_aclcheck(function, GetUserId(), ACL_EXECUTE) == ACLCHECK_OK;
#endif
}

/*
 * May the role call an aggregate, and what is called in its place? The executor, which looks at what it finds in the plan,
 * will not find the aggregate.
 */
static bool
may_split(Oid function, Split *split, Registry *registry)
{
	registry->aggregates = list_append_unique_oid(registry->aggregates, function);
	return may_call(function) && may_call(split->twin) && may_call(split->final);
}

/* Can an aggregate's final function be called above the aggregation? */
static bool
can_split(Oid function, Registry *registry, Split *split)
{
	FormData_pg_aggregate whole;
	FormData_pg_aggregate bare;
	HeapTuple	tuple;

	if (function < FirstNormalObjectId || !read_aggregate(function, &whole) || whole.aggkind != AGGKIND_NORMAL ||
		!OidIsValid(whole.aggfinalfn) || whole.aggfinalextra ||
		IsPolymorphicType(whole.aggtranstype) || !find_batch_function(registry, whole.aggfinalfn))
		return false;
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	if (!HeapTupleIsValid(tuple))
		return false;
	split->twin = find_twin((Form_pg_proc) GETSTRUCT(tuple));
	ReleaseSysCache(tuple);
	split->final = whole.aggfinalfn;
	split->state = whole.aggtranstype;
	return OidIsValid(split->twin) && read_aggregate(split->twin, &bare) && bare.aggkind == AGGKIND_NORMAL &&
		bare.aggtransfn == whole.aggtransfn && bare.aggtranstype == whole.aggtranstype &&
		!OidIsValid(bare.aggfinalfn) && !OidIsValid(bare.aggmtransfn) && may_split(function, split, registry);
}

static Node *
split_mutator(Node *node, void *context)
{
	Split		split;

	if (node == NULL)
		return NULL;
	if (IsA(node, Query))
		return (Node *) query_tree_mutator((Query *) node, split_mutator, context, 0);
	if (IsA(node, Aggref) && can_split(((Aggref *) node)->aggfnoid, context, &split))
	{
		Aggref	   *whole = (Aggref *) node;
		Aggref	   *bare = (Aggref *) expression_tree_mutator(node, split_mutator, context);

		bare->aggfnoid = split.twin;
		bare->aggtype = split.state;
		bare->aggcollid = get_typcollation(split.state);
		return (Node *) makeFuncExpr(split.final, whole->aggtype, list_make1(bare), whole->aggcollid, whole->inputcollid,
									 COERCE_EXPLICIT_CALL);
	}
	if (IsA(node, WindowFunc) && can_split(((WindowFunc *) node)->winfnoid, context, &split))
	{
		WindowFunc *whole = (WindowFunc *) node;
		WindowFunc *bare = (WindowFunc *) expression_tree_mutator(node, split_mutator, context);

		bare->winfnoid = split.twin;
		bare->wintype = split.state;
		bare->wincollid = get_typcollation(split.state);
		return (Node *) makeFuncExpr(split.final, whole->wintype, list_make1(bare), whole->wincollid, whole->inputcollid,
									 COERCE_EXPLICIT_CALL);
	}
	return expression_tree_mutator(node, split_mutator, context);
}

static bool
has_aggregate_walker(Node *node, void *registry)
{
	Split		split;

	if (node == NULL)
		return false;
	if (IsA(node, Aggref) && can_split(((Aggref *) node)->aggfnoid, registry, &split))
		return true;
	if (IsA(node, WindowFunc) && can_split(((WindowFunc *) node)->winfnoid, registry, &split))
		return true;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, has_aggregate_walker, registry, 0);
	return expression_tree_walker(node, has_aggregate_walker, registry);
}

/* Return the query with batchable final functions called by themselves. */
Query *
call_final_functions(Query *query, Registry *registry)
{
	return has_aggregate_walker((Node *) query, registry) ? (Query *) split_mutator((Node *) query, registry) : query;
}
