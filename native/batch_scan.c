/*
 * batch_scan.c
 *	  The custom scan node: pulls a window of its child's rows, makes their calls in batches, passes the rows on.
 *
 * The scan tuple is the child's columns and then one column a call. A window is worked through stage by stage: before
 * a qual is evaluated, the calls that it needs are made for the rows that are still there; the calls that only the
 * target list needs are made last, for the rows that passed.
 *
 * Memory: the child's rows and the results of their calls stand in tuplestores, which spill past work_mem, until the
 * window is passed on; results of types that are passed by value stand in arrays.
 */
#include "batch_scan.h"

#include "access/htup_details.h"
#include "catalog/pg_proc.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/extensible.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#define FIRST_WINDOW_ROWS 16	/* where the consumer may stop early */
#define LEARNING_ROWS 1024		/* tell which of several quals goes first for all others */
#define PRIOR_SEEN 2.0			/* a qual is expected to pass half, until some rows have shown more */
#define PRIOR_PASSED 1.0

static Node *create_state(CustomScan *scan);
static void begin_scan(CustomScanState *node, EState *estate, int eflags);
static TupleTableSlot *exec_scan(CustomScanState *node);
static void end_scan(CustomScanState *node);
static void rescan(CustomScanState *node);

static CustomScanMethods scan_methods = {"LLM Batch", create_state};
static CustomExecMethods exec_methods = {
	.CustomName = "LLM Batch",
	.BeginCustomScan = begin_scan,
	.ExecCustomScan = exec_scan,
	.EndCustomScan = end_scan,
	.ReScanCustomScan = rescan,
	.ExplainCustomScan = explain_batch_scan,
};

void
batch_scan_init(void)
{
	RegisterCustomScanMethods(&scan_methods);
}

/* -- the plan node
 *
 * It is made with the quals and the target list that it has to evaluate over its child's columns, and finished when these
 * have been looked through for calls.
 *
 * custom_exprs:	calls and values, guards, LIMIT and OFFSET
 * custom_private:	oids of batch functions (InvalidOid for a value), oids of report functions, calls needed by each stage, flags
 */

Plan *
new_batch_scan(Plan *child, List *tlist, List *qual, uint32 flags, bool may_reorder)
{
	CustomScan *scan = makeNode(CustomScan);
	ListCell   *cell;

	scan->scan.plan.targetlist = tlist;
	scan->scan.plan.qual = qual;
	outerPlan(&scan->scan.plan) = child;
	foreach(cell, child->targetlist)
	{
		TargetEntry *entry = lfirst(cell);

		scan->custom_scan_tlist = lappend(scan->custom_scan_tlist,
										  makeTargetEntry(copyObject(entry->expr), entry->resno, NULL, false));
	}
	/* Whether a cursor goes back its child decides, until the node is finished; see must_go_back(). */
	scan->flags = flags | (ExecSupportsBackwardScan(child) ? CUSTOMPATH_SUPPORT_BACKWARD_SCAN : 0);
	scan->custom_private = list_make1(list_make1_int(may_reorder));
	scan->methods = &scan_methods;
	return &scan->scan.plan;
}

bool
is_batch_scan(Plan *plan)
{
	return plan && IsA(plan, CustomScan) && ((CustomScan *) plan)->methods == &scan_methods;
}

void
finish_batch_scan(Plan *plan, Batch *batch, Consumer consumer)
{
	CustomScan *scan = (CustomScan *) plan;
	bool		may_reorder = linitial_int((List *) linitial(scan->custom_private));
	List	   *columns = NIL;
	List	   *batches = NIL;
	List	   *reports = NIL;
	List	   *bound = plan->qual ? NIL : consumer.bound;
	ListCell   *cell;

	foreach(cell, outerPlan(plan)->targetlist)
	{
		TargetEntry *entry = lfirst(cell);

		columns = lappend(columns, makeTargetEntry((Expr *) makeVarFromTargetEntry(OUTER_VAR, entry),
												   list_length(columns) + 1, NULL, false));
	}
	foreach(cell, batch->calls)
	{
		Expr	   *expr = lfirst(cell);
		BatchFunction *entry = NULL;

		if (IsA(expr, FuncExpr))
			entry = find_batch_function(batch->registry, ((FuncExpr *) expr)->funcid);
		columns = lappend(columns, makeTargetEntry(expr, list_length(columns) + 1, NULL, false));
		batches = lappend_oid(batches, entry ? entry->batch : InvalidOid);
		reports = lappend_oid(reports, entry ? entry->report : InvalidOid);
	}
	scan->flags &= ~CUSTOMPATH_SUPPORT_BACKWARD_SCAN;
	scan->custom_scan_tlist = columns;
	scan->custom_exprs = list_make3(batch->calls, batch->guards, bound);
	scan->custom_private = list_make4(batches, reports, batch->needs, list_make2_int(consumer.takes, may_reorder));
}

