/*
 * rewrite.c
 *	  Puts batch nodes into a finished plan.
 *
 * A node that makes calls over its child's rows gets a batch node below it, which hands on the rows with the calls'
 * results as further columns. A node whose own results are what the calls need (a scan, a join, an aggregation) is
 * split: it keeps the quals that make no calls and passes plain columns, and the batch node above it takes the rest of
 * its quals and its target list. Plans below Gather are left alone: batches are made in the leader, above it.
 */
#include "pg_bridge.h"

#include "executor/executor.h"
#include "jit/jit.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"

typedef struct Rewriting
{
	PlannedStmt *stmt;
	Registry   *registry;
	bool		volatile_subqueries;	/* the statement has some */
	int			next_id;		/* plan_node_id of the next node */
	bool		found;			/* a batch node was made */
} Rewriting;

/* -- parts */

/* A target list that hands on another's columns as they are. */
static List *
handed_on(List *columns, int varno)
{
	List	   *tlist = NIL;
	ListCell   *cell;

	foreach(cell, columns)
	{
		TargetEntry *entry = flatCopyTargetEntry(lfirst(cell));

		entry->expr = (Expr *) makeVarFromTargetEntry(varno, entry);
		tlist = lappend(tlist, entry);
	}
	return tlist;
}

/*
 * Part a list of quals at the first one that holds a call. Those behind it stay behind it: the planner puts a cheap
 * qual there only if the ones before guard rows from it.
 */
static void
set_calls_apart(List *quals, Registry *registry, List **cheap, List **rest)
{
	ListCell   *cell;

	*cheap = *rest = NIL;
	foreach(cell, quals)
	{
		Node	   *qual = lfirst(cell);

		if (*rest == NIL && !contains_call(qual, registry))
			*cheap = lappend(*cheap, qual);
		else
			*rest = lappend(*rest, qual);
	}
}

static Cost
calls_cost(List *calls)
{
	Cost		cost = 0;
	ListCell   *cell;

	foreach(cell, calls)
	{
		FuncExpr   *call = lfirst(cell);

		if (IsA(call, FuncExpr))
			cost += cost_of(call->funcid) * cpu_operator_cost;
	}
	return cost;
}

/* Tell a batch node its calls. */
static Plan *
finished(Plan *plan, Batch *batch, Consumer consumer, Rewriting *rewriting)
{
	finish_batch_scan(plan, batch, consumer);
	/* Its first row costs a window: a hash join that has this for its outer side looks first whether the other has rows. */
	if (consumer.takes != MAY_STOP)
		plan->startup_cost = plan->total_cost;
	rewriting->found = true;
	return plan;
}

/* A batch node over a child, in the place of a node that is like it, and that much dearer. */
static Plan *
batch_over(Plan *child, Batch *batch, List *tlist, List *quals, Consumer consumer, Plan *like, Cost dearer,
		   Rewriting *rewriting)
{
	Plan	   *plan = new_batch_scan(child, tlist, quals, 0, !is_split_scan(like) && !is_join(like));

	plan->plan_node_id = rewriting->next_id++;
	plan->startup_cost = like->startup_cost;
	plan->total_cost = like->total_cost + dearer;
	plan->plan_rows = like->plan_rows;
	plan->plan_width = like->plan_width;
	plan->extParam = bms_union(like->extParam, child->extParam);
	plan->allParam = bms_union(like->allParam, child->allParam);
	return finished(plan, batch, consumer, rewriting);
}

static Plan *
materialized(Plan *child, Rewriting *rewriting)
{
	Material   *node = makeNode(Material);

	node->plan.targetlist = handed_on(child->targetlist, OUTER_VAR);
	outerPlan(&node->plan) = child;
	node->plan.plan_node_id = rewriting->next_id++;
	node->plan.startup_cost = child->startup_cost;
	node->plan.total_cost = child->total_cost;
	node->plan.plan_rows = child->plan_rows;
	node->plan.plan_width = child->plan_width;
	node->plan.extParam = bms_copy(child->extParam);
	node->plan.allParam = bms_copy(child->allParam);
	return &node->plan;
}

