/*
 * foreign_source.c
 *	  The query of a foreign table's source, for the function that runs the scan: one run of the executor, in the
 *	  snapshot of the statement that scans, so that the source's rows are those which any other table of it shows.
 *
 * The run belongs to the scan, not to a portal: portals are dropped at COMMIT in no order, and one of them may be the
 * holdable cursor that still reads. It has a resource owner of its own below the one of the statement, for what it opens
 * inside a subtransaction of Python's outlives that. As SQL functions of PostgreSQL's own do, it is simply left alone
 * when the statement fails.
 *
 * Python knows nothing of it: which source is meant is what the call of a function of the schema llm was told, and
 * outside of such a call there is none.
 */
#include "foreign_scan.h"

#include "access/detoast.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "nodes/params.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#define FETCHED_BYTES (16 * 1024 * 1024)
#define MOST_WANTED 1000000
#define DEEPEST 4				/* foreign tables that read foreign tables; also in pg_bridge/foreign/source.py */

extern PGDLLEXPORT Datum pg_bridge_source_table(PG_FUNCTION_ARGS);
extern PGDLLEXPORT Datum pg_bridge_source_columns(PG_FUNCTION_ARGS);
extern PGDLLEXPORT Datum pg_bridge_source_size(PG_FUNCTION_ARGS);
extern PGDLLEXPORT Datum pg_bridge_source_rows(PG_FUNCTION_ARGS);

PG_FUNCTION_INFO_V1(pg_bridge_source_table);
PG_FUNCTION_INFO_V1(pg_bridge_source_columns);
PG_FUNCTION_INFO_V1(pg_bridge_source_size);
PG_FUNCTION_INFO_V1(pg_bridge_source_rows);

struct ForeignSource
{
	dlist_node	node;
	Oid			user;			/* whose rights count */
	Snapshot	snapshot;
	MemoryContext context;		/* of the query */
	MemoryContextCallback forget;
	ResourceOwner parent;		/* of the statement that scans */
	ResourceOwner owner;		/* of what the source has opened; NULL for nothing */
	QueryDesc  *query;			/* NULL unless rows have been asked for */
	bool		at_end;
	bool		broken;			/* by an error or the end of a subtransaction */
	bool		inside;			/* something of it is running, or has failed */
	SubTransactionId opened_in;
	SubTransactionId used_in;
};

static dlist_head sources = DLIST_STATIC_INIT(sources);
static ForeignSource *offered = NULL;	/* to the function that is being called */
static int	depth = 0;			/* sources that are inside each other */

/* -- its life */

static void
forget_source(void *arg)
{
	ForeignSource *source = arg;

	dlist_delete(&source->node);
	if (offered == source)
		offered = NULL;
}

static bool
is_below(ResourceOwner owner, ResourceOwner ancestor)
{
	while (owner && owner != ancestor)
		owner = ResourceOwnerGetParent(owner);
	return owner != NULL;
}

/*
 * A subtransaction is rolled back: a source that it started, or in which it failed, cannot be read on, and what the source
 * holds goes with the subtransaction, for it may be of objects that do. So does what PostgreSQL has put below it already,
 * because a cursor of the statement that scans has failed.
 */
static void
break_source(ForeignSource *source)
{
	if (source->owner && !is_below(source->owner, CurTransactionResourceOwner))
		ResourceOwnerNewParent(source->owner, CurTransactionResourceOwner);
	source->owner = NULL;
	source->broken = true;
}

static void
subtransaction_ends(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	dlist_iter	cell;

	if (event != SUBXACT_EVENT_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB)
		return;
	dlist_foreach(cell, &sources)
	{
		ForeignSource *source = dlist_container(ForeignSource, node, cell.cur);

		if (event == SUBXACT_EVENT_ABORT_SUB && !source->broken &&
			(source->opened_in == mine || (source->inside && source->used_in == mine) ||
			 is_below(source->owner, CurTransactionResourceOwner)))
			break_source(source);
		if (source->opened_in == mine)
			source->opened_in = parent;
		if (source->used_in == mine)
			source->used_in = parent;
	}
}

