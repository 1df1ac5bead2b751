/*
 * consumers.c
 *	  Who takes every row of a plan node, and who may stop before the end.
 *
 * Rows that are surely taken are asked about together, for more rows together share more; where somebody may have enough
 * after a few, they are asked about a few at a time. The plan tells which nodes take what they get to its end: a sort, a
 * hash table, an aggregate, a command that writes. What the client takes only a run of the executor tells, by its row
 * count: FETCH 10, a loop of PL/pgSQL and a SQL function in a select list name one, a plain statement, COPY, FETCH ALL and
 * a SQL function in FROM do not. So the plan says at most that it is the client's affair, and the run says the rest.
 *
 * All this sets the sizes of windows. No result rests on it.
 */
#include "foreign_scan.h"

#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"

/* -- one node and its children */

/*
 * A merge join ends with the side that ends first, unless the other side's rows are wanted without partners. The inner
 * side of a nested loop is left at the first partner, or run for one outer row after the other.
 */
static Takes
taken_by_join(Join *join, int side, Takes takes)
{
	JoinType	type = join->jointype;

	switch (nodeTag(join))
	{
		case T_MergeJoin:
			if (side == OUTER_VAR ? type == JOIN_LEFT || type == JOIN_ANTI || type == JOIN_FULL :
				type == JOIN_RIGHT || type == JOIN_FULL)
				return takes;
			return MAY_STOP;
		case T_NestLoop:
			if (side == INNER_VAR && (join->inner_unique || type == JOIN_SEMI || type == JOIN_ANTI ||
									  ((NestLoop *) join)->nestParams != NIL))
				return MAY_STOP;
			return takes;
		default:
			return takes;		/* of a hash join: Hash, its inner side, takes every row */
	}
}

/* What a node's child on one side can expect of it, given what the node can expect itself. */
Consumer
consumer_below(Plan *plan, int side, Consumer consumer)
{
	Consumer	inside = {consumer.takes, NIL};

	switch (nodeTag(plan))
	{
		case T_Limit:
			if (((Limit *) plan)->limitCount == NULL)
				break;			/* an OFFSET alone */
			inside.takes = MAY_STOP;
			if (((Limit *) plan)->limitOption == LIMIT_OPTION_COUNT)
				inside.bound = list_make2(((Limit *) plan)->limitCount, ((Limit *) plan)->limitOffset);
			if (!is_plain_bound(inside.bound))
				inside.bound = NIL;
			break;
		case T_Result:
		case T_SubqueryScan:
		case T_Append:			/* not LockRows: it may leave rows out */
			if (plan->qual == NIL)
				inside.bound = consumer.bound;
			break;
		case T_Sort:
		case T_Hash:
		case T_ModifyTable:
			inside.takes = TAKES_EVERY_ROW;
			break;
		case T_Agg:
			if (((Agg *) plan)->aggstrategy != AGG_SORTED)
				inside.takes = TAKES_EVERY_ROW;
			break;
		case T_SetOp:
			if (((SetOp *) plan)->strategy == SETOP_HASHED)
				inside.takes = TAKES_EVERY_ROW;
			else if (side == INNER_VAR)	/* from PostgreSQL 18 on: it ends with the outer side */
				inside.takes = MAY_STOP;
			break;
#if PG_VERSION_NUM >= 150000
		case T_WindowAgg:
			if (((WindowAgg *) plan)->runCondition != NIL)
				inside.takes = MAY_STOP;
			break;
#endif
		case T_MergeJoin:
		case T_NestLoop:
			inside.takes = taken_by_join((Join *) plan, side, inside.takes);
			break;
		case T_CustomScan:
			if (!is_batch_scan(plan))
				inside.takes = MAY_STOP;
			break;
		default:
			break;
	}
	return inside;
}

/* Visit the children of a node, which may put others in their places. */
void
visit_children(Plan *plan, Consumer consumer, void (*visit) (Plan **child, Consumer consumer, void *context),
			   void *context)
{
	List	   *several = NIL;
	ListCell   *cell;

	check_stack_depth();
	if (IsA(plan, ForeignScan))
		return;					/* a plan below it is for EvalPlanQual */
	if (IsA(plan, Append))
		several = ((Append *) plan)->appendplans;
	else if (IsA(plan, MergeAppend))
		several = ((MergeAppend *) plan)->mergeplans;
	else if (IsA(plan, CustomScan))
		several = ((CustomScan *) plan)->custom_plans;
	else if (IsA(plan, SubqueryScan))
		visit(&((SubqueryScan *) plan)->subplan, consumer_below(plan, OUTER_VAR, consumer), context);
	foreach(cell, several)
		visit((Plan **) &lfirst(cell), consumer_below(plan, OUTER_VAR, consumer), context);
	if (outerPlan(plan))
		visit(&outerPlan(plan), consumer_below(plan, OUTER_VAR, consumer), context);
	if (innerPlan(plan))
		visit(&innerPlan(plan), consumer_below(plan, INNER_VAR, consumer), context);
}

