/*
 * registry.c
 *	  Which functions are batchable: those with the setting pg_bridge.batch, which names who answers their calls.
 *
 *		ALTER FUNCTION word(text, int) SET pg_bridge.batch = 'public.word_batch'
 *
 * So a registration goes with its function when that is dropped, dumped or altered, whoever owns the function decides
 * about it as about the function's body, and PostgreSQL plans anew what was planned before: the plan cache looks at
 * every function that a plan mentions. What such a plan does not know of is looked at here.
 *
 * A batch function may have a boolean before its arrays, and is then given the calls of a window in parts. Where there are
 * both of a name, this one counts.
 *
 * A name that leads to no function, or to one that does not fit, is no error: calls are made one by one.
 * llm._misfit() in sql/batching.sql says the same as fits() here, in words.
 */
#include "pg_bridge.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/plancache.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

/* What kept plans rest on besides the functions that they mention. */
static bool missing_function = false;	/* a name led to no function that fits */
static bool roles_matter = false;	/* a superuser owns a function that counted; or a right did */

static void
functions_changed(Datum arg, int cache, uint32 hash)
{
	if (missing_function)
		ResetPlanCache();
	missing_function = false;
}

static void
roles_changed(Datum arg, int cache, uint32 hash)
{
	if (roles_matter)
		ResetPlanCache();
	roles_matter = false;
}

void
registry_init(void)
{
	CacheRegisterSyscacheCallback(PROCNAMEARGSNSP, functions_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHOID, roles_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, roles_changed, (Datum) 0);
}

/* -- a function's settings */

static char *
setting_of(HeapTuple function, const char *name)
{
	bool		is_null;
	Datum		settings = SysCacheGetAttr(PROCOID, function, Anum_pg_proc_proconfig, &is_null);
	Size		length = strlen(name);
	Datum	   *texts;
	int			count;
	int			i;

	if (is_null)
		return NULL;
	deconstruct_array(DatumGetArrayTypeP(settings), TEXTOID, -1, false, TYPALIGN_INT, &texts, NULL, &count);
	for (i = 0; i < count; i++)
	{
		char	   *setting = TextDatumGetCString(texts[i]);

		if (pg_strncasecmp(setting, name, length) == 0 && setting[length] == '=')
			return setting + length + 1;
	}
	return NULL;
}

static int
parallel_rank(char label)
{
	return label == PROPARALLEL_SAFE ? 2 : label == PROPARALLEL_RESTRICTED ? 1 : 0;
}

/*
 * May a function answer for another?
 *
 * By its owner, above all: a name is anybody's to take who may create functions in its schema, once the function that
 * had it is gone.
 */
static bool
fits(Form_pg_proc answering, Form_pg_proc called, Oid result)
{
	if (answering->prokind != PROKIND_FUNCTION || answering->proretset || answering->prorettype != result)
		return false;
	if (called->proleakproof && !answering->proleakproof)
		return false;
	if (parallel_rank(answering->proparallel) < parallel_rank(called->proparallel))
		return false;
	if (answering->proowner == called->proowner)
		return true;
	roles_matter = true;
	return superuser_arg(answering->proowner);
}

/* Find the function of a name, which must be qualified, and these arguments, if it may answer for the one called. */
static Oid
find_answering(const char *name, Oid *arguments, int nargs, Form_pg_proc called, Oid result)
{
	List	   *parts;
	Oid			schema;
	HeapTuple	tuple;
	Oid			found = InvalidOid;

	if (SplitIdentifierString(pstrdup(name), '.', &parts) && list_length(parts) == 2 &&
		OidIsValid(schema = get_namespace_oid(linitial(parts), true)))
	{
		tuple = SearchSysCache3(PROCNAMEARGSNSP, CStringGetDatum(lsecond(parts)),
								PointerGetDatum(buildoidvector(arguments, nargs)), ObjectIdGetDatum(schema));
		if (HeapTupleIsValid(tuple))
		{
			if (fits((Form_pg_proc) GETSTRUCT(tuple), called, result))
				found = ((Form_pg_proc) GETSTRUCT(tuple))->oid;
			ReleaseSysCache(tuple);
		}
	}
	return found;
}

/* Find a function's batch function. */
static Oid
find_batch(const char *name, Form_pg_proc called, Oid result)
{
	Oid			arguments[FUNC_MAX_ARGS + 1] = {INT8OID, INT4OID, BOOLOID};
	Oid			found = InvalidOid;
	int			i;

	for (i = 0; i < called->pronargs; i++)
		arguments[i + 3] = JSONARRAYOID;
	if (called->pronargs + 3 <= FUNC_MAX_ARGS)
		found = find_answering(name, arguments, called->pronargs + 3, called, result);
	if (OidIsValid(found))
		return found;
	arguments[2] = JSONARRAYOID;
	return find_answering(name, arguments, called->pronargs + 2, called, result);
}