/* A source that is read with the rights of a user, in a snapshot; it lives in the current memory context. */
ForeignSource *
new_source(Oid user, Snapshot snapshot)
{
	static bool registered = false;
	ForeignSource *source = palloc0(sizeof(ForeignSource));

	if (!registered)
		RegisterSubXactCallback(subtransaction_ends, NULL);
	registered = true;
	source->user = user;
	source->snapshot = snapshot;
	source->parent = CurrentResourceOwner;
	source->context = AllocSetContextCreate(CurrentMemoryContext, "foreign source", ALLOCSET_DEFAULT_SIZES);
	source->forget.func = forget_source;
	source->forget.arg = source;
	dlist_push_head(&sources, &source->node);
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &source->forget);
	return source;
}

/* Let the function that is called next read a source; returns what was offered before. */
ForeignSource *
offer_source(ForeignSource *source)
{
	ForeignSource *before = offered;

	offered = source;
	return before;
}

/*
 * Become the user whose rights count, where code of the foreign table's owner may run: he may do nothing that outlives it;
 * names are looked up where that one says, and texts are printed in one way. Until leave_source(), which sets every setting
 * back; an error in between needs none.
 */
Visit
enter_source(Oid user)
{
	static const char *const settings[][2] = {
		{"search_path", "pg_catalog, \"$user\", public, pg_temp"},
		{"datestyle", "ISO"},
		{"intervalstyle", "iso_8601"},
		{"extra_float_digits", "1"},
		{"bytea_output", "hex"},
	};
	Visit		visit;
	int			i;

	visit.before = become(user, SECURITY_RESTRICTED_OPERATION);
	visit.level = NewGUCNestLevel();
	for (i = 0; i < lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0,
								 false);
	return visit;
}

void
leave_source(Visit visit)
{
	AtEOXact_GUC(false, visit.level);
	resume(visit.before);
}

/* Do something with a source, as the user whose rights count. */
static void
visit(ForeignSource *source, void (*work) (ForeignSource *, void *), void *arg)
{
	ForeignSource *before = offered;
	ResourceOwner owner = CurrentResourceOwner;
	MemoryContext caller = CurrentMemoryContext;
	Visit		entered;

	if (depth >= DEEPEST && source->query == NULL)	/* what runs already may go on, and must be ended */
		ereport(ERROR,
				(errcode(ERRCODE_STATEMENT_TOO_COMPLEX),
				 errmsg("foreign tables read each other too deeply"),
				 errhint("Is one of them its own source?")));
	entered = enter_source(source->user);
	if (source->owner == NULL)
	{
		source->owner = ResourceOwnerCreate(source->parent, "foreign source");
		source->opened_in = GetCurrentSubTransactionId();
	}
	source->used_in = GetCurrentSubTransactionId();
	source->inside = true;
	offered = NULL;
	depth++;
	PG_TRY();
	{
		CurrentResourceOwner = source->owner;
		PushActiveSnapshot(source->snapshot);
		work(source, arg);
		PopActiveSnapshot();
	}
	PG_FINALLY();
	{
		CurrentResourceOwner = owner;
		offered = before;
		depth--;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	source->inside = false;
	leave_source(entered);
}

static void
end_query(ForeignSource *source, void *arg)
{
	ExecutorFinish(source->query);
	ExecutorEnd(source->query);
	FreeQueryDesc(source->query);
}

/* End what is being read; the source may be read anew. */
void
close_source(ForeignSource *source)
{
	bool		is_sound = !source->broken && !source->inside;

	if (source->query && is_sound)
		visit(source, end_query, NULL);
	source->query = NULL;
	if (source->owner)
	{
		ResourceOwnerRelease(source->owner, RESOURCE_RELEASE_BEFORE_LOCKS, is_sound, false);
		ResourceOwnerRelease(source->owner, RESOURCE_RELEASE_LOCKS, is_sound, false);
		ResourceOwnerRelease(source->owner, RESOURCE_RELEASE_AFTER_LOCKS, is_sound, false);
		ResourceOwnerDelete(source->owner);
		source->owner = NULL;
	}
	MemoryContextReset(source->context);
	source->at_end = source->broken = source->inside = false;
}

/* -- its query */

/* One SELECT, analyzed. */
static Query *
analyzed(char *sql, Oid *types, int ntypes)
{
	List	   *parsed = pg_parse_query(sql);
	List	   *queries = NIL;

	if (list_length(parsed) == 1)
#if PG_VERSION_NUM >= 150000
		queries = pg_analyze_and_rewrite_fixedparams(linitial_node(RawStmt, parsed), sql, types, ntypes, NULL);
#else
		queries = pg_analyze_and_rewrite(linitial_node(RawStmt, parsed), sql, types, ntypes, NULL);
#endif
	if (list_length(queries) != 1 || linitial_node(Query, queries)->commandType != CMD_SELECT)
		ereport(ERROR, (errcode(ERRCODE_SYNTAX_ERROR), errmsg("the source is not one SELECT")));
	return linitial_node(Query, queries);
}

static PlannedStmt *
planned(char *sql, ArrayType *parameters, int cursor_options, ParamListInfo *params)
{
	Datum	   *values;
	bool	   *nulls;
	int			count;
	Oid		   *types;
	PlannedStmt *stmt;
	int			i;

	deconstruct_array(parameters, TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls, &count);
	types = palloc(count * sizeof(Oid));
	*params = makeParamList(count);
	for (i = 0; i < count; i++)
	{
		ParamExternData *param = &(*params)->params[i];

		types[i] = TEXTOID;
		param->value = values[i];
		param->isnull = nulls[i];
		param->ptype = TEXTOID;
		param->pflags = PARAM_FLAG_CONST;
	}
	stmt = pg_plan_query(analyzed(sql, types, count), sql, cursor_options, *params);
	if (!CommandIsReadOnly(stmt))
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("a query that writes or locks rows cannot be the source of a foreign table")));
	return stmt;
}

