/* What the databases hold. A side is one server; nothing here is shared between the two except what a process carries. */

#define LEGACY 0
#define NEW 1
#define OTHER(side) (1 - (side))
#define CELL(side, key) ((side) * KEYS + (key))
#define BIT(number) (1 << (number))

/* The mark, and who holds the fence lock in share mode: units, applies and copies. Whoever takes it alone does so when nobody
   shares it, and all that he does until he lets go is one step: nobody whom the lock concerns could come in between. */
bool open[2];
byte mark_epoch[2];
byte fence_shared[2];

#define FENCE_FREE(side) (fence_shared[side] == 0)

/* The rows. The state of a key is the number of the write that made it; 0: nothing was ever there. A write may be a
   deletion: then the state is that there is no row. So "older" and "newer" can be asked of states, which no database can. */
#define HISTORY 1
byte version[2 * KEYS];
byte deletions;             /* a bit for each write that deleted */
byte writes = (BACKFILLS > 0 -> HISTORY : 0);

#define IS_ROW(number) ((number) != 0 && (deletions & BIT(number)) == 0)

/* The last write of each key that a caller was told had succeeded. */
byte accepted[KEYS];

/* The journal: a bit for each write whose row is open. The position: rises with whatever commits on a side. */
byte journal[2 * KEYS];
byte position[2];
#ifdef NUMBER_AS_POSITION
byte journal_number[UNITS + 1];
#endif

/* The guards, at the side that is written second; that of a deleted key is its tombstone. */
byte guard_epoch[2 * KEYS];
byte guard_position[2 * KEYS];

#define IS_NEWER(epoch, at, than_epoch, than_at) \
	((epoch) > (than_epoch) || ((epoch) == (than_epoch) && (at) > (than_at)))

/* Capture, and the token that changes when it was away; `opened_with`: the token when a side was opened. */
bool capturing[2];
byte capture_token[2];
byte opened_with[2];

/* The phase row: on the new side, read by everybody sooner or later. */
byte phase_epoch = 1;
bool phase_side = LEGACY;
byte intent;                /* the epoch that a change under way leads to; 0: none */
bool intent_side;           /* the side that it opens */
byte changes_left = CHANGES;

/* A backfill's progress, on the new side. `range` is one row of backfill_chunk. */
#define NOT_YET 0
#define LISTED 1
#define COPIED 2
byte round_number;
byte rounds_left = ROUNDS;
byte round_token;
bool round_complete;
byte range[KEYS];
bool range_held[KEYS];
byte range_shared[KEYS];
byte carriers;              /* applies to the new side under way: the carry lock in share mode */
byte floor_epoch;
byte floor_position;

/* The other side holds, or the journal says that it lacks, all that this one holds. */
#ifdef GAP_NOT_VOIDING
#define WHOLE(side) (capturing[side] && (opened_with[side] != 0 || round_complete))
#else
#define WHOLE(side) (capturing[side] && \
	(opened_with[side] == capture_token[side] || \
	((side) == LEGACY && round_complete && round_token == capture_token[LEGACY])))
#endif

/* Properties. An assertion by name, so that the checker says which. Hidden: no part of the state. */
hidden byte I1_authority_has_all_accepted;
hidden byte I1_secondary_has_all_in_the_end;
hidden byte I2_no_deleted_row_is_back;
hidden byte I3_never_older;
hidden byte I4_one_side_accepts;
hidden byte I6_nothing_lost_when_opened;
hidden byte I7_all_came_to_an_end;

/* A carry or a copy puts `state` where `there` was. */
inline hold_I2_and_I3(state, there) {
	I2_no_deleted_row_is_back = !(state < there && IS_ROW(state) && !IS_ROW(there));
	assert(I2_no_deleted_row_is_back);
	I3_never_older = state >= there;
	assert(I3_never_older)
}

/* A process dies, and another one begins in its place. Where it is asked whether every run ends, deaths are what the search for
   endless runs looks away from: it finds those that would not end with any number of them. */
#ifdef RUNS_END
#define DIE goto progress_dies
#else
#define DIE goto end_idle
#endif
