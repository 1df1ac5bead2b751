/*
 * foreign_keys.c
 *	  Joins on the key of a foreign table: many keys are handed over at once.
 *
 * A nested loop hands its inner side one key after the other, and that would be a request each. So a node is put over its
 * outer side, in the finished plan: it pulls a window of rows, notes their keys where the foreign scan finds them, and
 * passes the rows on. The scan asks for the keys of a window together, and then serves one after the other.
 *
 * Windows have 16, 32, 64, … rows, because a LIMIT above may have enough after a few, and no more than 16,384, because the
 * scan holds the rows of all their keys.
 */
#include "foreign_scan.h"

#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/extensible.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/array.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/ruleutils.h"
#include "utils/tuplestore.h"

#define FIRST_WINDOW_ROWS 16
#define MOST_WINDOW_ROWS 16384

/* -- keys on their way from the node to the scan */

typedef struct Keys
{
	EState	   *estate;
	int			scan;			/* plan_node_id of the foreign scan */
	Datum		array;			/* the keys of the window, or 0 */
	int64		window;			/* no two have the same number */
	struct Keys *next;
	MemoryContextCallback forget;
} Keys;

static Keys *all_keys = NULL;

static void
forget_keys(void *arg)
{
	Keys	  **link = &all_keys;

	while (*link && *link != arg)
		link = &(*link)->next;
	if (*link)
		*link = (*link)->next;
}

static Keys *
keys_of(EState *estate, int scan)
{
	Keys	   *keys;

	for (keys = all_keys; keys; keys = keys->next)
		if (keys->estate == estate && keys->scan == scan)
			return keys;
	return NULL;
}

static Keys *
new_keys(EState *estate, int scan)
{
	Keys	   *keys = MemoryContextAllocZero(estate->es_query_cxt, sizeof(Keys));

	keys->estate = estate;
	keys->scan = scan;
	keys->next = all_keys;
	all_keys = keys;
	keys->forget.func = forget_keys;
	keys->forget.arg = keys;
	MemoryContextRegisterResetCallback(estate->es_query_cxt, &keys->forget);
	return keys;
}

/* The keys that a foreign scan will be run for, as an array, and the number of their window; false if none are known. */
bool
keys_ahead(EState *estate, int scan, Datum *array, int64 *window)
{
	Keys	   *keys = keys_of(estate, scan);

	if (keys == NULL || DatumGetPointer(keys->array) == NULL)
		return false;
	*array = keys->array;
	*window = keys->window;
	return true;
}

/* -- the node
 *
 * custom_private:	the key's column in the child's rows, plan_node_id of the foreign scan
 */

typedef struct KeysState
{
	CustomScanState css;
	TupleTableSlot *child_slot;
	Tuplestorestate *rows;
	MemoryContext window_context;
	AttrNumber	column;
	Keys	   *keys;
	int			window_rows;	/* most rows of the next window */
	int			nrows;
	int			next_row;
	bool		exhausted;
	double		windows;
} KeysState;

static Node *create_state(CustomScan *scan);
static void begin(CustomScanState *node, EState *estate, int eflags);
static TupleTableSlot *next(CustomScanState *node);
static void end(CustomScanState *node);
static void rescan(CustomScanState *node);
static void explain(CustomScanState *node, List *ancestors, ExplainState *es);

static CustomScanMethods scan_methods = {"LLM Keys", create_state};
static CustomExecMethods exec_methods = {
	.CustomName = "LLM Keys",
	.BeginCustomScan = begin,
	.ExecCustomScan = next,
	.EndCustomScan = end,
	.ReScanCustomScan = rescan,
	.ExplainCustomScan = explain,
};

void
foreign_keys_init(void)
{
	RegisterCustomScanMethods(&scan_methods);
	foreign_scan_init();
}

static Node *
create_state(CustomScan *scan)
{
	KeysState  *state = palloc0(sizeof(KeysState));

	NodeSetTag(state, T_CustomScanState);
	state->css.methods = &exec_methods;
	return (Node *) state;
}

static void
start(KeysState *state)
{
	state->window_rows = Min(FIRST_WINDOW_ROWS, pg_bridge_window_rows);
	state->nrows = state->next_row = 0;
	state->exhausted = false;
	if (state->keys)
		state->keys->array = (Datum) 0;
}

