/*
 * join_paths.c
 *	  Where rows are asked about above a join: calls about both sides, and quals of one side that wait for fewer rows.
 *
 * For each pair of sides the planner's own join search is run again, over the sides' twins and without the crossing
 * clauses; what waits is evaluated by a batch node above, or waits on in the join's own twin.
 */
#include "batch_paths.h"

#include "optimizer/cost.h"
#include "optimizer/pathnode.h"
#include "optimizer/paths.h"

/* Does a join return every row of this side that has partners, whatever quals on this side alone say? */
static bool
side_may_wait(JoinType type, bool is_outer)
{
	switch (type)
	{
		case JOIN_INNER:
			return true;
		case JOIN_LEFT:
		case JOIN_SEMI:
		case JOIN_ANTI:
			return is_outer;
		case JOIN_RIGHT:
			return !is_outer;
		default:
			return false;
	}
}

static bool
same_clauses(List *one, List *other)
{
	return list_difference_ptr(one, other) == NIL && list_difference_ptr(other, one) == NIL;
}

/* The paths of a join but for those that make crossing calls themselves. */
static List *
without_crossing_joins(List *paths, List *crossing)
{
	List	   *rest = NIL;
	ListCell   *cell;

	foreach(cell, paths)
	{
		Path	   *path = lfirst(cell);

		if ((IsA(path, NestPath) || IsA(path, MergePath) || IsA(path, HashPath)) &&
			list_intersection(((JoinPath *) path)->joinrestrictinfo, crossing) != NIL)
			continue;
		rest = lappend(rest, path);
	}
	return rest;
}

typedef struct Pair
{
	RelOptInfo *joinrel;
	JoinType	type;
	SpecialJoinInfo *special;
	List	   *clauses;		/* that the join itself evaluates */
	List	   *crossing;		/* and that batch nodes above it do */
} Pair;

/* Has a join a path that needs no other relations? Where it has, some that it had before may be freed by now. */
static bool
has_path(RelOptInfo *joinrel)
{
	ListCell   *cell;

	foreach(cell, joinrel->pathlist)
		if (bms_is_subset(PATH_REQ_OUTER((Path *) lfirst(cell)), joinrel->lateral_relids))
			return true;
	return false;
}

static void
add_copy(RelOptInfo *rel, CustomPath *path)
{
	add_path(rel, memcpy(palloc(sizeof(CustomPath)), path, sizeof(CustomPath)));	/* which may free it */
}

/*
 * The planner has just tried a pair of sides with crossing calls made one by one, which costs it no more, so that paths of
 * other pairs may have gone for such ones: those go, and the others come back.
 */
static void
add_asked_before(Pair *pair)
{
	ListCell   *cell;

	pair->joinrel->pathlist = without_crossing_joins(pair->joinrel->pathlist, pair->crossing);
	foreach(cell, planning_now->asked)
		if (((Path *) lfirst(cell))->parent == pair->joinrel)
			add_copy(pair->joinrel, lfirst(cell));
}

/*
 * Let the planner add paths of a join over these two. That the inner side has one row for each of the outer side it may
 * have proved by a crossing clause, which the join lacks now, and it remembers.
 */
static void
add_paths(PlannerInfo *root, Pair *pair, RelOptInfo *joinrel, RelOptInfo *outer, RelOptInfo *inner)
{
	List	   *unique = inner->unique_for_rels;
	List	   *not_unique = inner->non_unique_for_rels;

	if (pair->crossing != NIL)
		inner->unique_for_rels = inner->non_unique_for_rels = NIL;
	add_paths_to_joinrel(root, joinrel, outer, inner, pair->type, pair->special, pair->clauses);
	if (pair->crossing != NIL)
	{
		inner->unique_for_rels = unique;
		inner->non_unique_for_rels = not_unique;
	}
}

/*
 * Add the paths of a join over these two, with all that waits above it.
 *
 * Paths of twins belong below twins only: for a parameterized path the planner takes the clauses of its relation that could be
 * evaluated below it to be evaluated there, and twins do not have all of them.
 */
static void
join_and_ask(PlannerInfo *root, Pair *pair, RelOptInfo *outer, RelOptInfo *inner, List *waiting)
{
	RelOptInfo *bare = bare_join(root, pair->joinrel, outer, inner, waiting, pair->clauses, pair->special);
	ListCell   *cell;

	add_paths(root, pair, bare, outer, inner);
	foreach(cell, bare->pathlist)
	{
		Path	   *path = lfirst(cell);
		Path	   *asked;

		if (path->param_info)
			continue;
		if (waiting == NIL)		/* nothing to ask, but the twin has columns of its own */
		{
			add_path(pair->joinrel,
					 (Path *) create_projection_path(root, pair->joinrel, path, pair->joinrel->reltarget));
			continue;
		}
		asked = batch_path(root, pair->joinrel, path, waiting, NULL);
		if (pair->crossing != NIL && root->join_search_private == NULL)
			planning_now->asked = lappend(planning_now->asked, asked);
		add_copy(pair->joinrel, (CustomPath *) asked);
	}
}

