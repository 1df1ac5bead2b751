/*
 * batch_scan.c
 *	  The custom scan node: pulls a window of its child's rows, makes their calls in batches, passes the rows on.
 *
 * The scan tuple is the child's columns and then one column a call. A window is worked through stage by stage: before
 * a qual is evaluated, the calls that it needs are made for the rows that are still there; the calls that only the
 * target list needs are made last, for the rows that passed. A batch function gets one json array an argument, an
 * element a row, and returns an array of results, an element a row.
 *
 * Memory: the child's rows stand in a tuplestore, which spills past work_mem; the arguments of at most BATCH_BYTES are
 * held at one time; the results of a window are held until it is passed on.
 */
#include "pg_bridge.h"

#include <math.h>

#include "access/htup_details.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/explain.h"
#if PG_VERSION_NUM >= 180000
#include "commands/explain_format.h"
#include "commands/explain_state.h"
#endif
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/extensible.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/ruleutils.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"

#define FIRST_WINDOW_ROWS 16	/* where the consumer may stop early */
#define BATCH_BYTES (32 * 1024 * 1024)
#define PRIOR_SEEN 2.0			/* a qual is expected to pass half, until some rows have shown more */
#define PRIOR_PASSED 1.0

/* One function call of each row. */
typedef struct CallState
{
	FuncExpr   *call;
	ExprState  *guard;			/* NULL where it is made for every row */
	int			nargs;
	ExprState **args;			/* each as json */
	bool	   *is_constant;	/* the same for all rows of a scan */
	Datum	   *constants;
	bool	   *constant_nulls;
	FmgrInfo	batch;
	FmgrInfo	report;			/* fn_oid is InvalidOid where there is none */
	int16		typlen;
	bool		typbyval;
	char		typalign;

	/* of the window at hand */
	bool		made;
	Datum	   *results;
	bool	   *nulls;

	/* of the whole scan */
	double		rows;			/* that it was made for */
	List	   *reported;		/* of char *, label and value in turn */
} CallState;

/* The quals, in the plan's order; the target list is the last stage and has none. */
typedef struct Stage
{
	ExprState  *qual;
	List	   *needs;			/* numbers of calls */
	double		cost;
	double		seen;
	double		passed;
} Stage;

typedef struct BatchScanState
{
	CustomScanState css;
	TupleTableSlot *child_slot;
	Tuplestorestate *rows;
	MemoryContext window_context;
	MemoryContext batch_context;
	int			ncalls;
	CallState  *calls;
	int			nstages;		/* quals and the target list */
	Stage	   *stages;
	int		   *order;			/* of the quals */
	bool		may_reorder;
	bool		may_stop;
	List	   *bound;			/* ExprStates of LIMIT and OFFSET, or NIL */
	double		bound_rows;		/* rows still wanted, 0 if not known */
	int64		statement;		/* tells batch functions which calls belong together */

	bool		started;
	bool		exhausted;		/* the child has no more rows */
	int			windows;		/* since the start or the latest rescan */
	int			window_rows;	/* most rows of the next window */
	int			nrows;			/* of the window at hand */
	int			next_row;
	bool	   *alive;

	double		all_windows;
	double		all_rows;
} BatchScanState;

int			inside_batch_function = 0;

static Node *create_state(CustomScan *scan);
static void begin_scan(CustomScanState *node, EState *estate, int eflags);
static TupleTableSlot *exec_scan(CustomScanState *node);
static void end_scan(CustomScanState *node);
static void rescan(CustomScanState *node);
static void explain_scan(CustomScanState *node, List *ancestors, ExplainState *es);

static CustomScanMethods scan_methods = {"LLM Batch", create_state};
static CustomExecMethods exec_methods = {
	.CustomName = "LLM Batch",
	.BeginCustomScan = begin_scan,
	.ExecCustomScan = exec_scan,
	.EndCustomScan = end_scan,
	.ReScanCustomScan = rescan,
	.ExplainCustomScan = explain_scan,
};

void
batch_scan_init(void)
{
	RegisterCustomScanMethods(&scan_methods);
}

bool
is_batch_scan(Plan *plan)
{
	return plan && IsA(plan, CustomScan) && ((CustomScan *) plan)->methods == &scan_methods;
}

