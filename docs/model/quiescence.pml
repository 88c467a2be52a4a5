/* The end, when nobody has anything left to do. What holds here holds whatever crashed on the way. */

#define SAME(key) (version[CELL(LEGACY, key)] == version[CELL(NEW, key)])

/* Not properties: ends that have to be found, or the rest would hold for want of anything happening. */
hidden byte never_there_and_back;
hidden byte never_moved_after_a_second_round;
hidden byte never_given_up;

proctype Quiescence()
{
	byte i;

	timeout ->
	atomic {
		I7_all_came_to_an_end = writes == UNITS + (BACKFILLS > 0 -> HISTORY : 0) && intent == 0 &&
			open[phase_side] && mark_epoch[LEGACY] == phase_epoch && mark_epoch[NEW] == phase_epoch &&
			FENCE_FREE(LEGACY) && FENCE_FREE(NEW) && DRAINED(phase_side);
		assert(I7_all_came_to_an_end);
		I4_one_side_accepts = !open[OTHER(phase_side)];
		assert(I4_one_side_accepts);
		for (i : 0 .. KEYS - 1) {
			I1_authority_has_all_accepted = version[CELL(phase_side, i)] == accepted[i];
			assert(I1_authority_has_all_accepted);
			if
			:: WHOLE(phase_side) ->
				I2_no_deleted_row_is_back =
					SAME(i) || IS_ROW(accepted[i]) || !IS_ROW(version[CELL(OTHER(phase_side), i)]);
				assert(I2_no_deleted_row_is_back);
				I1_secondary_has_all_in_the_end = SAME(i);
				assert(I1_secondary_has_all_in_the_end)
			:: else
			fi
		}
#ifdef WITNESS_THERE_AND_BACK
		never_there_and_back = !(opened_with[NEW] != 0 && phase_side == LEGACY);
		assert(never_there_and_back)
#endif
#ifdef WITNESS_SECOND_ROUND
		never_moved_after_a_second_round = !(opened_with[NEW] != 0 && round_number == 2 && round_token == 2);
		assert(never_moved_after_a_second_round)
#endif
#ifdef WITNESS_GIVEN_UP
		never_given_up = !(phase_epoch > 1 && opened_with[NEW] == 0);
		assert(never_given_up)
#endif
	}
}
