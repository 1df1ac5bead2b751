/*
 * compared_labels.c
 *	  llm.classify() without labels takes them from what its answer is compared with.
 *
 *		FROM reviews AS r JOIN categories AS c ON llm.classify('What is {review} about?', r) = c.name
 *		WHERE llm.classify('What is {review}?', r) IN ('praise', 'blame')
 *
 * becomes, before planning,
 *
 *		llm.classify('…', r, labels => llm._labels(ARRAY(SELECT DISTINCT c.name FROM categories AS c LIMIT …)),
 *					 descriptions => '{"none of these": "…"}')
 *
 * and is then planned and batched as if it had been written so. An answer may always be that none of them fits: it equals nothing
 * that was compared. What stands behind ANY and IN is an expression of the same place, and is copied as it is. A column's values
 * are read from a copy of the range table's entry that it is of, with the rights, the row security and the view around it that
 * the entry has: whoever may compare with it may read it. The query has been rewritten already, so that all of these are in it.
 */
#include "pg_bridge.h"

#include "access/transam.h"
#include "catalog/pg_class.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_func.h"
#include "parser/parse_relation.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"
#include "storage/lockdefs.h"
#include "utils/acl.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"

#define LABELS 2				/* the place of the argument */
#define MOST_LABELS 200			/* as llm._labels has it */
#define TEXT_EQUAL TextEqualOperator
#define TEXT_NOT_EQUAL 531
#define TEXT_LESS 664
#define NONE "{\"none of these\": \"none of the other labels fits\"}"

/* -- the call */

/* llm.classify() as it is written without labels, and without descriptions that say which there are; else NULL. */
static FuncExpr *
as_unlabelled(Node *node)
{
	FuncExpr   *call = (FuncExpr *) node;
	char	   *name;
	ListCell   *cell;
	int			positional = 0;

	if (!IsA(node, FuncExpr) || call->funcid < FirstNormalObjectId)
		return NULL;
	name = get_func_name(call->funcid);
	if (name == NULL || strcmp(name, "classify") != 0 || !is_of_bridge(call->funcid))
		return NULL;
	foreach(cell, call->args)
	{
		NamedArgExpr *named = lfirst(cell);

		if (!IsA(named, NamedArgExpr))
			positional++;
		else if (strcmp(named->name, "labels") == 0 || strcmp(named->name, "descriptions") == 0)
			return NULL;
	}
	return positional > LABELS ? NULL : call;
}

/* Give a call the labels that an array holds, and one for none of them. */
static void
add_labels(FuncExpr *call, Expr *array)
{
	Oid			types[1] = {TEXTARRAYOID};
	char	   *schema = get_namespace_name(get_func_namespace(call->funcid));
	Oid			labels = LookupFuncName(list_make2(makeString(schema), makeString(pstrdup("_labels"))), 1, types, true);
	int			place = place_of_argument(call->funcid, "descriptions", JSONBOID);
	Const	   *none;

	if (!OidIsValid(labels) || !is_of_bridge(labels) || place < 0)
		return;
	array = (Expr *) makeFuncExpr(labels, TEXTARRAYOID, list_make1(array), InvalidOid, call->inputcollid,
								  COERCE_EXPLICIT_CALL);
	none = makeConst(JSONBOID, -1, InvalidOid, -1, DirectFunctionCall1(jsonb_in, CStringGetDatum(NONE)), false, false);
	add_argument(call, "labels", LABELS, array);
	add_argument(call, "descriptions", place, (Expr *) none);
}

/* -- the values of a column */

/* The column that an expression is, whatever type it is cast to; NULL where it is another one. */
static Var *
as_column(Node *node)
{
	for (;;)
	{
		if (IsA(node, RelabelType))
			node = (Node *) ((RelabelType *) node)->arg;
		else if (IsA(node, CoerceViaIO))
			node = (Node *) ((CoerceViaIO *) node)->arg;
		else if (IsA(node, FuncExpr) && ((FuncExpr *) node)->funcid < FirstNormalObjectId &&
				 ((FuncExpr *) node)->funcformat != COERCE_EXPLICIT_CALL && list_length(((FuncExpr *) node)->args) == 1)
			node = linitial(((FuncExpr *) node)->args);
		else
			return IsA(node, Var) && ((Var *) node)->varattno > 0 ? (Var *) node : NULL;
	}
}