/* -- a batch node below */

/*
 * Make a batch node over *place, or below what only hands its columns on, with the calls as further columns at the end.
 */
static void
insert_below(Plan *user, Plan **place, Batch *batch, Consumer consumer, Rewriting *rewriting)
{
	List	   *passed;
	Plan	   *child = below_pass_through(*place, &passed);
	List	   *tlist = handed_on(child->targetlist, INDEX_VAR);
	Plan	   *plan;
	List	   *moved = list_make2(batch->calls, batch->guards);
	ListCell   *cell;
	int			number = 0;
	int			over;

	for (over = list_length(passed) - 1; over >= 0; over--)
		consumer = consumer_below(list_nth(passed, over), OUTER_VAR, consumer);
	foreach(cell, batch->calls)
	{
		Node	   *call = lfirst(cell);
		Var		   *var = makeVar(INDEX_VAR, batch->columns + ++number, exprType(call), exprTypmod(call),
								  exprCollation(call), 0);

		tlist = lappend(tlist, makeTargetEntry((Expr *) var, list_length(tlist) + 1, NULL, false));
	}
	plan = batch_over(child, batch, tlist, NIL, consumer, child, calls_cost(batch->calls) * child->plan_rows, rewriting);
	take_parameters(plan, user, moved);
	if (passed == NIL)
		*place = plan;
	else
		outerPlan(linitial(passed)) = plan;
	foreach(cell, passed)
	{
		Plan	   *node = lfirst(cell);

		node->targetlist = handed_on(outerPlan(node)->targetlist, OUTER_VAR);
		take_parameters(node, user, moved);
	}
}

static Batch *
batch_below(Plan *place, Rewriting *rewriting)
{
	List	   *passed;

	return new_batch(rewriting->registry, rewriting->volatile_subqueries, list_length(below_pass_through(place, &passed)->targetlist));
}

/* -- a node split */

/* What a split node hands up: Vars, and the results that only it can compute. */
static bool
is_atom(Node *node)
{
	return IsA(node, Var) || IsA(node, Aggref) || IsA(node, GroupingFunc) || IsA(node, WindowFunc);
}

static bool
collect_atoms_walker(Node *node, void *atoms)
{
	if (node == NULL)
		return false;
	if (is_atom(node))
	{
		*(List **) atoms = list_append_unique(*(List **) atoms, node);
		return false;
	}
	return expression_tree_walker(node, collect_atoms_walker, atoms);
}

/* Are two atoms the same? Which outer joins may have made a Var NULL is noted in some places and not in others. */
static bool
same_atom(Node *one, Node *other)
{
	if (IsA(one, Var) && IsA(other, Var))
		return ((Var *) one)->varno == ((Var *) other)->varno && ((Var *) one)->varattno == ((Var *) other)->varattno;
	return equal(one, other);
}

static Node *
translate_mutator(Node *node, void *atoms)
{
	if (node == NULL)
		return NULL;
	if (is_atom(node))
	{
		AttrNumber	column = 1;
		ListCell   *cell;

		foreach(cell, (List *) atoms)
		{
			if (same_atom(lfirst(cell), node))
				return (Node *) makeVar(INDEX_VAR, column, exprType(node), exprTypmod(node), exprCollation(node), 0);
			column++;
		}
		elog(ERROR, "an expression of a split node was not collected");
	}
	return expression_tree_mutator(node, translate_mutator, atoms);
}

/* Foresee the calls of quals, one stage each, and of a target list, which is the last stage. */
static void
foresee_stages(Batch *batch, List **quals, List **tlist)
{
	List	   *given = *quals;
	ListCell   *cell;

	*quals = NIL;
	foreach(cell, given)
	{
		*quals = lappend(*quals, foresee(batch, lfirst(cell)));
		next_stage(batch);
	}
	*tlist = (List *) foresee(batch, (Node *) *tlist);
}

#if PG_VERSION_NUM >= 150000
typedef struct Moving
{
	List	   *tlist;			/* a window aggregation's target list before */
	List	   *atoms;			/* and now */
} Moving;