static void
begin(CustomScanState *node, EState *estate, int eflags)
{
	KeysState  *state = (KeysState *) node;
	CustomScan *scan = (CustomScan *) node->ss.ps.plan;

	eflags &= ~(EXEC_FLAG_REWIND | EXEC_FLAG_BACKWARD | EXEC_FLAG_MARK);
	outerPlanState(node) = ExecInitNode(outerPlan(scan), estate, eflags);
	state->child_slot = ExecInitExtraTupleSlot(estate, ExecGetResultType(outerPlanState(node)), &TTSOpsMinimalTuple);
	state->column = linitial_int(scan->custom_private);
	if (eflags & EXEC_FLAG_EXPLAIN_ONLY)
		return;
	state->keys = new_keys(estate, lsecond_int(scan->custom_private));
	state->window_context = AllocSetContextCreate(estate->es_query_cxt, "LLM Keys window", ALLOCSET_SMALL_SIZES);
	state->rows = tuplestore_begin_heap(false, false, work_mem);
	start(state);
}

/* Pull the next window and note its keys. */
static void
next_window(KeysState *state)
{
	Oid			type = TupleDescAttr(state->child_slot->tts_tupleDescriptor, state->column - 1)->atttypid;
	ArrayBuildState *keys;
	MemoryContext old;

	static int64 windows = 0;

	state->keys->array = (Datum) 0;
	MemoryContextReset(state->window_context);
	tuplestore_clear(state->rows);
	keys = initArrayResult(type, state->window_context, false);
	state->nrows = state->next_row = 0;
	while (state->nrows < state->window_rows)
	{
		TupleTableSlot *slot = ExecProcNode(outerPlanState(state));
		Datum		key;
		bool		is_null;

		if (TupIsNull(slot))
		{
			state->exhausted = true;
			break;
		}
		tuplestore_puttupleslot(state->rows, slot);
		state->nrows++;
		key = slot_getattr(slot, state->column, &is_null);
		if (!is_null)
			accumArrayResult(keys, key, false, type, state->window_context);
	}
	if (state->nrows == 0)
		return;
	state->windows++;
	state->window_rows = Min(state->window_rows * 2, Min(MOST_WINDOW_ROWS, pg_bridge_window_rows));
	old = MemoryContextSwitchTo(state->window_context);
	state->keys->array = makeArrayResult(keys, state->window_context);
	state->keys->window = ++windows;
	MemoryContextSwitchTo(old);
}

static TupleTableSlot *
next(CustomScanState *node)
{
	KeysState  *state = (KeysState *) node;
	TupleTableSlot *slot = node->ss.ss_ScanTupleSlot;
	int			columns = slot->tts_tupleDescriptor->natts;

	CHECK_FOR_INTERRUPTS();
	ExecClearTuple(slot);
	if (state->next_row == state->nrows)
	{
		if (!state->exhausted)
			next_window(state);
		if (state->next_row == state->nrows)
			return slot;
	}
	state->next_row++;
	if (!tuplestore_gettupleslot(state->rows, true, false, state->child_slot))
		elog(ERROR, "a window has lost its rows");
	slot_getallattrs(state->child_slot);
	memcpy(slot->tts_values, state->child_slot->tts_values, columns * sizeof(Datum));
	memcpy(slot->tts_isnull, state->child_slot->tts_isnull, columns * sizeof(bool));
	return ExecStoreVirtualTuple(slot);
}

static void
end(CustomScanState *node)
{
	KeysState  *state = (KeysState *) node;

	if (state->rows)
		tuplestore_end(state->rows);
	ExecEndNode(outerPlanState(node));
}

static void
rescan(CustomScanState *node)
{
	ExecClearTuple(node->ss.ss_ScanTupleSlot);
	start((KeysState *) node);
	if (outerPlanState(node)->chgParam == NULL)
		ExecReScan(outerPlanState(node));
}

static void
explain(CustomScanState *node, List *ancestors, ExplainState *es)
{
	KeysState  *state = (KeysState *) node;
	List	   *context = set_deparse_context_plan(es->deparse_cxt, node->ss.ps.plan, ancestors);
	TargetEntry *entry = list_nth(node->ss.ps.plan->targetlist, state->column - 1);

	ExplainPropertyText("Keys", deparse_expression((Node *) entry->expr, context,
												   list_length(es->rtable) > 1 || es->verbose, false), es);
	if (es->analyze)
		ExplainPropertyFloat("Windows", NULL, state->windows, 0, es);
}

/* -- the plan */

static bool
mentions_param_walker(Node *node, void *param)
{
	if (node == NULL)
		return false;
	if (IsA(node, Param))
		return ((Param *) node)->paramkind == PARAM_EXEC && ((Param *) node)->paramid == *(int *) param;
	return expression_tree_walker(node, mentions_param_walker, param);
}

static bool
is_integer(Oid type)
{
	return type == INT2OID || type == INT4OID || type == INT8OID;
}

