/* A controller: moves the authority, and brings to its end what another has begun. Any number may run, and any may sleep
   between two steps for so long that the phase has gone on twice. What a crash leaves is an intent, which whoever comes next
   takes up: it makes no difference who. The mark of the closing side decides: closed in the new epoch, and there is no way but
   forward; still open in it, and the change is given up for good. */

#define CLOSING OTHER(opening)

#ifdef EPOCH_NOT_CHECKED
#define IS_EARLIER(side) true
#else
#define IS_EARLIER(side) (mark_epoch[side] < goal)
#endif

#if KEYS > 1
#define DRAINED(side) (journal[CELL(side, 0)] == 0 && journal[CELL(side, 1)] == 0)
#else
#define DRAINED(side) (journal[CELL(side, 0)] == 0)
#endif

#ifdef CLOSE_WITHOUT_LOCK
#define CLOSING_IS_FREE true
#else
#define CLOSING_IS_FREE FENCE_FREE(CLOSING)
#endif
#ifdef OPEN_WITHOUT_LOCK
#define MAY_OPEN true
#else
#define MAY_OPEN FENCE_FREE(opening)
#endif
#if defined(NO_DRAIN_CHECK) || defined(DRAIN_BEFORE_LOCK)
#define CLOSING_IS_DRAINED true
#else
#define CLOSING_IS_DRAINED DRAINED(CLOSING)
#endif
#ifdef GATE_BEFORE_LOCK
#define CLOSING_IS_WHOLE true
#else
#define CLOSING_IS_WHOLE WHOLE(CLOSING)
#endif
#define MAY_CLOSE (CLOSING_IS_FREE && CLOSING_IS_DRAINED && (CLOSING_IS_WHOLE || !open[CLOSING]))
#ifdef RAISED_WITHOUT_LOCK
#define MAY_RAISE true
#else
#define MAY_RAISE FENCE_FREE(opening)
#endif
#ifdef WITHDRAWN_BEFORE_MARK
#define EPOCH_AFTER_GIVING_UP phase_epoch
#else
#define EPOCH_AFTER_GIVING_UP goal
#endif

inline take_up() {
	goal = intent;
	opening = intent_side
}

inline begin_anew() {
	goal = 0;
	opening = false;
	goto end_idle
}

/* What a mark says can be said of it as long as no other epoch has come. */
inline read_decision() {
	if
	:: mark_epoch[CLOSING] < goal
	:: mark_epoch[CLOSING] > goal -> begin_anew()
	:: mark_epoch[CLOSING] == goal && open[CLOSING] -> goto give_up
	:: mark_epoch[CLOSING] == goal && !open[CLOSING] -> goto forward
	fi
}

/* In one transaction, with the lock alone: the look at the journal and at capture, and the change of the mark. Meanwhile
   nobody writes, so to have the lock when the last row is carried, or to get it only then, is the same. */
inline close_side() {
	if
	:: IS_EARLIER(CLOSING) && open[CLOSING] -> open[CLOSING] = false; mark_epoch[CLOSING] = goal
	:: else -> begin_anew()
	fi
}

inline open_side() {
	if
	:: IS_EARLIER(opening) && !open[opening] ->
		open[opening] = true;
		mark_epoch[opening] = goal;
		opened_with[opening] = capture_token[opening];
		I4_one_side_accepts = !open[CLOSING];
		assert(I4_one_side_accepts);
		for (i : 0 .. KEYS - 1) {
			I6_nothing_lost_when_opened = version[CELL(opening, i)] == accepted[i];
			assert(I6_nothing_lost_when_opened)
		}
		i = 0
	:: else
	fi
}

proctype Controller()
{
	byte goal;              /* the epoch that it works towards */
	bool opening;
	byte i;

end_idle:
	if
	:: atomic { intent != 0 -> take_up(); read_decision() }
	:: atomic {
		intent == 0 && changes_left > 0 && WHOLE(phase_side) ->
		changes_left--;
		intent = phase_epoch + 1;
		intent_side = OTHER(phase_side);
		take_up()
	}
	fi;

#ifdef OPEN_BEFORE_CLOSE
	atomic { FENCE_FREE(opening) -> open_side() };
#endif
#ifdef DRAIN_BEFORE_LOCK
	if
	:: DRAINED(CLOSING)
	:: goto give_up
	fi;
#endif

	if
	:: atomic { MAY_CLOSE -> close_side() }
	:: goto give_up     /* the lock was not to be had in time, or the journal would not drain, or capture has had a gap */
	fi;

forward:
	atomic { MAY_OPEN -> open_side() };
	atomic {
		if
		:: open[opening] && mark_epoch[opening] == goal && intent == goal ->
			phase_epoch = goal;
			phase_side = opening;
			intent = 0
		:: else     /* somebody has done it, or has gone on since */
		fi;
		begin_anew()
	};

give_up:
#ifndef WITHDRAWN_BEFORE_MARK
	/* The mark's row alone, without the fence lock: who may write stays as it was. */
	atomic {
		if
		:: mark_epoch[CLOSING] < goal && open[CLOSING] -> mark_epoch[CLOSING] = goal
		:: mark_epoch[CLOSING] == goal && !open[CLOSING] -> goto forward      /* too late: another one has closed it */
		:: mark_epoch[CLOSING] > goal -> begin_anew()
		:: else
		fi
	};
	/* With the lock alone: an apply or a copy under way would put an old epoch beside a position newer than this. */
	atomic {
		MAY_RAISE ->
		if
		:: mark_epoch[opening] < goal && !open[opening] -> mark_epoch[opening] = goal
		:: else
		fi
	};
#endif
	atomic {
		if
		:: intent == goal -> intent = 0; phase_epoch = EPOCH_AFTER_GIVING_UP
		:: else
		fi;
		begin_anew()
	}
}