typedef struct Question
{
	char	   *sql;
	ArrayType  *parameters;
	Datum		answer;
	bool		is_null;
} Question;

/* -- its rows */

typedef struct Rows
{
	DestReceiver receiver;
	MemoryContext context;
	int			wanted;
	int			room;			/* cells */
	Datum	   *cells;
	bool	   *nulls;
	int			sizes[2];		/* rows and columns */
	Size		bytes;
	Question   *question;		/* opens the query */
} Rows;

static Datum
cell_of(Form_pg_attribute column, Datum value)
{
	Oid			output;
	bool		is_varlena;

	if (column->atttypid == TEXTOID)
		return PointerGetDatum(PG_DETOAST_DATUM_COPY(value));
	getTypeOutputInfo(column->atttypid, &output, &is_varlena);
	return CStringGetTextDatum(OidOutputFunctionCall(output, value));
}

/* Take a row; false if there are as many as are wanted. */
static bool
take_row(TupleTableSlot *slot, DestReceiver *receiver)
{
	Rows	   *rows = (Rows *) receiver;
	MemoryContext old = MemoryContextSwitchTo(rows->context);
	int			columns = slot->tts_tupleDescriptor->natts;
	int			place = rows->sizes[0] * columns;
	int			i;

	slot_getallattrs(slot);
	rows->sizes[1] = columns;
	if (place + columns > rows->room)
	{
		rows->room = Max(2 * rows->room, 16 * columns);
		rows->cells = rows->cells ? repalloc(rows->cells, rows->room * sizeof(Datum)) : palloc(rows->room * sizeof(Datum));
		rows->nulls = rows->nulls ? repalloc(rows->nulls, rows->room) : palloc(rows->room);
	}
	for (i = 0; i < columns; i++)
	{
		rows->nulls[place + i] = slot->tts_isnull[i];
		if (slot->tts_isnull[i])
			continue;
		rows->cells[place + i] = cell_of(TupleDescAttr(slot->tts_tupleDescriptor, i), slot->tts_values[i]);
		rows->bytes += VARSIZE_ANY(DatumGetPointer(rows->cells[place + i]));
	}
	rows->sizes[0]++;
	MemoryContextSwitchTo(old);
	return rows->sizes[0] < rows->wanted && rows->bytes < FETCHED_BYTES;
}

