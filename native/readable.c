/*
 * readable.c
 *	  What EXPLAIN prints of calls: none of the arguments that stand at their defaults.
 *
 *		llm.is_true('Is {review} kind?'::text, r.*, max_tokens => 7)
 *
 * PostgreSQL prints an expression as the plan has it, with every argument in its place, and no hook lets the text be another
 * one. So there is a copy of the plan to be shown, in which calls of batchable functions are shorter: what follows an argument
 * that is left out has its name. Such a call cannot be executed, and need not be: the nodes in execution get the copy of
 * their plans when nothing will be executed any more, for EXPLAIN alone after they have been initialized, for EXPLAIN ANALYZE
 * after the run.
 *
 * What is printed is SQL that means the same function: PostgreSQL's parser is asked.
 */
#include "pg_bridge.h"

#include <math.h>

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_func.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

static ExecutorStart_hook_type next_start;
static ExecutorFinish_hook_type next_finish;

/* -- calls */

/* Is a cast of a constant one that PostgreSQL makes by itself, and cannot end with an error? */
static bool
is_harmless(FuncExpr *cast)
{
	Const	   *value = linitial(cast->args);

	if (!IsA(value, Const))
		return false;
	switch (cast->funcid)
	{
		case F_INT4_INT2:
		case F_INT8_INT2:
		case F_INT8_INT4:
		case F_FLOAT4_INT2:
		case F_FLOAT4_INT4:
		case F_FLOAT4_INT8:
		case F_FLOAT8_INT2:
		case F_FLOAT8_INT4:
		case F_FLOAT8_INT8:
		case F_FLOAT8_FLOAT4:
		case F_NUMERIC_INT2:
		case F_NUMERIC_INT4:
		case F_NUMERIC_INT8:
			return true;
		case F_FLOAT8_NUMERIC:
			return value->constisnull ||
				!isinf(DatumGetFloat8(DirectFunctionCall1(numeric_float8_no_overflow, value->constvalue)));
		default:
			return false;
	}
}

/*
 * Is an argument its parameter's default? One that is not of the parameter's type is cast, and the plan has the result.
 * Of such casts those from number to number are computed; others may end with an error, and what PostgreSQL computes only for
 * a call without the argument must not end an EXPLAIN.
 */
static bool
is_default(Node *arg, Node *standard)
{
	if (equal(arg, standard))
		return true;
	return IsA(arg, Const) && IsA(standard, FuncExpr) &&
		((FuncExpr *) standard)->funcformat == COERCE_IMPLICIT_CAST && is_harmless((FuncExpr *) standard) &&
		equal(arg, eval_const_expressions(NULL, standard));
}

static bool
may_use_schema(Oid schema)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(NamespaceRelationId, schema, GetUserId(), ACL_USAGE) == ACLCHECK_OK;
#else
	return pg_namespace_aclcheck(schema, GetUserId(), ACL_USAGE) == ACLCHECK_OK;
#endif
}

/* Does a call, as it is printed, lead to its function, and not to another of the same name? */
static bool
leads_to_its_function(FuncExpr *call)
{
	Oid			schema = get_func_namespace(call->funcid);
	List	   *name = list_make2(makeString(get_namespace_name(schema)), makeString(get_func_name(call->funcid)));
	List	   *names = NIL;
	Oid			types[FUNC_MAX_ARGS];
	int			count = 0;
	Oid			found;
	Oid			result;
	bool		is_set;
	int			variadic;
	Oid			variadic_type;
	Oid		   *declared;
	FuncDetailCode code;
	ListCell   *cell;

	if (!may_use_schema(schema))
		return false;			/* whoever reads it cannot call it either */
	foreach(cell, call->args)
	{
		if (IsA(lfirst(cell), NamedArgExpr))
			names = lappend(names, ((NamedArgExpr *) lfirst(cell))->name);
		types[count++] = exprType(lfirst(cell));
	}
	code = func_get_detail(name, NIL, names, count, types, true, true,
#if PG_VERSION_NUM >= 140000
						   false,
#endif
						   &found, &result, &is_set, &variadic, &variadic_type, &declared, NULL);
	return code == FUNCDETAIL_NORMAL && found == call->funcid;
}

