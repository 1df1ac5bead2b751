/*
 * foreign_quals.c
 *	  Conditions on one column of a foreign table: which ones can be handed over, and the texts of their values.
 *
 * A value may be anything that needs no row of the table: a constant, a parameter, the result of a subquery, a stable
 * function of these. The executor evaluates it when the scan starts. Only operators that are built in are handed over,
 * for these mean the same everywhere.
 */
#include "foreign_scan.h"

#include "access/transam.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "optimizer/restrictinfo.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/float.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

static const char *const operators[] = {"=", "<>", "<", "<=", ">", ">=", "~~", "!~~", "~~*", "!~~*", NULL};

/*
 * Return the column of the table that an expression is, or NULL. A varchar may stand where a text is wanted, and a text
 * may be given another collation.
 */
Var *
column_of_table(Node *node, Index relid)
{
	Var		   *var = (Var *) node;

	if (node && IsA(node, RelabelType) && ((RelabelType *) node)->resulttype == TEXTOID)
	{
		var = (Var *) ((RelabelType *) node)->arg;
		if (!IsA(var, Var) || (var->vartype != VARCHAROID && var->vartype != TEXTOID))
			return NULL;
	}
	if (var == NULL || !IsA(var, Var) || var->varno != relid || var->varattno <= 0 || var->varlevelsup > 0)
		return NULL;
	return var;
}

/* The name of a built-in operator that can be handed over, or NULL. */
static char *
operator_name(Oid operator)
{
	char	   *name = operator < FirstGenbkiObjectId ? get_opname(operator) : NULL;
	int			i;

	for (i = 0; name && operators[i]; i++)
		if (strcmp(name, operators[i]) == 0)
			return op_strict(operator) ? name : NULL;
	return NULL;
}

static bool
is_value(PlannerInfo *root, RelOptInfo *rel, Node *node)
{
	return !bms_is_member(rel->relid, pull_varnos(root, node)) &&
		!contain_volatile_functions(node) && !contain_subplans(node);
}

static ForeignQual *
new_qual(Var *column, char *operator, Expr *value)
{
	ForeignQual *qual;

	if (column == NULL || operator == NULL)
		return NULL;
	qual = palloc0(sizeof(ForeignQual));
	qual->column = column->varattno;
	qual->column_type = column->vartype;
	qual->operator = operator;
	qual->quantifier = "";
	qual->value = value;
	return qual;
}

static ForeignQual *
of_operator(PlannerInfo *root, RelOptInfo *rel, OpExpr *expr)
{
	Oid			operator = expr->opno;
	Node	   *left;
	Node	   *right;
	ForeignQual *qual;

	if (list_length(expr->args) != 2)
		return NULL;
	left = linitial(expr->args);
	right = lsecond(expr->args);
	if (column_of_table(left, rel->relid) == NULL)
	{
		Node	   *value = left;

		left = right;
		right = value;
		operator = get_commutator(operator);
	}
	if (!OidIsValid(operator) || !is_value(root, rel, right))
		return NULL;
	qual = new_qual(column_of_table(left, rel->relid), operator_name(operator), (Expr *) right);
	if (qual)
		qual->collation = expr->inputcollid;
	return qual;
}

static ForeignQual *
of_array(PlannerInfo *root, RelOptInfo *rel, ScalarArrayOpExpr *expr)
{
	ForeignQual *qual;

	if (!is_value(root, rel, lsecond(expr->args)))
		return NULL;
	qual = new_qual(column_of_table(linitial(expr->args), rel->relid), operator_name(expr->opno), lsecond(expr->args));
	if (qual)
	{
		qual->quantifier = expr->useOr ? "any" : "all";
		qual->collation = expr->inputcollid;
	}
	return qual;
}

static ForeignQual *
of_boolean(RelOptInfo *rel, Node *node, bool wanted)
{
	Var		   *column = column_of_table(node, rel->relid);

	if (column == NULL || column->vartype != BOOLOID)
		return NULL;
	return new_qual(column, "=", (Expr *) makeBoolConst(wanted, false));
}

