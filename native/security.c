/*
 * security.c
 *	  Whether a statement's quals may change places: not where some of them guard rows from the others.
 *
 * Row-level security and views that are security barriers give their quals a level below that of the statement's own. The
 * statement as it was parsed does not tell: the planner puts set-returning SQL functions in its place, and their tables
 * have policies, too. So the planner is watched: it shows every relation that it looks for paths to, at every depth.
 */
#include "pg_bridge.h"

#include "optimizer/paths.h"

static set_rel_pathlist_hook_type next_hook;
static bool *guarded_now = NULL;	/* of the statement that is being planned */

static void
note_security(PlannerInfo *root, RelOptInfo *rel, Index number, RangeTblEntry *entry)
{
	if (next_hook)
		next_hook(root, rel, number, entry);
	if (guarded_now && (root->qual_security_level > 0 || entry->securityQuals != NIL || entry->security_barrier))
		*guarded_now = true;
}

/* Plan a statement; may_reorder: its quals may be evaluated in another order than the planner's. */
PlannedStmt *
plan_watched(planner_hook_type plan, Query *query, const char *text, int cursor_options, ParamListInfo params,
			 bool *may_reorder)
{
	bool	   *outer = guarded_now;	/* planning can run a function that plans statements of its own */
	bool		guarded = false;
	PlannedStmt *stmt;

	guarded_now = &guarded;
	PG_TRY();
	{
		stmt = plan(query, text, cursor_options, params);
	}
	PG_FINALLY();
	{
		guarded_now = outer;
	}
	PG_END_TRY();
	*may_reorder = !guarded;
	return stmt;
}

void
security_init(void)
{
	next_hook = set_rel_pathlist_hook;
	set_rel_pathlist_hook = note_security;
}
