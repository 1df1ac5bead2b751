/*
 * paths.c
 *	  Where rows are asked about: paths of batch nodes, beside the planner's own, of which its costs choose.
 *
 * PostgreSQL evaluates a qual at the lowest node that has its columns, whatever it costs. A qual that asks somebody else
 * is taken from there. A relation with such quals gets a bare twin, planned as if it had none of them. Each path of the
 * twin with a batch node above it is a path of the relation; and a join of twins with a batch node above it is a path of
 * the join, in which the quals have waited for fewer rows. What the planner proves, it proves of the quals that are there.
 *
 *	  clause		a qual as the planner knows it, a RestrictInfo
 *	  waiting		the clauses that a twin lacks
 *	  crossing		a join clause with a call about several relations: twins never have it, batch nodes above joins do
 *
 * Which calls these clauses hold, and what each node makes of its quals and of its target list, foresee.c finds out in
 * the finished plan.
 */
#include "batch_paths.h"

#include "miscadmin.h"
#include "nodes/extensible.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/paths.h"
#include "optimizer/restrictinfo.h"
#include "parser/parsetree.h"
#include "utils/selfuncs.h"

#ifdef CUSTOMPATH_SUPPORT_PROJECTION
#define PATH_FLAGS CUSTOMPATH_SUPPORT_PROJECTION
#else
#define PATH_FLAGS 0			/* before PostgreSQL 15 every custom scan computes a target list */
#endif

#define WAIT 4.0				/* questions more that a window costs, because it waits for the engine however small it is */

Planning   *planning_now = NULL;
static set_rel_pathlist_hook_type next_rel_hook;
static set_join_pathlist_hook_type next_join_hook;

static Plan *plan_batch_path(PlannerInfo *root, RelOptInfo *rel, CustomPath *path, List *tlist, List *clauses,
							 List *plans);

static const CustomPathMethods path_methods = {"LLM Batch", plan_batch_path};

/* -- the batch node's path */

/*
 * How many questions are asked to evaluate a clause for so many rows? Equal ones are asked once, and a whole row is unlike
 * others. Not estimate_num_groups(): it counts what a relation's own quals leave.
 */
static double
questions_of(PlannerInfo *root, RestrictInfo *clause, double rows)
{
	double		questions = 1;
	ListCell   *cell;

	foreach(cell, pull_var_clause((Node *) clause->clause,
								  PVC_RECURSE_AGGREGATES | PVC_RECURSE_WINDOWFUNCS | PVC_RECURSE_PLACEHOLDERS))
	{
		VariableStatData column;
		bool		is_default;

		if (((Var *) lfirst(cell))->varattno == InvalidAttrNumber)
			return rows;
		examine_variable(root, lfirst(cell), 0, &column);
		questions *= get_variable_numdistinct(&column, &is_default);
		ReleaseVariableStats(column);
	}
	return Min(rows, questions);
}

/*
 * A path that asks about a child's rows. Each clause is evaluated for the rows that those before it have left; and each run
 * waits for the engine, so that it pays to ask once about the rows of many runs.
 */
Path *
batch_path(PlannerInfo *root, RelOptInfo *rel, Path *child, List *waiting, ParamPathInfo *parameters)
{
	CustomPath *custom = makeNode(CustomPath);
	Path	   *path = &custom->path;
	List	   *ordered = in_order(root, waiting);
	double		rows = Max(child->rows, 1);
	Cost		first = 0;
	Cost		all = 0;
	ListCell   *cell;

	foreach(cell, ordered)
	{
		RestrictInfo *clause = lfirst(cell);
		double		questions = questions_of(root, clause, rows);
		QualCost	cost;

		cost_qual_eval_node(&cost, (Node *) clause, root);
		first += cost.startup;
		all += cost.startup;
		if (contains_call((Node *) clause->clause, planning_now->registry))
		{
			/* The fewer different ones there are, the sooner most of them have been asked. */
			first += cost.per_tuple * (questions * (1 - questions / rows) + WAIT);
			all += cost.per_tuple * (questions + WAIT);
		}
		else
			all += cost.per_tuple * rows;
		rows = Max(rows * clause_selectivity(root, (Node *) clause, 0, JOIN_INNER, NULL), 1);
	}
	path->pathtype = T_CustomScan;
	path->parent = rel;
	path->pathtarget = rel->reltarget;
	path->param_info = parameters;
	path->pathkeys = child->pathkeys;
	path->rows = parameters ? parameters->ppi_rows : rel->rows;
	path->startup_cost = child->startup_cost + first + rel->reltarget->cost.startup;
	path->total_cost = child->total_cost + all + rel->reltarget->cost.startup +
		path->rows * (cpu_tuple_cost + rel->reltarget->cost.per_tuple);
#if PG_VERSION_NUM >= 180000
	path->disabled_nodes = child->disabled_nodes;
#endif
	custom->flags = PATH_FLAGS;
	custom->custom_paths = list_make1(child);
	custom->custom_private = ordered;
	custom->methods = &path_methods;
	return path;
}

