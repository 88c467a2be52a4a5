/* A backfill from legacy to new, one key a range. Progress is kept at the target, so whoever comes next takes up what a crash
   has left; two may work side by side. */

#ifdef BACKFILL_UNFENCED
#define MAY_COPY true
#else
#define MAY_COPY (!open[NEW] && mark_epoch[NEW] == believed)
#endif

#if KEYS > 1
#define ALL_COPIED (range[0] == COPIED && range[1] == COPIED)
#define ANY_HELD (range_held[0] || range_held[1])
#else
#define ALL_COPIED (range[0] == COPIED)
#define ANY_HELD (range_held[0])
#endif

/* A round under the present capture that has not come to its end. */
#define IS_LEFT(present_token) (round_number > 0 && !round_complete && round_token == (present_token))

inline leave_range() {
	range_held[key] = false;
	fence_shared[NEW]--
}

inline forget_round() {
	believed = 0;
	key = 0;
	state = 0;
	at = 0;
	token = 0;
	number = 0
}

inline stop_here() {
	forget_round();
	goto end_idle
}

inline read_source() {
	state = version[CELL(LEGACY, key)];
	at = position[LEGACY]
}

inline copy() {
	hold_I2_and_I3(state, version[CELL(NEW, key)]);
	version[CELL(NEW, key)] = state;
	if
	:: IS_NEWER(believed, at, floor_epoch, floor_position) -> floor_epoch = believed; floor_position = at
	:: else
	fi;
	range[key] = COPIED
}

proctype Backfill()
{
	byte believed;
	byte number;            /* of the round that it works on */
	byte token;
	byte key;
	byte state;
	byte at;
	byte i;

end_idle:
	atomic {
		capturing[LEGACY] && phase_side == LEGACY && (rounds_left > 0 || IS_LEFT(capture_token[LEGACY])) ->
		believed = phase_epoch;
		token = capture_token[LEGACY]
	};

	/* Takes up what is left of a round, or begins one: when capture has had a gap since, or to do it all again. */
	atomic {
		if
		:: IS_LEFT(token) -> number = round_number
		:: !IS_LEFT(token) && rounds_left > 0 && !ANY_HELD ->
			rounds_left--;
			round_number++;
			round_token = token;
			round_complete = false;
			for (i : 0 .. KEYS - 1) { range[i] = NOT_YET }
			i = 0;
			number = round_number
		:: !IS_LEFT(token) && rounds_left == 0 -> stop_here()
		fi
	};

next_range:
	atomic {
		if
		:: number != round_number -> stop_here()
		:: number == round_number && ALL_COPIED -> goto finish
		:: number == round_number && range[0] != COPIED && !range_held[0] -> key = 0; range[0] = LISTED
#if KEYS > 1
		:: number == round_number && range[1] != COPIED && !range_held[1] -> key = 1; range[1] = LISTED
#endif
		fi
	};

#ifndef NO_CARRY_BARRIER
	/* The range is committed: carries that begin now see it. Those that began before have to end. */
	atomic { carriers == 0 };
#endif

#ifdef SNAPSHOT_BEFORE_HOLD
	atomic { read_source() };
#endif
	atomic {
		!range_held[key] && (number != round_number || range_shared[key] == 0) ->
		if
		:: number != round_number || range[key] != LISTED -> key = 0; goto next_range
		:: else ->
			if
			:: MAY_COPY -> range_held[key] = true; fence_shared[NEW]++
			:: else -> goto end_fenced
			fi
		fi
	};
#ifndef SNAPSHOT_BEFORE_HOLD
	atomic { read_source() };
#endif
	atomic {
		if
		:: copy(); leave_range(); key = 0; state = 0; at = 0; goto next_range
		:: leave_range(); forget_round(); DIE       /* nothing is copied; the range is there for whoever comes next */
		fi
	};

finish:
	atomic {
		if
		:: number == round_number -> round_complete = true
		:: else
		fi;
		stop_here()
	};

#ifdef RUNS_END
progress_dies:
	goto end_idle;
#endif

end_fenced:
	atomic { believed != phase_epoch -> stop_here() }
}