/* -- the plan node
 *
 * custom_exprs:	calls, guards, LIMIT and OFFSET
 * custom_private:	oids of batch functions, oids of report functions, calls needed by each stage, flags
 */

CustomScan *
make_batch_scan(Batch *batch, Plan *child, List *tlist, List *qual, List *bound, bool may_stop, bool may_reorder)
{
	CustomScan *scan = makeNode(CustomScan);
	List	   *columns = NIL;
	List	   *batches = NIL;
	List	   *reports = NIL;
	ListCell   *cell;

	foreach(cell, child->targetlist)
	{
		TargetEntry *entry = lfirst(cell);

		columns = lappend(columns, makeTargetEntry((Expr *) makeVarFromTargetEntry(OUTER_VAR, entry),
												   list_length(columns) + 1, NULL, false));
	}
	foreach(cell, batch->calls)
	{
		FuncExpr   *call = lfirst(cell);
		BatchFunction *entry = find_batch_function(batch->registry, call->funcid);

		columns = lappend(columns, makeTargetEntry((Expr *) call, list_length(columns) + 1, NULL, false));
		batches = lappend_oid(batches, entry->batch);
		reports = lappend_oid(reports, entry->report);
	}
	scan->scan.plan.targetlist = tlist;
	scan->scan.plan.qual = qual;
	outerPlan(&scan->scan.plan) = child;
	scan->custom_scan_tlist = columns;
	scan->custom_exprs = list_make3(batch->calls, batch->guards, bound);
	scan->custom_private = list_make4(batches, reports, batch->needs, list_make2_int(may_stop, may_reorder));
	scan->methods = &scan_methods;
	return scan;
}

static Node *
create_state(CustomScan *scan)
{
	BatchScanState *state = palloc0(sizeof(BatchScanState));

	NodeSetTag(state, T_CustomScanState);
	state->css.methods = &exec_methods;
	return (Node *) state;
}

/* -- statements
 *
 * All batch nodes of one run of the executor share a number, so that a batch function can remember what it knows from
 * another node of the same statement, or from a window before.
 */

typedef struct Statement
{
	EState	   *estate;
	int64		number;
	struct Statement *next;
	MemoryContextCallback forget;
} Statement;

static Statement *statements = NULL;

static void
forget_statement(void *arg)
{
	Statement **link = &statements;

	while (*link && *link != arg)
		link = &(*link)->next;
	if (*link)
		*link = (*link)->next;
}

static int64
number_of(EState *estate)
{
	static int64 latest = 0;
	Statement  *statement;

	for (statement = statements; statement; statement = statement->next)
		if (statement->estate == estate)
			return statement->number;
	statement = MemoryContextAllocZero(estate->es_query_cxt, sizeof(Statement));
	statement->estate = estate;
	statement->number = ++latest;
	statement->next = statements;
	statements = statement;
	statement->forget.func = forget_statement;
	statement->forget.arg = statement;
	MemoryContextRegisterResetCallback(estate->es_query_cxt, &statement->forget);
	return statement->number;
}

/* -- the beginning */

static void
check_may_execute(Oid function)
{
#if PG_VERSION_NUM >= 160000
	AclResult	result = object_aclcheck(ProcedureRelationId, function, GetUserId(), ACL_EXECUTE);
#else
	AclResult	result = pg_proc_aclcheck(function, GetUserId(), ACL_EXECUTE);
#endif

	if (result != ACLCHECK_OK)
		aclcheck_error(result, OBJECT_FUNCTION, get_func_name(function));
	InvokeFunctionExecuteHook(function);
}

static double
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