/* A run condition reads window functions' results as columns of its node's own target list. */
static Node *
moving_mutator(Node *node, void *context)
{
	Moving	   *moving = context;

	if (node == NULL)
		return NULL;
	if (IsA(node, Var))
	{
		Var		   *var = copyObject((Var *) node);
		TargetEntry *entry = list_nth(moving->tlist, var->varattno - 1);
		AttrNumber	column = 1;
		ListCell   *cell;

		foreach(cell, moving->atoms)
		{
			if (equal(lfirst(cell), entry->expr))
			{
				var->varattno = column;
				return (Node *) var;
			}
			column++;
		}
		elog(ERROR, "a run condition of a split node was not found");
	}
	return expression_tree_mutator(node, moving_mutator, context);
}
#endif

static Plan *
split(Plan *plan, Consumer consumer, Rewriting *rewriting)
{
	List	   *cheap;
	List	   *quals;
	List	   *tlist = plan->targetlist;
	List	   *atoms = NIL;
	List	   *columns = NIL;
	Batch	   *batch;
	Plan	   *above;
	ListCell   *cell;

	set_calls_apart(plan->qual, rewriting->registry, &cheap, &quals);
	if (quals == NIL && !contains_call((Node *) tlist, rewriting->registry))
		return plan;
	collect_atoms_walker((Node *) quals, &atoms);
	collect_atoms_walker((Node *) tlist, &atoms);
	batch = new_batch(rewriting->registry, rewriting->volatile_subqueries, list_length(atoms));
	quals = (List *) translate_mutator((Node *) quals, atoms);
	tlist = (List *) translate_mutator((Node *) tlist, atoms);
	foresee_stages(batch, &quals, &tlist);
	if (batch->calls == NIL)
		return plan;
	foreach(cell, atoms)
		columns = lappend(columns, makeTargetEntry(lfirst(cell), list_length(columns) + 1, NULL, false));
#if PG_VERSION_NUM >= 150000
	if (IsA(plan, WindowAgg))
	{
		WindowAgg  *window = (WindowAgg *) plan;
		Moving		moving = {plan->targetlist, atoms};

		window->runCondition = (List *) moving_mutator((Node *) window->runCondition, &moving);
	}
#endif
	plan->targetlist = columns;
	plan->qual = cheap;
	above = batch_over(plan, batch, tlist, quals, consumer, plan, 0, rewriting);
	above->initPlan = plan->initPlan;
	plan->initPlan = NIL;
	plan->total_cost = Max(plan->startup_cost, plan->total_cost - calls_cost(batch->calls) * plan->plan_rows);
	return above;
}

/* A Result over rows only computes: the batch node takes its place. */
static Plan *
replace_result(Result *result, Consumer consumer, Rewriting *rewriting)
{
	Plan	   *child = outerPlan(result);
	Batch	   *batch = new_batch(rewriting->registry, rewriting->volatile_subqueries, list_length(child->targetlist));
	List	   *quals = result->plan.qual;
	List	   *tlist = result->plan.targetlist;
	ListCell   *cell;
	List	   *columns = NIL;
	Plan	   *above;

	if (result->resconstantqual != NULL)
		return split(&result->plan, consumer, rewriting);
	foreach(cell, child->targetlist)
		columns = lappend(columns, makeVarFromTargetEntry(OUTER_VAR, lfirst(cell)));
	quals = (List *) translate_mutator((Node *) quals, columns);
	tlist = (List *) translate_mutator((Node *) tlist, columns);
	foresee_stages(batch, &quals, &tlist);
	if (batch->calls == NIL)
		return &result->plan;
	above = batch_over(child, batch, tlist, quals, consumer, &result->plan, 0, rewriting);
	above->initPlan = result->plan.initPlan;
	return above;
}

/* -- nodes by their kind */

