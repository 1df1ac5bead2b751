/*
 * foreign_scan.c
 *	  A scan of a foreign table: its parameters go to llm._foreign_scan(), rows come back as texts, some at a time.
 *
 * The function is called as ProjectSet calls one in a select list: it runs on only when more rows are wanted, and is
 * shut down where it stands when there are no more to be. It hands over the rows that it has ready, and never waits for
 * more of them than the first.
 *
 * Memory: a run (from the start, or a rescan) has a context for its request; the rows that were handed over have
 * one until the next ones come; a row's values stand in the executor's memory for one tuple.
 */
#include "foreign_scan.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "parser/parse_func.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(pg_bridge_foreign_handler);

/* How the texts of a column become values. */
typedef struct Input
{
	AttrNumber	column;
	bool		is_text;		/* the texts are the values */
	FmgrInfo	function;
	Oid			parameter;
	int32		modifier;
} Input;

struct ForeignRun
{
	Oid			user;
	ForeignPlan *plan;
	List	   *values;			/* ExprStates of the quals' values */
	int64		statement;
	char	   *cursor;			/* of the source */
	Input	   *inputs;
	int			ninputs;
	ExprContext *econtext;		/* which the function's shutdown hangs on */
	SetExprState *function;
	MemoryContext context;		/* of the run */
	MemoryContext rows_context;

	bool		has_run;		/* since ExecutorStart */
	bool		started;
	bool		exhausted;
	Datum	   *cells;			/* of the rows at hand */
	bool	   *nulls;
	int			nrows;
	int			next_row;
};

/* -- the beginning */

Oid
foreign_scan_user(ForeignScanState *node)
{
	ForeignScan *scan = (ForeignScan *) node->ss.ps.plan;
#if PG_VERSION_NUM >= 160000
	Oid			user = scan->checkAsUser;
#else
	Oid			user = exec_rt_fetch(scan->scan.scanrelid, node->ss.ps.state)->checkAsUser;
#endif

	return OidIsValid(user) ? user : GetUserId();
}

static Input *
inputs_of(List *columns, TupleDesc shape)
{
	Input	   *inputs = palloc0(list_length(columns) * sizeof(Input));
	ListCell   *cell;

	foreach(cell, columns)
	{
		Input	   *input = &inputs[foreach_current_index(cell)];
		Form_pg_attribute attribute = TupleDescAttr(shape, lfirst_int(cell) - 1);
		Oid			function;

		input->column = attribute->attnum;
		input->is_text = attribute->atttypid == TEXTOID;
		input->modifier = attribute->atttypmod;
		getTypeInputInfo(attribute->atttypid, &function, &input->parameter);
		fmgr_info(function, &input->function);
	}
	return inputs;
}

/* The call llm._foreign_scan(request), where the request is what econtext->caseValue_datum holds. */
static SetExprState *
scan_function(ForeignScanState *node, ExprContext *econtext)
{
	Oid			types[] = {TEXTOID};
	CaseTestExpr *request = makeNode(CaseTestExpr);
	FuncExpr   *call;

	request->typeId = TEXTOID;
	request->typeMod = -1;
	request->collation = InvalidOid;
	call = makeFuncExpr(LookupFuncName(list_make2(makeString("llm"), makeString("_foreign_scan")), 1, types, false),
						RECORDOID, list_make1(request), InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL);
	call->funcretset = true;
	return ExecInitFunctionResultSet((Expr *) call, econtext, &node->ss.ps);
}

static void
begin_scan(ForeignScanState *node, int eflags)
{
	EState	   *estate = node->ss.ps.state;
	ForeignScan *scan = (ForeignScan *) node->ss.ps.plan;
	ForeignRun *run = palloc0(sizeof(ForeignRun));

	node->fdw_state = run;
	run->plan = foreign_plan_of(scan);
	run->user = foreign_scan_user(node);
	if (eflags & EXEC_FLAG_EXPLAIN_ONLY)
		return;

	/*
	 * Python catches errors of SQL in subtransactions, which cannot be while parallel workers run: a Gather elsewhere in
	 * the plan is to do its work alone. The planner asks nobody whether a statement may be parallel on account of one
	 * foreign table, so it is said here.
	 */
	estate->es_plannedstmt->parallelModeNeeded = false;

	run->values = ExecInitExprList(scan->fdw_exprs, &node->ss.ps);
	run->statement = statement_number(estate);
	run->cursor = new_cursor_name();
	run->inputs = inputs_of(run->plan->needed, RelationGetDescr(node->ss.ss_currentRelation));
	run->ninputs = list_length(run->plan->needed);
	run->context = AllocSetContextCreate(estate->es_query_cxt, "foreign scan", ALLOCSET_SMALL_SIZES);
	run->rows_context = AllocSetContextCreate(estate->es_query_cxt, "foreign scan rows", ALLOCSET_DEFAULT_SIZES);
	run->econtext = CreateExprContext(estate);
}

/* -- a run */

/* Append the quals with the values that they have now; false if no row can satisfy them. */
static bool
append_quals(StringInfo request, ForeignScanState *node)
{
	ForeignRun *run = node->fdw_state;
	Oid			table = RelationGetRelid(node->ss.ss_currentRelation);
	const char *separator = "";
	ListCell   *cell;
	ListCell   *value_cell;

	appendStringInfoString(request, ", \"quals\": [");
	forboth(cell, run->plan->quals, value_cell, run->values)
	{
		ForeignQual *qual = lfirst(cell);
		bool		is_null;
		bool		holds;
		Datum		value = ExecEvalExpr((ExprState *) lfirst(value_cell), node->ss.ps.ps_ExprContext, &is_null);

		if (decides_without_value(qual, value, is_null, &holds))
		{
			if (!holds)
				return false;
			continue;
		}
		appendStringInfoString(request, separator);
		append_qual(request, table, qual);
		append_value(request, qual, value);
		appendStringInfoChar(request, '}');
		separator = ", ";
	}
	appendStringInfoChar(request, ']');
	return true;
}

