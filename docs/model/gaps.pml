/* What happens to capture, and to the server of a side. */

/* DDL waits for the transactions that write the table, and those that come later wait for it. */
#ifdef CAPTURE_WAITS_FOR_NOBODY
#define NO_UNIT_UNDER_WAY(side) true
#else
#define NO_UNIT_UNDER_WAY(side) (fence_shared[side] == 0)
#endif

#if CAPTURE_CHANGES
/* Capture comes with `dualwrite`; later it goes, by way of `off` or because somebody drops a trigger, and comes back. */
proctype CaptureChanges()
{
	bool side = LEGACY;

	atomic { NO_UNIT_UNDER_WAY(LEGACY) -> capturing[LEGACY] = true; capture_token[LEGACY]++ };
	if
	:: side = LEGACY
	:: side = NEW
	fi;
	atomic { NO_UNIT_UNDER_WAY(side) -> capturing[side] = false };
	atomic { NO_UNIT_UNDER_WAY(side) -> capturing[side] = true; capture_token[side]++ }
}
#endif

#if RESTORES
/* The authoritative side goes on, with all it had, on a server whose positions begin anew. The epoch is raised at the other
   side first, with its fence lock alone: so that nothing read on the new server is applied under the old epoch, whose guards
   would take it for old. The restored side starts closed, and is opened in the new epoch. */
proctype Restore()
{
#ifndef RESTORED_BEFORE_EPOCH
	atomic { FENCE_FREE(NEW) -> mark_epoch[NEW] = 2 };
#endif
	atomic { FENCE_FREE(LEGACY) -> open[LEGACY] = false; position[LEGACY] = 0 };
#ifdef RESTORED_BEFORE_EPOCH
	atomic { FENCE_FREE(NEW) -> mark_epoch[NEW] = 2 };
#endif
	atomic { mark_epoch[LEGACY] = 2; open[LEGACY] = true };
	atomic { phase_epoch = 2 }
}
#endif
