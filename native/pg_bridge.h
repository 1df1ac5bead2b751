/*
 * pg_bridge.h
 *	  Calls of functions that can answer many calls at once are gathered into batches inside the executor.
 *
 * A function is batchable if its setting pg_bridge.batch names another, which answers; this module knows neither what
 * they do nor how.
 * The way of a statement:
 *
 *	  planner hook		pg_bridge.c		is anything batchable here?
 *	  before planning	extract_columns.c	a list of columns becomes a schema
 *						compared_labels.c	a call without labels takes those that it is compared with
 *						sure_calls.c	an answer and its confidence become one question
 *						aggregates.c	an aggregate's batchable final function becomes a call over its state
 *						bare_selects.c	(SELECT call) becomes the call
 *						constants.c		a call that depends on no row becomes an InitPlan: it is made once
 *	  planning			paths.c			batch nodes' paths, by whose costs the planner chooses where quals are asked about
 *						join_paths.c	above joins
 *						twins.c			relations and joins without those quals
 *						clauses.c		the quals
 *	  after planning	rewrite.c		which plan nodes make calls otherwise, and where a batch node goes for each
 *						lateral.c		calls in functions in FROM and in subqueries, of the rows that they are run for
 *						supply.c		such calls become parameters of the plan that makes them
 *						plans.c			what is known of a finished plan's nodes
 *						foresee.c		an expression's calls become columns of the batch node
 *						conditions.c	the condition under which each call would be reached
 *						closed.c		whether an expression can be evaluated by itself
 *						consumers.c		who takes every row of a node, and who may stop early
 *	  execution			batch_scan.c	the node: windows of rows, what stage after stage leaves of them
 *						batch_calls.c	each call's arguments, the batch function, the results
 *						batch_window.c	the results of a window, and one row of it
 *	  EXPLAIN			readable.c		calls without the arguments that stand at their defaults
 *						batch_explain.c	the calls, and what they would take or did
 *						call_inputs.c	what they are about, as far as PostgreSQL's statistics tell
 *
 * A call that is not foreseen stays in its expression and is made as always.
 *
 * The module is also a foreign data wrapper, which foreign_scan.h tells about, and multicorn_guard.c keeps scans by
 * Multicorn from crashing the server. wait_event.c names what a backend waits for.
 */
#ifndef PG_BRIDGE_H
#define PG_BRIDGE_H

#include "postgres.h"

#include "nodes/execnodes.h"
#include "nodes/parsenodes.h"
#include "nodes/plannodes.h"
#include "optimizer/planner.h"

/* settings */
extern bool pg_bridge_batching;
extern int	pg_bridge_window_rows;

/* registry.c */
typedef struct BatchFunction
{
	Oid			function;		/* the function that statements call */
	Oid			batch;			/* answers many calls: (bigint, integer, [boolean,] json[], …) -> result[] */
	Oid			report;			/* tells what it did: (bigint, integer) -> text[]; may be InvalidOid */
} BatchFunction;

/* What a statement's planning has looked up: a function is batchable through the whole of it, or not at all. */
typedef struct Registry
{
	List	   *functions;		/* of BatchFunction, batchable or not */
	List	   *aggregates;		/* the Oids of those that others may stand in the place of, by the role's rights */
	PlannedStmt *stmt;			/* while its plan is rewritten, if calls in its subqueries can be foreseen; else NULL */
	List	   *copied;			/* the numbers of subplans that have copies at the end of the statement's list, in order */
} Registry;

extern Registry *new_registry(void);
extern BatchFunction *find_batch_function(Registry *registry, Oid function);
extern void depend_on_registry(PlannedStmt *stmt, Registry *registry);
extern FuncExpr *as_call(Node *node, Registry *registry);
extern bool contains_call(Node *node, Registry *registry);
extern bool is_of_extension(Oid function, const char *name);
extern double cost_of(Oid function);
extern void registry_init(void);

/* extract_columns.c */
extern Query *extract_columns(Query *query);

/* compared_labels.c */
extern void take_compared_labels(Query *query);

/* sure_calls.c */
extern bool is_of_bridge(Oid function);
extern int	place_of_argument(Oid function, const char *name, Oid type);
extern void add_argument(FuncExpr *call, const char *name, int place, Expr *value);
extern Query *ask_sure_calls_once(Query *query);