/* Add the paths of a join over these two to the join's own twin, with which all waits on. */
static void
join_and_wait(PlannerInfo *root, Pair *pair, RelOptInfo *outer, RelOptInfo *inner, List *waiting)
{
	Twin	   *twin = NULL;
	ListCell   *cell;

	/* GEQO forgets joins that it has tried, but not what is noted here. */
	if (root->join_search_private ||
		!computes_nothing(pair->joinrel->reltarget, list_concat_copy(outer->reltarget->exprs, inner->reltarget->exprs)))
		return;
	foreach(cell, planning_now->twins)
		if (((Twin *) lfirst(cell))->of == pair->joinrel)
			twin = lfirst(cell);
	if (twin == NULL)
		twin = note_twin(pair->joinrel,
						 bare_join(root, pair->joinrel, outer, inner, waiting, pair->clauses, pair->special), waiting);
	if (same_clauses(twin->waiting, waiting))
		add_paths(root, pair, twin->rel, outer, inner);
}

/* May a clause of a join be evaluated above it? A semijoin's own are pushed down to it, too. */
static bool
is_above(RestrictInfo *clause, RelOptInfo *joinrel, JoinType type)
{
	return type == JOIN_INNER || ((type == JOIN_LEFT || type == JOIN_RIGHT || type == JOIN_FULL) &&
								  RINFO_IS_PUSHED_DOWN(clause, joinrel->relids));
}

/* Does a clause stay behind crossing ones: because they guard it, or because it is dearer and no key of the join's? */
static bool
is_behind(PlannerInfo *root, RestrictInfo *clause, List *crossing)
{
	if (crossing == NIL || clause->pseudoconstant)
		return false;
	return place_of(root, clause).level > place_of(root, linitial(crossing)).level || !clause->can_join;
}

void
consider_join(PlannerInfo *root, RelOptInfo *joinrel, RelOptInfo *outer, RelOptInfo *inner, JoinType type,
			  JoinPathExtraData *extra)
{
	Twin	   *outer_twin = side_may_wait(type, true) ? twin_of(outer) : NULL;
	Twin	   *inner_twin = side_may_wait(type, false) ? twin_of(inner) : NULL;
	Pair		pair = {joinrel, type, extra->sjinfo, extra->restrictlist, NIL};
	List	   *before = joinrel->pathlist;
	ListCell   *cell;
	int			sides;

	if (outer_twin == NULL && inner_twin == NULL && !holds_crossing(root, extra->restrictlist))
		return;
	foreach(cell, in_order(root, extra->restrictlist))
	{
		RestrictInfo *clause = lfirst(cell);

		if (is_above(clause, joinrel, type) && (is_crossing(root, clause) || is_behind(root, clause, pair.crossing)))
			pair.crossing = lappend(pair.crossing, clause);
	}
	pair.clauses = list_difference_ptr(extra->restrictlist, pair.crossing);
	if (pair.crossing != NIL)
		add_asked_before(&pair);
	for (sides = 0; sides < 4; sides++)
	{
		Twin	   *at_outer = sides & 1 ? outer_twin : NULL;
		Twin	   *at_inner = sides & 2 ? inner_twin : NULL;
		RelOptInfo *this_outer = at_outer ? at_outer->rel : outer;
		RelOptInfo *this_inner = at_inner ? at_inner->rel : inner;
		List	   *waiting = list_copy(pair.crossing);

		if (((sides & 1) && !at_outer) || ((sides & 2) && !at_inner) || (sides == 0 && pair.crossing == NIL))
			continue;
		if (at_outer)
			waiting = list_concat(waiting, at_outer->waiting);
		if (at_inner)
			waiting = list_concat(waiting, at_inner->waiting);
		join_and_ask(root, &pair, this_outer, this_inner, waiting);
		if (at_outer == outer_twin && at_inner == inner_twin && may_wait_above(root))
			join_and_wait(root, &pair, this_outer, this_inner, waiting);
	}
	if (pair.crossing != NIL && !has_path(joinrel))
		joinrel->pathlist = before;
	joinrel->pathlist = without_crossing_paths(root, joinrel->pathlist, joinrel->lateral_relids);
}
