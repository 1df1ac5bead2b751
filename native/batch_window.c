/*
 * batch_window.c
 *	  One row of the window, for whoever passes over it: calls, quals, and the node that hands it on.
 */
#include "batch_scan.h"

#include "executor/executor.h"
#include "utils/memutils.h"

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

/* Does a qual hold for a loaded row? */
bool
row_passes(BatchScanState *state, TupleTableSlot *slot, ExprState *qual)
{
	ExprContext *econtext = state->css.ss.ps.ps_ExprContext;

	ResetExprContext(econtext);
	econtext->ecxt_scantuple = slot;
	return ExecQual(qual, econtext);
}
