/*
 * wait_event.c
 *	  The wait event that pg_stat_activity shows while a backend waits for an engine.
 *
 * PostgreSQL lets an extension name one from version 17 on; before, there is one for all of them.
 */
#include "pg_bridge.h"

#include "storage/lwlock.h"
#include "utils/wait_event.h"

/*
 * It raises no error, for Python calls it: one would jump over Python's frames. Where there are too many names already, it
 * is the one event for all. The only lock that can be held then is the one of the call that failed.
 */
uint32
pg_bridge_wait_event(void)
{
	static uint32 event = 0;
#if PG_VERSION_NUM >= 170000
	MemoryContext context = CurrentMemoryContext;

	if (event == 0)
	{
		PG_TRY();
		{
			event = WaitEventExtensionNew("PgBridgeEngine");
		}
		PG_CATCH();
		{
			LWLockReleaseAll();
			MemoryContextSwitchTo(context);
			FlushErrorState();
			event = PG_WAIT_EXTENSION;
		}
		PG_END_TRY();
	}
#else
	event = PG_WAIT_EXTENSION;
#endif
	return event;
}
