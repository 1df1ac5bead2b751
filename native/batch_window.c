/*
 * batch_window.c
 *	  The results of a window's calls, and one row of it for whoever passes over it: calls, quals, and the node that
 *	  hands it on.
 */
#include "batch_scan.h"

#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "utils/memutils.h"

/* -- results */

/* Where the results of a window are kept that are not passed by value: they may be large. */
static void
begin_store(BatchScanState *state, CallState *call)
{
	EState	   *estate = state->css.ss.ps.state;
	MemoryContext old = MemoryContextSwitchTo(estate->es_query_cxt);
	TupleDesc	descriptor = CreateTemplateTupleDesc(1);

	TupleDescInitEntry(descriptor, 1, NULL, exprType((Node *) call->expr), exprTypmod((Node *) call->expr), 0);
	call->slot = ExecInitExtraTupleSlot(estate, descriptor, &TTSOpsMinimalTuple);
	call->store = tuplestore_begin_heap(true, false, work_mem);
	MemoryContextSwitchTo(old);
}

/* The results of a call for the window at hand are about to come. */
void
start_results(BatchScanState *state, CallState *call)
{
	call->kept = 0;
	if (call->typbyval)
	{
		call->results = MemoryContextAllocZero(state->window_context, state->nrows * sizeof(Datum));
		call->nulls = MemoryContextAlloc(state->window_context, state->nrows * sizeof(bool));
	}
	else if (call->store)
		tuplestore_clear(call->store);
	else
		begin_store(state, call);
}

/* The result for a row; rows come in order, and those in between have none. */
void
keep_result(CallState *call, int row, Datum value, bool is_null)
{
	while (call->kept <= row)
	{
		bool		is_gap = call->kept < row;
		bool		null = is_null || is_gap;

		if (call->store)
			tuplestore_putvalues(call->store, call->slot->tts_tupleDescriptor, &value, &null);
		else
		{
			call->results[call->kept] = null ? (Datum) 0 : value;
			call->nulls[call->kept] = null;
		}
		call->kept++;
	}
}

void
end_results(BatchScanState *state, CallState *call)
{
	if (call->kept < state->nrows)
		keep_result(call, state->nrows - 1, (Datum) 0, true);
	call->made = true;
}

void
end_store(CallState *call)
{
	if (call->store)
		tuplestore_end(call->store);
	call->store = NULL;
}

/* -- rows */

/* Begin to pass over the window's rows, from the first one. */
void
start_pass(BatchScanState *state)
{
	int			i;

	tuplestore_rescan(state->rows);
	for (i = 0; i < state->ncalls; i++)
		if (state->calls[i].made && state->calls[i].store)
			tuplestore_rescan(state->calls[i].store);
}

/* The result of a call for the row that the pass is at. */
static Datum
read_result(CallState *call, int row, bool *is_null)
{
	*is_null = true;
	if (!call->made)
		return (Datum) 0;
	if (call->store)
	{
		if (!tuplestore_gettupleslot(call->store, true, false, call->slot))
			elog(ERROR, "a window has lost its results");
		return slot_getattr(call->slot, 1, is_null);
	}
	*is_null = call->nulls[row];
	return call->results[row];
}

static TupleTableSlot *
take_columns(TupleTableSlot *slot, TupleTableSlot *child, int columns)
{
	slot_getallattrs(child);
	memcpy(slot->tts_values, child->tts_values, columns * sizeof(Datum));
	memcpy(slot->tts_isnull, child->tts_isnull, columns * sizeof(bool));
	return ExecStoreVirtualTuple(slot);
}

/* A row as the child gives it, as the scan tuple: no call has been made. */
TupleTableSlot *
load_row_of(BatchScanState *state, TupleTableSlot *child)
{
	TupleTableSlot *slot = state->css.ss.ss_ScanTupleSlot;
	int			columns = state->child_slot->tts_tupleDescriptor->natts;
	int			i;

	ExecClearTuple(slot);
	for (i = 0; i < state->ncalls; i++)
	{
		slot->tts_values[columns + i] = (Datum) 0;
		slot->tts_isnull[columns + i] = true;
	}
	return take_columns(slot, child, columns);
}

/*
 * Read the next row of a pass over the window's store into the scan tuple, with the results known so far; NULL if a qual
 * has thrown it out.
 */
TupleTableSlot *
load_row(BatchScanState *state, int row)
{
	TupleTableSlot *slot = state->css.ss.ss_ScanTupleSlot;
	int			columns = state->child_slot->tts_tupleDescriptor->natts;
	int			i;

	ExecClearTuple(slot);
	if (!tuplestore_gettupleslot(state->rows, true, false, state->child_slot))
		elog(ERROR, "a window has lost its rows");
	for (i = 0; i < state->ncalls; i++)
		slot->tts_values[columns + i] = read_result(&state->calls[i], row, &slot->tts_isnull[columns + i]);
	return state->alive[row] ? take_columns(slot, state->child_slot, columns) : NULL;
}

/* Does a qual hold for a loaded row? */
bool
row_passes(BatchScanState *state, TupleTableSlot *slot, ExprState *qual)
{
	ExprContext *econtext = state->css.ss.ps.ps_ExprContext;

	ResetExprContext(econtext);
	econtext->ecxt_scantuple = slot;
	return ExecQual(qual, econtext);
}
