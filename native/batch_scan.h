/*
 * batch_scan.h
 *	  The state of a batch node in execution, which batch_scan.c, batch_calls.c and batch_window.c share.
 */
#ifndef BATCH_SCAN_H
#define BATCH_SCAN_H

#include "pg_bridge.h"

#include "fmgr.h"
#include "nodes/execnodes.h"
#include "utils/tuplestore.h"

/* One function call of each row, or a value that is computed for each row. */
typedef struct CallState
{
	Expr	   *expr;
	ExprState  *guard;			/* NULL where it is made for every row */
	ExprState  *value;			/* NULL for a call; else all of it but the results */
	int			nargs;
	bool		takes_parts;	/* the batch function may be given calls before all are there */
	bool		is_strict;		/* NULL, and not made, where an argument is NULL */
	ExprState **args;			/* each as json */
	bool	   *is_constant;	/* the same for all rows of a scan */
	Datum	   *constants;
	bool	   *constant_nulls;
	FmgrInfo	batch;
	ExprState  *plain;			/* the call itself; NULL until a batch function is what runs the scan */
	FmgrInfo	report;			/* fn_oid is InvalidOid where there is none */
	int16		typlen;
	bool		typbyval;
	char		typalign;

	/* of the window at hand: in arrays if by value, else in a store */
	bool		made;
	int			kept;			/* rows that have their result */
	Datum	   *results;
	bool	   *nulls;
	Tuplestorestate *store;
	TupleTableSlot *slot;		/* a row of the store */

	/* of the whole scan */
	Size		answer_bytes;	/* of a call in the latest answer */
	List	   *reported;		/* of char *, label and value in turn */
} CallState;

typedef struct Gathered Gathered;

/* The quals, in the plan's order; the target list is the last stage and has none. */
typedef struct Stage
{
	ExprState  *qual;
	List	   *needs;			/* numbers of calls */
	double		cost;
	double		seen;
	double		passed;
} Stage;

typedef struct BatchScanState
{
	CustomScanState css;
	TupleTableSlot *child_slot;
	Tuplestorestate *rows;
	MemoryContext window_context;
	MemoryContext batch_context;	/* which calls wait for their results */
	MemoryContext part_context; /* their arguments, and the results as they come */
	int			ncalls;
	CallState  *calls;
	int			nstages;		/* quals and the target list */
	Stage	   *stages;
	int		   *order;			/* of the quals */
	bool		may_reorder;
	Takes		takes;
	List	   *bound;			/* ExprStates of LIMIT and OFFSET, or NIL */
	double		bound_rows;		/* rows still wanted, 0 if not known */
	int64		statement;		/* tells batch functions which calls belong together */

	bool		started;
	bool		exhausted;		/* the child has no more rows */
	int			windows;		/* since the start or the latest rescan */
	int			window_rows;	/* most rows of the next window */
	double		pulled;			/* rows since the start or the latest rescan */
	int			nrows;			/* of the window at hand */
	int			next_row;
	bool	   *alive;

	double		all_windows;
} BatchScanState;

/* batch_window.c */
extern void start_results(BatchScanState *state, CallState *call);
extern void keep_result(CallState *call, int row, Datum value, bool is_null);
extern void end_results(BatchScanState *state, CallState *call);
extern void end_store(CallState *call);
extern void start_pass(BatchScanState *state);
extern TupleTableSlot *load_row_of(BatchScanState *state, TupleTableSlot *child);
extern TupleTableSlot *load_row(BatchScanState *state, int row);
extern bool row_passes(BatchScanState *state, TupleTableSlot *slot, ExprState *qual);

/* batch_explain.c */
struct ExplainState;
extern void explain_batch_scan(CustomScanState *node, List *ancestors, struct ExplainState *es);

/* call_inputs.c */
extern void append_inputs(struct StringInfoData *request, List *rtable, Expr *input, List *others, Plan *plan,
						  double calls);

/* batch_calls.c */
extern void begin_call(BatchScanState *state, CallState *call, Expr *expr, List *guard, Oid batch, Oid report);
extern CallState *call_to_gather(BatchScanState *state);
extern Gathered *start_gathering(BatchScanState *state, CallState *call);
extern void gather_row(BatchScanState *state, CallState *call, Gathered *gathered, int row, TupleTableSlot *slot);
extern bool is_all_gathered(CallState *call, Gathered *gathered);
extern void end_gathering(BatchScanState *state, CallState *call, Gathered *gathered);
extern void make_calls(BatchScanState *state, List *numbers);

#endif
