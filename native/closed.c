/*
 * closed.c
 *	  Can an expression be evaluated by itself, over the scan tuple alone?
 *
 * Some nodes mean nothing outside of what they stand in. A CaseTestExpr above all: it is the operand of the CASE around
 * it in that CASE's WHENs, an element in the elemexpr of an array's coercion, the old value in an assignment to a part.
 * This file knows who gives it which meaning, as ExecInitExprRec() does.
 */
#include "pg_bridge.h"

#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"

/* in_case: somebody around the node, but within the expression, gives a test expression its meaning. */
static bool
is_open_walker(Node *node, void *in_case)
{
	bool		inside = true;

	if (node == NULL)
		return false;
	switch (nodeTag(node))
	{
		case T_Var:
			return ((Var *) node)->varno != INDEX_VAR;
		case T_CaseTestExpr:
			return !*(bool *) in_case;
		case T_CaseExpr:
			{
				CaseExpr   *expr = (CaseExpr *) node;
				ListCell   *cell;

				if (is_open_walker((Node *) expr->arg, in_case) || is_open_walker((Node *) expr->defresult, in_case))
					return true;
				foreach(cell, expr->args)
				{
					CaseWhen   *when = lfirst(cell);

					if (is_open_walker((Node *) when->expr, expr->arg ? &inside : in_case) ||
						is_open_walker((Node *) when->result, in_case))
						return true;
				}
				return false;
			}
		case T_ArrayCoerceExpr: /* its elemexpr sees an element, and nothing else */
			return is_open_walker((Node *) ((ArrayCoerceExpr *) node)->arg, in_case);
#if PG_VERSION_NUM >= 160000
		case T_JsonConstructorExpr: /* its coercion sees the JSON, and nothing else */
			return is_open_walker((Node *) ((JsonConstructorExpr *) node)->args, in_case) ||
				is_open_walker((Node *) ((JsonConstructorExpr *) node)->func, in_case);
#endif
		case T_Aggref:
		case T_GroupingFunc:
		case T_WindowFunc:
		case T_CoerceToDomainValue:
		case T_SetToDefault:
		case T_CurrentOfExpr:
			return true;
		default:
			break;
	}
	return expression_tree_walker(node, is_open_walker, in_case);
}

/* Does an expression need anything but the scan tuple, or return a set? */
bool
is_open(Node *node)
{
	bool		in_case = false;

	return is_open_walker(node, &in_case) || expression_returns_set(node);
}

typedef struct Tested
{
	Expr	   *operand;
	bool		unknown;		/* a node that may give test expressions another meaning was met */
} Tested;

static Node *
tested_mutator(Node *node, void *context)
{
	Tested	   *tested = context;

	if (node == NULL)
		return NULL;
	switch (nodeTag(node))
	{
		case T_CaseTestExpr:
			return copyObject((Node *) tested->operand);
		case T_ArrayCoerceExpr:
			{
				ArrayCoerceExpr *copy = copyObject((ArrayCoerceExpr *) node);

				copy->arg = (Expr *) tested_mutator((Node *) copy->arg, context);
				return (Node *) copy;
			}
		case T_CaseExpr:
			{
				CaseExpr   *copy = copyObject((CaseExpr *) node);
				ListCell   *cell;

				foreach(cell, copy->args)
				{
					CaseWhen   *when = lfirst(cell);

					if (copy->arg == NULL)	/* else they test its own operand */
						when->expr = (Expr *) tested_mutator((Node *) when->expr, context);
					when->result = (Expr *) tested_mutator((Node *) when->result, context);
				}
				copy->arg = (Expr *) tested_mutator((Node *) copy->arg, context);
				copy->defresult = (Expr *) tested_mutator((Node *) copy->defresult, context);
				return (Node *) copy;
			}
		case T_Const:
		case T_Var:
		case T_Param:
		case T_List:
		case T_FuncExpr:
		case T_OpExpr:
		case T_DistinctExpr:
		case T_NullIfExpr:
		case T_ScalarArrayOpExpr:
		case T_BoolExpr:
		case T_RelabelType:
		case T_CoerceViaIO:
		case T_ConvertRowtypeExpr:
		case T_CollateExpr:
		case T_CoerceToDomain:
		case T_ArrayExpr:
		case T_RowExpr:
		case T_RowCompareExpr:
		case T_CoalesceExpr:
		case T_MinMaxExpr:
		case T_NullTest:
		case T_BooleanTest:
		case T_FieldSelect:
			return expression_tree_mutator(node, tested_mutator, context);
		case T_SubscriptingRef:
			if (((SubscriptingRef *) node)->refassgnexpr == NULL)
				return expression_tree_mutator(node, tested_mutator, context);
			break;
		default:
			break;
	}
	/* Whatever else has no test expression in it, or ones that may be its own. */
	if (is_open(node))
		tested->unknown = true;
	return copyObject(node);
}

/* A condition of a simple CASE with the CASE's operand in it; NULL if that is not known how to do. */
Expr *
with_operand(Expr *condition, Expr *operand)
{
	Tested		tested = {operand, false};
	Node	   *result = tested_mutator((Node *) condition, &tested);

	return tested.unknown ? NULL : (Expr *) result;
}
