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
#include "access/transam.h"
#include "catalog/pg_class.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/executor.h"
#include "jit/jit.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"

extern PGDLLEXPORT Datum pg_bridge_foreign_handler(PG_FUNCTION_ARGS);

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
	ForeignSource *source;
	Oid			source_user;
	bool		runs_code;		/* where texts become values of somebody's types, domains with conditions say */
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

	/* where a join hands over many keys at once */
	MemoryContext window_context;
	int64		window;			/* of the keys at hand; 0 for none */
	struct keyrows_hash *by_key;
	Datum	  **window_cells;	/* of each row of the window */
	bool	  **window_nulls;
	int		   *next_alike;		/* the next row that has the same key, or -1 */
	int			window_rows;
	int			match;			/* the next row to be returned, or -1 */
};

/* The rows of one key. */
typedef struct KeyRows
{
	char	   *key;
	int			first;
	int			last;
	char		status;
} KeyRows;

#define SH_PREFIX keyrows
#define SH_ELEMENT_TYPE KeyRows
#define SH_KEY_TYPE char *
#define SH_KEY key
#define SH_HASH_KEY(table, key) hash_bytes((const unsigned char *) (key), strlen(key))
#define SH_EQUAL(table, a, b) (strcmp(a, b) == 0)
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

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

/*
 * Are there columns of types whose input may call somebody's functions? Base types and enums are none: superusers make the
 * former, and the latter have only labels.
 */
static bool
may_run_code(List *columns, TupleDesc shape)
{
	ListCell   *cell;

	foreach(cell, columns)
	{
		Oid			type = TupleDescAttr(shape, lfirst_int(cell) - 1)->atttypid;

		if (type >= FirstNormalObjectId && get_typtype(type) != TYPTYPE_ENUM &&
			(get_typtype(type) != TYPTYPE_BASE || OidIsValid(get_element_type(type))))
			return true;
	}
	return false;
}

/*
 * The call llm._foreign_scan(request), where the request is what econtext->caseValue_datum holds. Its EXECUTE is nobody's but
 * its owner's; it runs as the reader, later.
 */
static SetExprState *
scan_function(ForeignScanState *node, ExprContext *econtext)
{
	Oid			function = foreign_function("_foreign_scan");
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	CaseTestExpr *request = makeNode(CaseTestExpr);
	FuncExpr   *call;
	SetExprState *state;
	Identity	before;

	request->typeId = TEXTOID;
	request->typeMod = -1;
	request->collation = InvalidOid;
	call = makeFuncExpr(function, RECORDOID, list_make1(request), InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL);
	call->funcretset = true;
	before = become(((Form_pg_proc) GETSTRUCT(tuple))->proowner, 0);
	state = ExecInitFunctionResultSet((Expr *) call, econtext, &node->ss.ps);
	resume(before);
	ReleaseSysCache(tuple);
	return state;
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

	/* The costs are those of waiting; compiling expressions would only add to them. */
	estate->es_jit_flags = PGJIT_NONE;

	run->values = ExecInitExprList(scan->fdw_exprs, &node->ss.ps);
	run->statement = statement_number(estate);
	run->source_user = source_user(RelationGetRelid(node->ss.ss_currentRelation), run->user);
	run->source = new_source(run->source_user, estate->es_snapshot);
	run->inputs = inputs_of(run->plan->needed, RelationGetDescr(node->ss.ss_currentRelation));
	run->ninputs = list_length(run->plan->needed);
	run->runs_code = may_run_code(run->plan->needed, RelationGetDescr(node->ss.ss_currentRelation));
	run->context = AllocSetContextCreate(estate->es_query_cxt, "foreign scan", ALLOCSET_SMALL_SIZES);
	run->window_context = AllocSetContextCreate(estate->es_query_cxt, "foreign scan window", ALLOCSET_DEFAULT_SIZES);
	run->rows_context = AllocSetContextCreate(estate->es_query_cxt, "foreign scan rows", ALLOCSET_DEFAULT_SIZES);
	run->econtext = CreateExprContext(estate);
}

/* -- a run */

/* The qual on the key, for many keys. */
static ForeignQual *
qual_of_keys(ForeignQual *qual, Datum keys)
{
	ForeignQual *many = palloc(sizeof(ForeignQual));

	*many = *qual;
	many->quantifier = "any";
	many->value = (Expr *) makeConst(get_array_type(exprType((Node *) qual->value)), -1, InvalidOid, -1, keys, false,
									 false);
	return many;
}

/*
 * Append the quals with the values that they have now, the one on the key with those in `keys` if that is not 0; false if
 * no row can satisfy them.
 */
