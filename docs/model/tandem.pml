/* Tandem's protocol for one service: see README.md for what is modelled, and `check` for how it is run.

   Every `atomic` below is one statement or one transaction of a database; between two of them anything may happen.
   A mechanism that can be taken out bears the name of the define that takes it out.

   Bounds. Each scenario in `check` sets its own. */

#ifndef KEYS
#define KEYS 1
#endif
#ifndef UNITS
#define UNITS 3         /* units of work that callers ask for, of all replicas together */
#endif
#ifndef REPLICAS
#define REPLICAS 2
#endif
#ifndef RELAYS
#define RELAYS 2
#endif
#ifndef CONTROLLERS
#define CONTROLLERS 0
#endif
#ifndef CHANGES
#define CHANGES 0       /* of the authority, that are begun; each may be given up */
#endif
#ifndef BACKFILLS
#define BACKFILLS 0     /* processes that backfill; 0: the new side holds all history already */
#endif
#ifndef ROUNDS
#define ROUNDS 1        /* backfills that may be begun; taking one up again after a crash does not count */
#endif
#ifndef CAPTURE_CHANGES
#define CAPTURE_CHANGES 0   /* 1: capture is off at first, comes, may go and come back */
#endif
#ifndef RESTORES
#define RESTORES 0      /* 1: the authoritative side moves to another server once */
#endif

#include "sides.pml"
#include "replica.pml"
#include "relay.pml"
#include "controller.pml"
#include "backfill.pml"
#include "gaps.pml"
#include "quiescence.pml"

init {
	byte i;
	atomic {
		open[LEGACY] = true;
		mark_epoch[LEGACY] = 1;
		mark_epoch[NEW] = 1;
		capturing[LEGACY] = !CAPTURE_CHANGES;
		capturing[NEW] = true;
		capture_token[LEGACY] = !CAPTURE_CHANGES;
		capture_token[NEW] = 1;
		if
		:: BACKFILLS > 0 ->
			for (i : 0 .. KEYS - 1) {
				version[CELL(LEGACY, i)] = HISTORY;
				accepted[i] = HISTORY
			}
		:: else -> opened_with[LEGACY] = capture_token[LEGACY]
		fi;
		for (i : 1 .. REPLICAS) { run Replica() }
		for (i : 1 .. RELAYS) { run Relay() }
#if CONTROLLERS
		for (i : 1 .. CONTROLLERS) { run Controller() }
#endif
#if BACKFILLS
		for (i : 1 .. BACKFILLS) { run Backfill() }
#endif
#if CAPTURE_CHANGES
		run CaptureChanges();
#endif
#if RESTORES
		run Restore();
#endif
		run Quiescence();
		i = 0
	}
}