static void
begin_call(BatchScanState *state, CallState *call, FuncExpr *expr, List *guard, Oid batch, Oid report)
{
	ListCell   *cell;
	int			i = 0;

	call->call = expr;
	check_may_execute(expr->funcid);
	check_may_execute(batch);
	call->guard = guard ? ExecInitQual(guard, &state->css.ss.ps) : NULL;
	call->nargs = list_length(expr->args);
	call->args = palloc(call->nargs * sizeof(ExprState *));
	call->is_constant = palloc(call->nargs * sizeof(bool));
	call->constants = palloc0(call->nargs * sizeof(Datum));
	call->constant_nulls = palloc0(call->nargs * sizeof(bool));
	foreach(cell, expr->args)
	{
		Expr	   *arg = lfirst(cell);

		call->is_constant[i] = IsA(arg, Const);
		if (exprType((Node *) arg) != JSONOID)
			arg = (Expr *) makeFuncExpr(F_TO_JSON, JSONOID, list_make1(arg), InvalidOid,
										exprCollation((Node *) arg), COERCE_EXPLICIT_CALL);
		call->args[i++] = ExecInitExpr(arg, &state->css.ss.ps);
	}
	fmgr_info(batch, &call->batch);
	if (call->batch.fn_nargs != call->nargs + 2)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_FUNCTION_DEFINITION),
				 errmsg("batch function %s takes %d arguments instead of %d",
						format_procedure(batch), call->batch.fn_nargs, call->nargs + 2),
				 errhint("It takes (statement bigint, node integer) and one json[] for each argument of the function.")));
	if (get_func_rettype(batch) != get_array_type(expr->funcresulttype))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_FUNCTION_DEFINITION),
				 errmsg("batch function %s does not return %s[]",
						format_procedure(batch), format_type_be(expr->funcresulttype))));
	if (OidIsValid(report))
		fmgr_info(report, &call->report);
	get_typlenbyvalalign(expr->funcresulttype, &call->typlen, &call->typbyval, &call->typalign);
}

static void
begin_scan(CustomScanState *node, EState *estate, int eflags)
{
	BatchScanState *state = (BatchScanState *) node;
	CustomScan *scan = (CustomScan *) node->ss.ps.plan;
	List	   *calls = linitial(scan->custom_exprs);
	List	   *needs = lthird(scan->custom_private);
	List	   *flags = lfourth(scan->custom_private);
	ListCell   *cell;
	int			i;

	/* A mark or a step back would need windows that are gone; the planner puts a Material node above for those. */
	eflags &= ~(EXEC_FLAG_REWIND | EXEC_FLAG_BACKWARD | EXEC_FLAG_MARK);
	outerPlanState(node) = ExecInitNode(outerPlan(scan), estate, eflags);
	state->child_slot = ExecInitExtraTupleSlot(estate, ExecGetResultType(outerPlanState(node)), &TTSOpsMinimalTuple);

	state->ncalls = list_length(calls);
	state->calls = palloc0(state->ncalls * sizeof(CallState));
	for (i = 0; i < state->ncalls; i++)
		begin_call(state, &state->calls[i], list_nth(calls, i), list_nth(lsecond(scan->custom_exprs), i),
				   list_nth_oid(linitial(scan->custom_private), i), list_nth_oid(lsecond(scan->custom_private), i));

	state->nstages = list_length(needs);
	state->stages = palloc0(state->nstages * sizeof(Stage));
	state->order = palloc(state->nstages * sizeof(int));
	for (i = 0; i < state->nstages; i++)
	{
		Stage	   *stage = &state->stages[i];

		state->order[i] = i;
		stage->needs = list_nth(needs, i);
		if (i < list_length(scan->scan.plan.qual))
			stage->qual = ExecInitQual(list_make1(list_nth(scan->scan.plan.qual, i)), &node->ss.ps);
		foreach(cell, stage->needs)
			stage->cost += cost_of(state->calls[lfirst_int(cell)].call->funcid);
	}
	foreach(cell, (List *) lthird(scan->custom_exprs))
		state->bound = lappend(state->bound, ExecInitExpr(lfirst(cell), &node->ss.ps));
	state->may_stop = linitial_int(flags);
	state->may_reorder = lsecond_int(flags);
	if (eflags & EXEC_FLAG_EXPLAIN_ONLY)
		return;
	state->statement = number_of(estate);
	state->window_context = AllocSetContextCreate(estate->es_query_cxt, "LLM Batch window", ALLOCSET_DEFAULT_SIZES);
	state->batch_context = AllocSetContextCreate(estate->es_query_cxt, "LLM Batch arguments", ALLOCSET_DEFAULT_SIZES);
}

/* -- one row of the window */