/* Are two values equal just if their texts are, where one type is the column's and the other the key's? */
static bool
are_equal_as_texts(Oid column, Oid key, Oid collation)
{
	if (is_integer(column))
		return is_integer(key);
	if (column == TEXTOID || column == VARCHAROID)
		return key == TEXTOID && (!OidIsValid(collation) || get_collation_isdeterministic(collation));
	return column == UUIDOID && key == UUIDOID;
}

static Plan *
over(Plan *child, AttrNumber column, int scan, int *next_id)
{
	CustomScan *node = makeNode(CustomScan);
	Plan	   *plan = &node->scan.plan;
	ListCell   *cell;

	foreach(cell, child->targetlist)
	{
		TargetEntry *entry = lfirst(cell);
		TargetEntry *handed_on = flatCopyTargetEntry(entry);

		node->custom_scan_tlist = lappend(node->custom_scan_tlist,
										  makeTargetEntry((Expr *) makeVarFromTargetEntry(OUTER_VAR, entry),
														  list_length(node->custom_scan_tlist) + 1, NULL, false));
		handed_on->expr = (Expr *) makeVarFromTargetEntry(INDEX_VAR, entry);
		plan->targetlist = lappend(plan->targetlist, handed_on);
	}
	outerPlan(plan) = child;
	node->custom_private = list_make2_int(column, scan);
	node->methods = &scan_methods;
	plan->plan_node_id = (*next_id)++;
	plan->startup_cost = child->startup_cost;
	plan->total_cost = child->total_cost;
	plan->plan_rows = child->plan_rows;
	plan->plan_width = child->plan_width;
	plan->extParam = bms_copy(child->extParam);
	plan->allParam = bms_copy(child->allParam);
	return plan;
}

/* Put a node over the outer side of a nested loop, if all that it hands over is the key of a foreign scan. */
static void
look_ahead(NestLoop *loop, int *next_id)
{
	Plan	   *inner = innerPlan(&loop->join.plan);
	NestLoopParam *param;
	ForeignScan *scan;
	ListCell   *cell;
	int			place = -1;

#if PG_VERSION_NUM >= 140000
	if (IsA(inner, Memoize))
		inner = outerPlan(inner);
#endif
	if (list_length(loop->nestParams) != 1 || !is_foreign_scan(inner))
		return;
	param = linitial(loop->nestParams);
	scan = (ForeignScan *) inner;
	if (!IsA(param->paramval, Var) || param->paramval->varattno <= 0)
		return;
	foreach(cell, scan->fdw_exprs)
	{
		if (!mentions_param_walker(lfirst(cell), &param->paramno))
			continue;
		if (place >= 0 || !IsA(lfirst(cell), Param))
			return;
		place = foreach_current_index(cell);
	}
	if (place < 0 || !foreign_plan_can_look_ahead(scan, place, are_equal_as_texts))
		return;
	outerPlan(&loop->join.plan) = over(outerPlan(&loop->join.plan), param->paramval->varattno,
									   scan->scan.plan.plan_node_id, next_id);
}

static void
look_ahead_in(Plan *plan, int *next_id)
{
	List	   *children = NIL;
	ListCell   *cell;

	if (plan == NULL)
		return;
	check_stack_depth();
	if (IsA(plan, Append))
		children = ((Append *) plan)->appendplans;
	else if (IsA(plan, MergeAppend))
		children = ((MergeAppend *) plan)->mergeplans;
	else if (IsA(plan, SubqueryScan))
		children = list_make1(((SubqueryScan *) plan)->subplan);
	else if (IsA(plan, CustomScan))
		children = ((CustomScan *) plan)->custom_plans;
	foreach(cell, children)
		look_ahead_in(lfirst(cell), next_id);
	look_ahead_in(outerPlan(plan), next_id);
	look_ahead_in(innerPlan(plan), next_id);
	if (IsA(plan, NestLoop))
		look_ahead((NestLoop *) plan, next_id);
}

bool
reads_foreign_tables(PlannedStmt *stmt)
{
	ListCell   *cell;

	foreach(cell, stmt->rtable)
	{
		RangeTblEntry *entry = lfirst(cell);

		if (entry->rtekind == RTE_RELATION && entry->relkind == RELKIND_FOREIGN_TABLE)
			return true;
	}
	return false;
}

/* Have the nested loops of a finished plan hand over many keys at once. */
void
look_ahead_for_keys(PlannedStmt *stmt)
{
	ListCell   *cell;
	int			next_id = next_plan_node_id(stmt);

	look_ahead_in(stmt->planTree, &next_id);
	foreach(cell, stmt->subplans)
		look_ahead_in(lfirst(cell), &next_id);
}
