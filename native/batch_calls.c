/*
 * batch_calls.c
 *	  The calls of one window: arguments gathered, batch functions called, results put beside their rows.
 *
 * A batch function gets one json array an argument, an element a call, and returns an array of results, an element a
 * call. A batch ends where its arrays would become larger than BATCH_BYTES, so that with the arguments that they are made
 * of, and what the batch function makes of them, some multiple of that is held at one time.
 *
 * One that takes parts is told by a boolean whether more calls of the window follow. Until none do it holds them, as it
 * likes, and its result is not looked at; then it returns the results of the first calls that it holds, and is called
 * without calls for those of the others. So the arguments of a part only are held here, and that much is held by the batch
 * function as WINDOW_BYTES says. The first call of a window is gathered while the rows are read.
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
#define PART_BYTES (1024 * 1024)
#define PART_ROWS 1024
#define WINDOW_BYTES 128000000	/* as WINDOW_CHARS in asking/windows.py */

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
	call->takes_parts = call->batch.fn_nargs == call->nargs + 3;
	if (!call->takes_parts && call->batch.fn_nargs != call->nargs + 2)
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

/*
 * The calls that wait for their results, and the arguments of those that have not been passed to the batch function: all of
 * them, unless it takes parts.
 */
struct Gathered
{
	int			count;
	int			room;
	int		   *rows;			/* the row of each */
	Size		bytes;			/* of their arguments, of those that are the same for all but once */
	int			answered;		/* have their results */

	int			part_count;
	int			part_room;
	Size		part_bytes;		/* of the arrays that they will be, and of the answer that may come */
	Datum	  **values;			/* of each argument */
	bool	  **nulls;
};

static void
call_report(BatchScanState *state, CallState *call)
{
	Datum		result;
	Datum	   *texts;
	int			count;
	int			i;
	CallState  *owner;
	MemoryContext old = MemoryContextSwitchTo(state->part_context);

	result = FunctionCall2(&call->report, Int64GetDatum(state->statement),
						   Int32GetDatum(state->css.ss.ps.plan->plan_node_id));
	deconstruct_array(DatumGetArrayTypeP(result), TEXTOID, -1, false, TYPALIGN_INT, &texts, NULL, &count);
	MemoryContextSwitchTo(state->css.ss.ps.state->es_query_cxt);
	owner = state->calls;		/* a report is of the node: the first call that has this function keeps it */
	while (owner->report.fn_oid != call->report.fn_oid)
		owner++;
	list_free_deep(owner->reported);
	owner->reported = NIL;
	for (i = 0; i < count; i++)
		owner->reported = lappend(owner->reported, TextDatumGetCString(texts[i]));
	MemoryContextSwitchTo(old);
	MemoryContextReset(state->part_context);
}

/* The arguments of a part as an array. */
static Datum
array_of(Gathered *gathered, int argument)
{
	int			lower = 1;

	if (gathered->part_count == 0)
		return PointerGetDatum(construct_empty_array(JSONOID));
	return PointerGetDatum(construct_md_array(gathered->values[argument], gathered->nulls[argument], 1,
											  &gathered->part_count, &lower, JSONOID, -1, false, TYPALIGN_INT));
}