static void
startup_rows(DestReceiver *receiver, int operation, TupleDesc shape)
{
}

static void
shutdown_rows(DestReceiver *receiver)
{
}

static void
open_query(ForeignSource *source, Question *question)
{
	MemoryContext old = MemoryContextSwitchTo(source->context);
	char	   *sql = pstrdup(question->sql);
	ArrayType  *parameters = DatumGetArrayTypePCopy(PointerGetDatum(question->parameters));
	ParamListInfo params;
	PlannedStmt *stmt = planned(sql, parameters, CURSOR_OPT_NO_SCROLL | CURSOR_OPT_FAST_PLAN, &params);
	QueryDesc  *query = CreateQueryDesc(stmt, sql, source->snapshot, InvalidSnapshot, None_Receiver, params, NULL, 0);

	ExecutorStart(query, EXEC_FLAG_SKIP_TRIGGERS);
	source->query = query;
	MemoryContextSwitchTo(old);
}

static void
fetch_rows(ForeignSource *source, void *arg)
{
	Rows	   *rows = arg;

	if (rows->question)
		open_query(source, rows->question);
	source->query->dest = &rows->receiver;
#if PG_VERSION_NUM >= 180000
	ExecutorRun(source->query, ForwardScanDirection, 0);
#else
	ExecutorRun(source->query, ForwardScanDirection, 0, false);
#endif
	source->query->dest = None_Receiver;
	source->at_end = rows->sizes[0] < rows->wanted && rows->bytes < FETCHED_BYTES;
}

/* -- functions that the functions of a scan call */

static ForeignSource *
the_source(void)
{
	if (offered == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("no foreign table is being read"),
				 errhint("This function is called by the scan of a foreign table, and not otherwise.")));
	return offered;
}

static void
check_arguments(FunctionCallInfo fcinfo, int from, int to)
{
	for (; from <= to; from++)
		if (PG_ARGISNULL(from))
			ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("an argument is NULL")));
}

static void
find_table(ForeignSource *source, void *arg)
{
	Question   *question = arg;
#if PG_VERSION_NUM >= 160000
	List	   *names = stringToQualifiedNameList(question->sql, NULL);
#else
	List	   *names = stringToQualifiedNameList(question->sql);
#endif
	Oid			table = RangeVarGetRelid(makeRangeVarFromNameList(names), NoLock, true);

	question->is_null = !OidIsValid(table);
	if (OidIsValid(table))
		question->answer = CStringGetTextDatum(DatumGetCString(DirectFunctionCall1(regclassout, ObjectIdGetDatum(table))));
}

/*
 * llm._source_table(name text) returns text
 *
 * A table's name as the source's queries are to have it; NULL if there is none.
 */
Datum
pg_bridge_source_table(PG_FUNCTION_ARGS)
{
	Question	question = {0};

	check_arguments(fcinfo, 0, 0);
	question.sql = text_to_cstring(PG_GETARG_TEXT_PP(0));
	visit(the_source(), find_table, &question);
	if (question.is_null)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(question.answer);
}

static void
find_columns(ForeignSource *source, void *arg)
{
	Question   *question = arg;
	TupleDesc	shape = ExecCleanTypeFromTL(analyzed(question->sql, NULL, 0)->targetList);
	Datum	   *cells = palloc(Max(shape->natts, 1) * 3 * sizeof(Datum));
	int			sizes[2] = {shape->natts, 3};
	int			lower[2] = {1, 1};
	int			i;

	for (i = 0; i < shape->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(shape, i);

		cells[3 * i] = CStringGetTextDatum(NameStr(column->attname));
		cells[3 * i + 1] = CStringGetTextDatum(psprintf("%u", column->atttypid));
		cells[3 * i + 2] = CStringGetTextDatum(psprintf("%d", column->atttypmod));
	}
	question->answer = PointerGetDatum(shape->natts == 0 ? construct_empty_array(TEXTOID) :
									   construct_md_array(cells, NULL, 2, sizes, lower, TEXTOID, -1, false,
														  TYPALIGN_INT));
}