/* Calls that need one side of a join only are made below it, once a row; the join's own conditions see the results. */
static void
foresee_join_side(Plan *join, int side, Consumer consumer, Rewriting *rewriting)
{
	Plan	  **place = side == OUTER_VAR ? &outerPlan(join) : &innerPlan(join);
	Batch	   *batch = batch_below(*place, rewriting);

	((Join *) join)->joinqual = (List *) foresee_side(batch, (Node *) ((Join *) join)->joinqual, side);
	if (IsA(join, HashJoin))
	{
		HashJoin   *hash_join = (HashJoin *) join;

		hash_join->hashclauses = (List *) foresee_side(batch, (Node *) hash_join->hashclauses, side);
		if (side == OUTER_VAR)
			hash_join->hashkeys = (List *) foresee_side(batch, (Node *) hash_join->hashkeys, side);
		else					/* the keys of the inner side are computed by its Hash node */
			((Hash *) *place)->hashkeys = (List *) foresee_side(batch, (Node *) ((Hash *) *place)->hashkeys, OUTER_VAR);
	}
	if (batch->calls != NIL)
		insert_below(join, place, batch, consumer_below(join, side, consumer), rewriting);
}

/*
 * Calls that need both sides are made above the join: those that paths.c has left there, in statements that change the rows
 * of a table with parts. With its conditions gone the join may not stop at an outer row's first partner.
 */
static void
ask_above_join(Plan *plan, Rewriting *rewriting)
{
	Join	   *join = (Join *) plan;
	List	   *rest;

	set_calls_apart(join->joinqual, rewriting->registry, &join->joinqual, &rest);
	if (rest == NIL)
		return;
	plan->qual = list_concat(rest, plan->qual);
	join->inner_unique = false;
	if (IsA(plan, MergeJoin))
		((MergeJoin *) plan)->skip_mark_restore = false;
}

static Plan *
rewrite_join(Plan *plan, Consumer consumer, Rewriting *rewriting)
{
	Join	   *join = (Join *) plan;

	if (contains_call((Node *) join->joinqual, rewriting->registry) ||
		(IsA(plan, HashJoin) && contains_call((Node *) ((HashJoin *) plan)->hashclauses, rewriting->registry)))
	{
		foresee_join_side(plan, OUTER_VAR, consumer, rewriting);
		foresee_join_side(plan, INNER_VAR, consumer, rewriting);
	}
	if (join->jointype == JOIN_INNER)
		ask_above_join(plan, rewriting);
	/* What would run once per outer row, or go back to a mark, reads its rows from a store. */
	if (IsA(plan, NestLoop) && ((NestLoop *) plan)->nestParams == NIL && is_batch_scan(innerPlan(plan)))
		innerPlan(plan) = materialized(innerPlan(plan), rewriting);
	if (IsA(plan, MergeJoin) && !((MergeJoin *) plan)->skip_mark_restore && !can_go_back(innerPlan(plan)))
		innerPlan(plan) = materialized(innerPlan(plan), rewriting);
	return split(plan, consumer, rewriting);
}

/* The arguments of aggregates and window functions are computed from the child's rows; all else from their results. */
static Plan *
rewrite_aggregation(Plan *plan, Consumer consumer, Rewriting *rewriting)
{
	Batch	   *batch = batch_below(outerPlan(plan), rewriting);
	Consumer	inside = consumer_below(plan, OUTER_VAR, consumer);

	if (contains_call((Node *) plan->targetlist, rewriting->registry) ||
		contains_call((Node *) plan->qual, rewriting->registry))
	{
		plan->targetlist = (List *) foresee_aggregates(batch, (Node *) plan->targetlist);
		plan->qual = (List *) foresee_aggregates(batch, (Node *) plan->qual);
		if (batch->calls != NIL)
			insert_below(plan, &outerPlan(plan), batch, inside, rewriting);
	}
	return split(plan, consumer, rewriting);
}

static Plan *
rewrite_project_set(Plan *plan, Consumer consumer, Rewriting *rewriting)
{
	Batch	   *batch = batch_below(outerPlan(plan), rewriting);
	Consumer	inside = consumer_below(plan, OUTER_VAR, consumer);

	if (contains_call((Node *) plan->targetlist, rewriting->registry))
	{
		plan->targetlist = (List *) foresee_side(batch, (Node *) plan->targetlist, OUTER_VAR);
		if (batch->calls != NIL)
			insert_below(plan, &outerPlan(plan), batch, inside, rewriting);
	}
	return plan;
}

