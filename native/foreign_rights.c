/*
 * foreign_rights.c
 *	  Whose rights count for the source of a foreign table, and what nobody may learn of rows that are hidden from him.
 *
 * A source is read as the table's owner, who wrote down what is read, in a context where his code can do nothing to the
 * session of whoever reads; with security_invoker, as the reader. Behind a security_barrier view, or a policy, a row that
 * the condition there has not let through is neither counted nor sent to a model.
 */
#include "foreign_scan.h"

#include "access/sysattr.h"
#include "catalog/pg_class.h"
#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/restrictinfo.h"
#include "parser/parsetree.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/* -- whose rights */

Oid
owner_of(Oid table)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(table));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", table);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

static bool
is_invokers(Oid table)
{
	ListCell   *cell;

	foreach(cell, GetForeignTable(table)->options)
	{
		DefElem    *option = lfirst(cell);

		if (strcmp(option->defname, "security_invoker") == 0)
			return strcmp(defGetString(option), "true") == 0;
	}
	return false;
}

/* As whom a scan reads the source. */
Oid
source_user(Oid table, Oid reader)
{
	return is_invokers(table) ? reader : owner_of(table);
}

/* Estimates and samples are of what the owner sees: is that no more than the reader does? */
bool
may_learn_of_all_rows(Oid table, Oid reader)
{
	return !is_invokers(table) || has_privs_of_role(reader, owner_of(table));
}

/* -- hidden rows
 *
 * The planner plans a security_barrier view as a subquery of its own, into which it puts those conditions of the reader
 * that tell nothing; there, they cannot be told from the view's. So it is looked for in the queries around.
 */

typedef struct Barrier
{
	Oid			table;
	bool		found;			/* the table stands below a barrier */
	bool		is_late;		/* whose conditions need a model's answers, or other rows than the table's, or might */
} Barrier;

/* Which columns of a table does a query's condition mention? */
typedef struct Mentions
{
	Index		table;			/* its place in the range table */
	int			levels_up;
	Bitmapset  *columns;		/* as pull_varattnos() has them */
} Mentions;

static bool
find_mentions(Node *node, void *context)
{
	Mentions   *mentions = context;

	if (node == NULL)
		return false;
	if (IsA(node, Var))
	{
		Var		   *var = (Var *) node;

		if (var->varno == mentions->table && var->varlevelsup == mentions->levels_up)
			mentions->columns = bms_add_member(mentions->columns, var->varattno - FirstLowInvalidHeapAttributeNumber);
		return false;
	}
	if (IsA(node, Query))
	{
		mentions->levels_up++;
		(void) query_tree_walker((Query *) node, find_mentions, context, 0);
		mentions->levels_up--;
		return false;
	}
	return expression_tree_walker(node, find_mentions, context);
}

static bool
is_model_column(Oid table, AttrNumber column)
{
	return column > 0 && GetForeignColumnOptions(table, column) != NIL;
}

/* Are there model columns among those, as pull_varattnos() has them? */
static bool
has_model_column(Oid table, Bitmapset *columns)
{
	int			number = -1;
	AttrNumber	column;

	while ((number = bms_next_member(columns, number)) >= 0)
		if (is_model_column(table, number + FirstLowInvalidHeapAttributeNumber))
			return true;
	if (!bms_is_member(0 - FirstLowInvalidHeapAttributeNumber, columns))
		return false;
	for (column = 1; get_attname(table, column, true) != NULL; column++)
		if (is_model_column(table, column))
			return true;		/* it is part of the whole row */
	return false;
}

static bool
mentions_table(Node *node, void *table)
{
	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
		return ((RangeTblEntry *) node)->rtekind == RTE_RELATION && ((RangeTblEntry *) node)->relid == *(Oid *) table;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, mentions_table, table, QTW_EXAMINE_RTES_BEFORE);
	return expression_tree_walker(node, mentions_table, table);
}

/* Look at the query of a security_barrier view that reads the table. */
static void
look_behind(Query *query, Barrier *barrier)
{
	Mentions	mentions = {0};
	ListCell   *cell;

	barrier->found = true;
	barrier->is_late |= list_length(query->jointree->fromlist) != 1 ||
		!IsA(linitial(query->jointree->fromlist), RangeTblRef);
	foreach(cell, query->rtable)
	{
		RangeTblEntry *entry = lfirst(cell);

		mentions.table++;
		mentions.columns = NULL;
		(void) find_mentions((Node *) query->jointree, &mentions);
		(void) find_mentions(query->havingQual, &mentions);
		if (entry->rtekind == RTE_RELATION && entry->relid == barrier->table)
			barrier->is_late |= has_model_column(barrier->table, mentions.columns);
		else if (entry->rtekind == RTE_SUBQUERY && mentions_table((Node *) entry->subquery, &barrier->table))
		{
			/* Its columns may be answers, and the condition may not be one of the scan. */
			barrier->is_late |= !bms_is_empty(mentions.columns);
			look_behind(entry->subquery, barrier);
		}
	}
}

