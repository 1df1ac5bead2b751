/*
 * foreign_calls.c
 *	  How the functions of the schema llm are called: as whom, with what, and how an error of theirs is raised.
 *
 * Each gets one argument, a JSON object, and returns its error as data in its last output, an array of SQLSTATE,
 * message, detail and hint: an exception that leaves Python would lose some of these.
 */
#include "foreign_scan.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/json.h"
#include "utils/lsyscache.h"

/*
 * Become the user whose rights count for a foreign table, who may only read, until resume(). An error in between needs
 * no resume(): the end of the transaction, or of the subtransaction, sees to it.
 */
Identity
become(Oid user)
{
	Identity	before;

	/* Python would catch its errors in subtransactions, and does not survive being refused one. */
	if (IsInParallelMode())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("a foreign table of pg_bridge cannot be read during a parallel operation"),
				 errhint("A function that reads one is PARALLEL UNSAFE.")));
	GetUserIdAndSecContext(&before.user, &before.security_context);
	before.read_only = XactReadOnly;
	XactReadOnly = true;
	if (user != before.user)
		SetUserIdAndSecContext(user, before.security_context | SECURITY_LOCAL_USERID_CHANGE);
	return before;
}

void
resume(Identity identity)
{
	SetUserIdAndSecContext(identity.user, identity.security_context);
	XactReadOnly = identity.read_only;
}

/* -- requests */

void
begin_request(StringInfo request, Oid table)
{
	initStringInfo(request);
	appendStringInfo(request, "{\"table\": %u", table);
}

void
append_string(StringInfo request, const char *string)
{
	escape_json(request, string);
}

/* Append the names of some columns, by their numbers. */
void
append_columns(StringInfo request, Oid table, List *columns)
{
	ListCell   *cell;

	appendStringInfoString(request, ", \"needed\": [");
	foreach(cell, columns)
	{
		if (cell != list_head(columns))
			appendStringInfoString(request, ", ");
		append_string(request, get_attname(table, lfirst_int(cell), false));
	}
	appendStringInfoChar(request, ']');
}

void
append_sort(StringInfo request, Oid table, List *sort)
{
	ListCell   *cell;

	appendStringInfoString(request, ", \"sort\": [");
	foreach(cell, sort)
	{
		List	   *key = lfirst(cell);

		if (cell != list_head(sort))
			appendStringInfoString(request, ", ");
		appendStringInfoString(request, "{\"column\": ");
		append_string(request, get_attname(table, linitial_int(key), false));
		appendStringInfo(request, ", \"descending\": %s, \"nulls_first\": %s}",
						 lsecond_int(key) ? "true" : "false", lthird_int(key) ? "true" : "false");
	}
	appendStringInfoChar(request, ']');
}

/* -- results */

/* The elements of an array of texts; NULL for those that are NULL. */
List *
strings_of(Datum array)
{
	List	   *strings = NIL;
	Datum	   *elements;
	bool	   *nulls;
	int			count;
	int			i;

	deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &count);
	for (i = 0; i < count; i++)
		strings = lappend(strings, nulls[i] ? NULL : TextDatumGetCString(elements[i]));
	return strings;
}

void
raise_fault(Datum fault)
{
	List	   *parts = strings_of(fault);
	char	   *state = list_length(parts) == 4 ? linitial(parts) : NULL;
	char	   *message;
	char	   *detail;
	char	   *hint;

	if (state == NULL || strlen(state) != 5 || lsecond(parts) == NULL)
		elog(ERROR, "pg_bridge: a fault has not the parts of one");
	message = lsecond(parts);
	detail = lthird(parts);
	hint = lfourth(parts);
	ereport(ERROR,
			(errcode(MAKE_SQLSTATE(state[0], state[1], state[2], state[3], state[4])),
			 errmsg("%s", message),
			 detail && detail[0] ? errdetail("%s", detail) : 0,
			 hint && hint[0] ? errhint("%s", hint) : 0));
}

/*
 * Call a function of the schema llm that returns one row, of `noutputs` columns and a fault, and copy its columns into
 * the current memory context.
 */
void
ask(const char *function, const char *request, int noutputs, Datum *values, bool *nulls)
{
	MemoryContext caller = CurrentMemoryContext;
	char	   *query = psprintf("SELECT * FROM llm.%s($1)", function);
	Oid			types[] = {TEXTOID};
	Datum		arguments[] = {CStringGetTextDatum(request)};
	TupleDesc	shape;
	bool		is_null;
	Datum		fault;
	int			i;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute_with_args(query, 1, types, arguments, NULL, false, 1) != SPI_OK_SELECT || SPI_processed != 1 ||
		SPI_tuptable->tupdesc->natts != noutputs + 1)
		elog(ERROR, "llm.%s is not the function of this module's version", function);
	shape = SPI_tuptable->tupdesc;
	fault = SPI_getbinval(SPI_tuptable->vals[0], shape, noutputs + 1, &is_null);
	if (!is_null)
		raise_fault(fault);
	for (i = 0; i < noutputs; i++)
	{
		Form_pg_attribute column = TupleDescAttr(shape, i);
		MemoryContext old;

		values[i] = SPI_getbinval(SPI_tuptable->vals[0], shape, i + 1, &nulls[i]);
		if (nulls[i])
			continue;
		old = MemoryContextSwitchTo(caller);
		values[i] = datumCopy(values[i], column->attbyval, column->attlen);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
}
