/*
 * registry.c
 *	  Which functions are batchable: the table llm.batch_function of the extension pg_bridge.
 *
 * The table is read anew for each statement that could call such a function, so that a registration is seen by the
 * next statement and rolled back with its transaction. Only the extension's own table counts: anybody could make a
 * schema of that name elsewhere.
 */
#include "pg_bridge.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_proc.h"
#include "commands/extension.h"
#include "nodes/nodeFuncs.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#define EXTENSION "pg_bridge"
#define SCHEMA "llm"
#define TABLE "batch_function"

static Oid	trusted_table = InvalidOid;

static void
table_changed(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == trusted_table)
		trusted_table = InvalidOid;
}

void
registry_init(void)
{
	CacheRegisterRelcacheCallback(table_changed, (Datum) 0);
}

static Oid
registry_table(void)
{
	Oid			schema = get_namespace_oid(SCHEMA, true);
	Oid			table = OidIsValid(schema) ? get_relname_relid(TABLE, schema) : InvalidOid;

	if (!OidIsValid(table) || table == trusted_table)
		return table;
	if (getExtensionOfObject(RelationRelationId, table) != get_extension_oid(EXTENSION, true))
		return InvalidOid;
	return trusted_table = table;
}

List *
load_registry(void)
{
	Oid			table = registry_table();
	List	   *found = NIL;
	Relation	relation;
	SysScanDesc scan;
	HeapTuple	tuple;

	if (!OidIsValid(table))
		return NIL;
	relation = table_open(table, AccessShareLock);
	scan = systable_beginscan(relation, InvalidOid, false, NULL, 0, NULL);
	while ((tuple = systable_getnext(scan)) != NULL)
	{
		BatchFunction *entry = palloc0(sizeof(BatchFunction));
		bool		is_null;
		Datum		report = heap_getattr(tuple, 3, RelationGetDescr(relation), &is_null);

		entry->report = is_null ? InvalidOid : DatumGetObjectId(report);
		entry->function = DatumGetObjectId(heap_getattr(tuple, 1, RelationGetDescr(relation), &is_null));
		entry->batch = DatumGetObjectId(heap_getattr(tuple, 2, RelationGetDescr(relation), &is_null));
		found = lappend(found, entry);
	}
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	return found;
}

BatchFunction *
find_batch_function(List *registry, Oid function)
{
	ListCell   *cell;

	foreach(cell, registry)
	{
		BatchFunction *entry = lfirst(cell);

		if (entry->function == function)
			return entry;
	}
	return NULL;
}

static bool
contains_call_walker(Node *node, void *registry)
{
	if (node == NULL)
		return false;
	if (IsA(node, FuncExpr) && find_batch_function(registry, ((FuncExpr *) node)->funcid))
		return true;
	return expression_tree_walker(node, contains_call_walker, registry);
}

/* Does an expression hold a call of a batchable function, at any depth? */
bool
contains_call(Node *node, List *registry)
{
	return contains_call_walker(node, registry);
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
