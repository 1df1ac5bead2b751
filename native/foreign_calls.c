/*
 * foreign_calls.c
 *	  How the functions of the schema llm are called: as whom, with what, and how an error of theirs is raised.
 *
 * Each gets one argument, a JSON object, and returns its error as data in its last output, an array of SQLSTATE,
 * message, detail and hint: an exception that leaves Python would lose some of these.
 */
#include "foreign_scan.h"

#include "access/xact.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "parser/parse_func.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/lsyscache.h"

/*
 * Become a user whose rights count for a foreign table, who may only read, until resume(); in a further security context,
 * if one is named. An error in between needs no resume(): the end of the transaction, or of the subtransaction, sees to it.
 */
Identity
become(Oid user, int context)
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
	if (user != before.user || context)
		SetUserIdAndSecContext(user, before.security_context | SECURITY_LOCAL_USERID_CHANGE | context);
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

/* -- functions */

/* A function of the extension, of one text; nobody else's counts, whatever it is called. */
Oid
foreign_function(const char *name)
{
	Oid			types[] = {TEXTOID};
	Oid			function = LookupFuncName(list_make2(makeString("llm"), makeString(pstrdup(name))), 1, types, true);

	if (!OidIsValid(function) || !is_of_extension(function, "pg_bridge"))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the function llm.%s of the extension pg_bridge is not there", name)));
	return function;
}

/*
 * Call a function of the extension that returns one row, of `noutputs` columns and a fault, and have it read a source. Its
 * EXECUTE is nobody's, for it is called by this module only, which asks for no privilege.
 */
void
ask(const char *function, const char *request, ForeignSource *source, int noutputs, Datum *values, bool *nulls)
{
	Oid			callee = foreign_function(function);
	ForeignSource *before = offer_source(source);
	HeapTupleHeader row;
	bool		is_null;
	Datum		fault;
	int			i;

	PG_TRY();
	{
		row = DatumGetHeapTupleHeader(OidFunctionCall1(callee, CStringGetTextDatum(request)));
		fault = GetAttributeByNum(row, noutputs + 1, &is_null);
		if (!is_null)
			raise_fault(fault);
		for (i = 0; i < noutputs; i++)
			values[i] = GetAttributeByNum(row, i + 1, &nulls[i]);
	}
	PG_FINALLY();
	{
		(void) offer_source(before);
	}
	PG_END_TRY();
}
