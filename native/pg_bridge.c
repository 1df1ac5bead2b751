/*
 * pg_bridge.c
 *	  The module's settings and its planner hook; see pg_bridge.h for the whole.
 */
#include "pg_bridge.h"

#include "access/parallel.h"
#include "fmgr.h"
#include "jit/jit.h"
#include "optimizer/planner.h"
#include "utils/guc.h"
#include "utils/plancache.h"

PG_MODULE_MAGIC;

#ifdef SOURCE_DIGEST
/* lets `pg-bridge install --check` tell whether an installed module is of these sources, and made for that server */
static const char source_digest[] __attribute__((used)) = "pg_bridge source " SOURCE_DIGEST " for " PG_MAJORVERSION;
#endif

/*
 * Python reads it by its name, and calls a session old whose module is of
 * another version than the package; tests/unit/test_native_symbols.py holds it
 * equal to that.
 */
extern PGDLLEXPORT const char pg_bridge_version[32];
const char	pg_bridge_version[32] = "pg_bridge version 0.2";

bool		pg_bridge_batching = true;
int			pg_bridge_window_rows = 1000000;

/* Python looks for these two by their names: where the module is loaded, nobody but the server's owner can set them. */
extern PGDLLEXPORT char *pg_bridge_ledger_directory;
extern PGDLLEXPORT int pg_bridge_ledger_size;
char	   *pg_bridge_ledger_directory;
int			pg_bridge_ledger_size = 1024;

static planner_hook_type next_planner;

#define FUNCTION_SETTING (GUC_NO_SHOW_ALL | GUC_NO_RESET_ALL | GUC_NOT_IN_SAMPLE | GUC_DISALLOW_IN_FILE)

/* Functions have these settings; sessions have them only because a function's must be somebody's. */
static char *batch_of_function;
static char *report_of_function;
static bool every_row;			/* is never set: its hook shows it */

extern PGDLLEXPORT void _PG_init(void);

/* A finished plan whose foreign scans know how many rows, and how many keys, to take together. */
static PlannedStmt *
with_windows(PlannedStmt *stmt)
{
	if (reads_foreign_tables(stmt))
	{
		tell_foreign_scans(stmt);
		if (pg_bridge_batching)
			look_ahead_for_keys(stmt);
	}
	return stmt;
}

static PlannedStmt *
plan_in_batches(Query *query, const char *text, int cursor_options, ParamListInfo params)
{
	planner_hook_type plan = next_planner ? next_planner : standard_planner;
	Registry   *registry;
	bool		mentions_own = mentions_own_functions(query);
	bool		volatile_subqueries;
	PlannedStmt *stmt;

	if (mentions_own)
	{
		query = extract_columns(query);
		take_compared_labels(query);
		query = ask_sure_calls_once(query);
	}

	/*
	 * A function that can be batched, or inlined into one, is nobody's built-in: most statements end here. In a worker of
	 * a parallel plan nothing is batched, and a function that runs there can have statements of its own.
	 */
	if (!pg_bridge_batching || IsParallelWorker() || !mentions_own)
	{
		stmt = plan_with_batches(plan, query, text, cursor_options, params, NULL, false);
		return with_windows(stmt);
	}

	registry = new_registry();
	query = call_final_functions(query, registry);
	query = replace_bare_selects(query, registry);
	volatile_subqueries = has_volatile_subquery(query);
	query = ask_constants_once(query, registry);
	stmt = plan_with_batches(plan, query, text, cursor_options, params, registry, volatile_subqueries);
	rewrite_statement(stmt, registry, cursor_options, volatile_subqueries);
	depend_on_registry(stmt, registry);
	return with_windows(stmt);
}

/* A plan that was kept holds batch nodes, or lacks them. */
static void
batching_changed(bool value, void *extra)
{
	if (value != pg_bridge_batching)
		ResetPlanCache();
}

void
_PG_init(void)
{
	DefineCustomBoolVariable("pg_bridge.batching",
							 "Gathers calls of batchable functions into batches.",
							 "Off, each call is made for itself.",
							 &pg_bridge_batching, true, PGC_USERSET, 0, NULL, batching_changed, NULL);
	DefineCustomIntVariable("pg_bridge.window_rows",
							"Most rows whose calls are gathered into one batch.",
							NULL,
							&pg_bridge_window_rows, 1000000, 1, 1000000, PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("pg_bridge.ledger_directory",
							   "Where answers and usage are kept, below the data directory; empty for nowhere.",
							   NULL, &pg_bridge_ledger_directory, "pg_bridge", PGC_SIGHUP,
							   GUC_SUPERUSER_ONLY, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_bridge.ledger_size",
							"How large the answers that are kept may become.",
							NULL, &pg_bridge_ledger_size, 1024, 1, INT_MAX, PGC_SIGHUP, GUC_UNIT_MB, NULL, NULL, NULL);
	DefineCustomBoolVariable("pg_bridge.every_row",
							 "Whether the statement that reads it is run to its end.",
							 "llm.map reads it.",
							 &every_row, false, PGC_INTERNAL,
							 GUC_NO_SHOW_ALL | GUC_NOT_IN_SAMPLE | GUC_DISALLOW_IN_FILE, NULL, NULL, show_every_row);
	DefineCustomStringVariable("pg_bridge.batch",
							   "Names the function that answers many calls of a function at once.",
							   "A setting of functions; a session's own says nothing.",
							   &batch_of_function, NULL, PGC_USERSET, FUNCTION_SETTING, NULL, NULL, NULL);
	DefineCustomStringVariable("pg_bridge.report",
							   "Names the function that tells EXPLAIN ANALYZE what a batch function did.",
							   "A setting of functions; a session's own says nothing.",
							   &report_of_function, NULL, PGC_USERSET, FUNCTION_SETTING, NULL, NULL, NULL);
#if PG_VERSION_NUM >= 150000
	MarkGUCPrefixReserved("pg_bridge");
#else
	EmitWarningsOnPlaceholders("pg_bridge");
#endif
	registry_init();
	paths_init();
	batch_scan_init();
	consumers_init();
	foreign_keys_init();
	multicorn_guard_init();
	readable_init();
	next_planner = planner_hook;
	planner_hook = plan_in_batches;
}
