/*
 * extract_columns.c
 *	  llm.extract_columns() in FROM becomes llm.extract() with a schema that says what its list of columns says.
 *
 *		FROM r, llm.extract_columns('Who plays whom in {review}?', r) AS t (actor text, role text)
 *
 * Only who plans the statement sees that list, so this happens before planning, whether calls are batched or not. What comes
 * out is jsonb_to_record(llm.extract('…', r, '{"type": "object", …}')), which is planned and batched as if it had been
 * written so. The function itself, where it is called otherwise, raises an error that says so.
 */
#include "pg_bridge.h"

#include "access/transam.h"
#include "catalog/pg_enum.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_func.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/fmgroids.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#define BEFORE_SCHEMA 2			/* arguments: the prompt and the input */

static bool
is_extract_columns(Node *node)
{
	Oid			function = IsA(node, FuncExpr) ? ((FuncExpr *) node)->funcid : InvalidOid;
	char	   *name;

	if (function < FirstNormalObjectId)
		return false;
	name = get_func_name(function);
	return name && strcmp(name, "extract_columns") == 0 && is_of_bridge(function);
}

/* -- the schema */

static void
append_labels(StringInfo schema, Oid type)
{
	CatCList   *labels = SearchSysCacheList1(ENUMTYPOIDNAME, ObjectIdGetDatum(type));
	int			i;

	appendStringInfoString(schema, "{\"enum\": [");
	for (i = 0; i < labels->n_members; i++)
	{
		escape_json(schema, NameStr(((Form_pg_enum) GETSTRUCT(&labels->members[i]->tuple))->enumlabel));
		appendStringInfoString(schema, ", ");
	}
	appendStringInfoString(schema, "null]}");
	ReleaseSysCacheList(labels);
}

/* Append what a value of a type must be, or null: what a row does not tell is NULL. */
static void
append_type(StringInfo schema, Oid type, int32 typmod)
{
	Oid			base = getBaseTypeAndTypmod(type, &typmod);
	Oid			element = get_element_type(base);

	if (OidIsValid(element))
	{
		appendStringInfoString(schema, "{\"type\": [\"array\", \"null\"], \"items\": ");
		append_type(schema, element, typmod);
		appendStringInfoChar(schema, '}');
		return;
	}
	switch (base)
	{
		case INT2OID:
			appendStringInfoString(schema, "{\"type\": [\"integer\", \"null\"], \"minimum\": -32768, \"maximum\": 32767}");
			break;
		case INT4OID:
			appendStringInfoString(schema, "{\"type\": [\"integer\", \"null\"], "
								   "\"minimum\": -2147483648, \"maximum\": 2147483647}");
			break;
		case INT8OID:
			appendStringInfoString(schema, "{\"type\": [\"integer\", \"null\"], "
								   "\"minimum\": -999999999999999999, \"maximum\": 999999999999999999}");
			break;
		case FLOAT4OID:
		case FLOAT8OID:
		case NUMERICOID:
			appendStringInfoString(schema, "{\"type\": [\"number\", \"null\"]}");
			break;
		case BOOLOID:
			appendStringInfoString(schema, "{\"type\": [\"boolean\", \"null\"]}");
			break;
		case DATEOID:
			appendStringInfoString(schema, "{\"type\": [\"string\", \"null\"], \"format\": \"date\"}");
			break;
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
			appendStringInfoString(schema, "{\"type\": [\"string\", \"null\"], \"format\": \"date-time\"}");
			break;
		case JSONOID:
		case JSONBOID:
			appendStringInfoString(schema, "{}");
			break;
		default:
			if (type_is_enum(base))
				append_labels(schema, base);
			else if ((base == VARCHAROID || base == BPCHAROID) && typmod >= (int32) VARHDRSZ)
				appendStringInfo(schema, "{\"type\": [\"string\", \"null\"], \"maxLength\": %d}", typmod - VARHDRSZ);
			else
				appendStringInfoString(schema, "{\"type\": [\"string\", \"null\"]}");
	}
}

static void
append_names(StringInfo schema, List *names)
{
	ListCell   *cell;

	foreach(cell, names)
	{
		if (cell != list_head(names))
			appendStringInfoString(schema, ", ");
		escape_json(schema, strVal(lfirst(cell)));
	}
}

