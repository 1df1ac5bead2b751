/*
 * twins.c
 *	  A relation's or a join's bare twin: planned as if it had no quals that wait.
 *
 * It is the same relation with fewer clauses, more columns (those that the quals read), more rows and paths of its own. A
 * path keeps the relation that it is of, and a plan is made of the clauses that this one has.
 */
#include "batch_paths.h"

#include "catalog/pg_class.h"
#include "foreign/fdwapi.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/paths.h"

Twin *
twin_of(RelOptInfo *rel)
{
	ListCell   *cell;

	foreach(cell, planning_now->twins)
	{
		Twin	   *twin = lfirst(cell);

		if (twin->of != rel)
			continue;
		if (twin->rel->pathlist == NIL)
			return NULL;		/* a join whose sides were tried in no order that they allow */
		if (!twin->is_complete)
			set_cheapest(twin->rel);
		twin->is_complete = true;
		return twin;
	}
	return NULL;
}

Twin *
note_twin(RelOptInfo *of, RelOptInfo *rel, List *waiting)
{
	Twin	   *twin = palloc0(sizeof(Twin));

	twin->of = of;
	twin->rel = rel;
	twin->waiting = waiting;
	planning_now->twins = lappend(planning_now->twins, twin);
	return twin;
}

static RelOptInfo *
bare_copy(PlannerInfo *root, RelOptInfo *rel, List *waiting, List *given)
{
	RelOptInfo *bare = makeNode(RelOptInfo);

	memcpy(bare, rel, sizeof(RelOptInfo));
	bare->reltarget = columns_below(root, rel->reltarget, waiting, rel->relids, given);
	bare->joininfo = without_crossing(root, rel->joininfo);
	bare->baserestrictinfo = NIL;
	bare->pathlist = bare->ppilist = bare->partial_pathlist = bare->cheapest_parameterized_paths = NIL;
	bare->cheapest_startup_path = bare->cheapest_total_path = NULL;
	bare->cheapest_unique_path = NULL;
	bare->unique_for_rels = bare->non_unique_for_rels = NIL;
	bare->consider_parallel = false;
	return bare;
}

/* A scan of anything but a table costs what it did, less the quals that it no longer evaluates. */
static Path *
bare_scan(PlannerInfo *root, RelOptInfo *bare, Path *path, double tuples, List *waiting)
{
	size_t		size;
	Path	   *copy;
	QualCost	saved;

	switch (nodeTag(path))
	{
		case T_Path:
			size = sizeof(Path);
			break;
		case T_SubqueryScanPath:
			size = sizeof(SubqueryScanPath);
			break;
		default:
			return NULL;
	}
	copy = memcpy(palloc(size), path, size);
	copy->parent = bare;
	copy->pathtarget = bare->reltarget;
	copy->parallel_safe = false;
	copy->rows = bare->rows;
	if (path->param_info)
	{
		copy->param_info = get_baserel_parampathinfo(root, bare, PATH_REQ_OUTER(path));
		copy->rows = copy->param_info->ppi_rows;
	}
	cost_qual_eval(&saved, waiting, root);
	copy->startup_cost = Max(0, copy->startup_cost - saved.startup);
	copy->total_cost = Max(copy->startup_cost, copy->total_cost - saved.startup - saved.per_tuple * tuples);
	return copy;
}

/* Does a path look up in an index what it knows from quals that its relation's twin lacks? */
static bool
looks_up_waiting(Path *path, RelOptInfo *bare)
{
	List	   *below = NIL;
	ListCell   *cell;

	if (IsA(path, IndexPath))
	{
		foreach(cell, ((IndexPath *) path)->indexclauses)
			if (!list_member_ptr(bare->baserestrictinfo, ((IndexClause *) lfirst(cell))->rinfo))
				return true;
	}
	else if (IsA(path, BitmapHeapPath))
		return looks_up_waiting(((BitmapHeapPath *) path)->bitmapqual, bare);
	else if (IsA(path, BitmapAndPath))
		below = ((BitmapAndPath *) path)->bitmapquals;
	else if (IsA(path, BitmapOrPath))
		below = ((BitmapOrPath *) path)->bitmapquals;
	foreach(cell, below)
		if (looks_up_waiting(lfirst(cell), bare))
			return true;
	return false;
}