static TupleTableSlot *
load_row(BatchScanState *state, int row)
{
	TupleTableSlot *slot = state->css.ss.ss_ScanTupleSlot;
	int			columns = state->child_slot->tts_tupleDescriptor->natts;
	int			i;

	if (!tuplestore_gettupleslot(state->rows, true, false, state->child_slot))
		elog(ERROR, "a window has lost its rows");
	if (!state->alive[row])
		return NULL;
	slot_getallattrs(state->child_slot);
	ExecClearTuple(slot);
	memcpy(slot->tts_values, state->child_slot->tts_values, columns * sizeof(Datum));
	memcpy(slot->tts_isnull, state->child_slot->tts_isnull, columns * sizeof(bool));
	for (i = 0; i < state->ncalls; i++)
	{
		CallState  *call = &state->calls[i];

		slot->tts_values[columns + i] = call->made ? call->results[row] : (Datum) 0;
		slot->tts_isnull[columns + i] = call->made ? call->nulls[row] : true;
	}
	return ExecStoreVirtualTuple(slot);
}

static bool
row_passes(BatchScanState *state, TupleTableSlot *slot, ExprState *qual)
{
	ExprContext *econtext = state->css.ss.ps.ps_ExprContext;

	ResetExprContext(econtext);
	econtext->ecxt_scantuple = slot;
	return ExecQual(qual, econtext);
}

/* -- calls */

/* The arguments gathered for one call of a batch function. */
typedef struct Gathered
{
	int			count;
	Size		bytes;
	int		   *rows;			/* the row of each */
	Datum	  **values;			/* of each argument */
	bool	  **nulls;
} Gathered;

static void
call_report(BatchScanState *state, CallState *call)
{
	Datum		result;
	Datum	   *texts;
	int			count;
	int			i;
	CallState  *owner;
	MemoryContext old;

	result = FunctionCall2(&call->report, Int64GetDatum(state->statement),
						   Int32GetDatum(state->css.ss.ps.plan->plan_node_id));
	deconstruct_array(DatumGetArrayTypeP(result), TEXTOID, -1, false, TYPALIGN_INT, &texts, NULL, &count);
	old = MemoryContextSwitchTo(state->css.ss.ps.state->es_query_cxt);
	owner = state->calls;		/* a report is of the node: the first call that has this function keeps it */
	while (owner->report.fn_oid != call->report.fn_oid)
		owner++;
	list_free_deep(owner->reported);
	owner->reported = NIL;
	for (i = 0; i < count; i++)
		owner->reported = lappend(owner->reported, TextDatumGetCString(texts[i]));
	MemoryContextSwitchTo(old);
}

static void
call_batch(BatchScanState *state, CallState *call, Gathered *gathered)
{
	LOCAL_FCINFO(fcinfo, FUNC_MAX_ARGS);
	MemoryContext old = MemoryContextSwitchTo(state->batch_context);
	int			lower = 1;
	Datum		answer;
	ArrayType  *array;
	Datum	   *results;
	bool	   *nulls;
	int			count;
	int			i;

	InitFunctionCallInfoData(*fcinfo, &call->batch, call->nargs + 2, call->call->inputcollid, NULL, NULL);
	fcinfo->args[0].value = Int64GetDatum(state->statement);
	fcinfo->args[0].isnull = false;
	fcinfo->args[1].value = Int32GetDatum(state->css.ss.ps.plan->plan_node_id);
	fcinfo->args[1].isnull = false;
	for (i = 0; i < call->nargs; i++)
	{
		fcinfo->args[i + 2].value = PointerGetDatum(
			construct_md_array(gathered->values[i], gathered->nulls[i], 1, &gathered->count, &lower,
							   JSONOID, -1, false, TYPALIGN_INT));
		fcinfo->args[i + 2].isnull = false;
	}
	inside_batch_function++;
	PG_TRY();
	{
		answer = FunctionCallInvoke(fcinfo);
	}
	PG_FINALLY();
	{
		inside_batch_function--;
	}
	PG_END_TRY();
	/* The results live as long as the window. */
	MemoryContextSwitchTo(state->window_context);
	count = -1;
	if (!fcinfo->isnull)
	{
		array = DatumGetArrayTypePCopy(answer);
		deconstruct_array(array, call->call->funcresulttype, call->typlen, call->typbyval, call->typalign,
						  &results, &nulls, &count);
	}
	if (count != gathered->count)
		ereport(ERROR,
				(errcode(ERRCODE_EXTERNAL_ROUTINE_INVOCATION_EXCEPTION),
				 errmsg("batch function %s returned %d results for %d calls",
						format_procedure(call->batch.fn_oid), Max(count, 0), gathered->count)));
	for (i = 0; i < count; i++)
	{
		call->results[gathered->rows[i]] = results[i];
		call->nulls[gathered->rows[i]] = nulls[i];
	}
	call->rows += count;
	if (state->css.ss.ps.instrument && OidIsValid(call->report.fn_oid))
		call_report(state, call);
	MemoryContextSwitchTo(old);
	gathered->count = 0;
	gathered->bytes = 0;
}