static void
start(ForeignScanState *node)
{
	ForeignRun *run = node->fdw_state;
	Oid			table = RelationGetRelid(node->ss.ss_currentRelation);
	MemoryContext old = MemoryContextSwitchTo(run->context);
	StringInfoData request;

	run->started = true;
	run->nrows = run->next_row = 0;
	begin_request(&request, table);
	append_columns(&request, table, run->plan->needed);
	append_sort(&request, table, run->plan->sort);
	appendStringInfo(&request, ", \"statement\": " INT64_FORMAT ", \"node\": %d, \"cursor\": \"%s\"",
					 run->statement, node->ss.ps.plan->plan_node_id, run->cursor);
	run->exhausted = !append_quals(&request, node);
	appendStringInfoChar(&request, '}');
	if (!run->exhausted)
	{
		run->has_run = true;
		run->econtext->caseValue_datum = CStringGetTextDatum(request.data);
		run->econtext->caseValue_isNull = false;
	}
	MemoryContextSwitchTo(old);
	if (run->function == NULL && !run->exhausted)
	{
		Identity	before = become(run->user);

		old = MemoryContextSwitchTo(node->ss.ps.state->es_query_cxt);
		run->function = scan_function(node, run->econtext);
		MemoryContextSwitchTo(old);
		resume(before);
	}
}

/* End the run, wherever it stands. */
static void
stop(ForeignRun *run)
{
	if (!run->started)
		return;
	ReScanExprContext(run->econtext);	/* shuts the function down */
	close_cursor(run->cursor);
	MemoryContextReset(run->rows_context);
	MemoryContextReset(run->context);
	run->started = false;
}

/* Read what the function has returned: a number of rows, their cells one after the other, and a fault. */
static void
take_rows(ForeignRun *run, HeapTupleHeader result)
{
	bool		is_null;
	Datum		fault = GetAttributeByNum(result, 3, &is_null);
	int			ncells;

	if (!is_null)
		raise_fault(fault);
	run->nrows = DatumGetInt32(GetAttributeByNum(result, 1, &is_null));
	deconstruct_array(DatumGetArrayTypeP(GetAttributeByNum(result, 2, &is_null)), TEXTOID, -1, false, TYPALIGN_INT,
					  &run->cells, &run->nulls, &ncells);
	if (ncells != run->nrows * run->ninputs)
		elog(ERROR, "a foreign scan got %d cells for %d rows of %d columns", ncells, run->nrows, run->ninputs);
}

static bool
next_rows(ForeignRun *run)
{
	MemoryContext old;
	Identity	before;
	Datum		result;
	bool		is_null;
	ExprDoneCond done;

	if (run->exhausted)
		return false;
	run->nrows = run->next_row = 0;
	MemoryContextReset(run->rows_context);
	old = MemoryContextSwitchTo(run->rows_context);
	before = become(run->user);
	result = ExecMakeFunctionResultSet(run->function, run->econtext, run->context, &is_null, &done);
	resume(before);
	if (done == ExprEndResult || is_null)
		run->exhausted = true;
	else
		take_rows(run, DatumGetHeapTupleHeader(result));
	MemoryContextSwitchTo(old);
	return !run->exhausted;
}

static TupleTableSlot *
iterate_scan(ForeignScanState *node)
{
	ForeignRun *run = node->fdw_state;
	TupleTableSlot *slot = node->ss.ss_ScanTupleSlot;
	int			first;
	int			i;

	ExecClearTuple(slot);
	if (!run->started)
		start(node);
	while (run->next_row >= run->nrows)
		if (!next_rows(run))
			return slot;
	first = run->next_row++ * run->ninputs;
	memset(slot->tts_isnull, true, slot->tts_tupleDescriptor->natts * sizeof(bool));
	for (i = 0; i < run->ninputs; i++)
	{
		Input	   *input = &run->inputs[i];
		int			place = input->column - 1;

		if (run->nulls[first + i])
			continue;
		slot->tts_isnull[place] = false;
		if (input->is_text)
			slot->tts_values[place] = run->cells[first + i];
		else
			slot->tts_values[place] = InputFunctionCall(&input->function, TextDatumGetCString(run->cells[first + i]),
														input->parameter, input->modifier);
	}
	return ExecStoreVirtualTuple(slot);
}

static void
rescan(ForeignScanState *node)
{
	stop(node->fdw_state);
}

static void
end_scan(ForeignScanState *node)
{
	ForeignRun *run = node->fdw_state;

	if (run)
		stop(run);
}

/* Has a scan asked for anything, and under which statement's number? */
bool
foreign_scan_has_run(ForeignScanState *node, int64 *statement)
{
	ForeignRun *run = node->fdw_state;

	*statement = run->statement;
	return run->has_run;
}

Datum
pg_bridge_foreign_handler(PG_FUNCTION_ARGS)
{
	FdwRoutine *routine = makeNode(FdwRoutine);

	routine->GetForeignRelSize = foreign_rel_size;
	routine->GetForeignPaths = foreign_paths;
	routine->GetForeignPlan = foreign_plan;
	routine->BeginForeignScan = begin_scan;
	routine->IterateForeignScan = iterate_scan;
	routine->ReScanForeignScan = rescan;
	routine->EndForeignScan = end_scan;
	routine->ExplainForeignScan = explain_foreign_scan;
	routine->ImportForeignSchema = import_foreign_schema;
	PG_RETURN_POINTER(routine);
}