/* What of the twin's rows does an index scan leave, by what it knows from quals that wait? */
static Selectivity
looked_up(PlannerInfo *root, IndexPath *scan, RelOptInfo *bare)
{
	List	   *known = NIL;
	ListCell   *cell;

	foreach(cell, scan->indexclauses)
		if (list_member_ptr(bare->baserestrictinfo, ((IndexClause *) lfirst(cell))->rinfo))
			known = lappend(known, ((IndexClause *) lfirst(cell))->rinfo);
	return Min(1, scan->indexselectivity / Max(clauselist_selectivity(root, known, 0, JOIN_INNER, NULL), 1e-6));
}

/*
 * ROW(id, call) < ROW(2, 'x') tells that id <= 2, (id = 1 AND call) OR id = 2 which two may be it. Scans of the twin that
 * know that have fewer rows than its own, and so are none of its paths.
 */
List *
lookups(PlannerInfo *root, RelOptInfo *rel, RelOptInfo *bare, List *waiting)
{
	List	   *paths = NIL;
	QualCost	saved;
	ListCell   *cell;

	cost_qual_eval(&saved, waiting, root);
	foreach(cell, rel->pathlist)
	{
		Path	   *path = lfirst(cell);
		Path	   *copy;
		double		fetched;
		double		rows = bare->rows;

		if (path->param_info || !looks_up_waiting(path, bare))
			continue;
		if (IsA(path, IndexPath))
		{
			IndexPath  *scan = memcpy(makeNode(IndexPath), path, sizeof(IndexPath));
			IndexOptInfo *index = memcpy(makeNode(IndexOptInfo), scan->indexinfo, sizeof(IndexOptInfo));

			index->indrestrictinfo = list_difference_ptr(index->indrestrictinfo, waiting);
			index->rel = bare;
			scan->indexinfo = index;
			fetched = clamp_row_est(scan->indexselectivity * rel->tuples);
			rows *= looked_up(root, scan, bare);
			copy = &scan->path;
		}
		else
		{
			Cost		cost;
			Selectivity selectivity;

			cost_bitmap_tree_node(((BitmapHeapPath *) path)->bitmapqual, &cost, &selectivity);
			fetched = clamp_row_est(selectivity * rel->tuples);
			if (IsA(((BitmapHeapPath *) path)->bitmapqual, IndexPath))
				rows *= looked_up(root, (IndexPath *) ((BitmapHeapPath *) path)->bitmapqual, bare);
			copy = memcpy(makeNode(BitmapHeapPath), path, sizeof(BitmapHeapPath));
		}
		copy->parent = bare;
		copy->pathtarget = bare->reltarget;
		copy->parallel_safe = false;
		copy->rows = clamp_row_est(Min(rows, fetched));
		copy->total_cost = Max(copy->startup_cost, copy->total_cost - saved.startup - saved.per_tuple * fetched);
		paths = lappend(paths, copy);
	}
	return paths;
}

static void
plan_bare_table(PlannerInfo *root, RelOptInfo *bare)
{
	List	   *indexes = NIL;
	ListCell   *cell;

	foreach(cell, bare->indexlist)
	{
		IndexOptInfo *index = makeNode(IndexOptInfo);

		memcpy(index, lfirst(cell), sizeof(IndexOptInfo));
		index->rel = bare;
		index->predOK = false;
		indexes = lappend(indexes, index);
	}
	bare->indexlist = indexes;
	check_index_predicates(root, bare);
	set_baserel_size_estimates(root, bare);
#if PG_VERSION_NUM >= 180000
	if (create_tidscan_paths(root, bare))
		return;					/* the row of a cursor is found in no other way, whatever that costs */
#else
	create_tidscan_paths(root, bare);
#endif
	add_path(bare, create_seqscan_path(root, bare, bare->lateral_relids, 0));
	create_index_paths(root, bare);
}