/* The call without some of its arguments; those that follow one of these, and those from a place on, have their names. */
static FuncExpr *
without(FuncExpr *call, const bool *left_out, char **names, int named_from)
{
	FuncExpr   *shorter = palloc(sizeof(FuncExpr));
	ListCell   *cell;

	*shorter = *call;
	shorter->args = NIL;
	foreach(cell, call->args)
	{
		int			i = foreach_current_index(cell);

		if (left_out[i])
			named_from = Min(named_from, i);
		else if (i < named_from)
			shorter->args = lappend(shorter->args, lfirst(cell));
		else
		{
			NamedArgExpr *named = makeNode(NamedArgExpr);

			named->arg = lfirst(cell);
			named->name = names[i];
			named->argnumber = i;
			named->location = -1;
			shorter->args = lappend(shorter->args, named);
		}
	}
	return shorter;
}

/* Which arguments of a call can be left out, and the names of all; NULL if some have none. */
static char **
look_at_arguments(FuncExpr *call, HeapTuple function, bool *left_out)
{
	int			count = list_length(call->args);
	List	   *defaults = NIL;
	Datum		datum;
	Datum		modes;
	bool		is_null;
	bool		no_modes;
	char	  **names = NULL;
	int			first;
	int			i;

	datum = SysCacheGetAttr(PROCOID, function, Anum_pg_proc_proargdefaults, &is_null);
	if (!is_null)
		defaults = castNode(List, stringToNode(TextDatumGetCString(datum)));
	first = count - list_length(defaults);
	for (i = 0; i < count; i++)
		left_out[i] = i >= first && is_default(list_nth(call->args, i), list_nth(defaults, i - first));
	datum = SysCacheGetAttr(PROCOID, function, Anum_pg_proc_proargnames, &is_null);
	modes = SysCacheGetAttr(PROCOID, function, Anum_pg_proc_proargmodes, &no_modes);
	if (!is_null && get_func_input_arg_names(datum, no_modes ? PointerGetDatum(NULL) : modes, &names) == count)
	{
		for (i = 0; i < count && names[i]; i++)
			;
		if (i == count)
			return names;
	}
	/* Without names all are in their places that are followed by another. */
	for (i = count - 1; i >= 0 && left_out[i]; i--)
		;
	for (; i >= 0; i--)
		left_out[i] = false;
	return NULL;
}

/* The call as it is shown. */
static FuncExpr *
shorter(FuncExpr *call)
{
	HeapTuple	function = SearchSysCache1(PROCOID, ObjectIdGetDatum(call->funcid));
	int			count = list_length(call->args);
	bool		left_out[FUNC_MAX_ARGS];
	char	  **names;
	FuncExpr   *found = call;

	if (!HeapTupleIsValid(function))
		elog(ERROR, "cache lookup failed for function %u", call->funcid);
	if (((Form_pg_proc) GETSTRUCT(function))->pronargs == count)
	{
		names = look_at_arguments(call, function, left_out);
		found = without(call, left_out, names, count);
		/* A function of fewer parameters may take it, if their names do not tell. */
		if (!leads_to_its_function(found) && names)
			found = without(call, left_out, names, 1);
		if (!leads_to_its_function(found))
			found = call;
	}
	ReleaseSysCache(function);
	return found;
}

/* Is a call shown without its defaults? Those that can be batched, and those of the extensions' own functions. */
static bool
is_shortened(Node *node, Registry *registry)
{
	Oid			function = IsA(node, FuncExpr) ? ((FuncExpr *) node)->funcid : InvalidOid;

	return function >= FirstNormalObjectId && !((FuncExpr *) node)->funcvariadic &&
		(find_batch_function(registry, function) || is_of_extension(function, "pg_bridge") ||
		 is_of_extension(function, "pg_bridge_multicorn"));
}