static bool
reads_common_table_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
		return ((RangeTblEntry *) node)->rtekind == RTE_CTE;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, reads_common_table_walker, context, QTW_EXAMINE_RTES_BEFORE);
	return expression_tree_walker(node, reads_common_table_walker, context);
}

/* Can a subquery be read a second time, with the same result? WITH counts who reads from it. */
static bool
is_repeatable(Query *query)
{
	return query->commandType == CMD_SELECT && query->rowMarks == NIL &&
		!contain_volatile_functions((Node *) query) && !reads_common_table_walker((Node *) query, NULL);
}

/*
 * A statement's target that is written through a view, or inserted into, has not all of what hides its rows in its entry: a view's
 * condition stands among the statement's own then, and row security in checks of what is written. The view stays in the range
 * table, for its rights.
 */
static bool
is_target_of_other_rows(Query *query, int place)
{
	ListCell   *cell;

	if (place != query->resultRelation)
		return false;
	foreach(cell, query->rtable)
	{
		RangeTblEntry *entry = lfirst_node(RangeTblEntry, cell);

		if (entry->rtekind == RTE_RELATION && entry->relkind == RELKIND_VIEW)
			return true;
	}
	return query->commandType == CMD_INSERT;
}

static bool
can_be_read_again(RangeTblEntry *entry)
{
	if (entry->rtekind == RTE_SUBQUERY)
		return !entry->lateral && is_repeatable(entry->subquery);
	return entry->rtekind == RTE_RELATION &&
		(entry->relkind == RELKIND_RELATION || entry->relkind == RELKIND_PARTITIONED_TABLE ||
		 entry->relkind == RELKIND_MATVIEW || entry->relkind == RELKIND_FOREIGN_TABLE);
}

#if PG_VERSION_NUM >= 160000
/* In the subquery no outer join makes the column NULL. */
static bool
forget_outer_joins_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var))
		((Var *) node)->varnullingrels = NULL;
	return expression_tree_walker(node, forget_outer_joins_walker, context);
}
#endif

/* ARRAY(SELECT DISTINCT value FROM entry LIMIT …), for a query that the value, which is of this entry alone, is of. */
static Expr *
array_of_values(Query *query, RangeTblEntry *entry, Node *rights, Node *value)
{
	Query	   *values = makeNode(Query);
	RangeTblRef *from = makeNode(RangeTblRef);
	TargetEntry *target = makeTargetEntry((Expr *) value, 1, pstrdup("label"), false);
	SortGroupClause *distinct = makeNode(SortGroupClause);
	SubLink    *array = makeNode(SubLink);

	values->commandType = CMD_SELECT;
	values->querySource = QSRC_ORIGINAL;
	values->canSetTag = true;
	values->hasSubLinks = true; /* row security may have some */
	values->hasRowSecurity = query->hasRowSecurity;
	values->rtable = list_make1(entry);
#if PG_VERSION_NUM >= 160000
	values->rteperminfos = rights ? list_make1(rights) : NIL;
#endif
	from->rtindex = 1;
	values->jointree = makeFromExpr(list_make1(from), NULL);
	target->ressortgroupref = distinct->tleSortGroupRef = 1;
	distinct->eqop = TEXT_EQUAL;
	distinct->sortop = TEXT_LESS;
	distinct->hashable = true;
	values->targetList = list_make1(target);
	values->distinctClause = list_make1(distinct);
	values->limitOption = LIMIT_OPTION_COUNT;
	values->limitCount = (Node *) makeConst(INT8OID, -1, InvalidOid, sizeof(int64), Int64GetDatum(MOST_LABELS + 2), false,
											FLOAT8PASSBYVAL);	/* NULL is one, and one says that they are too many */
	array->subLinkType = ARRAY_SUBLINK;
	array->subselect = (Node *) values;
	array->location = -1;
	query->hasSubLinks = true;
	return (Expr *) array;
}