/* An object with all of the columns, and nothing else, as a jsonb constant. */
static Node *
schema_of(RangeTblFunction *function)
{
	StringInfoData schema;
	ListCell   *name;
	ListCell   *type;
	ListCell   *typmod;

	initStringInfo(&schema);
	appendStringInfoString(&schema, "{\"type\": \"object\", \"additionalProperties\": false, \"required\": [");
	append_names(&schema, function->funccolnames);
	appendStringInfoString(&schema, "], \"properties\": {");
	forthree(name, function->funccolnames, type, function->funccoltypes, typmod, function->funccoltypmods)
	{
		if (name != list_head(function->funccolnames))
			appendStringInfoString(&schema, ", ");
		escape_json(&schema, strVal(lfirst(name)));
		appendStringInfoString(&schema, ": ");
		append_type(&schema, lfirst_oid(type), lfirst_int(typmod));
	}
	appendStringInfoString(&schema, "}}");
	return (Node *) makeConst(JSONBOID, -1, InvalidOid, -1,
							  DirectFunctionCall1(jsonb_in, CStringGetDatum(schema.data)), false, false);
}

/* -- the call */

/* llm.extract(), of the form that takes what this form of llm.extract_columns() takes. */
static Oid
find_extract(Oid function)
{
	Oid			types[FUNC_MAX_ARGS];
	Oid		   *own;
	int			count;
	Oid			found;

	(void) get_func_signature(function, &own, &count);
	if (count < BEFORE_SCHEMA || count >= FUNC_MAX_ARGS)
		return InvalidOid;
	memcpy(types, own, BEFORE_SCHEMA * sizeof(Oid));
	types[BEFORE_SCHEMA] = JSONBOID;
	memcpy(types + BEFORE_SCHEMA + 1, own + BEFORE_SCHEMA, (count - BEFORE_SCHEMA) * sizeof(Oid));
	found = LookupFuncName(list_make2(makeString(get_namespace_name(get_func_namespace(function))),
									  makeString(pstrdup("extract"))), count + 1, types, true);
	if (OidIsValid(found) && is_of_bridge(found))
		return found;
	return InvalidOid;
}

/* The arguments, which may have names and lack those at their defaults, with the schema in its place. */
static List *
with_schema(List *args, Node *schema)
{
	List	   *with = NIL;
	ListCell   *cell;
	int			positional = 0;

	foreach(cell, args)
	{
		if (IsA(lfirst(cell), NamedArgExpr))
		{
			NamedArgExpr *named = copyObject(lfirst_node(NamedArgExpr, cell));

			if (named->argnumber >= BEFORE_SCHEMA)
				named->argnumber++;
			with = lappend(with, named);
			continue;
		}
		if (positional++ == BEFORE_SCHEMA)
			with = lappend(with, schema);
		with = lappend(with, lfirst(cell));
	}
	if (positional <= BEFORE_SCHEMA)
	{
		NamedArgExpr *named = makeNode(NamedArgExpr);

		named->arg = (Expr *) schema;
		named->name = pstrdup("schema");
		named->argnumber = BEFORE_SCHEMA;
		named->location = -1;
		with = lappend(with, named);
	}
	return with;
}

static Node *
columns_mutator(Node *node, void *context)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Query))
		return (Node *) query_tree_mutator((Query *) node, columns_mutator, context, 0);
	node = expression_tree_mutator(node, columns_mutator, context);
	if (IsA(node, RangeTblFunction) && is_extract_columns(((RangeTblFunction *) node)->funcexpr))
	{
		RangeTblFunction *function = (RangeTblFunction *) node;
		FuncExpr   *call = (FuncExpr *) function->funcexpr;
		Oid			extract = find_extract(call->funcid);

		if (OidIsValid(extract) && function->funccolnames)
		{
			Node	   *found = (Node *) makeFuncExpr(extract, JSONBOID, with_schema(call->args, schema_of(function)),
													  InvalidOid, call->inputcollid, COERCE_EXPLICIT_CALL);

			function->funcexpr = (Node *) makeFuncExpr(F_JSONB_TO_RECORD, RECORDOID, list_make1(found),
													   InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL);
		}
	}
	return node;
}

static bool
has_columns_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, RangeTblFunction) && is_extract_columns(((RangeTblFunction *) node)->funcexpr))
		return true;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, has_columns_walker, context, 0);
	return expression_tree_walker(node, has_columns_walker, context);
}

/* Return the query with llm.extract() in the place of each llm.extract_columns() that has a list of columns. */
Query *
extract_columns(Query *query)
{
	return has_columns_walker((Node *) query, NULL) ? (Query *) columns_mutator((Node *) query, NULL) : query;
}