static Plan *
plan_batch_path(PlannerInfo *root, RelOptInfo *rel, CustomPath *path, List *tlist, List *clauses, List *plans)
{
	List	   *waiting = path->custom_private;
	bool		may_reorder = true;
	ListCell   *cell;

	foreach(cell, waiting)
		may_reorder &= ((RestrictInfo *) lfirst(cell))->security_level ==
			((RestrictInfo *) linitial(waiting))->security_level;
	return new_batch_scan(linitial(plans), tlist, extract_actual_clauses(waiting, false), path->flags, may_reorder);
}

/* -- one relation */

/* Who looks a call up in an index does not make it. */
static bool
is_indexed(RelOptInfo *rel)
{
	ListCell   *cell;

	foreach(cell, rel->indexlist)
	{
		IndexOptInfo *index = lfirst(cell);

		if (contains_call((Node *) index->indexprs, planning_now->registry) ||
			contains_call((Node *) index->indpred, planning_now->registry))
			return true;
	}
	return false;
}

/* Would anybody notice how often the parts of a query's FROM and WHERE are computed? */
static bool
is_noticed(PlannerInfo *root)
{
	ListCell   *cell;

	if (contain_volatile_functions((Node *) root->parse->jointree))
		return true;
	foreach(cell, root->parse->rtable)
	{
		RangeTblEntry *entry = lfirst(cell);

		if (contain_volatile_functions((Node *) entry->subquery) ||
			contain_volatile_functions((Node *) entry->functions) ||
			contain_volatile_functions((Node *) entry->tablefunc) ||
			contain_volatile_functions((Node *) entry->values_lists))
			return true;
	}
	return planning_now->volatile_subqueries;
}

static bool
holds_placeholder_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	return IsA(node, PlaceHolderVar) || expression_tree_walker(node, holds_placeholder_walker, context);
}

/*
 * Does a statement change the rows of a table that has parts? From PostgreSQL 14 on joins then hand on columns that tell
 * parts and rows apart, which are none of any relation's: a custom scan cannot.
 */
bool
changes_parts(PlannerInfo *root)
{
	return root->parse->resultRelation > 0 && planner_rt_fetch(root->parse->resultRelation, root)->inh;
}

/* May clauses wait until after another join? They see other rows then, and are evaluated in another turn. */
bool
may_wait_above(PlannerInfo *root)
{
	if (planning_now->looked_at != root)
	{
		planning_now->looked_at = root;
		planning_now->may_wait = root->qual_security_level == 0 && !is_noticed(root) && !changes_parts(root);
	}
	return planning_now->may_wait;
}

/*
 * May clauses of a relation? What the relation computes is computed after them: a twin does not have it, and joins may sort by
 * it.
 */
static bool
may_wait(PlannerInfo *root, RelOptInfo *rel, List *waiting)
{
	return may_wait_above(root) && (waiting == NIL || computes_nothing(rel->reltarget, NIL)) &&
		extract_actual_clauses(rel->baserestrictinfo, true) == NIL &&
		!holds_placeholder_walker((Node *) extract_actual_clauses(waiting, false), NULL);
}

/* May these clauses be evaluated before those that wait, which may guard rows from them? */
static bool
may_go_before(PlannerInfo *root, List *clauses, List *waiting)
{
	Index		level = place_of(root, linitial(in_order(root, waiting))).level;
	ListCell   *cell;

	foreach(cell, clauses)
		if (place_of(root, lfirst(cell)).level > level)
			return false;
	return true;
}

/* Replace a relation's paths by those of its twin with a batch node above; false if it would be left without. */
static bool
ask_above(PlannerInfo *root, RelOptInfo *rel, RelOptInfo *bare, List *waiting)
{
	List	   *before = rel->pathlist;
	List	   *children = list_concat(lookups(root, rel, bare, waiting), bare->pathlist);
	bool		found = false;
	ListCell   *cell;

	rel->pathlist = NIL;
	foreach(cell, children)
	{
		Path	   *path = lfirst(cell);
		ParamPathInfo *parameters = NULL;

		if (path->param_info)
		{
			/* Its own clauses must be all that the relation would have had to evaluate for these parameters. */
			parameters = get_baserel_parampathinfo(root, rel, PATH_REQ_OUTER(path));
			if (list_length(parameters->ppi_clauses) != list_length(path->param_info->ppi_clauses) ||
				!may_go_before(root, parameters->ppi_clauses, waiting))
				continue;
		}
		found |= bms_equal(PATH_REQ_OUTER(path), rel->lateral_relids);
		add_path(rel, batch_path(root, rel, path, waiting, parameters));
	}
	if (!found)
		rel->pathlist = before;
	return found;
}

