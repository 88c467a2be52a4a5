/* A replica of the service: runs units of work. It may believe either side authoritative, at any time, however long ago it has
   heard of the phase: only the fence keeps it from a side. A unit that is refused, or dies before its commit, leaves nothing
   behind and is run again: so neither is a step here, and a unit that is never accepted is left over at the end. */

byte units_left = UNITS;

inline enter_fence(believed_side) {
	units_left--;
	side = believed_side;
	captured = capturing[side];
	fence_shared[side]++
}

/* One transaction: the row, its journal row, the lock let go. The caller is told that it has succeeded. */
inline commit() {
	I4_one_side_accepts = open[side] && !open[OTHER(side)];
	assert(I4_one_side_accepts);
	I1_authority_has_all_accepted = version[CELL(side, key)] == accepted[key];
	assert(I1_authority_has_all_accepted);
	writes++;
	if
	:: IS_ROW(version[CELL(side, key)]) -> deletions = deletions | BIT(writes)
	:: skip
	fi;
	version[CELL(side, key)] = writes;
	accepted[key] = writes;
#ifdef NUMBER_AS_POSITION
	journal_number[writes] = number;
#else
	position[side]++;
#endif
#ifdef CAPTURE_NOT_ATOMIC
	number = writes;
#else
	journal_it(writes);
#endif
	fence_shared[side]--
}

inline journal_it(write) {
	if
	:: captured -> journal[CELL(side, key)] = journal[CELL(side, key)] | BIT(write)
	:: else
	fi
}

inline end_unit() {
	side = LEGACY;
	captured = false;
	key = 0;
#if defined(NUMBER_AS_POSITION) || defined(CAPTURE_NOT_ATOMIC)
	number = 0;
#endif
	goto end_idle
}

proctype Replica()
{
	bool side;
	bool captured;
	byte key;
#if defined(NUMBER_AS_POSITION) || defined(CAPTURE_NOT_ATOMIC)
	byte number;
#endif

end_idle:
#if defined(NO_FENCE)
	if
	:: atomic { units_left > 0 -> enter_fence(LEGACY) }
	:: atomic { units_left > 0 -> enter_fence(NEW) }
	fi;
#elif defined(MARK_BEFORE_LOCK)
	/* Both in one statement, or above READ COMMITTED: the mark is read in a snapshot that is older than the lock. */
	if
	:: atomic { units_left > 0 && open[LEGACY] -> side = LEGACY }
	:: atomic { units_left > 0 && open[NEW] -> side = NEW }
	fi;
	atomic {
		if
		:: units_left > 0 -> enter_fence(side)
		:: else -> end_unit()
		fi
	};
#else
	/* The lock in share mode, then the mark in a second statement. One step: the lock keeps the mark from being closed. */
	if
	:: atomic { units_left > 0 && open[LEGACY] -> enter_fence(LEGACY) }
	:: atomic { units_left > 0 && open[NEW] -> enter_fence(NEW) }
	fi;
#endif
#ifdef NUMBER_AS_POSITION
	/* A sequence gives out journal numbers when rows are written, and not when they are committed. */
	atomic { position[side]++; number = position[side] };
#endif
	atomic {
#if KEYS > 1
		if
		:: key = 0
		:: key = 1
		fi;
#endif
		commit();
#ifndef CAPTURE_NOT_ATOMIC
		end_unit()
#endif
	};
#ifdef CAPTURE_NOT_ATOMIC
	atomic { journal_it(number); end_unit() }
#endif
}