static ForeignQual *
of_boolean_test(RelOptInfo *rel, BooleanTest *test)
{
	switch (test->booltesttype)
	{
		case IS_TRUE:
			return of_boolean(rel, (Node *) test->arg, true);
		case IS_FALSE:
			return of_boolean(rel, (Node *) test->arg, false);
		case IS_UNKNOWN:
			return new_qual(column_of_table((Node *) test->arg, rel->relid), "IS NULL", NULL);
		case IS_NOT_UNKNOWN:
			return new_qual(column_of_table((Node *) test->arg, rel->relid), "IS NOT NULL", NULL);
		default:
			return NULL;
	}
}

/*
 * Return the condition as it can be handed over, or NULL where it cannot be: it needs more than one column, a value
 * that changes from row to row, or an operator of which nothing is known; or it must not come before conditions that
 * guard the rows.
 */
ForeignQual *
make_foreign_qual(PlannerInfo *root, RelOptInfo *rel, RestrictInfo *rinfo)
{
	Node	   *clause = (Node *) rinfo->clause;
	ForeignQual *qual = NULL;

	if (rinfo->pseudoconstant || !restriction_is_securely_promotable(rinfo, rel))
		return NULL;
	switch (nodeTag(clause))
	{
		case T_OpExpr:
			qual = of_operator(root, rel, (OpExpr *) clause);
			break;
		case T_ScalarArrayOpExpr:
			qual = of_array(root, rel, (ScalarArrayOpExpr *) clause);
			break;
		case T_NullTest:
			if (!((NullTest *) clause)->argisrow)
				qual = new_qual(column_of_table((Node *) ((NullTest *) clause)->arg, rel->relid),
								((NullTest *) clause)->nulltesttype == IS_NULL ? "IS NULL" : "IS NOT NULL", NULL);
			break;
		case T_BooleanTest:
			qual = of_boolean_test(rel, (BooleanTest *) clause);
			break;
		case T_Var:
			qual = of_boolean(rel, clause, true);
			break;
		case T_BoolExpr:
			if (((BoolExpr *) clause)->boolop == NOT_EXPR)
				qual = of_boolean(rel, linitial(((BoolExpr *) clause)->args), false);
			break;
		default:
			break;
	}
	if (qual)
		qual->rinfo = rinfo;
	return qual;
}

/*
 * -- quals in a plan, which must be copied: lists without the values, for these stand in fdw_exprs, in the same order; a
 * qual without a value has any constant there
 */

List *
quals_as_list(List *quals)
{
	List	   *list = NIL;
	ListCell   *cell;

	foreach(cell, quals)
	{
		ForeignQual *qual = lfirst(cell);

		list = lappend(list, lappend(list_make5(makeInteger(qual->column), makeString(qual->operator),
												makeString(qual->quantifier), makeInteger((int) qual->collation),
												makeInteger(qual->exact)),
									 makeInteger((int) qual->column_type)));
	}
	return list;
}

List *
quals_from_list(List *list, List *values)
{
	List	   *quals = NIL;
	ListCell   *cell;
	ListCell   *value;

	forboth(cell, list, value, values)
	{
		List	   *parts = lfirst(cell);
		ForeignQual *qual = palloc0(sizeof(ForeignQual));

		qual->column = intVal(linitial(parts));
		qual->operator = strVal(lsecond(parts));
		qual->quantifier = strVal(lthird(parts));
		qual->collation = (Oid) intVal(lfourth(parts));
		qual->exact = intVal(list_nth(parts, 4));
		qual->column_type = (Oid) intVal(list_nth(parts, 5));
		qual->value = strncmp(qual->operator, "IS ", 3) == 0 ? NULL : lfirst(value);
		quals = lappend(quals, qual);
	}
	return quals;
}