static Gathered *
start_gathering(BatchScanState *state, CallState *call)
{
	Gathered   *gathered;
	int			i;

	MemoryContextReset(state->batch_context);
	gathered = MemoryContextAllocZero(state->batch_context, sizeof(Gathered));
	gathered->rows = MemoryContextAlloc(state->batch_context, state->nrows * sizeof(int));
	gathered->values = MemoryContextAlloc(state->batch_context, call->nargs * sizeof(Datum *));
	gathered->nulls = MemoryContextAlloc(state->batch_context, call->nargs * sizeof(bool *));
	for (i = 0; i < call->nargs; i++)
	{
		gathered->values[i] = MemoryContextAlloc(state->batch_context, state->nrows * sizeof(Datum));
		gathered->nulls[i] = MemoryContextAlloc(state->batch_context, state->nrows * sizeof(bool));
	}
	return gathered;
}

/* Evaluate one argument; a constant only once a scan. */
static void
gather_argument(BatchScanState *state, CallState *call, int i, Gathered *gathered)
{
	ExprContext *econtext = state->css.ss.ps.ps_ExprContext;
	bool		is_null;
	Datum		value;

	if (call->is_constant[i] && (call->constants[i] || call->constant_nulls[i]))
	{
		gathered->values[i][gathered->count] = call->constants[i];
		gathered->nulls[i][gathered->count] = call->constant_nulls[i];
		return;
	}
	value = ExecEvalExprSwitchContext(call->args[i], econtext, &is_null);
	if (!is_null)
	{
		struct varlena *text = PG_DETOAST_DATUM(value);
		MemoryContext context = call->is_constant[i] ? state->css.ss.ps.state->es_query_cxt : state->batch_context;

		value = PointerGetDatum(MemoryContextAlloc(context, VARSIZE(text)));
		memcpy(DatumGetPointer(value), text, VARSIZE(text));
		gathered->bytes += VARSIZE(text);
	}
	if (call->is_constant[i])
	{
		call->constants[i] = is_null ? (Datum) 0 : value;
		call->constant_nulls[i] = is_null;
	}
	gathered->values[i][gathered->count] = value;
	gathered->nulls[i][gathered->count] = is_null;
}

/* Make a call for all rows of the window that are alive and whose guard holds. */
static void
make_call(BatchScanState *state, CallState *call)
{
	ExprContext *econtext = state->css.ss.ps.ps_ExprContext;
	Gathered   *gathered = start_gathering(state, call);
	int			row;
	int			i;

	call->results = MemoryContextAllocZero(state->window_context, state->nrows * sizeof(Datum));
	call->nulls = MemoryContextAlloc(state->window_context, state->nrows * sizeof(bool));
	memset(call->nulls, true, state->nrows * sizeof(bool));
	tuplestore_rescan(state->rows);
	for (row = 0; row < state->nrows; row++)
	{
		TupleTableSlot *slot = load_row(state, row);
		MemoryContext old;

		CHECK_FOR_INTERRUPTS();
		if (slot == NULL || (call->guard && !row_passes(state, slot, call->guard)))
			continue;
		ResetExprContext(econtext);
		econtext->ecxt_scantuple = slot;
		old = MemoryContextSwitchTo(econtext->ecxt_per_tuple_memory);
		for (i = 0; i < call->nargs; i++)
			gather_argument(state, call, i, gathered);
		MemoryContextSwitchTo(old);
		gathered->rows[gathered->count++] = row;
		if (gathered->bytes > BATCH_BYTES)
		{
			call_batch(state, call, gathered);
			gathered = start_gathering(state, call);
		}
	}
	if (gathered->count > 0)
		call_batch(state, call, gathered);
	MemoryContextReset(state->batch_context);
	call->made = true;
}