static Node *
shorten_mutator(Node *node, void *registry)
{
	Node	   *copy;

	if (node == NULL)
		return NULL;
	copy = expression_tree_mutator(node, shorten_mutator, registry);
	if (is_shortened(copy, registry))
		return (Node *) shorter((FuncExpr *) copy);
	return copy;
}

/* A copy of an expression as it is shown. */
Node *
readable(Node *expr, Registry *registry)
{
	return shorten_mutator(expr, registry);
}

/* -- plans */

typedef bool (*VisitExpr) (Node **expr, void *context);

/* Visit the expressions of a node that EXPLAIN prints; true as soon as one is. */
static bool
visit_expressions(Plan *plan, VisitExpr visit, void *context)
{
#define VISIT(field) visit((Node **) &(field), context)
	if (VISIT(plan->targetlist) || VISIT(plan->qual))
		return true;
	switch (nodeTag(plan))
	{
		case T_IndexScan:
			return VISIT(((IndexScan *) plan)->indexqualorig) || VISIT(((IndexScan *) plan)->indexorderbyorig);
		case T_IndexOnlyScan:
			return VISIT(((IndexOnlyScan *) plan)->indexqual) || VISIT(((IndexOnlyScan *) plan)->indexorderby) ||
				VISIT(((IndexOnlyScan *) plan)->indextlist);
		case T_BitmapIndexScan:
			return VISIT(((BitmapIndexScan *) plan)->indexqualorig);
		case T_BitmapHeapScan:
			return VISIT(((BitmapHeapScan *) plan)->bitmapqualorig);
		case T_TidScan:
			return VISIT(((TidScan *) plan)->tidquals);
		case T_FunctionScan:
			return VISIT(((FunctionScan *) plan)->functions);
		case T_TableFuncScan:
			return VISIT(((TableFuncScan *) plan)->tablefunc);
		case T_CustomScan:
			return VISIT(((CustomScan *) plan)->custom_scan_tlist);
		case T_NestLoop:
			return VISIT(((Join *) plan)->joinqual);
		case T_MergeJoin:
			return VISIT(((Join *) plan)->joinqual) || VISIT(((MergeJoin *) plan)->mergeclauses);
		case T_HashJoin:
			return VISIT(((Join *) plan)->joinqual) || VISIT(((HashJoin *) plan)->hashclauses);
		case T_Result:
			return VISIT(((Result *) plan)->resconstantqual);
		case T_ModifyTable:
			return VISIT(((ModifyTable *) plan)->onConflictWhere);
		default:
			return false;
	}
#undef VISIT
}

typedef bool (*VisitPlan) (Plan *plan, void *context);

/* Visit a plan and all that are below it; true as soon as one is. */
static bool
visit_plans(Plan *plan, VisitPlan visit, void *context)
{
	List	   *several = NIL;
	ListCell   *cell;

	check_stack_depth();
	if (plan == NULL)
		return false;
	if (visit(plan, context))
		return true;
	switch (nodeTag(plan))
	{
		case T_Append:
			several = ((Append *) plan)->appendplans;
			break;
		case T_MergeAppend:
			several = ((MergeAppend *) plan)->mergeplans;
			break;
		case T_BitmapAnd:
			several = ((BitmapAnd *) plan)->bitmapplans;
			break;
		case T_BitmapOr:
			several = ((BitmapOr *) plan)->bitmapplans;
			break;
		case T_CustomScan:
			several = ((CustomScan *) plan)->custom_plans;
			break;
#if PG_VERSION_NUM < 140000
		case T_ModifyTable:
			several = ((ModifyTable *) plan)->plans;
			break;
#endif
		case T_SubqueryScan:
			if (visit_plans(((SubqueryScan *) plan)->subplan, visit, context))
				return true;
			break;
		default:
			break;
	}
	foreach(cell, several)
	{
		if (visit_plans(lfirst(cell), visit, context))
			return true;
	}
	return visit_plans(outerPlan(plan), visit, context) || visit_plans(innerPlan(plan), visit, context);
}