/* One call of the batch function. */
static ArrayType *
call_batch_function(BatchScanState *state, CallState *call, Gathered *gathered, bool more)
{
	LOCAL_FCINFO(fcinfo, FUNC_MAX_ARGS);
	int			nargs = 0;
	Datum		answer;
	int			i;

	InitFunctionCallInfoData(*fcinfo, &call->batch, call->batch.fn_nargs, ((FuncExpr *) call->expr)->inputcollid, NULL, NULL);
	fcinfo->args[nargs++].value = Int64GetDatum(state->statement);
	fcinfo->args[nargs++].value = Int32GetDatum(state->css.ss.ps.plan->plan_node_id);
	if (call->takes_parts)
		fcinfo->args[nargs++].value = BoolGetDatum(more);
	for (i = 0; i < call->nargs; i++)
		fcinfo->args[nargs++].value = array_of(gathered, i);
	for (i = 0; i < nargs; i++)
		fcinfo->args[i].isnull = false;
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

/* Put an answer's results beside their rows; false if it is not one for the calls that wait. */
static bool
keep_answer(CallState *call, Gathered *gathered, ArrayType *answer, int *count)
{
	Oid			type = exprType((Node *) call->expr);
	Datum	   *results = NULL;
	bool	   *nulls = NULL;
	int			wanted = gathered->count - gathered->answered;
	int			i;

	*count = 0;
	if (answer && ARR_ELEMTYPE(answer) != type)
		ereport(ERROR,
				(errcode(ERRCODE_EXTERNAL_ROUTINE_INVOCATION_EXCEPTION),
				 errmsg("batch function %s returned an array of %s instead of %s",
						format_procedure(call->batch.fn_oid), format_type_be(ARR_ELEMTYPE(answer)),
						format_type_be(type))));
	if (answer)
		deconstruct_array(answer, type, call->typlen, call->typbyval, call->typalign, &results, &nulls, count);
	if (*count == 0 || *count > wanted || (*count < wanted && !call->takes_parts))
		return false;
	for (i = 0; i < *count; i++)
		keep_result(call, gathered->rows[gathered->answered++], results[i], nulls[i]);
	call->answer_bytes = VARSIZE(answer) / *count;
	return true;
}

/* Pass the part at hand to the batch function; once no more follow, all calls that wait get their results. */
static void
pass_part(BatchScanState *state, CallState *call, Gathered *gathered, bool more)
{
	do
	{
		MemoryContext old = MemoryContextSwitchTo(state->part_context);
		ArrayType  *answer = call_batch_function(state, call, gathered, more);
		int			count;

		if (!more && !keep_answer(call, gathered, answer, &count))
			ereport(ERROR,
					(errcode(ERRCODE_EXTERNAL_ROUTINE_INVOCATION_EXCEPTION),
					 errmsg("batch function %s returned %d results for %d calls",
							format_procedure(call->batch.fn_oid), count, gathered->count - gathered->answered)));
		MemoryContextSwitchTo(old);
		MemoryContextReset(state->part_context);
		gathered->part_count = gathered->part_room = 0;
		gathered->part_bytes = 0;
	} while (!more && gathered->answered < gathered->count);
	if (!more && state->css.ss.ps.instrument && OidIsValid(call->report.fn_oid))
		call_report(state, call);
}

/* -- arguments */

/* Begin to gather the calls of a window; one kind of call is gathered at one time. */
Gathered *
start_gathering(BatchScanState *state, CallState *call)
{
	Gathered   *gathered;

	MemoryContextReset(state->batch_context);
	MemoryContextReset(state->part_context);
	gathered = MemoryContextAllocZero(state->batch_context, sizeof(Gathered));
	gathered->values = MemoryContextAllocZero(state->batch_context, call->nargs * sizeof(Datum *));
	gathered->nulls = MemoryContextAllocZero(state->batch_context, call->nargs * sizeof(bool *));
	return gathered;
}

static void *
larger(MemoryContext context, void *array, Size bytes, bool is_new)
{
	return is_new ? MemoryContextAlloc(context, bytes) : repalloc(array, bytes);
}

static int
twice(int room)
{
	return Max(2 * room, 64);
}

static void
make_room(BatchScanState *state, CallState *call, Gathered *gathered)
{
	MemoryContext context = state->part_context;
	bool		is_new = gathered->part_room == 0;
	int			room;
	int			i;

	if (gathered->count == gathered->room)
	{
		room = twice(gathered->room);
		gathered->rows = larger(state->batch_context, gathered->rows, room * sizeof(int), gathered->room == 0);
		gathered->room = room;
	}
	if (gathered->part_count < gathered->part_room)
		return;
	room = gathered->part_room = twice(gathered->part_room);
	for (i = 0; i < call->nargs; i++)
	{
		gathered->values[i] = larger(context, gathered->values[i], room * sizeof(Datum), is_new);
		gathered->nulls[i] = larger(context, gathered->nulls[i], room * sizeof(bool), is_new);
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
	int			place = gathered->part_count;
	int			i;

	make_room(state, call, gathered);
	for (i = 0; i < call->nargs; i++)
		gathered->values[i][place] = argument(state, call, i, &gathered->nulls[i][place]);
	for (i = 0; i < call->nargs; i++)
		if (call->is_strict && gathered->nulls[i][place])
			return;
	gathered->bytes += sizeof(int) + call->answer_bytes;
	gathered->part_bytes += sizeof(int) + call->nargs * (sizeof(Datum) + sizeof(bool)) + call->answer_bytes;
	for (i = 0; i < call->nargs; i++)
	{
		Size		bytes;

		if (gathered->nulls[i][place])
			continue;
		if (!call->is_constant[i])
			gathered->values[i][place] = kept_json(state->part_context, gathered->values[i][place]);
		bytes = INTALIGN(VARSIZE(DatumGetPointer(gathered->values[i][place])));
		gathered->part_bytes += bytes;
		if (!call->is_constant[i])
			gathered->bytes += bytes;
	}
	gathered->part_count++;
	gathered->rows[gathered->count++] = row;
}

/* Has as much been gathered as is answered at one time? */
bool
is_all_gathered(CallState *call, Gathered *gathered)
{
	return call->takes_parts ? gathered->bytes >= WINDOW_BYTES : gathered->part_bytes > BATCH_BYTES;
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

/* The call whose rows can be gathered while they are read: the first of the first stage, if it takes parts. */
CallState *
call_to_gather(BatchScanState *state)
{
	List	   *needs = state->stages[state->order[0]].needs;
	CallState  *call = needs ? &state->calls[linitial_int(needs)] : NULL;

	return call && call->takes_parts && computed(state, call) == NULL ? call : NULL;
}

/* Make a call for a loaded row, or gather it, if its guard holds. */
static void
make_call_for_row(BatchScanState *state, CallState *call, ExprState *each, Gathered *gathered, int row,
				  TupleTableSlot *slot)
{
	ExprContext *econtext = state->css.ss.ps.ps_ExprContext;
	MemoryContext old;

	if (call->guard && !row_passes(state, slot, call->guard))
		return;
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
}

/* Gather the call of a row that has just been read, and pass on what has been gathered before, if that is a part. */
void
gather_row(BatchScanState *state, CallState *call, Gathered *gathered, int row, TupleTableSlot *slot)
{
	if (gathered->part_count == PART_ROWS || gathered->part_bytes > PART_BYTES)
		pass_part(state, call, gathered, true);
	make_call_for_row(state, call, NULL, gathered, row, slot);
}

/* All rows of the window have been gathered. */
void
end_gathering(BatchScanState *state, CallState *call, Gathered *gathered)
{
	start_results(state, call);
	if (gathered->count > 0)
		pass_part(state, call, gathered, false);
	MemoryContextReset(state->batch_context);
	end_results(state, call);
}

/* Make a call for all rows of the window that are alive and whose guard holds. */
static void
make_call(BatchScanState *state, CallState *call)
{
	ExprState  *each = computed(state, call);
	Gathered   *gathered = each ? NULL : start_gathering(state, call);
	int			row;

	start_results(state, call);
	start_pass(state);
	for (row = 0; row < state->nrows; row++)
	{
		TupleTableSlot *slot = load_row(state, row);

		CHECK_FOR_INTERRUPTS();
		if (slot == NULL)
			continue;
		if (gathered && is_all_gathered(call, gathered))
		{
			pass_part(state, call, gathered, false);
			gathered = start_gathering(state, call);
		}
		if (gathered && call->takes_parts)
			gather_row(state, call, gathered, row, slot);
		else
			make_call_for_row(state, call, each, gathered, row, slot);
	}
	if (gathered && gathered->count > 0)
		pass_part(state, call, gathered, false);
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