static void
make_calls(BatchScanState *state, List *numbers)
{
	ListCell   *cell;

	foreach(cell, numbers)
	{
		CallState  *call = &state->calls[lfirst_int(cell)];

		if (!call->made)
			make_call(state, call);
	}
}

/* -- windows */

/* LIMIT and OFFSET, now that their parameters are known; the child may be a sort that gains from it. */
static void
find_bound(BatchScanState *state)
{
	ExprContext *econtext = state->css.ss.ps.ps_ExprContext;
	double		rows = 0;
	ListCell   *cell;

	state->bound_rows = 0;
	foreach(cell, state->bound)
	{
		bool		is_null = true;
		Datum		value = (Datum) 0;

		if (lfirst(cell))
			value = ExecEvalExprSwitchContext(lfirst(cell), econtext, &is_null);
		if (is_null && cell == list_head(state->bound))
			return;				/* LIMIT NULL */
		if (!is_null)
			rows += (double) Max(DatumGetInt64(value), 0);
	}
	if (rows > 0 && rows < 1e9)
	{
		state->bound_rows = rows;
		ExecSetTupleBound((int64) rows, outerPlanState(state));
	}
}

static void
start(BatchScanState *state)
{
	state->started = true;
	state->exhausted = false;
	state->windows = 0;
	state->nrows = state->next_row = 0;
	find_bound(state);
	state->window_rows = pg_bridge_window_rows;
	if (state->bound_rows > 0)
		state->window_rows = (int) Min(state->bound_rows, pg_bridge_window_rows);
	else if (state->may_stop)
		state->window_rows = Min(FIRST_WINDOW_ROWS, pg_bridge_window_rows);
}

/* The qual that throws out most rows for its price goes first; at equal prices and rates the plan's order stays. */
static double
rank(Stage *stage)
{
	double		passes = (stage->passed + PRIOR_PASSED) / (stage->seen + PRIOR_SEEN);

	return (stage->cost + 1) / Max(1 - passes, 0.001);
}

static void
reorder_quals(BatchScanState *state)
{
	int			i;
	int			j;

	for (i = 1; i < state->nstages - 1; i++)
	{
		int			moved = state->order[i];

		for (j = i; j > 0 && rank(&state->stages[state->order[j - 1]]) > rank(&state->stages[moved]); j--)
			state->order[j] = state->order[j - 1];
		state->order[j] = moved;
	}
}

static void
apply_qual(BatchScanState *state, Stage *stage)
{
	int			row;

	make_calls(state, stage->needs);
	tuplestore_rescan(state->rows);
	for (row = 0; row < state->nrows; row++)
	{
		TupleTableSlot *slot = load_row(state, row);

		CHECK_FOR_INTERRUPTS();
		if (slot == NULL)
			continue;
		stage->seen++;
		if (row_passes(state, slot, stage->qual))
			stage->passed++;
		else
		{
			state->alive[row] = false;
			InstrCountFiltered1(&state->css, 1);
		}
	}
}

static bool
any_alive(BatchScanState *state)
{
	return memchr(state->alive, true, state->nrows * sizeof(bool)) != NULL;
}