static bool
append_quals(StringInfo request, ForeignScanState *node, Datum keys)
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

		if (DatumGetPointer(keys) != NULL && foreach_current_index(cell) == run->plan->key)
		{
			qual = qual_of_keys(qual, keys);
			value = keys;
			is_null = false;
		}
		if (decides_without_value(qual, value, is_null, &holds))
		{
			if (!holds)
				return false;
			continue;
		}
		appendStringInfoString(request, separator);
		append_qual(request, table, qual);
		if (qual->value)
			append_value(request, qual, value);
		appendStringInfoChar(request, '}');
		separator = ", ";
	}
	appendStringInfoChar(request, ']');
	return true;
}

/* Make the function ready to run with the values that the quals have now. */
static void
start(ForeignScanState *node, Datum keys)
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
	appendStringInfo(&request, ", \"statement\": " INT64_FORMAT ", \"node\": %d, \"reader\": %u, \"every_row\": %s",
					 run->statement, node->ss.ps.plan->plan_node_id, GetUserId(),
					 DatumGetPointer(keys) != NULL || takes_every_row(run->plan->takes, node->ss.ps.state) ?
					 "true" : "false");
	run->exhausted = !append_quals(&request, node, keys);
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
		old = MemoryContextSwitchTo(node->ss.ps.state->es_query_cxt);
		run->function = scan_function(node, run->econtext);
		MemoryContextSwitchTo(old);
	}
}

