/*
 * foreign_source.c
 *	  The query of a foreign table's source, for the function that runs the scan: a cursor in the snapshot of the
 *	  statement that scans, so that the source's rows are those which any other table of the statement shows.
 *
 * Python holds only the cursor's name: PostgreSQL may end the cursor, or Python, before the other. The name is secret,
 * because whoever knew it could FETCH, with his own SQL, what only the reader of the source may see.
 */
#include "foreign_scan.h"

#include "access/detoast.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "tcop/cmdtag.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/plancache.h"
#include "utils/portal.h"

#define FETCHED_ROWS 64
#define FETCHED_BYTES (16 * 1024 * 1024)

extern PGDLLEXPORT Datum pg_bridge_source_columns(PG_FUNCTION_ARGS);
extern PGDLLEXPORT Datum pg_bridge_source_rows(PG_FUNCTION_ARGS);

PG_FUNCTION_INFO_V1(pg_bridge_source_columns);
PG_FUNCTION_INFO_V1(pg_bridge_source_rows);

char *
new_cursor_name(void)
{
	static uint64 secret[2] = {0, 0};
	static uint32 number = 0;

	if (secret[0] == 0 && !pg_strong_random(secret, sizeof(secret)))
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not generate random numbers")));
	return psprintf("pg_bridge %016llx%016llx %u",
					(unsigned long long) secret[0], (unsigned long long) secret[1], ++number);
}

void
close_cursor(const char *name)
{
	Portal		portal = GetPortalByName(name);

	if (PortalIsValid(portal))
		PortalDrop(portal, false);
}

static Portal
open_cursor(const char *name, const char *query, ArrayType *parameters)
{
	Datum	   *values;
	int			count;
	Oid		   *types;
	Portal		portal;
	int			i;

	deconstruct_array(parameters, TEXTOID, -1, false, TYPALIGN_INT, &values, NULL, &count);
	types = palloc(count * sizeof(Oid));
	for (i = 0; i < count; i++)
		types[i] = TEXTOID;
	/* Read-only: it takes the snapshot at hand, and may not write. */
	portal = SPI_cursor_open_with_args(name, query, count, types, values, NULL, true,
									   CURSOR_OPT_NO_SCROLL | CURSOR_OPT_FAST_PLAN);
	portal->visible = false;
	return portal;
}

static Datum
cell_of(HeapTuple tuple, TupleDesc shape, int column, bool *is_null)
{
	Datum		value = SPI_getbinval(tuple, shape, column + 1, is_null);
	Oid			type = TupleDescAttr(shape, column)->atttypid;
	Oid			output;
	bool		is_varlena;

	if (*is_null || type == TEXTOID)
		return value;
	getTypeOutputInfo(type, &output, &is_varlena);
	return CStringGetTextDatum(OidOutputFunctionCall(output, value));
}

/* Leave SPI with an array of rows of texts, in the caller's memory. */
static ArrayType *
finish(MemoryContext caller, Datum *cells, bool *nulls, int sizes[2])
{
	int			lower[2] = {1, 1};
	ArrayType  *result;

	MemoryContextSwitchTo(caller);
	if (sizes[0] == 0)
		result = construct_empty_array(TEXTOID);
	else
		result = construct_md_array(cells, nulls, 2, sizes, lower, TEXTOID, -1, false, TYPALIGN_INT);
	SPI_finish();
	return result;
}

/*
 * llm._source_columns(query text) returns text[]
 *
 * The columns of one SELECT, which is not run: name, oid of the type, modifier of each.
 */
Datum
pg_bridge_source_columns(PG_FUNCTION_ARGS)
{
	MemoryContext caller = CurrentMemoryContext;
	SPIPlanPtr	plan;
	List	   *sources;
	TupleDesc	shape;
	Datum	   *cells;
	int			sizes[2] = {0, 3};
	int			i;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	plan = SPI_prepare(text_to_cstring(PG_GETARG_TEXT_PP(0)), 0, NULL);
	sources = plan ? SPI_plan_get_plan_sources(plan) : NIL;
	shape = list_length(sources) == 1 ? ((CachedPlanSource *) linitial(sources))->resultDesc : NULL;
	if (shape == NULL || ((CachedPlanSource *) linitial(sources))->commandTag != CMDTAG_SELECT)
		ereport(ERROR, (errcode(ERRCODE_SYNTAX_ERROR), errmsg("the source is not one SELECT")));
	sizes[0] = shape->natts;
	cells = palloc(shape->natts * 3 * sizeof(Datum));
	for (i = 0; i < shape->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(shape, i);

		cells[3 * i] = CStringGetTextDatum(NameStr(column->attname));
		cells[3 * i + 1] = CStringGetTextDatum(psprintf("%u", column->atttypid));
		cells[3 * i + 2] = CStringGetTextDatum(psprintf("%d", column->atttypmod));
	}
	PG_RETURN_ARRAYTYPE_P(finish(caller, cells, NULL, sizes));
}

/*
 * llm._source_rows(cursor text, wanted integer, query text, parameters text[]) returns text[]
 *
 * At most so many more rows of a cursor, an array of rows of texts; none at the end, and fewer than wanted where they are
 * long. A query that is not NULL opens the cursor.
 */
Datum
pg_bridge_source_rows(PG_FUNCTION_ARGS)
{
	MemoryContext caller = CurrentMemoryContext;
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	int			wanted = PG_GETARG_INT32(1);
	Portal		portal;
	Datum	   *cells = NULL;
	bool	   *nulls = NULL;
	int			sizes[2] = {0, 0};
	Size		bytes = 0;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (!PG_ARGISNULL(2))
		portal = open_cursor(name, text_to_cstring(PG_GETARG_TEXT_PP(2)), PG_GETARG_ARRAYTYPE_P(3));
	else
		portal = SPI_cursor_find(name);
	if (portal == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_CURSOR_NAME),
				 errmsg("the source of a foreign table has been closed while it was read"),
				 errhint("CLOSE ALL and DISCARD end what is being read, too.")));
	/* Rows may be long: it is one at first, then two, four and so on. */
	while (sizes[0] < wanted && bytes < FETCHED_BYTES)
	{
		TupleDesc	shape;
		uint64		i;
		int			column;

		SPI_cursor_fetch(portal, true, Min(wanted - sizes[0], Min(sizes[0] + 1, FETCHED_ROWS)));
		if (SPI_processed == 0)
			break;
		shape = SPI_tuptable->tupdesc;
		if (cells == NULL)
		{
			sizes[1] = shape->natts;
			cells = palloc((Size) wanted * sizes[1] * sizeof(Datum));
			nulls = palloc((Size) wanted * sizes[1] * sizeof(bool));
		}
		for (i = 0; i < SPI_processed; i++)
		{
			for (column = 0; column < sizes[1]; column++)
			{
				int			place = sizes[0] * sizes[1] + column;

				cells[place] = cell_of(SPI_tuptable->vals[i], shape, column, &nulls[place]);
				if (!nulls[place])
					bytes += toast_raw_datum_size(cells[place]);
			}
			sizes[0]++;
		}
	}
	PG_RETURN_ARRAYTYPE_P(finish(caller, cells, nulls, sizes));
}