static Plan *rewrite(Plan *plan, Consumer consumer, Rewriting *rewriting);

static void
rewrite_child(Plan **child, Consumer consumer, void *rewriting)
{
	*child = rewrite(*child, consumer, rewriting);
}

/* What the inner side asks about the outer side's rows is asked there, before the inner side is looked at. */
static void
rewrite_loop_sides(Plan *loop, Consumer consumer, Rewriting *rewriting)
{
	Consumer	outside = consumer_below(loop, OUTER_VAR, consumer);
	Batch	   *batch;

	rewrite_child(&outerPlan(loop), outside, rewriting);
	batch = batch_below(outerPlan(loop), rewriting);
	if (foresee_inner_side(batch, (NestLoop *) loop, rewriting->stmt))
		insert_below(loop, &outerPlan(loop), batch, outside, rewriting);
	rewrite_child(&innerPlan(loop), consumer_below(loop, INNER_VAR, consumer), rewriting);
}

/* A batch node that the planner has chosen: what it evaluates is looked through for calls. */
static Plan *
finish(Plan *plan, Consumer consumer, Rewriting *rewriting)
{
	Batch	   *batch;

	visit_children(plan, consumer, rewrite_child, rewriting);
	batch = new_batch(rewriting->registry, rewriting->volatile_subqueries, list_length(outerPlan(plan)->targetlist));
	foresee_stages(batch, &plan->qual, &plan->targetlist);
	return finished(plan, batch, consumer, rewriting);
}

/* Below what others know to run, or run for EvalPlanQual: nothing is put there, but what the planner has is finished. */
static void
finish_chosen(Plan **place, Consumer consumer, void *rewriting)
{
	if (is_batch_scan(*place))
		finish(*place, consumer, rewriting);
	else if (IsA(*place, ForeignScan) && outerPlan(*place))
		finish_chosen(&outerPlan(*place), consumer, rewriting);
	else
		visit_children(*place, consumer, finish_chosen, rewriting);
}

static Plan *
rewrite(Plan *plan, Consumer consumer, Rewriting *rewriting)
{
	if (is_batch_scan(plan))
		return finish(plan, consumer, rewriting);
	if (IsA(plan, CustomScan) || (IsA(plan, ForeignScan) && outerPlan(plan)))
		finish_chosen(&plan, consumer, rewriting);
	if (IsA(plan, CustomScan))
		return plan;
	if (IsA(plan, Gather) || IsA(plan, GatherMerge))
		return split(plan, consumer, rewriting);
	if (IsA(plan, NestLoop))
		rewrite_loop_sides(plan, consumer, rewriting);
	else
		visit_children(plan, consumer, rewrite_child, rewriting);
	if (is_split_scan(plan) || IsA(plan, Group))
		return split(plan, consumer, rewriting);
	if (is_join(plan))
		return rewrite_join(plan, consumer, rewriting);
	if (IsA(plan, Agg) || IsA(plan, WindowAgg))
		return rewrite_aggregation(plan, consumer, rewriting);
	if (IsA(plan, ProjectSet))
		return rewrite_project_set(plan, consumer, rewriting);
	if (IsA(plan, Result) && outerPlan(plan) &&
		(contains_call((Node *) plan->targetlist, rewriting->registry) ||
		 contains_call((Node *) plan->qual, rewriting->registry)))
		return replace_result((Result *) plan, consumer, rewriting);
	return plan;
}

static int
largest_id(Plan *plan)
{
	List	   *children = NIL;
	ListCell   *cell;
	int			largest;

	if (plan == NULL)
		return 0;
	if (IsA(plan, Append))
		children = ((Append *) plan)->appendplans;
	else if (IsA(plan, MergeAppend))
		children = ((MergeAppend *) plan)->mergeplans;
	else if (IsA(plan, BitmapAnd))
		children = ((BitmapAnd *) plan)->bitmapplans;
	else if (IsA(plan, BitmapOr))
		children = ((BitmapOr *) plan)->bitmapplans;
	else if (IsA(plan, SubqueryScan))
		children = list_make1(((SubqueryScan *) plan)->subplan);
	else if (IsA(plan, CustomScan))
		children = ((CustomScan *) plan)->custom_plans;
	children = lappend(list_copy(children), outerPlan(plan));
	children = lappend(children, innerPlan(plan));
	largest = plan->plan_node_id;
	foreach(cell, children)
	{
		int			below = largest_id(lfirst(cell));	/* not inside of Max, which would look twice */

		largest = Max(largest, below);
	}
	list_free(children);
	return largest;
}

