/*
 * batch_calls.c
 *	  The calls of one window: arguments gathered, batch functions called, results put beside their rows.
 *
 * A batch function gets one json array an argument, an element a call, and returns an array of results, an element a
 * call. A batch ends where its arrays would become larger than BATCH_BYTES, so that with the arguments that they are made
 * of, and what the batch function makes of them, some multiple of that is held at one time.
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
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/regproc.h"

#define BATCH_BYTES (32 * 1024 * 1024)

int			inside_batch_function = 0;

/* -- statements
 *
 * All batch nodes of one run of the executor share a number, so that a batch function can remember what it knows from
 * another node of the same statement, or from a window before. It is random: who calls a batch function by hand must not
 * meet the memory of a statement that another role runs in the same session.
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
	Statement  *statement;
	int64		number;

	for (statement = statements; statement; statement = statement->next)
		if (statement->estate == estate)
			return statement->number;
	if (!pg_strong_random(&number, sizeof(number)))
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not generate random numbers")));
	statement = MemoryContextAllocZero(estate->es_query_cxt, sizeof(Statement));
	statement->estate = estate;
	statement->number = number;
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

static void
begin_arguments(BatchScanState *state, CallState *call, FuncExpr *expr)
{
	ListCell   *cell;
	int			i = 0;

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
}

static void
begin_functions(CallState *call, FuncExpr *expr, Oid batch, Oid report)
{
	check_may_execute(expr->funcid);
	check_may_execute(batch);
	call->is_strict = func_strict(expr->funcid);
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
}

/*
 * Prepare a call, which the state's memory has room for; its functions must be allowed and must fit. Without a batch
 * function it is a value that is computed as always, but once a row.
 */
void
begin_call(BatchScanState *state, CallState *call, Expr *expr, List *guard, Oid batch, Oid report)
{
	call->expr = expr;
	call->guard = guard ? ExecInitQual(guard, &state->css.ss.ps) : NULL;
	if (OidIsValid(batch))
	{
		begin_arguments(state, call, (FuncExpr *) expr);
		begin_functions(call, (FuncExpr *) expr, batch, report);
	}
	else
		call->value = ExecInitExpr(expr, &state->css.ss.ps);
	get_typlenbyvalalign(exprType((Node *) expr), &call->typlen, &call->typbyval, &call->typalign);
}

/* -- batches */

