/*
 * multicorn_guard.c
 *	  Scans by Multicorn: values that are known only at run time, and cancels.
 *
 * Multicorn 3.2 leaves such a value unevaluated for EXPLAIN, as it should, and then reads it as if it were there: of a type
 * that is passed by reference that is a null pointer, and the server goes down, whoever asked. Each scan in execution has a
 * copy of its wrapper's functions for itself, so these scans get another one for EXPLAIN, which shows nothing of the value.
 * In execution it takes every such value for a parameter or an operator's result, and finds the type of others where there
 * is none: a scan that has one is refused.
 *
 * That is about the tables of any wrapper. Of pg_bridge's own, one that stands behind a security barrier asks no model: Multicorn
 * hands over what it knows of the conditions without their order.
 *
 * An error of Multicorn's has no SQLSTATE. Where Python stops because the statement is to, PostgreSQL says so itself, in its own
 * words and with 57014: pg_bridge's scans, and the look at a source that comes with planning, run in PG_TRY.
 */
#include "foreign_scan.h"

#include "catalog/pg_class.h"
#include "executor/executor.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/paths.h"
#include "optimizer/plancat.h"
#include "utils/lsyscache.h"

static ExecutorStart_hook_type next_start;
static get_relation_info_hook_type next_info;
static set_rel_pathlist_hook_type next_paths;

/* Of the values in a scan's conditions */
typedef struct Values
{
	bool		cannot_be_explained;
	bool		cannot_be_read;
} Values;

/* Multicorn looks behind one change of type, as this does. */
static Node *
operand(List *operands, int place)
{
	Node	   *node = list_nth(operands, place);

	if (IsA(node, RelabelType))
		return (Node *) ((RelabelType *) node)->arg;
	if (IsA(node, ArrayCoerceExpr))
		return (Node *) ((ArrayCoerceExpr *) node)->arg;
	return node;
}

static void
look_at_value(Node *value, Values *values)
{
	/* it takes none that needs a row, or that is another one each time */
	if (IsA(value, Const) || contain_var_clause(value) || contain_volatile_functions(value))
		return;
	if (IsA(value, Param) || IsA(value, OpExpr))
		values->cannot_be_explained |= !get_typbyval(exprType(value));
	else
		values->cannot_be_explained = values->cannot_be_read = true;
}

static Values
values_of(List *conditions)
{
	Values		values = {false, false};
	ListCell   *cell;

	foreach(cell, conditions)
	{
		Node	   *node = lfirst(cell);
		List	   *operands = IsA(node, OpExpr) ? ((OpExpr *) node)->args :
			IsA(node, ScalarArrayOpExpr) ? ((ScalarArrayOpExpr *) node)->args : NIL;

		/* Of others it takes none that has a value. */
		if (list_length(operands) != 2)
			continue;
		if (IsA(operand(operands, 0), Var))
			look_at_value(operand(operands, 1), &values);
		else if (IsA(operand(operands, 1), Var))
			look_at_value(operand(operands, 0), &values);
	}
	return values;
}

static bool
is_of_multicorn(Oid server)
{
	ForeignDataWrapper *wrapper = GetForeignDataWrapper(GetForeignServer(server)->fdwid);
	char	   *handler = OidIsValid(wrapper->fdwhandler) ? get_func_name(wrapper->fdwhandler) : NULL;

	return handler && strcmp(handler, "multicorn_handler") == 0;
}

static bool
is_ours(Oid server)
{
	return strcmp(GetForeignDataWrapper(GetForeignServer(server)->fdwid)->fdwname, "pg_bridge") == 0;
}

/* Instead of an error that has been caught, if the statement is to stop. */
static void
raise_cancel(void)
{
	if (QueryCancelPending || ProcDiePending)
		CHECK_FOR_INTERRUPTS();
}

static TupleTableSlot *
iterate_or_cancel(ForeignScanState *node)
{
	TupleTableSlot *slot = NULL;

	PG_TRY();
	{
		slot = GetFdwRoutineForRelation(node->ss.ss_currentRelation, false)->IterateForeignScan(node);
	}
	PG_CATCH();
	{
		raise_cancel();
		PG_RE_THROW();
	}
	PG_END_TRY();
	return slot;
}

static void
size_or_cancel(PlannerInfo *root, RelOptInfo *rel, Oid table)
{
	PG_TRY();
	{
		GetFdwRoutineByRelId(table)->GetForeignRelSize(root, rel, table);
	}
	PG_CATCH();
	{
		raise_cancel();
		PG_RE_THROW();
	}
	PG_END_TRY();
}

static void
explain_without_values(ForeignScanState *node, ExplainState *es)
{
	ExplainPropertyText("Multicorn", "not shown: a value in the conditions is known only at run time", es);
}

static void
guard(ForeignScanState *state, bool is_run)
{
	ForeignScan *scan = (ForeignScan *) state->ss.ps.plan;
	Values		values = values_of(scan->fdw_exprs);

	if (scan->scan.scanrelid == 0 || !is_of_multicorn(scan->fs_server))
		return;
	if (is_ours(scan->fs_server))
		state->fdwroutine->IterateForeignScan = iterate_or_cancel;
	if (!values.cannot_be_explained)
		return;
	if (values.cannot_be_read && is_run)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("Multicorn cannot read a value in a condition on foreign table \"%s\"",
						get_rel_name(exec_rt_fetch(scan->scan.scanrelid, state->ss.ps.state)->relid)),
				 errhint("Put what is computed at run time into a subquery: column = (SELECT …).")));
	state->fdwroutine->ExplainForeignScan = explain_without_values;
}

static bool
guard_walker(PlanState *state, void *is_run)
{
	if (state == NULL)
		return false;
	if (IsA(state, ForeignScanState))
		guard((ForeignScanState *) state, *(bool *) is_run);
	return planstate_tree_walker(state, guard_walker, is_run);
}

static void
start_executor(QueryDesc *query, int eflags)
{
	bool		is_run = !(eflags & EXEC_FLAG_EXPLAIN_ONLY);

	if (next_start)
		next_start(query, eflags);
	else
		standard_ExecutorStart(query, eflags);
	if (reads_foreign_tables(query->plannedstmt))
		guard_walker(query->planstate, &is_run);
}

static void
check_paths(PlannerInfo *root, RelOptInfo *rel, Index number, RangeTblEntry *entry)
{
	if (next_paths)
		next_paths(root, rel, number, entry);
	if (entry->rtekind != RTE_RELATION || entry->relkind != RELKIND_FOREIGN_TABLE || !is_of_multicorn(rel->serverid))
		return;
	if (is_ours(rel->serverid))
		check_barrier_of_multicorn(root, rel, entry->relid);
}

/* As a scan in execution has, a relation in a plan has a copy of its wrapper's functions for itself. */
static void
guard_size(PlannerInfo *root, Oid table, bool inhparent, RelOptInfo *rel)
{
	if (next_info)
		next_info(root, table, inhparent, rel);
	if (rel->fdwroutine && is_of_multicorn(rel->serverid) && is_ours(rel->serverid))
		rel->fdwroutine->GetForeignRelSize = size_or_cancel;
}

void
multicorn_guard_init(void)
{
	next_info = get_relation_info_hook;
	get_relation_info_hook = guard_size;
	next_paths = set_rel_pathlist_hook;
	set_rel_pathlist_hook = check_paths;
	next_start = ExecutorStart_hook;
	ExecutorStart_hook = start_executor;
}