/* -- quals in a request */

static char *
collation_name(Oid collation)
{
	HeapTuple	tuple = SearchSysCache1(COLLOID, ObjectIdGetDatum(collation));
	Form_pg_collation form;
	char	   *name;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for collation %u", collation);
	form = (Form_pg_collation) GETSTRUCT(tuple);
	name = quote_qualified_identifier(get_namespace_name(form->collnamespace), NameStr(form->collname));
	ReleaseSysCache(tuple);
	return name;
}

/* The type of the value, or of the array's elements. */
static Oid
value_type(ForeignQual *qual)
{
	Oid			type = exprType((Node *) qual->value);

	return qual->quantifier[0] ? get_base_element_type(type) : type;
}

/* Append all of a qual but its value, and leave the object open for that. */
void
append_qual(StringInfo request, Oid table, ForeignQual *qual)
{
	appendStringInfoString(request, "{\"column\": ");
	append_string(request, get_attname(table, qual->column, false));
	appendStringInfoString(request, ", \"operator\": ");
	append_string(request, qual->operator);
	appendStringInfo(request, ", \"quantifier\": \"%s\", \"exact\": %s", qual->quantifier, qual->exact ? "true" : "false");
	if (OidIsValid(qual->collation))
	{
		appendStringInfoString(request, ", \"collation\": ");
		append_string(request, collation_name(qual->collation));
	}
	if (qual->value)
	{
		Oid			type = value_type(qual);

		appendStringInfo(request, ", \"type\": %u, \"type_name\": ", type);
		append_string(request, format_type_be_qualified(type));
	}
}

/* Print values as every session reads them, until AtEOXact_GUC is called with what this returns. */
static int
print_plainly(void)
{
	int			level = NewGUCNestLevel();

	if (DateStyle != USE_ISO_DATES)
		(void) set_config_option("datestyle", "ISO", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	if (IntervalStyle != INTSTYLE_POSTGRES)
		(void) set_config_option("intervalstyle", "postgres", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0,
								 false);
	if (extra_float_digits < 1)
		(void) set_config_option("extra_float_digits", "1", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0,
								 false);
	return level;
}

/* Append a value that is not NULL, as a list of texts: the value, or an array's elements but for its NULLs. */
void
append_value(StringInfo request, ForeignQual *qual, Datum value)
{
	Oid			type = value_type(qual);
	Oid			output;
	bool		is_varlena;
	int			level = print_plainly();

	getTypeOutputInfo(type, &output, &is_varlena);
	appendStringInfoString(request, ", \"value\": [");
	if (qual->quantifier[0])
	{
		ArrayType  *array = DatumGetArrayTypeP(value);
		int16		length;
		bool		by_value;
		char		align;
		Datum	   *elements;
		bool	   *nulls;
		int			count;
		int			i;
		const char *separator = "";

		get_typlenbyvalalign(type, &length, &by_value, &align);
		deconstruct_array(array, type, length, by_value, align, &elements, &nulls, &count);
		for (i = 0; i < count; i++)
		{
			if (nulls[i])
				continue;
			appendStringInfoString(request, separator);
			append_string(request, OidOutputFunctionCall(output, elements[i]));
			separator = ", ";
		}
	}
	else
		append_string(request, OidOutputFunctionCall(output, value));
	appendStringInfoChar(request, ']');
	AtEOXact_GUC(true, level);
}

/* Is it known without any row whether a qual holds? All operators are strict: none is true of a NULL. */
bool
decides_without_value(ForeignQual *qual, Datum value, bool is_null, bool *holds)
{
	*holds = false;
	if (qual->value == NULL)
		return false;
	if (is_null)
		return true;
	if (strcmp(qual->quantifier, "all") == 0)
	{
		ArrayType  *array = DatumGetArrayTypeP(value);

		*holds = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array)) == 0;
		return *holds || array_contains_nulls(array);
	}
	return false;
}