/* aggregates.c */
extern Query *call_final_functions(Query *query, Registry *registry);

/* bare_selects.c */
extern Query *replace_bare_selects(Query *query, Registry *registry);

/* constants.c */
extern bool mentions_own_functions(Query *query);
extern bool has_volatile_subquery(Query *query);
extern Query *ask_constants_once(Query *query, Registry *registry);

/* readable.c */
extern Node *readable(Node *expr, Registry *registry);
extern void readable_init(void);

/* paths.c */
extern PlannedStmt *plan_with_batches(planner_hook_type plan, Query *query, const char *text, int cursor_options,
									  ParamListInfo params, Registry *registry, bool volatile_subqueries);
extern void paths_init(void);

/* plans.c */
extern bool is_split_scan(Plan *plan);
extern bool is_join(Plan *plan);
extern Plan *below_pass_through(Plan *plan, List **passed);
extern bool can_go_back(Plan *plan);
extern void take_parameters(Plan *plan, Plan *user, List *exprs);
extern bool is_plain_bound(List *bound);

/* closed.c */
extern bool is_open(Node *node);
extern Expr *with_operand(Expr *condition, Expr *operand);

/* foresee.c */
typedef struct Batch
{
	Registry   *registry;
	bool		volatile_subqueries;	/* the statement has some */
	int			columns;		/* of the child: the first ones of the scan tuple */
	List	   *calls;			/* of Expr, over the scan tuple (INDEX_VAR): FuncExprs, and values computed once */
	List	   *guards;			/* a List of quals for each call: it is made only where they hold */
	List	   *needs;			/* an IntList for each stage: the calls to be made before it, in this order */
} Batch;

extern Batch *new_batch(Registry *registry, bool volatile_subqueries, int columns);
extern Node *foresee(Batch *batch, Node *expr);
extern Node *foresee_side(Batch *batch, Node *expr, int side);
extern Node *foresee_aggregates(Batch *batch, Node *expr);
extern bool may_be_foreseen(Registry *registry, bool volatile_subqueries, Node *expr);
extern void next_stage(Batch *batch);

/* lateral.c */
extern bool asks_about_row(SubPlan *subplan, Registry *registry);
extern bool foresee_inner_side(Batch *batch, NestLoop *loop, PlannedStmt *stmt);

/* consumers.c */
typedef enum Takes				/* the surest first */
{
	TAKES_EVERY_ROW,			/* or fails */
	AS_THE_CLIENT_TAKES,		/* every row, unless the statement is run in parts */
	MAY_STOP
} Takes;

/* What the nodes above will do with a node's rows. */
typedef struct Consumer
{
	Takes		takes;
	List	   *bound;			/* LIMIT and OFFSET, if they count this node's rows; else NIL */
} Consumer;

extern Consumer consumer_below(Plan *plan, int side, Consumer consumer);
extern void visit_children(Plan *plan, Consumer consumer,
						   void (*visit) (Plan **child, Consumer consumer, void *context), void *context);
extern Takes *takes_of_subplans(PlannedStmt *stmt);
extern void tell_foreign_scans(PlannedStmt *stmt);
extern bool takes_every_row(Takes takes, EState *estate);
extern const char *show_every_row(void);
extern void consumers_init(void);

/* rewrite.c */
extern int	next_plan_node_id(PlannedStmt *stmt);
extern void rewrite_statement(PlannedStmt *stmt, Registry *registry, int cursor_options, bool volatile_subqueries);

/* foreign_keys.c */
extern bool reads_foreign_tables(PlannedStmt *stmt);
extern void look_ahead_for_keys(PlannedStmt *stmt);
extern void foreign_keys_init(void);

/* wait_event.c */
extern PGDLLEXPORT uint32 pg_bridge_wait_event(void);

/* multicorn_guard.c */
extern void multicorn_guard_init(void);

/* batch_calls.c */
extern int	inside_batch_function;	/* how many are being called */
extern int64 statement_number(EState *estate);

/* batch_scan.c */
extern Plan *new_batch_scan(Plan *child, List *tlist, List *qual, uint32 flags, bool may_reorder);
extern void finish_batch_scan(Plan *plan, Batch *batch, Consumer consumer);
extern bool is_batch_scan(Plan *plan);
extern void batch_scan_init(void);

#endif