static bool
visit_all_plans(PlannedStmt *stmt, VisitPlan visit, void *context)
{
	ListCell   *cell;

	foreach(cell, stmt->subplans)
	{
		if (visit_plans(lfirst(cell), visit, context))
			return true;
	}
	return visit_plans(stmt->planTree, visit, context);
}

static bool
shortened_walker(Node *node, void *registry)
{
	return node != NULL &&
		(is_shortened(node, registry) || expression_tree_walker(node, shortened_walker, registry));
}

static bool
expression_has_call(Node **expr, void *registry)
{
	return shortened_walker(*expr, registry);
}

static bool
plan_has_call(Plan *plan, void *registry)
{
	return visit_expressions(plan, expression_has_call, registry);
}

/* -- a copy to be shown */

typedef struct Shown
{
	Registry   *registry;
	int			count;
	Plan	  **plans;			/* by their numbers */
} Shown;

static bool
shorten_expression(Node **expr, void *registry)
{
	*expr = readable(*expr, registry);
	return false;
}

static bool
shorten_plan(Plan *plan, void *context)
{
	Shown	   *shown = context;

	if (plan->plan_node_id >= 0 && plan->plan_node_id < shown->count)
		shown->plans[plan->plan_node_id] = plan;
	return visit_expressions(plan, shorten_expression, shown->registry);
}

/* Let the nodes show the copy of their plans. */
static bool
show_copy(PlanState *state, void *context)
{
	Shown	   *shown = context;
	int			id = state->plan->plan_node_id;
	Plan	   *copy = id >= 0 && id < shown->count ? shown->plans[id] : NULL;

	if (copy && nodeTag(copy) == nodeTag(state->plan))
		state->plan = copy;
	return planstate_tree_walker(state, show_copy, context);
}

static bool
mentions_functions(PlannedStmt *stmt)
{
	ListCell   *cell;

	foreach(cell, stmt->invalItems)
	{
		if (((PlanInvalItem *) lfirst(cell))->cacheId == PROCOID)
			return true;
	}
	return false;
}

static void
make_readable(QueryDesc *query)
{
	PlannedStmt *stmt = query->plannedstmt;
	Shown		shown = {new_registry(), next_plan_node_id(stmt), NULL};
	MemoryContext caller;

	if (!mentions_functions(stmt) || !visit_all_plans(stmt, plan_has_call, shown.registry))
		return;
	caller = MemoryContextSwitchTo(query->estate->es_query_cxt);
	shown.plans = palloc0(shown.count * sizeof(Plan *));
	stmt = copyObject(stmt);
	visit_all_plans(stmt, shorten_plan, &shown);
	show_copy(query->planstate, &shown);
	query->plannedstmt = stmt;	/* subplans and CTEs are looked up in it */
	MemoryContextSwitchTo(caller);
}

static void
start_executor(QueryDesc *query, int eflags)
{
	if (next_start)
		next_start(query, eflags);
	else
		standard_ExecutorStart(query, eflags);
	if (eflags & EXEC_FLAG_EXPLAIN_ONLY)
		make_readable(query);
}

static void
finish_executor(QueryDesc *query)
{
	if (next_finish)
		next_finish(query);
	else
		standard_ExecutorFinish(query);
	if (query->instrument_options)
		make_readable(query);
}

void
readable_init(void)
{
	next_start = ExecutorStart_hook;
	ExecutorStart_hook = start_executor;
	next_finish = ExecutorFinish_hook;
	ExecutorFinish_hook = finish_executor;
}