static bool
find_barrier(Node *node, void *context)
{
	Barrier    *barrier = context;

	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
	{
		RangeTblEntry *entry = (RangeTblEntry *) node;

		if (entry->rtekind == RTE_SUBQUERY && entry->security_barrier &&
			mentions_table((Node *) entry->subquery, &barrier->table))
			look_behind(entry->subquery, barrier);
		return false;
	}
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, find_barrier, context, QTW_EXAMINE_RTES_BEFORE);
	return expression_tree_walker(node, find_barrier, context);
}

static Barrier
barrier_of(PlannerInfo *root, RelOptInfo *rel, Oid table)
{
	Barrier		barrier = {table, false, false};
	PlannerInfo *around;
	ListCell   *cell;

	for (around = root->parent_root; around; around = around->parent_root)
		find_barrier((Node *) around->parse, &barrier);
	/* Policies of a table that this one is a partition of are conditions of its own, of a lower level. */
	foreach(cell, rel->baserestrictinfo)
	{
		RestrictInfo *rinfo = lfirst(cell);
		Bitmapset  *used = NULL;

		if (rinfo->security_level >= root->qual_security_level)
			continue;
		barrier.found = true;
		pull_varattnos((Node *) rinfo->clause, rel->relid, &used);
		barrier.is_late |= has_model_column(table, used);
	}
	return barrier;
}

bool
is_behind_barrier(PlannerInfo *root, RelOptInfo *rel, Oid table)
{
	return barrier_of(root, rel, table).found;
}

static void
refuse(Oid table, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("a model would be asked about rows of foreign table \"%s\" that a view or policy hides",
					get_rel_name(table)),
			 errdetail_internal("%s", detail),
			 errhint("Put the condition into the foreign table's source: a view, or source_query.")));
}

/*
 * Refuse a plan that asks a model about rows which a barrier has not let through yet.
 *
 *	  needed		numbers of the columns that the scan returns
 *	  quals			ForeignQuals that are handed over
 */
void
check_barrier(PlannerInfo *root, RelOptInfo *rel, Oid table, List *needed, List *quals)
{
	Barrier		barrier = barrier_of(root, rel, table);
	bool		asks = false;
	ListCell   *cell;

	foreach(cell, needed)
		asks |= is_model_column(table, lfirst_int(cell));
	foreach(cell, quals)
		asks |= is_model_column(table, ((ForeignQual *) lfirst(cell))->column);
	if (!barrier.found || !asks)
		return;
	if (barrier.is_late || bms_num_members(root->all_baserels) > 1)
		refuse(table, "Its condition needs answers of a model, rows of another table, or what a subquery makes of the rows.");
	foreach(cell, rel->baserestrictinfo)
	{
		RestrictInfo *rinfo = lfirst(cell);
		Bitmapset  *used = NULL;
		ListCell   *other;
		bool		decided = rinfo->pseudoconstant;

		foreach(other, quals)
			decided |= ((ForeignQual *) lfirst(other))->rinfo == rinfo && ((ForeignQual *) lfirst(other))->exact;
		pull_varattnos((Node *) rinfo->clause, rel->relid, &used);
		if (!decided && !has_model_column(table, used))
			refuse(table, "The source cannot apply the condition as PostgreSQL would.");
	}
}

/*
 * The same for a scan by Multicorn, which is not told which condition comes first: behind a barrier it asks no model.
 */
void
check_barrier_of_multicorn(PlannerInfo *root, RelOptInfo *rel, Oid table)
{
	Bitmapset  *used = NULL;
	ListCell   *cell;

	pull_varattnos((Node *) rel->reltarget->exprs, rel->relid, &used);
	foreach(cell, rel->baserestrictinfo)
		pull_varattnos((Node *) lfirst_node(RestrictInfo, cell)->clause, rel->relid, &used);
	if (has_model_column(table, used) && is_behind_barrier(root, rel, table))
		refuse(table, "Multicorn does not tell a scan which condition comes first.");
}
