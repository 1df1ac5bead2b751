/*
 * batch_paths.h
 *	  What paths.c, join_paths.c, twins.c and clauses.c share: a statement that is being planned.
 */
#ifndef BATCH_PATHS_H
#define BATCH_PATHS_H

#include "pg_bridge.h"

#include "nodes/pathnodes.h"

/* A relation's bare twin. */
typedef struct Twin
{
	RelOptInfo *of;
	RelOptInfo *rel;
	List	   *waiting;		/* the clauses that it lacks */
	bool		is_complete;	/* its cheapest paths are known */
} Twin;

/* What is known while a statement is planned. */
typedef struct Planning
{
	Registry   *registry;
	bool		volatile_subqueries;
	List	   *twins;			/* of Twin, those that joins may use */
	List	   *asked;			/* of CustomPath, those of joins that have crossing calls */
	bool		is_joining;		/* twins: what the planner does then is not looked at */
	PlannerInfo *looked_at;		/* the latest query, of which is known */
	bool		may_wait;		/* whether clauses may wait until after another join */
} Planning;

/* Where a clause stands among the quals of a node. */
typedef struct Place
{
	Index		level;
	Cost		cost;
} Place;

extern Planning *planning_now;	/* NULL while nothing is, and for statements without calls */

/* clauses.c */
extern bool is_asked_ahead(RestrictInfo *clause);
extern bool holds_asked_ahead(List *clauses);
extern bool is_crossing(PlannerInfo *root, RestrictInfo *clause);
extern bool holds_crossing(PlannerInfo *root, List *clauses);
extern List *without_crossing(PlannerInfo *root, List *clauses);
extern Place place_of(PlannerInfo *root, RestrictInfo *clause);
extern List *in_order(PlannerInfo *root, List *clauses);
extern bool computes_nothing(PathTarget *target, List *given);
extern PathTarget *columns_below(PlannerInfo *root, PathTarget *target, List *waiting, Relids relids, List *given);

/* twins.c */
extern Twin *twin_of(RelOptInfo *rel);
extern Twin *note_twin(RelOptInfo *of, RelOptInfo *rel, List *waiting);
extern RelOptInfo *bare_relation(PlannerInfo *root, RelOptInfo *rel, RangeTblEntry *entry, List *waiting);
extern List *lookups(PlannerInfo *root, RelOptInfo *rel, RelOptInfo *bare, List *waiting);
extern RelOptInfo *bare_join(PlannerInfo *root, RelOptInfo *joinrel, RelOptInfo *outer, RelOptInfo *inner, List *waiting,
							 List *clauses, SpecialJoinInfo *special);

/* paths.c */
extern Path *batch_path(PlannerInfo *root, RelOptInfo *rel, Path *child, List *waiting, ParamPathInfo *parameters);
extern List *without_crossing_paths(PlannerInfo *root, List *paths, Relids lateral);
extern bool changes_parts(PlannerInfo *root);
extern bool may_wait_above(PlannerInfo *root);

/* join_paths.c */
extern void consider_join(PlannerInfo *root, RelOptInfo *joinrel, RelOptInfo *outer, RelOptInfo *inner, JoinType type,
						  JoinPathExtraData *extra);

#endif