static Node *
create_state(CustomScan *scan)
{
	BatchScanState *state = palloc0(sizeof(BatchScanState));

	NodeSetTag(state, T_CustomScanState);
	state->css.methods = &exec_methods;
	return (Node *) state;
}

/* -- the beginning */

/* What it costs to evaluate an expression for one of so many rows, by the planner's figures. */
static Cost
cost_per_row(Node *expr, double rows)
{
	QualCost	cost;

	cost_qual_eval_node(&cost, expr, NULL);
	return cost.per_tuple + cost.startup / clamp_row_est(rows);
}

/* All that evaluating a qual costs: its calls, other functions, subqueries. */
static void
begin_qual(BatchScanState *state, Stage *stage, Node *qual)
{
	PlanState  *node = &state->css.ss.ps;
	double		rows = outerPlan(node->plan)->plan_rows;
	ListCell   *cell;

	stage->qual = ExecInitQual(list_make1(qual), node);
	stage->cost = cost_per_row(qual, rows);
	foreach(cell, stage->needs)
		stage->cost += cost_per_row((Node *) state->calls[lfirst_int(cell)].expr, rows);
	if (contain_volatile_functions(qual))
		state->may_reorder = false;
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

	state->takes = linitial_int(flags);
	state->may_reorder = lsecond_int(flags);

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
		if (i == list_length(scan->scan.plan.qual))
			continue;
		begin_qual(state, stage, list_nth(scan->scan.plan.qual, i));
	}
	foreach(cell, (List *) lthird(scan->custom_exprs))
		state->bound = lappend(state->bound, ExecInitExpr(lfirst(cell), &node->ss.ps));
	if (eflags & EXEC_FLAG_EXPLAIN_ONLY)
		return;
	state->statement = statement_number(estate);
	state->window_context = AllocSetContextCreate(estate->es_query_cxt, "LLM Batch window", ALLOCSET_DEFAULT_SIZES);
	state->batch_context = AllocSetContextCreate(estate->es_query_cxt, "LLM Batch calls", ALLOCSET_DEFAULT_SIZES);
	state->part_context = AllocSetContextCreate(estate->es_query_cxt, "LLM Batch arguments", ALLOCSET_DEFAULT_SIZES);
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
	if (state->bound == NIL)
		return;
	foreach(cell, state->bound)
	{
		bool		is_null = true;
		Datum		value = (Datum) 0;

		if (lfirst(cell))
			value = ExecEvalExprSwitchContext(lfirst(cell), econtext, &is_null);
		if (is_null && cell == list_head(state->bound))
		{
			rows = 0;			/* LIMIT NULL */
			break;
		}
		if (!is_null)
			rows += (double) Max(DatumGetInt64(value), 0);
	}
	if (rows > 0 && rows < 1e9)
		state->bound_rows = rows;
	/* The child may still have the bound of the scan before. */
	ExecSetTupleBound(state->bound_rows > 0 ? (int64) state->bound_rows : -1, outerPlanState(state));
}

static void
start(BatchScanState *state)
{
	state->started = true;
	state->exhausted = false;
	state->windows = 0;
	state->nrows = state->next_row = 0;
	state->pulled = 0;
	find_bound(state);
	state->window_rows = (int) Min(state->bound_rows > 0 ? state->bound_rows : FIRST_WINDOW_ROWS,
								   pg_bridge_window_rows);
}

