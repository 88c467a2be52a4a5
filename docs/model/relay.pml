/* A relay: claims journal rows of a key, reads the key's state with its position, applies it at the other side, and ends the
   rows that it claimed. Here a claim keeps nobody else away, as when the connection that holds it is lost while the process
   goes on: the guard has to arbitrate. It may sleep between any two steps, for as long as it likes. */

#define TARGET OTHER(source)

#ifdef NO_EPOCH_IN_APPLY
#define MAY_CARRY (!open[TARGET])
#else
#define MAY_CARRY (!open[TARGET] && mark_epoch[TARGET] == believed)
#endif

#define GUARD_MOVES IS_NEWER(believed, at, guard_epoch[CELL(TARGET, key)], guard_position[CELL(TARGET, key)])
#ifdef NO_GUARD
#undef GUARD_MOVES
#define GUARD_MOVES true
#endif
#ifdef NO_EPOCH_IN_GUARD
#undef GUARD_MOVES
#define GUARD_MOVES (at > guard_position[CELL(TARGET, key)])
#endif

/* What a relay goes by is read at the beginning of a pass, and may be out of date a moment later. */
inline begin_pass(k) {
	believed = phase_epoch;
	source = phase_side;
	key = k;
	rows = journal[CELL(source, key)]
}

inline read_state() {
	state = version[CELL(source, key)];
#ifdef NUMBER_AS_POSITION
	at = 0;
	for (i : 1 .. UNITS) {
		if
		:: (rows & BIT(i)) != 0 && journal_number[i] > at -> at = journal_number[i]
		:: else
		fi
	}
	i = 0
#else
	at = position[source]
#endif
}

inline lock() {
#ifndef APPLY_WITHOUT_LOCK
	fence_shared[TARGET]++;
#endif
#if BACKFILLS
	if
	:: TARGET == NEW -> carriers++
	:: else
	fi
#else
	skip
#endif
}

inline unlock() {
#ifndef APPLY_WITHOUT_LOCK
	fence_shared[TARGET]--;
#endif
#if BACKFILLS
	if
	:: TARGET == NEW -> carriers--
	:: else
	fi;
	if
	:: shares_range -> range_shared[key]--; shares_range = false
	:: else
	fi
#else
	skip
#endif
}

inline apply() {
	if
	:: GUARD_MOVES ->
		hold_I2_and_I3(state, version[CELL(TARGET, key)]);
		version[CELL(TARGET, key)] = state;
		guard_epoch[CELL(TARGET, key)] = believed;
		guard_position[CELL(TARGET, key)] = at;
#ifdef NO_TOMBSTONE
		if
		:: !IS_ROW(state) -> guard_epoch[CELL(TARGET, key)] = 0; guard_position[CELL(TARGET, key)] = 0
		:: else
		fi
#endif
	:: else
	fi
}

inline end_rows() {
	if
	:: (journal[CELL(source, key)] & rows) != 0 -> position[source]++
	:: else
	fi;
#ifdef END_ALL_ROWS
	journal[CELL(source, key)] = 0
#else
	journal[CELL(source, key)] = journal[CELL(source, key)] & ~rows
#endif
}

inline forget() {
	believed = 0;
	source = LEGACY;
	key = 0;
	rows = 0;
	state = 0;
	at = 0
}

inline crash_or_go_on() {
	if
	:: skip
	:: forget(); DIE
	fi
}

proctype Relay()
{
	byte believed;
	bool source;
	byte key;
	byte rows;
	byte state;
	byte at;                /* the position of the snapshot that read `state` */
#if BACKFILLS
	bool shares_range;
#endif
#ifdef NUMBER_AS_POSITION
	byte i;
#endif

end_idle:
	if
	:: atomic { journal[CELL(phase_side, 0)] != 0 -> begin_pass(0) }
#if KEYS > 1
	:: atomic { journal[CELL(phase_side, 1)] != 0 -> begin_pass(1) }
#endif
	fi;
	atomic { read_state() };
#ifdef READ_BEFORE_CLAIM
	atomic { rows = journal[CELL(source, key)] };
#endif
#ifdef END_BEFORE_APPLY
	atomic { end_rows(); crash_or_go_on() };
#endif

	/* The target's fence lock and carry lock in share mode; the mark in a later statement. */
	atomic {
		if
		:: MAY_CARRY -> lock()
		:: else -> goto end_refused
		fi
	};

#if BACKFILLS
look:
	/* One statement: what it sees is as new as the locks. */
	atomic {
#ifndef NO_HELD_RANGE
		if
		:: TARGET == NEW && range[key] == LISTED && !shares_range -> goto wait_for_range
		:: else
		fi;
#endif
		if
		:: !MAY_CARRY -> unlock(); goto end_refused
		:: else
		fi;
#ifndef NO_FLOOR
		if
		:: TARGET == NEW && IS_NEWER(floor_epoch, floor_position, believed, at) -> goto below_floor
		:: else
		fi
#endif
	};
#endif

	/* The guard, the row and the commit. Of two, the later one waits for the guard's row and sees what the first has left. */
	atomic { apply(); unlock(); crash_or_go_on() };
#ifndef END_BEFORE_APPLY
	atomic { end_rows() };
#endif
	atomic { forget(); goto end_idle };

#if BACKFILLS
#ifndef NO_HELD_RANGE
wait_for_range:
	/* Until nobody copies it; and shares it, so that nobody begins to before this has committed. */
	atomic {
		!range_held[key] ->
		if
		:: range[key] == LISTED -> range_shared[key]++; shares_range = true
		:: else
		fi;
		goto look
	};
#endif
#ifndef NO_FLOOR
below_floor:
#ifdef FLOOR_SKIPS
	atomic { unlock(); end_rows(); forget(); goto end_idle };
#else
	/* Reads again in the same transaction: what that holds keeps the next chunk of the key from getting in between. */
	atomic { read_state(); goto look };
#endif
#endif
#endif

#ifdef RUNS_END
progress_dies:
	goto end_idle;
#endif

end_refused:
	/* The journal stays as it was; what this relay goes by is out of date, or will be soon. */
	atomic { believed != phase_epoch -> forget(); goto end_idle }
}