/* Which columns a foreign scan brings along follows from the quals that it evaluates, so that its provider plans anew. */
static void
plan_bare_foreign_table(PlannerInfo *root, RelOptInfo *bare, RangeTblEntry *entry)
{
	bare->fdw_private = NULL;
	set_foreign_size_estimates(root, bare);
	bare->fdwroutine->GetForeignRelSize(root, bare, entry->relid);
	bare->rows = clamp_row_est(bare->rows);
	bare->tuples = Max(bare->tuples, bare->rows);
	bare->fdwroutine->GetForeignPaths(root, bare, entry->relid);
}

/* Columns that the relation itself needs only for its quals are needed above its twin. */
static void
note_needed(RelOptInfo *bare)
{
	int			count = bare->max_attr - bare->min_attr + 1;
	Relids	   *needed = palloc(count * sizeof(Relids));
	ListCell   *cell;

	memcpy(needed, bare->attr_needed, count * sizeof(Relids));
	foreach(cell, bare->reltarget->exprs)
	{
		Var		   *var = lfirst(cell);

		if (IsA(var, Var) && bms_is_empty(needed[var->varattno - bare->min_attr]))
			needed[var->varattno - bare->min_attr] = bms_make_singleton(0);	/* as for the query's output */
	}
	bare->attr_needed = needed;
}

/* Plan a relation as if it had no quals that wait; NULL if that is not known how to do. */
RelOptInfo *
bare_relation(PlannerInfo *root, RelOptInfo *rel, RangeTblEntry *entry, List *waiting)
{
	RelOptInfo *bare = bare_copy(root, rel, waiting, waiting == NIL ? rel->reltarget->exprs : NIL);
	ListCell   *cell;

	note_needed(bare);
	/* What is the same for all rows the planner looks at above the batch node. */
	foreach(cell, rel->baserestrictinfo)
		if (!((RestrictInfo *) lfirst(cell))->pseudoconstant)
			bare->baserestrictinfo = lappend(bare->baserestrictinfo, lfirst(cell));
	bare->baserestrictinfo = list_difference_ptr(bare->baserestrictinfo, waiting);
	cost_qual_eval(&bare->baserestrictcost, bare->baserestrictinfo, root);
	if (entry->rtekind == RTE_RELATION && entry->tablesample == NULL)
	{
		if (entry->relkind == RELKIND_FOREIGN_TABLE)
			plan_bare_foreign_table(root, bare, entry);
		else
			plan_bare_table(root, bare);
		return bare;
	}
	bare->rows = clamp_row_est(rel->rows / Max(clauselist_selectivity(root, waiting, 0, JOIN_INNER, NULL), 1e-6));
	foreach(cell, rel->pathlist)
	{
		Path	   *path = bare_scan(root, bare, lfirst(cell), rel->tuples, waiting);

		if (path == NULL)
			return NULL;
		add_path(bare, path);
	}
	return bare;
}

/* A join planned anew over these two, for its twin or for one set of paths. */
RelOptInfo *
bare_join(PlannerInfo *root, RelOptInfo *joinrel, RelOptInfo *outer, RelOptInfo *inner, List *waiting, List *clauses,
		  SpecialJoinInfo *special)
{
	List	   *given = list_concat_copy(outer->reltarget->exprs, inner->reltarget->exprs);
	RelOptInfo *bare = bare_copy(root, joinrel, waiting, given);

	bare->fdwroutine = NULL;
	bare->part_scheme = NULL;
	bare->nparts = 0;
	set_joinrel_size_estimates(root, bare, outer, inner, special, clauses);
	return bare;
}