/* The values of the column that a call of a query is compared with; NULL where they cannot be seen. */
static Expr *
values_of_column(Query *query, Node *value)
{
	Var		   *column = as_column(value);
	RangeTblEntry *entry;
	Node	   *rights = NULL;

	if (column == NULL || column->varlevelsup != 0 || exprType(value) != TEXTOID)
		return NULL;
#if PG_VERSION_NUM >= 180000
	if (column->varreturningtype != VAR_RETURNING_DEFAULT)
		return NULL;
#endif
	entry = rt_fetch(column->varno, query->rtable);
	if (!can_be_read_again(entry) || is_target_of_other_rows(query, column->varno))
		return NULL;
	entry = copyObject(entry);
	value = copyObject(value);
	ChangeVarNodes(value, column->varno, 1, 0);
	ChangeVarNodes((Node *) entry->securityQuals, column->varno, 1, 0);
	IncrementVarSublevelsUp_rtable(list_make1(entry), 1, 1);
	entry->tablesample = NULL;
	if (entry->rtekind == RTE_RELATION)
		entry->rellockmode = AccessShareLock;
#if PG_VERSION_NUM >= 160000
	(void) forget_outer_joins_walker(value, NULL);
	if (entry->perminfoindex != 0)
	{
		rights = (Node *) copyObject(getRTEPermissionInfo(query->rteperminfos, entry));
		((RTEPermissionInfo *) rights)->requiredPerms &= ACL_SELECT;	/* of a statement's target others are needed */
		entry->perminfoindex = 1;
	}
#else
	entry->requiredPerms &= ACL_SELECT;
#endif
	return array_of_values(query, entry, rights, value);
}

/* The values of IN (SELECT …). */
static Expr *
values_of_subselect(Query *query, Query *subselect)
{
	RangeTblEntry *entry = makeNode(RangeTblEntry);
	TargetEntry *target = linitial_node(TargetEntry, subselect->targetList);
	Var		   *value = makeVarFromTargetEntry(1, target);

	if (exprType((Node *) target->expr) != TEXTOID || !is_repeatable(subselect))
		return NULL;
	entry->rtekind = RTE_SUBQUERY;
	entry->subquery = copyObject(subselect);
	IncrementVarSublevelsUp((Node *) entry->subquery, 1, 1);
	entry->eref = makeAlias("labels", list_make1(makeString(pstrdup("label"))));
	entry->inFromCl = true;
	return array_of_values(query, entry, NULL, (Node *) value);
}

/* -- comparisons */

static void
take_from_comparison(Node *node, Query *query)
{
	FuncExpr   *call;
	Expr	   *labels = NULL;

	if (IsA(node, OpExpr) && ((OpExpr *) node)->opno == TEXT_EQUAL)
	{
		Node	   *left = linitial(((OpExpr *) node)->args);
		Node	   *right = lsecond(((OpExpr *) node)->args);

		if ((call = as_unlabelled(left)) != NULL)
			labels = values_of_column(query, right);
		else if ((call = as_unlabelled(right)) != NULL)
			labels = values_of_column(query, left);
	}
	else if (IsA(node, ScalarArrayOpExpr))
	{
		ScalarArrayOpExpr *any = (ScalarArrayOpExpr *) node;
		Node	   *array = lsecond(any->args);

		call = as_unlabelled(linitial(any->args));
		if (call && any->opno == (any->useOr ? TEXT_EQUAL : TEXT_NOT_EQUAL) && !contain_volatile_functions(array))
			labels = (Expr *) copyObject(array);
	}
	else if (IsA(node, SubLink) && ((SubLink *) node)->subLinkType == ANY_SUBLINK)
	{
		OpExpr	   *test = (OpExpr *) ((SubLink *) node)->testexpr;

		call = IsA(test, OpExpr) && test->opno == TEXT_EQUAL ? as_unlabelled(linitial(test->args)) : NULL;
		if (call && IsA(lsecond(test->args), Param))
			labels = values_of_subselect(query, castNode(Query, ((SubLink *) node)->subselect));
	}
	if (labels)
		add_labels(call, labels);
}

/* Whatever is read from has its labels before it is copied. */
static bool
comparisons_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		Query	   *query = (Query *) node;

		(void) range_table_walker(query->rtable, comparisons_walker, query, QTW_IGNORE_JOINALIASES);
		return query_tree_walker(query, comparisons_walker, query, QTW_IGNORE_RANGE_TABLE);
	}
	(void) expression_tree_walker(node, comparisons_walker, context);
	take_from_comparison(node, context);
	return false;
}

/* Give the calls of llm.classify() in a query, which is changed, the labels that their answers are compared with. */
void
take_compared_labels(Query *query)
{
	(void) comparisons_walker((Node *) query, NULL);
}