/* A number that no plan node of a statement has, and none above it. */
int
next_plan_node_id(PlannedStmt *stmt)
{
	int			largest = largest_id(stmt->planTree);
	ListCell   *cell;

	foreach(cell, stmt->subplans)
	{
		int			below = largest_id(lfirst(cell));

		largest = Max(largest, below);
	}
	return largest + 1;
}

/*
 * Workers get every subplan that is parallel safe, whether they run it or not. A batch node is for the leader only, so
 * such a subplan is left alone where there are workers; one that is not safe stays out of their hands.
 */
static bool
may_reach_workers(PlannedStmt *stmt, Plan *subplan)
{
	return stmt->parallelModeNeeded && subplan->parallel_safe;
}

/* A plan's copy has nodes of its own: what is kept of a node in execution is kept by its number. */
static void
renumber(Plan **place, Consumer consumer, void *rewriting)
{
	(*place)->plan_node_id = ((Rewriting *) rewriting)->next_id++;
	visit_children(*place, consumer, renumber, rewriting);
}

/* The place of the subplan that one of a statement's is, or is a copy of. */
static int
planned_subplan(Registry *registry, int place, int planned)
{
	while (place >= planned)
		place = list_nth_int(registry->copied, place - planned) - 1;
	return place;
}

/* PostgreSQL lets a cursor that nobody declared with or without SCROLL go back if its plan can. */
static bool
must_go_back(PlannedStmt *stmt, int cursor_options)
{
	if (cursor_options & CURSOR_OPT_SCROLL)
		return true;
	return (cursor_options & CURSOR_OPT_FAST_PLAN) && !(cursor_options & CURSOR_OPT_NO_SCROLL) &&
		stmt->rowMarks == NIL && ExecSupportsBackwardScan(stmt->planTree);
}

/*
 * Rewrite a statement's plans in place.
 *
 * volatile_subqueries: a subquery in an expression calls volatile functions.
 */
void
rewrite_statement(PlannedStmt *stmt, Registry *registry, int cursor_options, bool volatile_subqueries)
{
	Rewriting	rewriting = {stmt, registry, volatile_subqueries, 0, false};
	Consumer	client = {AS_THE_CLIENT_TAKES, NIL};
	Takes	   *takes = takes_of_subplans(stmt);
	bool		back = must_go_back(stmt, cursor_options);
	int			planned = list_length(stmt->subplans);
	ListCell   *cell;

	rewriting.next_id = next_plan_node_id(stmt);
	/* Of what the statement's own tree runs once a row; subplans must come after those that they use. */
	registry->stmt = volatile_subqueries || stmt->parallelModeNeeded ? NULL : stmt;
	stmt->planTree = rewrite(stmt->planTree, client, &rewriting);
	registry->stmt = NULL;
	foreach(cell, stmt->subplans)
	{
		Consumer	consumer = {takes[planned_subplan(registry, foreach_current_index(cell), planned)], NIL};

		if (foreach_current_index(cell) >= planned)
			renumber((Plan **) &lfirst(cell), consumer, &rewriting);
		if (lfirst(cell) && !may_reach_workers(stmt, lfirst(cell)))
			lfirst(cell) = rewrite(lfirst(cell), consumer, &rewriting);
	}
	if (!rewriting.found)
		return;
	if (back && !ExecSupportsBackwardScan(stmt->planTree))
		stmt->planTree = materialized(stmt->planTree, &rewriting);
	/* The costs are those of waiting; compiling expressions would only add to them. */
	stmt->jitFlags = PGJIT_NONE;
}