/* Pull the next window and make its calls; false at the end. */
static bool
next_window(BatchScanState *state)
{
	PlanState  *child = outerPlanState(state);
	int			i;

	state->nrows = state->next_row = 0;
	if (state->exhausted)
		return false;
	MemoryContextReset(state->window_context);
	for (i = 0; i < state->ncalls; i++)
		state->calls[i].made = false;
	if (state->rows)
		tuplestore_clear(state->rows);
	else
	{
		MemoryContext old = MemoryContextSwitchTo(state->css.ss.ps.state->es_query_cxt);

		state->rows = tuplestore_begin_heap(true, false, work_mem);
		MemoryContextSwitchTo(old);
	}
	while (state->nrows < state->window_rows)
	{
		TupleTableSlot *slot = ExecProcNode(child);

		if (TupIsNull(slot))
		{
			state->exhausted = true;
			break;
		}
		tuplestore_puttupleslot(state->rows, slot);
		state->nrows++;
	}
	if (state->nrows == 0)
		return false;
	state->windows++;
	state->all_windows++;
	state->all_rows += state->nrows;
	state->window_rows = Min(state->window_rows * 2, pg_bridge_window_rows);
	state->alive = MemoryContextAlloc(state->window_context, state->nrows * sizeof(bool));
	memset(state->alive, true, state->nrows * sizeof(bool));

	if (state->may_reorder)
		reorder_quals(state);
	for (i = 0; i < state->nstages - 1 && any_alive(state); i++)
		apply_qual(state, &state->stages[state->order[i]]);
	if (any_alive(state))
		make_calls(state, state->stages[state->nstages - 1].needs);
	tuplestore_rescan(state->rows);
	return true;
}

static TupleTableSlot *
exec_scan(CustomScanState *node)
{
	BatchScanState *state = (BatchScanState *) node;
	ExprContext *econtext = node->ss.ps.ps_ExprContext;
	ProjectionInfo *projection = node->ss.ps.ps_ProjInfo;

	ResetExprContext(econtext);
	if (!state->started)
		start(state);
	for (;;)
	{
		while (state->next_row < state->nrows)
		{
			TupleTableSlot *slot = load_row(state, state->next_row++);

			if (slot == NULL)
				continue;
			if (projection == NULL)
				return slot;
			econtext->ecxt_scantuple = slot;
			return ExecProject(projection);
		}
		CHECK_FOR_INTERRUPTS();
		if (!next_window(state))
			return NULL;
	}
}

static void
end_scan(CustomScanState *node)
{
	BatchScanState *state = (BatchScanState *) node;

	if (state->rows)
		tuplestore_end(state->rows);
	state->rows = NULL;
	ExecEndNode(outerPlanState(node));
}

static void
rescan(CustomScanState *node)
{
	BatchScanState *state = (BatchScanState *) node;

	/* One window held all, and nothing has changed: the same rows again. */
	if (state->started && state->exhausted && state->windows == 1 && state->nrows > 0 && node->ss.ps.chgParam == NULL)
	{
		state->next_row = 0;
		tuplestore_rescan(state->rows);
		return;
	}
	state->started = false;
	if (outerPlanState(node)->chgParam == NULL)
		ExecReScan(outerPlanState(node));
}

/* -- EXPLAIN */

static void
explain_scan(CustomScanState *node, List *ancestors, ExplainState *es)
{
	BatchScanState *state = (BatchScanState *) node;
	List	   *context = set_deparse_context_plan(es->deparse_cxt, node->ss.ps.plan, ancestors);
	bool		prefix = list_length(es->rtable) > 1 || es->verbose;
	List	   *calls = NIL;
	int			i;

	for (i = 0; i < state->ncalls; i++)
	{
		FuncExpr   *call = state->calls[i].call;

		if (es->verbose)
			calls = lappend(calls, deparse_expression((Node *) call, context, prefix, false));
		else
			calls = list_append_unique(calls, makeString(quote_qualified_identifier(
				get_namespace_name(get_func_namespace(call->funcid)), get_func_name(call->funcid))));
	}
	if (!es->verbose)
	{
		ListCell   *cell;

		foreach(cell, calls)
			lfirst(cell) = strVal(lfirst(cell));
	}
	ExplainPropertyList("Calls", calls, es);
	if (!es->analyze)
		return;
	ExplainPropertyFloat("Windows", NULL, state->all_windows, 0, es);
	for (i = 0; i < state->ncalls; i++)
	{
		List	   *reported = state->calls[i].reported;
		int			place;

		for (place = 0; place + 1 < list_length(reported); place += 2)
			ExplainPropertyText(list_nth(reported, place), list_nth(reported, place + 1), es);
	}
}
