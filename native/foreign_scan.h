/*
 * foreign_scan.h
 *	  The foreign data wrapper: foreign tables whose rows come from functions of the schema llm.
 *
 * What a foreign table is, which of its columns a model answers and how, all that is known to those functions only.
 * This module hands them what PostgreSQL knows of a scan, as JSON, and turns the texts that come back into rows:
 *
 *	  planning			foreign_plan.c		size, paths and plan
 *						foreign_quals.c		the conditions that can be handed over, and their values
 *	  execution			foreign_scan.c		the scan, from its parameters to its rows
 *						foreign_source.c	the query of the source, in the statement's own snapshot
 *						foreign_rights.c	whose rights count, and what may not be known of hidden rows
 *						foreign_keys.c		joins on the key: many keys at once
 *	  other commands	foreign_explain.c	EXPLAIN and IMPORT FOREIGN SCHEMA
 *	  all of them		foreign_calls.c		how a function is called, as whom, and how its error is raised
 */
#ifndef FOREIGN_SCAN_H
#define FOREIGN_SCAN_H

#include "pg_bridge.h"

#include "commands/explain.h"
#if PG_VERSION_NUM >= 180000
#include "commands/explain_format.h"
#include "commands/explain_state.h"
#endif
#include "foreign/fdwapi.h"
#include "lib/stringinfo.h"
#include "nodes/pathnodes.h"

/* A condition on one column; the scan's rows satisfy it, if it is exact. */
typedef struct ForeignQual
{
	AttrNumber	column;
	Oid			column_type;
	char	   *operator;		/* of pg_catalog, or IS NULL, or IS NOT NULL */
	char	   *quantifier;		/* any or all of an array, or empty */
	Oid			collation;		/* InvalidOid where none matters */
	bool		exact;			/* the source decides it, so that it need not be checked again */
	Expr	   *value;			/* holds no column of the table; NULL for IS NULL and IS NOT NULL */
	RestrictInfo *rinfo;		/* while planning */
} ForeignQual;

/* What the plan node holds in fdw_private; the values of the quals stand in fdw_exprs, in their order. */
typedef struct ForeignPlan
{
	List	   *needed;			/* of attribute numbers: the columns that are returned */
	List	   *quals;			/* of ForeignQual */
	List	   *sort;			/* of IntList: attribute number, is descending, NULLs come first */
	int			key;			/* the place of the qual whose value foreign_keys.c knows ahead, or -1 */
	bool		discreet;		/* EXPLAIN must not look at the source's rows */
	Takes		takes;			/* what consumers.c has noted */
} ForeignPlan;

/* foreign_quals.c */
extern Var *column_of_table(Node *node, Index relid);
extern ForeignQual *make_foreign_qual(PlannerInfo *root, RelOptInfo *rel, RestrictInfo *rinfo);
extern List *quals_as_list(List *quals);
extern List *quals_from_list(List *list, List *values);
extern void append_qual(StringInfo request, Oid table, ForeignQual *qual);
extern void append_value(StringInfo request, ForeignQual *qual, Datum value);
extern bool decides_without_value(ForeignQual *qual, Datum value, bool is_null, bool *holds);

/* foreign_plan.c */
extern void foreign_rel_size(PlannerInfo *root, RelOptInfo *rel, Oid table);
extern void foreign_paths(PlannerInfo *root, RelOptInfo *rel, Oid table);
extern ForeignScan *foreign_plan(PlannerInfo *root, RelOptInfo *rel, Oid table, ForeignPath *path, List *tlist,
								 List *clauses, Plan *outer_plan);
extern bool is_foreign_scan(Plan *plan);
extern ForeignPlan *foreign_plan_of(ForeignScan *scan);
extern void foreign_plan_tell(ForeignScan *scan, Takes takes);
extern bool foreign_plan_can_look_ahead(ForeignScan *scan, int place, bool (*are_equal) (Oid, Oid, Oid));

/* foreign_rights.c */
extern Oid	owner_of(Oid table);
extern Oid	source_user(Oid table, Oid reader);
extern bool may_learn_of_all_rows(Oid table, Oid reader);
extern bool is_behind_barrier(PlannerInfo *root, RelOptInfo *rel, Oid table);
extern void check_barrier(PlannerInfo *root, RelOptInfo *rel, Oid table, List *needed, List *quals);
extern void check_barrier_of_multicorn(PlannerInfo *root, RelOptInfo *rel, Oid table);

typedef struct ForeignSource ForeignSource;

/* foreign_calls.c */
typedef struct Identity
{
	Oid			user;
	int			security_context;
	bool		read_only;
} Identity;

extern Identity become(Oid user, int context);
extern void resume(Identity identity);
extern void begin_request(StringInfo request, Oid table);
extern void append_string(StringInfo request, const char *string);
extern void append_columns(StringInfo request, Oid table, List *columns);
extern void append_sort(StringInfo request, Oid table, List *sort);
extern Oid	foreign_function(const char *name);
extern void ask(const char *function, const char *request, ForeignSource *source, int noutputs, Datum *values,
				bool *nulls);
extern void raise_fault(Datum fault);
extern List *strings_of(Datum array);

/* foreign_source.c */
extern ForeignSource *new_source(Oid user, Snapshot snapshot);
extern ForeignSource *offer_source(ForeignSource *source);
extern void close_source(ForeignSource *source);

typedef struct Visit
{
	Identity	before;
	int			level;			/* of settings */
} Visit;

extern Visit enter_source(Oid user);
extern void leave_source(Visit visit);

/* foreign_scan.c */
typedef struct ForeignRun ForeignRun;

extern Oid	foreign_scan_user(ForeignScanState *node);
extern bool foreign_scan_has_run(ForeignScanState *node, int64 *statement);
extern void foreign_scan_init(void);

/* foreign_keys.c */
extern bool keys_ahead(EState *estate, int scan, Datum *array, int64 *window);

/* call_inputs.c */
extern bool may_see_statistics(Oid relation, AttrNumber column);

/* foreign_explain.c */
extern void explain_foreign_scan(ForeignScanState *node, ExplainState *es);
extern bool begin_look(EState *estate);
extern void end_look(bool begun);
extern void show_lines(Datum lines, ExplainState *es);
extern List *import_foreign_schema(ImportForeignSchemaStmt *stmt, Oid server);

#endif