/* The arguments gathered for one call of a batch function. */
typedef struct Gathered
{
	int			count;
	int			room;
	Size		bytes;			/* of the arrays that they will be, and of the answer that may come */
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

/* One call of the batch function; the answer lives in the batch's context. */
static ArrayType *
call_batch_function(BatchScanState *state, CallState *call, Gathered *gathered)
{
	LOCAL_FCINFO(fcinfo, FUNC_MAX_ARGS);
	int			lower = 1;
	Datum		answer;
	int			i;

	InitFunctionCallInfoData(*fcinfo, &call->batch, call->nargs + 2, ((FuncExpr *) call->expr)->inputcollid, NULL, NULL);
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
	return fcinfo->isnull ? NULL : DatumGetArrayTypeP(answer);
}

static void
call_batch(BatchScanState *state, CallState *call, Gathered *gathered)
{
	MemoryContext old = MemoryContextSwitchTo(state->batch_context);
	ArrayType  *answer = call_batch_function(state, call, gathered);
	Oid			type = exprType((Node *) call->expr);
	Datum	   *results = NULL;
	bool	   *nulls = NULL;
	int			count = 0;
	int			i;

	if (answer && ARR_ELEMTYPE(answer) != type)
		ereport(ERROR,
				(errcode(ERRCODE_EXTERNAL_ROUTINE_INVOCATION_EXCEPTION),
				 errmsg("batch function %s returned an array of %s instead of %s",
						format_procedure(call->batch.fn_oid), format_type_be(ARR_ELEMTYPE(answer)),
						format_type_be(type))));
	if (answer)
		deconstruct_array(answer, type, call->typlen, call->typbyval, call->typalign, &results, &nulls, &count);
	if (count != gathered->count)
		ereport(ERROR,
				(errcode(ERRCODE_EXTERNAL_ROUTINE_INVOCATION_EXCEPTION),
				 errmsg("batch function %s returned %d results for %d calls",
						format_procedure(call->batch.fn_oid), count, gathered->count)));
	for (i = 0; i < count; i++)
		keep_result(call, gathered->rows[i], results[i], nulls[i]);
	call->answer_bytes = VARSIZE(answer) / count;
	if (state->css.ss.ps.instrument && OidIsValid(call->report.fn_oid))
		call_report(state, call);
	MemoryContextSwitchTo(old);
}

/* -- arguments */

static Gathered *
start_gathering(BatchScanState *state, CallState *call)
{
	Gathered   *gathered;

	MemoryContextReset(state->batch_context);
	gathered = MemoryContextAllocZero(state->batch_context, sizeof(Gathered));
	gathered->values = MemoryContextAllocZero(state->batch_context, call->nargs * sizeof(Datum *));
	gathered->nulls = MemoryContextAllocZero(state->batch_context, call->nargs * sizeof(bool *));
	return gathered;
}

static void *
larger(MemoryContext context, void *array, Size bytes)
{
	return array ? repalloc(array, bytes) : MemoryContextAlloc(context, bytes);
}

static void
make_room(BatchScanState *state, CallState *call, Gathered *gathered)
{
	MemoryContext context = state->batch_context;
	int			room;
	int			i;

	if (gathered->count < gathered->room)
		return;
	room = gathered->room = Min(Max(2 * gathered->room, 64), state->nrows);
	gathered->rows = larger(context, gathered->rows, room * sizeof(int));
	for (i = 0; i < call->nargs; i++)
	{
		gathered->values[i] = larger(context, gathered->values[i], room * sizeof(Datum));
		gathered->nulls[i] = larger(context, gathered->nulls[i], room * sizeof(bool));
	}
}

/* A value as json that lives in a context. */
static Datum
kept_json(MemoryContext context, Datum value)
{
	struct varlena *text = PG_DETOAST_DATUM(value);
	void	   *copy = MemoryContextAlloc(context, VARSIZE(text));

	memcpy(copy, text, VARSIZE(text));
	return PointerGetDatum(copy);
}

/* Evaluate one argument; a constant only once a scan. It lives as long as the row, a constant as long as the scan. */
static Datum
argument(BatchScanState *state, CallState *call, int i, bool *is_null)
{
	Datum		value;

	if (!call->is_constant[i])
		return ExecEvalExpr(call->args[i], state->css.ss.ps.ps_ExprContext, is_null);
	if (!call->constants[i] && !call->constant_nulls[i])
	{
		value = ExecEvalExpr(call->args[i], state->css.ss.ps.ps_ExprContext, is_null);
		call->constant_nulls[i] = *is_null;
		if (!*is_null)
			call->constants[i] = kept_json(state->css.ss.ps.state->es_query_cxt, value);
	}
	*is_null = call->constant_nulls[i];
	return call->constants[i];
}

/* Gather the arguments of one row, unless one of them says that the call is not to be made. */
static void
gather(BatchScanState *state, CallState *call, int row, Gathered *gathered)
{
	int			place = gathered->count;
	int			i;

	make_room(state, call, gathered);
	for (i = 0; i < call->nargs; i++)
		gathered->values[i][place] = argument(state, call, i, &gathered->nulls[i][place]);
	for (i = 0; i < call->nargs; i++)
		if (call->is_strict && gathered->nulls[i][place])
			return;
	gathered->bytes += sizeof(int) + call->nargs * (sizeof(Datum) + sizeof(bool)) + call->answer_bytes;
	for (i = 0; i < call->nargs; i++)
	{
		if (gathered->nulls[i][place])
			continue;
		if (!call->is_constant[i])
			gathered->values[i][place] = kept_json(state->batch_context, gathered->values[i][place]);
		gathered->bytes += INTALIGN(VARSIZE(DatumGetPointer(gathered->values[i][place])));
	}
	gathered->rows[gathered->count++] = row;
}

/* -- calls */

/*
 * What is computed row by row; NULL where a batch function answers. Inside a batch function nothing is batched: it may
 * call the very function that it answers for.
 */
static ExprState *
computed(BatchScanState *state, CallState *call)
{
	if (call->value || inside_batch_function == 0)
		return call->value;
	if (call->plain == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(state->css.ss.ps.state->es_query_cxt);

		call->plain = ExecInitExpr(call->expr, &state->css.ss.ps);
		MemoryContextSwitchTo(old);
	}
	return call->plain;
}

/* Make a call for all rows of the window that are alive and whose guard holds. */
static void
make_call(BatchScanState *state, CallState *call)
{
	ExprContext *econtext = state->css.ss.ps.ps_ExprContext;
	ExprState  *each = computed(state, call);
	Gathered   *gathered = each ? NULL : start_gathering(state, call);
	int			row;

	start_results(state, call);
	start_pass(state);
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
		if (each)
		{
			bool		is_null;
			Datum		value = ExecEvalExpr(each, econtext, &is_null);

			keep_result(call, row, value, is_null);
		}
		else
			gather(state, call, row, gathered);
		MemoryContextSwitchTo(old);
		if (gathered && gathered->bytes > BATCH_BYTES)
		{
			call_batch(state, call, gathered);
			gathered = start_gathering(state, call);
		}
	}
	if (gathered && gathered->count > 0)
		call_batch(state, call, gathered);
	MemoryContextReset(state->batch_context);
	end_results(state, call);
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
