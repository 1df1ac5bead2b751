/*
 * Another extension, for test_batching_neighbours.py: puts a custom scan of its own above each path of a relation, as those
 * for time series and for clusters do.
 */
#include "postgres.h"

#include "executor/executor.h"
#include "fmgr.h"
#include "nodes/extensible.h"
#include "optimizer/paths.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

static set_rel_pathlist_hook_type next_hook;
static Node *create_state(CustomScan *scan);

static const CustomScanMethods scan_methods = {"Passing Node", create_state};

static void
begin_scan(CustomScanState *node, EState *estate, int eflags)
{
	CustomScan *scan = (CustomScan *) node->ss.ps.plan;

	node->custom_ps = list_make1(ExecInitNode(linitial(scan->custom_plans), estate, eflags));
}

static TupleTableSlot *
next_row(ScanState *node)
{
	TupleTableSlot *slot = ExecProcNode(linitial(((CustomScanState *) node)->custom_ps));

	return TupIsNull(slot) ? NULL : ExecCopySlot(node->ss_ScanTupleSlot, slot);
}

static bool
recheck(ScanState *node, TupleTableSlot *slot)
{
	return true;
}

static TupleTableSlot *
exec_scan(CustomScanState *node)
{
	return ExecScan(&node->ss, next_row, recheck);
}

static void
end_scan(CustomScanState *node)
{
	ExecEndNode(linitial(node->custom_ps));
}

static void
rescan(CustomScanState *node)
{
	ExecReScan(linitial(node->custom_ps));
}

static const CustomExecMethods exec_methods = {
	.CustomName = "Passing Node",
	.BeginCustomScan = begin_scan,
	.ExecCustomScan = exec_scan,
	.EndCustomScan = end_scan,
	.ReScanCustomScan = rescan,
};

static Node *
create_state(CustomScan *scan)
{
	CustomScanState *state = palloc0(sizeof(CustomScanState));

	NodeSetTag(state, T_CustomScanState);
	state->methods = &exec_methods;
	return (Node *) state;
}

static Plan *
plan_path(PlannerInfo *root, RelOptInfo *rel, CustomPath *path, List *tlist, List *clauses, List *plans)
{
	CustomScan *scan = makeNode(CustomScan);

	scan->scan.plan.targetlist = tlist;
	scan->custom_plans = plans;
	scan->custom_scan_tlist = copyObject(((Plan *) linitial(plans))->targetlist);
	scan->methods = &scan_methods;
	return &scan->scan.plan;
}

static const CustomPathMethods path_methods = {"Passing Node", plan_path};

static void
on_relation(PlannerInfo *root, RelOptInfo *rel, Index number, RangeTblEntry *entry)
{
	ListCell   *cell;

	if (next_hook)
		next_hook(root, rel, number, entry);
	foreach(cell, rel->pathlist)
	{
		CustomPath *path = makeNode(CustomPath);

		path->path = *(Path *) lfirst(cell);
		path->path.type = T_CustomPath;
		path->path.pathtype = T_CustomScan;
		path->custom_paths = list_make1(lfirst(cell));
		path->methods = &path_methods;
		lfirst(cell) = path;
	}
}

void
_PG_init(void)
{
	RegisterCustomScanMethods(&scan_methods);
	next_hook = set_rel_pathlist_hook;
	set_rel_pathlist_hook = on_relation;
}