/* -- subplans */

static void
note(Takes *of_subplans, int plan_id, Takes takes)
{
	of_subplans[plan_id - 1] = Min(of_subplans[plan_id - 1], takes);
}

static bool
note_subplans_walker(Node *node, void *of_subplans)
{
	if (node == NULL)
		return false;
	if (IsA(node, SubPlan))
	{
		SubPlan    *subplan = (SubPlan *) node;

		if (subplan->subLinkType == ARRAY_SUBLINK || subplan->useHashTable)
			note(of_subplans, subplan->plan_id, TAKES_EVERY_ROW);
	}
	return expression_tree_walker(node, note_subplans_walker, of_subplans);
}

static void
note_consumers(Plan **place, Consumer consumer, void *of_subplans)
{
	Plan	   *plan = *place;

	if (IsA(plan, CteScan))		/* one reader that takes every row is enough */
		note(of_subplans, ((CteScan *) plan)->ctePlanId, consumer.takes);
	note_subplans_walker((Node *) plan->initPlan, of_subplans);
	note_subplans_walker((Node *) plan->targetlist, of_subplans);
	note_subplans_walker((Node *) plan->qual, of_subplans);
	if (is_join(plan))
		note_subplans_walker((Node *) ((Join *) plan)->joinqual, of_subplans);
	visit_children(plan, consumer, note_consumers, of_subplans);
}

/* What is taken of each subplan of a statement; of those that nobody knows, as few rows as may be. */
Takes *
takes_of_subplans(PlannedStmt *stmt)
{
	Consumer	client = {AS_THE_CLIENT_TAKES, NIL};
	int			count = list_length(stmt->subplans);
	Takes	   *takes = palloc(Max(count, 1) * sizeof(Takes));
	int			i;

	for (i = 0; i < count; i++)
		takes[i] = MAY_STOP;
	if (count == 0)
		return takes;
	note_consumers(&stmt->planTree, client, takes);
	for (i = count - 1; i >= 0; i--)	/* who reads a subplan comes after it in the list */
	{
		Plan	   *subplan = list_nth(stmt->subplans, i);
		Consumer	consumer = {takes[i], NIL};

		if (subplan)
			note_consumers(&subplan, consumer, takes);
	}
	return takes;
}

/* -- foreign scans */

static void
tell_scan(Plan **place, Consumer consumer, void *context)
{
	if (is_foreign_scan(*place))
		foreign_plan_tell((ForeignScan *) *place, consumer.takes);
	visit_children(*place, consumer, tell_scan, context);
}

/* Note in the foreign scans of a finished plan what is taken of them. */
void
tell_foreign_scans(PlannedStmt *stmt)
{
	Consumer	client = {AS_THE_CLIENT_TAKES, NIL};
	Takes	   *takes = takes_of_subplans(stmt);
	ListCell   *cell;

	tell_scan(&stmt->planTree, client, NULL);
	foreach(cell, stmt->subplans)
	{
		Consumer	consumer = {takes[foreach_current_index(cell)], NIL};

		if (lfirst(cell))
			tell_scan((Plan **) &lfirst(cell), consumer, NULL);
	}
	pfree(takes);
}

/* -- runs of the executor */

typedef struct ClientRun
{
	EState	   *estate;
	bool		to_the_end;
	struct ClientRun *outer;
} ClientRun;

static ExecutorRun_hook_type next_run;
static ClientRun *innermost = NULL;

static void
#if PG_VERSION_NUM >= 180000
run_for_client(QueryDesc *query, ScanDirection direction, uint64 count)
#else
run_for_client(QueryDesc *query, ScanDirection direction, uint64 count, bool once)
#endif
{
	ClientRun	run = {query->estate, count == 0 && ScanDirectionIsForward(direction), innermost};

	innermost = &run;
	PG_TRY();
	{
#if PG_VERSION_NUM >= 180000
		(next_run ? next_run : standard_ExecutorRun) (query, direction, count);
#else
		(next_run ? next_run : standard_ExecutorRun) (query, direction, count, once);
#endif
	}
	PG_FINALLY();
	{
		innermost = run.outer;
	}
	PG_END_TRY();
}

/* Will every row that a node can give be taken by this run? */
bool
takes_every_row(Takes takes, EState *estate)
{
	ClientRun  *run = innermost;

	if (takes != AS_THE_CLIENT_TAKES)
		return takes == TAKES_EVERY_ROW;
	while (run && run->estate != estate)
		run = run->outer;
	return run && run->to_the_end;
}

/* The setting pg_bridge.every_row: whether the statement that reads it is run to its end. */
const char *
show_every_row(void)
{
	return innermost && innermost->to_the_end ? "on" : "off";
}

void
consumers_init(void)
{
	next_run = ExecutorRun_hook;
	ExecutorRun_hook = run_for_client;
}