/*
 * llm._source_columns(query text) returns text[]
 *
 * The columns of one SELECT, which is not run: name, oid of the type, modifier of each.
 */
Datum
pg_bridge_source_columns(PG_FUNCTION_ARGS)
{
	Question	question = {0};

	check_arguments(fcinfo, 0, 0);
	question.sql = text_to_cstring(PG_GETARG_TEXT_PP(0));
	visit(the_source(), find_columns, &question);
	PG_RETURN_DATUM(question.answer);
}

static void
find_size(ForeignSource *source, void *arg)
{
	Question   *question = arg;
	ParamListInfo params;
	PlannedStmt *stmt = planned(question->sql, question->parameters, 0, &params);
	QueryDesc  *query = CreateQueryDesc(stmt, question->sql, source->snapshot, InvalidSnapshot, None_Receiver, params, NULL,
										0);
	Datum		sizes[2];

	ExecutorStart(query, EXEC_FLAG_EXPLAIN_ONLY);	/* which checks privileges, as for EXPLAIN */
	ExecutorEnd(query);
	FreeQueryDesc(query);
	sizes[0] = Float8GetDatum(stmt->planTree->plan_rows);
	sizes[1] = Float8GetDatum(stmt->planTree->plan_width);
	question->answer = PointerGetDatum(construct_array(sizes, 2, FLOAT8OID, sizeof(float8), FLOAT8PASSBYVAL,
													   TYPALIGN_DOUBLE));
}

/*
 * llm._source_size(query text, parameters text[]) returns double precision[]
 *
 * The rows of one SELECT and the bytes of each, as the planner expects them. It is not run.
 */
Datum
pg_bridge_source_size(PG_FUNCTION_ARGS)
{
	Question	question = {0};

	check_arguments(fcinfo, 0, 1);
	question.sql = text_to_cstring(PG_GETARG_TEXT_PP(0));
	question.parameters = PG_GETARG_ARRAYTYPE_P(1);
	visit(the_source(), find_size, &question);
	PG_RETURN_DATUM(question.answer);
}

/*
 * llm._source_rows(wanted integer, query text, parameters text[]) returns text[]
 *
 * At most so many more rows, an array of rows of texts; none at the end, and fewer than wanted where they are long. A query
 * that is not NULL is started.
 */
Datum
pg_bridge_source_rows(PG_FUNCTION_ARGS)
{
	Question	question = {0};
	Rows		rows = {0};
	ForeignSource *source;
	int			lower[2] = {1, 1};

	check_arguments(fcinfo, 0, 0);
	source = the_source();
	rows.wanted = PG_GETARG_INT32(0);
	if (rows.wanted < 1 || rows.wanted > MOST_WANTED)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("so many rows cannot be had at once")));
	if (!PG_ARGISNULL(1))
	{
		check_arguments(fcinfo, 2, 2);
		question.sql = text_to_cstring(PG_GETARG_TEXT_PP(1));
		question.parameters = PG_GETARG_ARRAYTYPE_P(2);
		rows.question = &question;
	}
	if (source->broken || source->inside || (rows.question == NULL) == (source->query == NULL))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the source of a foreign table ended with a savepoint, or failed before")));
	rows.context = CurrentMemoryContext;
	rows.receiver.receiveSlot = take_row;
	rows.receiver.rStartup = startup_rows;
	rows.receiver.rShutdown = rows.receiver.rDestroy = shutdown_rows;
	rows.receiver.mydest = DestNone;
	if (!source->at_end)
		visit(source, fetch_rows, &rows);
	if (rows.sizes[0] == 0)
		PG_RETURN_ARRAYTYPE_P(construct_empty_array(TEXTOID));
	PG_RETURN_ARRAYTYPE_P(construct_md_array(rows.cells, rows.nulls, 2, rows.sizes, lower, TEXTOID, -1, false,
											 TYPALIGN_INT));
}