/* End the run, wherever it stands. */
static void
stop(ForeignRun *run)
{
	if (!run->started)
		return;
	ReScanExprContext(run->econtext);	/* shuts the function down */
	close_source(run->source);
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

/* Get the next rows, into memory that is the caller's to reset. */
static bool
next_rows(ForeignRun *run, MemoryContext context)
{
	MemoryContext old;
	ForeignSource *offered;
	Identity	before;
	Datum volatile result = (Datum) 0;
	bool		is_null;
	ExprDoneCond done;

	if (run->exhausted)
		return false;
	run->nrows = run->next_row = 0;
	old = MemoryContextSwitchTo(context);
	before = become(run->user, 0);
	offered = offer_source(run->source);
	PG_TRY();
	{
		result = ExecMakeFunctionResultSet(run->function, run->econtext, run->context, &is_null, &done);
	}
	PG_FINALLY();
	{
		(void) offer_source(offered);
	}
	PG_END_TRY();
	resume(before);
	if (done == ExprEndResult || is_null)
		run->exhausted = true;
	else
		take_rows(run, DatumGetHeapTupleHeader(result));
	MemoryContextSwitchTo(old);
	return !run->exhausted;
}

static TupleTableSlot *
filled(ForeignRun *run, TupleTableSlot *slot, Datum *cells, bool *nulls)
{
	Visit		visit = {0};
	int			i;

	if (run->runs_code)
		visit = enter_source(run->source_user);
	memset(slot->tts_isnull, true, slot->tts_tupleDescriptor->natts * sizeof(bool));
	for (i = 0; i < run->ninputs; i++)
	{
		Input	   *input = &run->inputs[i];
		int			place = input->column - 1;

		if (nulls[i])
			continue;
		slot->tts_isnull[place] = false;
		if (input->is_text)
			slot->tts_values[place] = cells[i];
		else
			slot->tts_values[place] = InputFunctionCall(&input->function, TextDatumGetCString(cells[i]),
														input->parameter, input->modifier);
	}
	if (run->runs_code)
		leave_source(visit);
	return ExecStoreVirtualTuple(slot);
}

/* -- many keys at once */

static char *
text_of(Oid type, Datum value)
{
	Oid			output;
	bool		is_varlena;

	getTypeOutputInfo(type, &output, &is_varlena);
	return OidOutputFunctionCall(output, value);
}

/* Put a row of the window under its key, as the column's type prints it. */
static void
file_row(ForeignRun *run, Input *input, Oid type, int key_place, int row)
{
	Datum		cell = run->window_cells[row][key_place];
	char	   *key;
	KeyRows    *rows;
	bool		found;

	run->next_alike[row] = -1;
	if (run->window_nulls[row][key_place])
		return;
	key = text_of(type, InputFunctionCall(&input->function, TextDatumGetCString(cell), input->parameter,
										  input->modifier));
	rows = keyrows_insert(run->by_key, key, &found);
	if (found)
		run->next_alike[rows->last] = row;
	else
		rows->first = row;
	rows->last = row;
}

/* Run for all keys of a window, and keep the rows. */
static void
load_window(ForeignScanState *node, Datum keys, int64 window)
{
	ForeignRun *run = node->fdw_state;
	ForeignQual *qual = list_nth(run->plan->quals, run->plan->key);
	int			room = 64;
	int			key_place = 0;
	int			row;
	MemoryContext old;

	stop(run);
	MemoryContextReset(run->window_context);
	run->window = 0;
	run->window_rows = 0;
	start(node, keys);
	old = MemoryContextSwitchTo(run->window_context);
	run->by_key = keyrows_create(run->window_context, 64, NULL);
	run->window_cells = palloc(room * sizeof(Datum *));
	run->window_nulls = palloc(room * sizeof(bool *));
	while (next_rows(run, run->window_context))
	{
		for (; run->next_row < run->nrows; run->next_row++)
		{
			if (run->window_rows == room)
			{
				room *= 2;
				run->window_cells = repalloc(run->window_cells, room * sizeof(Datum *));
				run->window_nulls = repalloc(run->window_nulls, room * sizeof(bool *));
			}
			run->window_cells[run->window_rows] = run->cells + run->next_row * run->ninputs;
			run->window_nulls[run->window_rows++] = run->nulls + run->next_row * run->ninputs;
		}
	}
	run->next_alike = palloc(Max(run->window_rows, 1) * sizeof(int));
	while (run->inputs[key_place].column != qual->column)
		key_place++;
	for (row = 0; row < run->window_rows; row++)
		file_row(run, &run->inputs[key_place], qual->column_type, key_place, row);
	MemoryContextSwitchTo(old);
	stop(run);
	run->window = window;
}

/* Start with rows that are there already, if the key that is wanted now was known ahead. */
static bool
start_from_window(ForeignScanState *node)
{
	ForeignRun *run = node->fdw_state;
	ForeignQual *qual;
	Datum		keys;
	int64		window;
	Datum		key;
	bool		is_null;
	KeyRows    *rows = NULL;

	if (run->plan->key < 0 || !keys_ahead(node->ss.ps.state, node->ss.ps.plan->plan_node_id, &keys, &window))
		return false;
	if (run->window != window)
		load_window(node, keys, window);
	qual = list_nth(run->plan->quals, run->plan->key);
	key = ExecEvalExpr((ExprState *) list_nth(run->values, run->plan->key), node->ss.ps.ps_ExprContext, &is_null);
	if (!is_null)
		rows = keyrows_lookup(run->by_key, text_of(exprType((Node *) qual->value), key));
	run->match = rows ? rows->first : -1;
	run->started = true;
	return true;
}

/* -- the executor's calls */

static TupleTableSlot *
iterate_scan(ForeignScanState *node)
{
	ForeignRun *run = node->fdw_state;
	TupleTableSlot *slot = node->ss.ss_ScanTupleSlot;
	int			row;

	ExecClearTuple(slot);
	if (!run->started && !start_from_window(node))
	{
		run->window = 0;
		start(node, (Datum) 0);
	}
	if (run->window != 0)
	{
		row = run->match;
		if (row < 0)
			return slot;
		run->match = run->next_alike[row];
		return filled(run, slot, run->window_cells[row], run->window_nulls[row]);
	}
	while (run->next_row >= run->nrows)
	{
		MemoryContextReset(run->rows_context);
		if (!next_rows(run, run->rows_context))
			return slot;
	}
	row = run->next_row++;
	return filled(run, slot, run->cells + row * run->ninputs, run->nulls + row * run->ninputs);
}

static void
rescan(ForeignScanState *node)
{
	ForeignRun *run = node->fdw_state;

	if (run->window != 0)
		run->started = false;	/* the window's rows stay */
	else
		stop(run);
}

static void
end_scan(ForeignScanState *node)
{
	ForeignRun *run = node->fdw_state;

	if (run)
		stop(run);
}

/* -- statements
 *
 * Python catches errors of SQL in subtransactions, which cannot be while parallel workers run: a Gather elsewhere in the
 * plan of a statement that scans a foreign table is to do its work alone. The planner asks nobody whether a statement may
 * be parallel on account of one foreign table, so it is said here, in a copy: the plan may be one that is kept, for others.
 */

static ExecutorStart_hook_type next_start;

static bool
is_our_table(RangeTblEntry *entry)
{
	return entry->rtekind == RTE_RELATION && entry->relkind == RELKIND_FOREIGN_TABLE &&
		GetFdwRoutineByRelId(entry->relid)->GetForeignPlan == foreign_plan;
}

static void
start_without_workers(QueryDesc *query, int eflags)
{
	ListCell   *cell;

	if (query->plannedstmt->parallelModeNeeded && !(eflags & EXEC_FLAG_EXPLAIN_ONLY))
	{
		bool		found = false;

		foreach(cell, query->plannedstmt->rtable)
			found = found || is_our_table(lfirst(cell));
		if (found)
		{
			PlannedStmt *copy = palloc(sizeof(PlannedStmt));

			*copy = *query->plannedstmt;
			copy->parallelModeNeeded = false;
			query->plannedstmt = copy;
		}
	}
	if (next_start)
		next_start(query, eflags);
	else
		standard_ExecutorStart(query, eflags);
}

void
foreign_scan_init(void)
{
	next_start = ExecutorStart_hook;
	ExecutorStart_hook = start_without_workers;
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