/* Most rows of the next window. A cursor's client may take the rest at once after some small pieces. */
static int
most_rows(BatchScanState *state)
{
	/* A bounded sort has no more rows than its bound. */
	if (state->bound_rows > state->pulled)
		return (int) Min(state->window_rows, state->bound_rows - state->pulled);
	if (state->bound_rows > 0 || !takes_every_row(state->takes, state->css.ss.ps.state))
		return state->window_rows;
	if (state->may_reorder && state->nstages > 2 && state->all_windows == 0)
		return Min(LEARNING_ROWS, pg_bridge_window_rows);
	return pg_bridge_window_rows;
}

/* The qual that throws out most rows for its price goes first; at equal prices and rates the plan's order stays. */
static double
rank(Stage *stage)
{
	double		passes = (stage->passed + PRIOR_PASSED) / (stage->seen + PRIOR_SEEN);

	return (stage->cost + cpu_operator_cost) / Max(1 - passes, 0.001);
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
	start_pass(state);
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

/* An empty store for the next window. */
static void
clear_rows(BatchScanState *state)
{
	MemoryContext old;

	if (state->rows)
	{
		tuplestore_clear(state->rows);
		return;
	}
	old = MemoryContextSwitchTo(state->css.ss.ps.state->es_query_cxt);
	state->rows = tuplestore_begin_heap(true, false, work_mem);
	MemoryContextSwitchTo(old);
}

/*
 * Pull the rows of a window, and gather the first call as they come, so that there is an answer to work at before all have
 * been read. The window ends where as much of it has been gathered as is answered at one time.
 */
static void
read_window(BatchScanState *state, CallState *call, Gathered *gathered)
{
	int			most = most_rows(state);

	while (state->nrows < most)
	{
		TupleTableSlot *slot = ExecProcNode(outerPlanState(state));

		if (TupIsNull(slot))
		{
			state->exhausted = true;
			break;
		}
		tuplestore_puttupleslot(state->rows, slot);
		if (gathered)
			gather_row(state, call, gathered, state->nrows, load_row_of(state, slot));
		state->nrows++;
		if (gathered && is_all_gathered(call, gathered))
			break;
	}
}

/* Pull the next window and make its calls; false at the end. */
static bool
next_window(BatchScanState *state)
{
	CallState  *gathering;
	Gathered   *gathered;
	int			i;

	if (state->exhausted)
		return false;			/* the last window stays, for a rescan */
	state->nrows = state->next_row = 0;
	MemoryContextReset(state->window_context);
	for (i = 0; i < state->ncalls; i++)
		state->calls[i].made = false;
	clear_rows(state);

	/* The planner's order is by price; rows that have been seen tell more. */
	if (state->may_reorder && state->all_windows > 0)
		reorder_quals(state);
	gathering = call_to_gather(state);
	gathered = gathering ? start_gathering(state, gathering) : NULL;
	read_window(state, gathering, gathered);
	if (state->nrows == 0)
		return false;
	state->pulled += state->nrows;
	state->windows++;
	state->all_windows++;
	state->window_rows = Min(state->window_rows * 2, pg_bridge_window_rows);
	state->alive = MemoryContextAlloc(state->window_context, state->nrows * sizeof(bool));
	memset(state->alive, true, state->nrows * sizeof(bool));
	if (gathered)
		end_gathering(state, gathering, gathered);
	for (i = 0; i < state->nstages - 1 && any_alive(state); i++)
		apply_qual(state, &state->stages[state->order[i]]);
	if (any_alive(state))
		make_calls(state, state->stages[state->nstages - 1].needs);
	start_pass(state);
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
	int			i;

	if (state->rows)
		tuplestore_end(state->rows);
	state->rows = NULL;
	for (i = 0; i < state->ncalls; i++)
		end_store(&state->calls[i]);
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
		start_pass(state);
		return;
	}
	/* A sort that is scanned anew must know its new bound before. */
	start(state);
	if (outerPlanState(node)->chgParam == NULL)
		ExecReScan(outerPlanState(node));
}