/* The type that a function's batch function returns; InvalidOid if its calls cannot be answered in batches. */
static Oid
batch_result(Form_pg_proc called)
{
	if (called->prokind != PROKIND_FUNCTION || called->proretset || OidIsValid(called->provariadic) ||
		called->pronargs + 2 > FUNC_MAX_ARGS || get_typtype(called->prorettype) == TYPTYPE_PSEUDO)
		return InvalidOid;
	return get_array_type(called->prorettype);
}

static void
look_up(BatchFunction *entry)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(entry->function));
	Oid			of_report[] = {INT8OID, INT4OID};
	Form_pg_proc called;
	Oid			result;
	char	   *batch;
	char	   *report;

	if (!HeapTupleIsValid(tuple))
		return;					/* dropped meanwhile: whoever calls it will say so */
	called = (Form_pg_proc) GETSTRUCT(tuple);
	batch = setting_of(tuple, "pg_bridge.batch");
	report = setting_of(tuple, "pg_bridge.report");
	if (batch && OidIsValid(result = batch_result(called)))
	{
		entry->batch = find_batch(batch, called, result);
		if (OidIsValid(entry->batch) && report)
			entry->report = find_answering(report, of_report, 2, called, TEXTARRAYOID);
		missing_function |= !OidIsValid(entry->batch) || (report && !OidIsValid(entry->report));
	}
	ReleaseSysCache(tuple);
}

/* -- what a statement's planning knows of */

Registry *
new_registry(void)
{
	return palloc0(sizeof(Registry));
}

BatchFunction *
find_batch_function(Registry *registry, Oid function)
{
	BatchFunction *entry;
	ListCell   *cell;

	if (function < FirstNormalObjectId)
		return NULL;			/* built in */
	foreach(cell, registry->functions)
	{
		entry = lfirst(cell);
		if (entry->function == function)
			return OidIsValid(entry->batch) ? entry : NULL;
	}
	entry = palloc0(sizeof(BatchFunction));
	entry->function = function;
	look_up(entry);
	registry->functions = lappend(registry->functions, entry);
	return OidIsValid(entry->batch) ? entry : NULL;
}

static void
depend_on_function(PlannedStmt *stmt, Oid function)
{
	PlanInvalItem *item;

	if (!OidIsValid(function))
		return;
	item = makeNode(PlanInvalItem);
	item->cacheId = PROCOID;
	item->hashValue = GetSysCacheHashValue1(PROCOID, ObjectIdGetDatum(function));
	stmt->invalItems = lappend(stmt->invalItems, item);
}

/* A plan is made anew when a function changes that answers for one of its own; those it has noted already. */
void
depend_on_registry(PlannedStmt *stmt, Registry *registry)
{
	ListCell   *cell;

	foreach(cell, registry->functions)
	{
		BatchFunction *entry = lfirst(cell);

		depend_on_function(stmt, entry->batch);
		depend_on_function(stmt, entry->report);
	}
	foreach(cell, registry->aggregates)
		depend_on_function(stmt, lfirst_oid(cell));
	if (registry->aggregates)
		stmt->dependsOnRole = roles_matter = true;
}

/*
 * The call of a batchable function that an expression is, or that an operator stands for; NULL if it is none. The planner
 * keeps operators, for all that it knows of them: indexes, hashing, selectivity.
 */
FuncExpr *
as_call(Node *node, Registry *registry)
{
	Oid			function;

	if (IsA(node, FuncExpr))
		return find_batch_function(registry, ((FuncExpr *) node)->funcid) ? (FuncExpr *) node : NULL;
	if (!IsA(node, OpExpr))
		return NULL;
	function = ((OpExpr *) node)->opfuncid;
	if (!OidIsValid(function))	/* before planning */
		function = get_opcode(((OpExpr *) node)->opno);
	if (!find_batch_function(registry, function))
		return NULL;
	return makeFuncExpr(function, ((OpExpr *) node)->opresulttype, ((OpExpr *) node)->args,
						((OpExpr *) node)->opcollid, ((OpExpr *) node)->inputcollid, COERCE_EXPLICIT_CALL);
}

static bool
contains_call_walker(Node *node, void *registry)
{
	if (node == NULL)
		return false;
	if (as_call(node, registry) || (IsA(node, SubPlan) && asks_about_row((SubPlan *) node, registry)))
		return true;
	return expression_tree_walker(node, contains_call_walker, registry);
}

/* Does an expression hold a call of a batchable function, at any depth? */
bool
contains_call(Node *node, Registry *registry)
{
	return contains_call_walker(node, registry);
}

/* Is a function one of an extension's? What others do, nobody here knows. */
bool
is_of_extension(Oid function, const char *name)
{
	Oid			extension = get_extension_oid(name, true);

	return OidIsValid(extension) && getExtensionOfObject(ProcedureRelationId, function) == extension;
}

/* What a function's COST says, in units of cpu_operator_cost. */
double
cost_of(Oid function)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	double		cost;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", function);
	cost = ((Form_pg_proc) GETSTRUCT(tuple))->procost;
	ReleaseSysCache(tuple);
	return cost;
}
