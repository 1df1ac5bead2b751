/*
 * foreign_explain.c
 *	  What EXPLAIN shows of a foreign scan, and IMPORT FOREIGN SCHEMA: both are written by functions of the schema llm.
 *
 * EXPLAIN evaluates nothing: a value that is no constant is shown as it is written, a parameter by its number.
 */
#include "foreign_scan.h"

#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "executor/spi.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"
#include "utils/snapmgr.h"

static void
append_quals_to_show(StringInfo request, ForeignScanState *node, ExplainState *es)
{
	ForeignPlan *plan = foreign_plan_of((ForeignScan *) node->ss.ps.plan);
	List	   *context = set_deparse_context_plan(es->deparse_cxt, node->ss.ps.plan, NIL);
	Registry   *registry = new_registry();
	const char *separator = "";
	ListCell   *cell;

	appendStringInfoString(request, ", \"quals\": [");
	foreach(cell, plan->quals)
	{
		ForeignQual *qual = lfirst(cell);

		appendStringInfoString(request, separator);
		append_qual(request, RelationGetRelid(node->ss.ss_currentRelation), qual);
		if (qual->value == NULL)
			;
		else if (IsA(qual->value, Const) && !((Const *) qual->value)->constisnull)
			append_value(request, qual, ((Const *) qual->value)->constvalue);
		else
		{
			appendStringInfoString(request, ", \"shown\": ");
			append_string(request, deparse_expression(readable((Node *) qual->value, registry), context, true, false));
		}
		appendStringInfoChar(request, '}');
		separator = ", ";
	}
	appendStringInfoChar(request, ']');
}

/* The columns of which the current user may know how many values they have. */
static void
append_readable(StringInfo request, Relation table)
{
	const char *separator = "";
	int			i;

	appendStringInfoString(request, ", \"readable\": [");
	for (i = 0; i < RelationGetNumberOfAttributes(table); i++)
	{
		Form_pg_attribute column = TupleDescAttr(RelationGetDescr(table), i);

		if (column->attisdropped || !may_see_statistics(RelationGetRelid(table), column->attnum))
			continue;
		appendStringInfoString(request, separator);
		append_string(request, NameStr(column->attname));
		separator = ", ";
	}
	appendStringInfoChar(request, ']');
}

/* Show lines "label: value". */
void
show_lines(Datum lines, ExplainState *es)
{
	ListCell   *cell;

	foreach(cell, strings_of(lines))
	{
		char	   *label = lfirst(cell);
		char	   *colon = strstr(label, ": ");

		if (colon == NULL)
			continue;
		*colon = '\0';
		ExplainPropertyText(label, colon + 2, es);
	}
}

/*
 * Show what the scan has done so far: labels and values in turn. It is asked for as the role that ran the scan: the memory of
 * a statement is that role's own.
 */
static void
show_report(ForeignScanState *node, int64 statement, ExplainState *es)
{
	Oid			types[] = {INT8OID, INT4OID};
	Datum		arguments[] = {Int64GetDatum(statement), Int32GetDatum(node->ss.ps.plan->plan_node_id)};
	MemoryContext caller = CurrentMemoryContext;
	List	   *report = NIL;
	bool		is_null = true;
	Oid			user;
	int			security_context;
	int			i;

	GetUserIdAndSecContext(&user, &security_context);
	SetUserIdAndSecContext(foreign_scan_user(node), security_context | SECURITY_LOCAL_USERID_CHANGE);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute_with_args("SELECT llm._report($1, $2)", 2, types, arguments, NULL, false, 1) == SPI_OK_SELECT &&
		SPI_processed == 1)
	{
		Datum		array = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &is_null);
		MemoryContext old = MemoryContextSwitchTo(caller);

		if (!is_null)
			report = strings_of(array);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	SetUserIdAndSecContext(user, security_context);
	for (i = 0; i + 1 < list_length(report); i += 2)
		ExplainPropertyText(list_nth(report, i), list_nth(report, i + 1), es);
}

/* auto_explain shows a plan after its run, when no snapshot is active; SQL needs one. */
bool
begin_look(EState *estate)
{
	if (ActiveSnapshotSet())
		return false;
	PushActiveSnapshot(estate->es_snapshot);
	return true;
}

void
end_look(bool begun)
{
	if (begun)
		PopActiveSnapshot();
}

void
explain_foreign_scan(ForeignScanState *node, ExplainState *es)
{
	ForeignPlan *plan = foreign_plan_of((ForeignScan *) node->ss.ps.plan);
	Oid			table = RelationGetRelid(node->ss.ss_currentRelation);
	ForeignSource *source;
	StringInfoData request;
	Identity	before;
	Datum		lines;
	bool		is_null;
	int64		statement;
	bool		discreet = plan->discreet || !may_learn_of_all_rows(table, foreign_scan_user(node));
	bool		looks = begin_look(node->ss.ps.state);

	begin_request(&request, table);
	append_columns(&request, table, plan->needed);
	append_sort(&request, table, plan->sort);
	append_quals_to_show(&request, node, es);
	append_readable(&request, node->ss.ss_currentRelation);
	/* Figures of what is expected belong to a plan's costs; what happened is told by the report. */
	appendStringInfo(&request, ", \"verbose\": %s, \"discreet\": %s, \"costs\": %s}", es->verbose ? "true" : "false",
					 discreet ? "true" : "false", es->costs && !es->analyze ? "true" : "false");
	/* The owner's code runs with the owner's rights, whoever explains and whatever the table says of its scans. */
	source = new_source(owner_of(table), node->ss.ps.state->es_snapshot);
	before = become(foreign_scan_user(node), 0);
	ask("_foreign_explain", request.data, source, 1, &lines, &is_null);
	close_source(source);
	show_lines(lines, es);
	if (es->analyze && foreign_scan_has_run(node, &statement))
		show_report(node, statement, es);	/* as the role that ran the scan: the memory of a statement is its own */
	resume(before);
	end_look(looks);
}

List *
import_foreign_schema(ImportForeignSchemaStmt *stmt, Oid server)
{
	static const char *const restrictions[] = {
		[FDW_IMPORT_SCHEMA_ALL] = "all",
		[FDW_IMPORT_SCHEMA_LIMIT_TO] = "limit",
		[FDW_IMPORT_SCHEMA_EXCEPT] = "except",
	};
	StringInfoData request;
	Datum		commands;
	bool		is_null;
	ListCell   *cell;

	initStringInfo(&request);
	appendStringInfoString(&request, "{\"server\": ");
	append_string(&request, GetForeignServer(server)->servername);
	appendStringInfoString(&request, ", \"schema\": ");
	append_string(&request, stmt->remote_schema);
	appendStringInfo(&request, ", \"restriction\": \"%s\", \"tables\": [", restrictions[stmt->list_type]);
	foreach(cell, stmt->table_list)
	{
		if (cell != list_head(stmt->table_list))
			appendStringInfoString(&request, ", ");
		append_string(&request, ((RangeVar *) lfirst(cell))->relname);
	}
	appendStringInfoString(&request, "], \"options\": {");
	foreach(cell, stmt->options)
	{
		DefElem    *option = lfirst(cell);

		if (cell != list_head(stmt->options))
			appendStringInfoString(&request, ", ");
		append_string(&request, option->defname);
		appendStringInfoString(&request, ": ");
		append_string(&request, defGetString(option));
	}
	appendStringInfoString(&request, "}}");
	ask("_foreign_import", request.data, NULL, 1, &commands, &is_null);
	return strings_of(commands);
}
