/*
 * batch_explain.c
 *	  What EXPLAIN shows of a batch node: its calls; what they would ask and take, or what they did.
 *
 * What they would take is worked out by a function of the schema llm, for the extension's own functions, from constants
 * and from what the planner expects: the rows, how wide they are, and how many different ones its statistics promise. Nothing
 * is evaluated for it, and no code of anybody's is run. It is no more than the planner's figures tell, which EXPLAIN shows to
 * everybody, and than call_inputs.c may tell of statistics.
 */
#include "batch_scan.h"
#include "foreign_scan.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/explain.h"
#if PG_VERSION_NUM >= 180000
#include "commands/explain_format.h"
#include "commands/explain_state.h"
#endif
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_func.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"
#include "utils/syscache.h"

#define QUAL_DROPS 3.0			/* rows that the planner takes a qual to see for each that passes */

/* -- what calls would take */

static bool
can_estimate(void)
{
	Oid			types[] = {TEXTOID};

	return OidIsValid(LookupFuncName(list_make2(makeString("llm"), makeString("_estimate_calls")), 1, types, true));
}

/*
 * For how many rows is a call made, by the planner's figures? For those that the quals before have left. Where quals were
 * taken from the child, its figure counts them in; the planner knows nothing of such a qual, and takes a third to pass.
 */
static double
expected_rows(BatchScanState *state, int call)
{
	Plan	   *plan = state->css.ss.ps.plan;
	double		rows = plan->plan_rows;
	int			stage;

	for (stage = state->nstages - 2; stage >= 0; stage--)
	{
		rows *= QUAL_DROPS;
		if (outerPlan(plan)->plan_rows > plan->plan_rows)
			rows = Min(rows, outerPlan(plan)->plan_rows);
		if (list_member_int(state->stages[stage].needs, call))
			return rows;
	}
	return plan->plan_rows;
}

/* Is an argument a constant whose JSON is nobody's code but PostgreSQL's? */
static bool
is_option(Expr *arg)
{
	return IsA(arg, Const) && exprType((Node *) arg) < FirstNormalObjectId;
}

/* A constant as JSON: what the batch function gets. */
static void
append_constant(StringInfo request, Const *constant)
{
	FmgrInfo	to_json;

	if (constant->constisnull)
	{
		appendStringInfoString(request, "null");
		return;
	}
	fmgr_info(F_TO_JSON, &to_json);
	fmgr_info_set_expr((Node *) makeFuncExpr(F_TO_JSON, JSONOID, list_make1(constant), InvalidOid,
											 constant->constcollid, COERCE_EXPLICIT_CALL), &to_json);
	appendStringInfoString(request, TextDatumGetCString(FunctionCall1(&to_json, constant->constvalue)));
}

/* The function, its constants and its other arguments by their names, and what it is about. */
static void
append_call(StringInfo request, BatchScanState *state, List *rtable, int number)
{
	FuncExpr   *call = (FuncExpr *) state->calls[number].expr;
	HeapTuple	function = SearchSysCache1(PROCOID, ObjectIdGetDatum(call->funcid));
	double		rows = expected_rows(state, number);
	StringInfoData varying;
	Expr	   *input = NULL;
	List	   *others = NIL;
	const char *separator = "";
	Oid		   *types;
	char	  **names;
	char	   *modes;
	int			count;
	ListCell   *cell;

	if (!HeapTupleIsValid(function))
		elog(ERROR, "cache lookup failed for function %u", call->funcid);
	count = get_func_arg_info(function, &types, &names, &modes);
	initStringInfo(&varying);
	appendStringInfoString(request, "{\"function\": ");
	append_string(request, NameStr(((Form_pg_proc) GETSTRUCT(function))->proname));
	appendStringInfo(request, ", \"rows\": %.0f, \"arguments\": {", rows);
	foreach(cell, call->args)
	{
		int			i = foreach_current_index(cell);

		if (names == NULL || i >= count)
			break;
		if (strcmp(names[i], "input") == 0)
			input = lfirst(cell);
		else if (is_option(lfirst(cell)))
		{
			appendStringInfoString(request, separator);
			append_string(request, names[i]);
			appendStringInfoString(request, ": ");
			append_constant(request, lfirst(cell));
			separator = ", ";
		}
		else
		{
			if (others != NIL)
				appendStringInfoString(&varying, ", ");
			append_string(&varying, names[i]);
			others = lappend(others, lfirst(cell));
		}
	}
	appendStringInfo(request, "}, \"varying\": [%s]", varying.data);
	append_inputs(request, rtable, input, others, state->css.ss.ps.plan, rows);
	appendStringInfoChar(request, '}');
	ReleaseSysCache(function);
}

static void
show_estimate(BatchScanState *state, ExplainState *es)
{
	StringInfoData request;
	const char *separator = "";
	bool		looks;
	Identity	before;
	Datum		lines;
	bool		is_null;
	int			i;

	/* Nothing is looked up inside a parallel operation; what auto_explain shows of one goes without. */
	if (IsInParallelMode() || !can_estimate())
		return;
	initStringInfo(&request);
	appendStringInfoString(&request, "{\"calls\": [");
	for (i = 0; i < state->ncalls; i++)
	{
		if (state->calls[i].value || !is_of_extension(((FuncExpr *) state->calls[i].expr)->funcid, "pg_bridge"))
			continue;
		appendStringInfoString(&request, separator);
		append_call(&request, state, es->rtable, i);
		separator = ", ";
	}
	appendStringInfoString(&request, "]}");
	if (separator[0] == '\0')
		return;
	looks = begin_look(state->css.ss.ps.state);
	before = become(GetUserId(), 0);
	ask("_estimate_calls", request.data, NULL, 1, &lines, &is_null);
	resume(before);
	end_look(looks);
	show_lines(lines, es);
}

/* -- the node */

void
explain_batch_scan(CustomScanState *node, List *ancestors, ExplainState *es)
{
	BatchScanState *state = (BatchScanState *) node;
	List	   *context = set_deparse_context_plan(es->deparse_cxt, node->ss.ps.plan, ancestors);
	bool		prefix = list_length(es->rtable) > 1 || es->verbose;
	Registry   *registry = new_registry();
	List	   *calls = NIL;
	int			i;

	for (i = 0; i < state->ncalls; i++)
	{
		FuncExpr   *call = (FuncExpr *) state->calls[i].expr;

		if (state->calls[i].value)
			continue;
		if (es->verbose)
			calls = lappend(calls, deparse_expression(readable((Node *) call, registry), context, prefix, false));
		else
			calls = list_append_unique(calls, makeString(quote_qualified_identifier(
				get_namespace_name(get_func_namespace(call->funcid)), get_func_name(call->funcid))));
	}
	if (!es->verbose)
	{
		ListCell   *cell;

		foreach(cell, calls)
			lfirst(cell) = strVal(lfirst(cell));
	}
	ExplainPropertyList("Calls", calls, es);
	if (!es->analyze)
	{
		if (es->costs)
			show_estimate(state, es);
		return;
	}
	ExplainPropertyFloat("Windows", NULL, state->all_windows, 0, es);
	for (i = 0; i < state->ncalls; i++)
	{
		List	   *reported = state->calls[i].reported;
		int			place;

		for (place = 0; place + 1 < list_length(reported); place += 2)
			ExplainPropertyText(list_nth(reported, place), list_nth(reported, place + 1), es);
	}
}