/* Is a relation on the inner side of an outer join or a semijoin, whose own clauses cannot be evaluated above it? */
static bool
is_inner_of_special(PlannerInfo *root, RelOptInfo *rel)
{
	ListCell   *cell;

	foreach(cell, root->join_info_list)
		if (bms_overlap(rel->relids, ((SpecialJoinInfo *) lfirst(cell))->syn_righthand))
			return true;
	return false;
}

/* Paths that make a call about other relations' rows one row at a time; a join of twins makes it in batches. */
List *
without_crossing_paths(PlannerInfo *root, List *paths, Relids lateral)
{
	List	   *rest = NIL;
	ListCell   *cell;

	foreach(cell, paths)
	{
		Path	   *path = lfirst(cell);

		if (path->param_info == NULL || bms_is_subset(PATH_REQ_OUTER(path), lateral) ||
			!holds_crossing(root, path->param_info->ppi_clauses))
			rest = lappend(rest, path);
	}
	return rest;
}

static void
consider_relation(PlannerInfo *root, RelOptInfo *rel, RangeTblEntry *entry)
{
	List	   *waiting = NIL;
	bool		is_crossed = holds_crossing(root, rel->joininfo) && !changes_parts(root);
	RelOptInfo *bare;
	ListCell   *cell;

	if (!is_crossed && !holds_asked_ahead(rel->baserestrictinfo))
		return;
	/* The quals from the first one with a call on: what is behind it is dearer, or guarded by it. */
	foreach(cell, in_order(root, rel->baserestrictinfo))
	{
		RestrictInfo *clause = lfirst(cell);

		if (!clause->pseudoconstant && (waiting != NIL || is_asked_ahead(clause)))
			waiting = lappend(waiting, clause);
	}
	if (rel->pathlist == NIL || is_indexed(rel))
		return;
	bare = bare_relation(root, rel, entry, waiting);
	if (bare == NULL || bare->pathlist == NIL || (waiting != NIL && !ask_above(root, rel, bare, waiting)))
		return;
	if (is_crossed && !is_inner_of_special(root, rel))
		rel->pathlist = without_crossing_paths(root, rel->pathlist, rel->lateral_relids);
	if (!may_wait(root, rel, waiting))
		return;
	set_cheapest(bare);			/* now: GEQO's memory is gone when the next order is tried */
	note_twin(rel, bare, waiting)->is_complete = true;
}

static void
on_relation(PlannerInfo *root, RelOptInfo *rel, Index number, RangeTblEntry *entry)
{
	if (next_rel_hook)
		next_rel_hook(root, rel, number, entry);
	if (planning_now && !entry->inh && !IS_DUMMY_REL(rel))
		consider_relation(root, rel, entry);
}

/* -- hooks */

static void
on_join(PlannerInfo *root, RelOptInfo *joinrel, RelOptInfo *outer, RelOptInfo *inner, JoinType type,
		JoinPathExtraData *extra)
{
	if (next_join_hook)
		next_join_hook(root, joinrel, outer, inner, type, extra);
	if (planning_now == NULL || planning_now->is_joining || changes_parts(root))
		return;
	planning_now->is_joining = true;
	consider_join(root, joinrel, outer, inner, type, extra);
	planning_now->is_joining = false;
}

/* Plan a statement; with a registry, its calls in WHERE and ON are made by batch nodes. */
PlannedStmt *
plan_with_batches(planner_hook_type plan, Query *query, const char *text, int cursor_options, ParamListInfo params,
				  Registry *registry, bool volatile_subqueries)
{
	Planning   *outer = planning_now;	/* planning can run a function that plans statements of its own */
	Planning	planning = {registry, volatile_subqueries};
	PlannedStmt *stmt;

	planning_now = registry ? &planning : NULL;
	PG_TRY();
	{
		stmt = plan(query, text, cursor_options, params);
	}
	PG_FINALLY();
	{
		planning_now = outer;
	}
	PG_END_TRY();
	return stmt;
}

void
paths_init(void)
{
	next_rel_hook = set_rel_pathlist_hook;
	set_rel_pathlist_hook = on_relation;
	next_join_hook = set_join_pathlist_hook;
	set_join_pathlist_hook = on_join;
}
