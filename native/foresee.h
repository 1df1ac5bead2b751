/*
 * foresee.h
 *	  What foresee.c and conditions.c share: an expression whose calls are being foreseen.
 */
#ifndef FORESEE_H
#define FORESEE_H

#include "pg_bridge.h"

typedef struct Foresight
{
	Batch	   *batch;
	List	   *guard;			/* quals that hold wherever the expression at hand is evaluated */
	bool		blind;			/* such a condition exists but can't be evaluated beforehand */
	Bitmapset  *unset;			/* executor parameters that have no value beforehand */
	Bitmapset  *inputs;			/* ones that are columns of the rows; if there are any, a call must depend on one */
} Foresight;

/* foresee.c */
extern Node *foresee_mutator(Node *node, void *context);
extern bool contains_subplan(Node *node);
extern Bitmapset *executor_parameters(Node *node);
extern bool may_go_ahead(Foresight *foresight, Node *node);
extern bool holds_foreseeable(Foresight *foresight, Node *node);
extern Node *column_of_value(Foresight *foresight, Expr *expr);
extern Node *swap_sides(Node *expr, int from, int to);

/* supply.c */
typedef struct Supply
{
	Foresight	foresight;		/* its batch gets the calls, its inputs are parameters of whoever runs the plan */
	PlannedStmt *stmt;
	List	   *numbers;		/* of the parameter in the place of each of the batch's calls; -1 for none */

	Bitmapset  *outside;		/* parameters that have their values from outside of the plan */
	Bitmapset  *added;			/* parameters in the places of calls */
	bool		only_looking;
	bool		found;
} Supply;

extern bool is_to_be_supplied(Supply *supply, Plan *plan, Takes takes);
extern void supply_calls(Supply *supply, Plan *plan, Takes takes);

/* lateral.c */
extern void foresee_inside(SubPlan *subplan, Foresight *foresight);

/* conditions.c */
extern void guard_by(Foresight *foresight, Expr **condition);
extern void foresee_filter(Foresight *foresight, Expr **filter, Node *guarded);
extern Node *foresee_case(CaseExpr *expr, Foresight *foresight);
extern Node *foresee_bool(BoolExpr *expr, Foresight *foresight);
extern Node *foresee_coalesce(CoalesceExpr *expr, Foresight *foresight);
extern Node *foresee_subscripts(SubscriptingRef *expr, Foresight *foresight);

#endif
