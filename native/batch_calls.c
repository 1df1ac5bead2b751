/*
 * batch_calls.c
 *	  The calls of one window: arguments gathered, batch functions called, results put beside their rows.
 *
 * A batch function gets one json array an argument, an element a call, and returns an array of results, an element a
 * call. The arguments of at most BATCH_BYTES are held at one time.
 */
#include "batch_scan.h"

#include "catalog/objectaccess.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/regproc.h"

#define BATCH_BYTES (32 * 1024 * 1024)

int			inside_batch_function = 0;

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

int64
statement_number(EState *estate)
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

/* Prepare a call, which the state's memory has room for; its functions must be allowed and must fit. */
void
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

/*
 * Make a call for one row after the other. Inside a batch function nothing is batched: it may call the very function
 * that it answers for.
 */
static void
make_call_plainly(BatchScanState *state, CallState *call)
{
	ExprContext *econtext = state->css.ss.ps.ps_ExprContext;
	int			row;

	if (call->plain == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(state->css.ss.ps.state->es_query_cxt);

		call->plain = ExecInitExpr((Expr *) call->call, &state->css.ss.ps);
		MemoryContextSwitchTo(old);
	}
	for (row = 0; row < state->nrows; row++)
	{
		TupleTableSlot *slot = load_row(state, row);
		MemoryContext old;
		Datum		result;

		CHECK_FOR_INTERRUPTS();
		if (slot == NULL || (call->guard && !row_passes(state, slot, call->guard)))
			continue;
		ResetExprContext(econtext);
		econtext->ecxt_scantuple = slot;
		result = ExecEvalExprSwitchContext(call->plain, econtext, &call->nulls[row]);
		old = MemoryContextSwitchTo(state->window_context);
		if (!call->nulls[row])
			call->results[row] = datumCopy(result, call->typbyval, call->typlen);
		MemoryContextSwitchTo(old);
	}
	call->made = true;
}

/* Make a call for all rows of the window that are alive and whose guard holds. */
static void
make_call(BatchScanState *state, CallState *call)
{
	ExprContext *econtext = state->css.ss.ps.ps_ExprContext;
	Gathered   *gathered;
	int			row;
	int			i;

	call->results = MemoryContextAllocZero(state->window_context, state->nrows * sizeof(Datum));
	call->nulls = MemoryContextAlloc(state->window_context, state->nrows * sizeof(bool));
	memset(call->nulls, true, state->nrows * sizeof(bool));
	tuplestore_rescan(state->rows);
	if (inside_batch_function > 0)
	{
		make_call_plainly(state, call);
		return;
	}
	gathered = start_gathering(state, call);
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

/* Make calls, in this order, unless they have been made for the window. */
void
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
