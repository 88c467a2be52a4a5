-- What Tandem keeps inside a side, one schema per service. {schema} is tandem_<service>. May be run again.
CREATE SCHEMA IF NOT EXISTS {schema};

-- Keys changed here and not yet carried over. Rows that wait are written anew, so that they never stand in the way of
-- the oldest fresh ones.
CREATE TABLE IF NOT EXISTS {schema}.journal (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    entity      text NOT NULL,
    key         text COLLATE "C" NOT NULL,
    captured_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    xid         xid8 NOT NULL DEFAULT pg_current_xact_id(),
    request_id  text DEFAULT nullif(substr(current_setting('tandem.unit', true), strpos(current_setting('tandem.unit', true), ':') + 1), ''),
    attempts    integer NOT NULL DEFAULT 0,
    waits       integer NOT NULL DEFAULT 0,
    wait_until  timestamptz,
    last_error  text
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 50000,
        autovacuum_analyze_scale_factor = 0.5);
-- Of rows that were folded into one, when the last of these changes was captured.
ALTER TABLE {schema}.journal ADD COLUMN IF NOT EXISTS changed_at timestamptz;
CREATE INDEX IF NOT EXISTS journal_waiting ON {schema}.journal (captured_at) WHERE wait_until IS NOT NULL;

-- Per key, the position of the state that was last carried to here. The guard of a deleted key is its tombstone.
CREATE TABLE IF NOT EXISTS {schema}.guard (
    entity text NOT NULL,
    key    text COLLATE "C" NOT NULL,
    epoch  bigint NOT NULL,
    major  bigint NOT NULL,
    minor  bigint NOT NULL,
    PRIMARY KEY (entity, key)
) WITH (fillfactor = 80);
-- Finds the keys carried since a position. BRIN, since a b-tree would have every carry write to it.
CREATE INDEX IF NOT EXISTS guard_position ON {schema}.guard USING brin (epoch, major)
    WITH (pages_per_range = 1, autosummarize = on);

-- Per entity, the position of the latest chunk that a backfill has copied to here: the guard of all keys at once. A carry
-- that read its state before that reads it again.
CREATE TABLE IF NOT EXISTS {schema}.guard_floor (
    entity text PRIMARY KEY,
    epoch  bigint NOT NULL,
    major  bigint NOT NULL,
    minor  bigint NOT NULL
);

-- Ranges of keys handed out to be copied to here. Whoever copies one holds its row, and carries of its keys wait for that.
CREATE TABLE IF NOT EXISTS {schema}.backfill_chunk (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    entity text NOT NULL,
    lower  text,
    upper  text,
    locked_whole boolean NOT NULL
);

-- How far a backfill of each entity to here has come.
CREATE TABLE IF NOT EXISTS {schema}.backfill (
    entity        text PRIMARY KEY,
    direction     text NOT NULL,
    epoch         bigint NOT NULL,
    capture       text NOT NULL,
    stage         text NOT NULL CHECK (stage IN ('copy', 'remove', 'complete')),
    frontier      text,
    exhausted     boolean NOT NULL DEFAULT false,
    chunk_rows    integer NOT NULL,
    rows_expected bigint NOT NULL,
    rows_copied   bigint NOT NULL DEFAULT 0,
    keys_removed  bigint NOT NULL DEFAULT 0,
    keys_failed   bigint NOT NULL DEFAULT 0,
    keys_waiting  bigint NOT NULL DEFAULT 0,
    started_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at   timestamptz
);

-- What a backfill to here is told while it runs, and what it says of itself.
CREATE TABLE IF NOT EXISTS {schema}.backfill_control (
    only_row     boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    paused       boolean NOT NULL DEFAULT false,
    limits       jsonb NOT NULL DEFAULT '{}',
    held_by      text,
    rows_per_second double precision,
    heartbeat_at timestamptz,
    changed_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_by   text NOT NULL
);

-- Whether this side takes the engine's own writes (open) or carries (closed). Epochs only rise.
CREATE TABLE IF NOT EXISTS {schema}.mark (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    state    text NOT NULL CHECK (state IN ('open', 'closed')),
    epoch    bigint NOT NULL,
    foreign_writes text NOT NULL DEFAULT 'report' CHECK (foreign_writes IN ('report', 'reject'))
);
ALTER TABLE {schema}.mark ADD COLUMN IF NOT EXISTS foreign_writes text NOT NULL DEFAULT 'report'
    CHECK (foreign_writes IN ('report', 'reject'));
-- The number of the last change of the phase that switched capture on or off here: an older one comes too late.
ALTER TABLE {schema}.mark ADD COLUMN IF NOT EXISTS capture_change bigint NOT NULL DEFAULT 0;
-- Whether changes here have to be journalled: where no trigger does, a unit that does not is refused.
ALTER TABLE {schema}.mark ADD COLUMN IF NOT EXISTS captures boolean NOT NULL DEFAULT false;
-- Capture as it was when this side was opened, and the database and timeline that it was opened in.
ALTER TABLE {schema}.mark ADD COLUMN IF NOT EXISTS capture_token text NOT NULL DEFAULT '';
ALTER TABLE {schema}.mark ADD COLUMN IF NOT EXISTS identity text NOT NULL DEFAULT '';

-- What foreign programs wrote to this side while it was closed, in the transaction of their write, until it is settled: the
-- row before and after. Of keys that were FAILED when this side was closed (operation "failed"), the rows by table that the
-- other side held (before) and this one (after).
CREATE TABLE IF NOT EXISTS {schema}.conflict (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    entity       text NOT NULL,
    key          text COLLATE "C" NOT NULL,
    side         text NOT NULL,
    operation    text NOT NULL,
    source_table text NOT NULL,
    before       json,
    after        json,
    written_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    written_by   text NOT NULL DEFAULT session_user,
    application  text DEFAULT current_setting('application_name', true),
    state        text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'settled')),
    detail       text,
    kept         text,
    settled_by   text,
    settled_at   timestamptz
);
CREATE INDEX IF NOT EXISTS conflict_open ON {schema}.conflict (id) WHERE state = 'open';

-- Keys that were written on this side alone while it was secondary and the other one was away, with what it held of them
-- before: until the other side answers and they are settled. Their guards are parked.
CREATE TABLE IF NOT EXISTS {schema}.stranded (
    entity      text NOT NULL,
    key         text COLLATE "C" NOT NULL,
    before      text NOT NULL,
    stranded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    request_id  text,
    PRIMARY KEY (entity, key)
);

-- Foreign writes of the other side that were written here, or taken back here, to settle them: in the transaction that did
-- so. A crash before the conflict itself was closed does not make it happen twice.
CREATE TABLE IF NOT EXISTS {schema}.settlement (
    side        text NOT NULL,
    conflict_id bigint NOT NULL,
    conflict_at timestamptz NOT NULL,
    kept        text NOT NULL,
    settled_by  text NOT NULL,
    settled_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (side, conflict_id, conflict_at, kept)
);

-- Keys of this side that could not be carried, until somebody decides. The position is that of the state that was refused:
-- only a carry of something as new closes it.
CREATE TABLE IF NOT EXISTS {schema}.failure (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    entity          text NOT NULL,
    key             text COLLATE "C" NOT NULL,
    direction       text NOT NULL,
    state           text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'closed')),
    epoch           bigint NOT NULL DEFAULT 0,
    major           bigint NOT NULL DEFAULT 0,
    minor           bigint NOT NULL DEFAULT 0,
    attempts        integer NOT NULL,
    reason          text NOT NULL,
    sqlstate        text,
    request_id      text,
    captured_at     timestamptz NOT NULL,
    first_failed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_failed_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    closed_at       timestamptz,
    closed_by       text
);
CREATE UNIQUE INDEX IF NOT EXISTS failure_open ON {schema}.failure (entity, key) WHERE state = 'open';

-- The phase row and the settings changed at run time. It is read on the new side only.
CREATE TABLE IF NOT EXISTS {schema}.control (
    only_row   boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    phase      text NOT NULL,
    epoch      bigint NOT NULL,
    settings   jsonb NOT NULL DEFAULT '{}',
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_by text NOT NULL,
    reason     text NOT NULL
);

ALTER TABLE {schema}.control ADD COLUMN IF NOT EXISTS version bigint NOT NULL DEFAULT 1;
ALTER TABLE {schema}.control ADD COLUMN IF NOT EXISTS authority_epoch bigint NOT NULL DEFAULT 1;
ALTER TABLE {schema}.control ADD COLUMN IF NOT EXISTS phase_version bigint NOT NULL DEFAULT 1;
ALTER TABLE {schema}.control ADD COLUMN IF NOT EXISTS intent jsonb;

-- Every change of the phase row, for whoever asks why.
CREATE TABLE IF NOT EXISTS {schema}.phase_change (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    from_phase text NOT NULL,
    to_phase   text NOT NULL,
    epoch      bigint NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_by text NOT NULL,
    reason     text NOT NULL,
    forced     text[] NOT NULL DEFAULT '{}',
    outcome    text NOT NULL DEFAULT 'done' CHECK (outcome IN ('done', 'given_up')),
    stall_ms   double precision
);

-- Processes of the service: what they go by, and when they were last heard of.
CREATE TABLE IF NOT EXISTS {schema}.replica (
    id         text PRIMARY KEY,
    host       text NOT NULL,
    pid        integer NOT NULL,
    version    bigint NOT NULL,
    epoch      bigint NOT NULL,
    phase      text NOT NULL,
    relay      boolean NOT NULL,
    highest_lag_seconds double precision NOT NULL DEFAULT 0,
    measured_seconds double precision NOT NULL DEFAULT 0,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Reads that were also asked of the other side, by minute and by the version of the phase row that they went by.
CREATE TABLE IF NOT EXISTS {schema}.shadow_read (
    phase_version bigint NOT NULL,
    minute        timestamptz NOT NULL,
    compared      bigint NOT NULL,
    mismatches    bigint NOT NULL,
    failed        bigint NOT NULL,
    PRIMARY KEY (phase_version, minute)
);

-- What was installed on this side, so that a service can tell that it is the one it was built for.
CREATE TABLE IF NOT EXISTS {schema}.installation (
    only_row     boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    fingerprint  text NOT NULL,
    installed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Comparisons of both sides. Kept on the new side, whichever is authoritative. A run that is under way gives a sign of life
-- in heartbeat_at; whoever takes up one that was interrupted gives it another token, and the former holder writes no more.
CREATE TABLE IF NOT EXISTS {schema}.validation_run (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind         text NOT NULL CHECK (kind IN ('full', 'changed', 'sample')),
    share        double precision NOT NULL DEFAULT 1,
    seed         bigint NOT NULL DEFAULT 0,
    entities     text[] NOT NULL DEFAULT '{}',
    state        text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'interrupted', 'finished', 'given_up')),
    verdict      text,
    direction    text NOT NULL,
    epoch        bigint NOT NULL,
    capture      text NOT NULL,
    background   boolean NOT NULL DEFAULT false,
    run_by       text NOT NULL,
    token        text NOT NULL DEFAULT '',
    times_resumed integer NOT NULL DEFAULT 0,
    started_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    heartbeat_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at  timestamptz
);

-- One entity of a run: the source's position when it began, how far it has come, and what was found. waiting holds keys
-- that were on their way when last seen; past its bound, or that of kept mismatches, nobody may build on this.
CREATE TABLE IF NOT EXISTS {schema}.validation_entity (
    run_id      bigint NOT NULL REFERENCES {schema}.validation_run ON DELETE CASCADE,
    entity      text NOT NULL,
    scope       text NOT NULL DEFAULT 'full' CHECK (scope IN ('full', 'changed', 'sample')),
    mapping     text NOT NULL DEFAULT '',
    major       bigint NOT NULL,
    minor       bigint NOT NULL,
    resume_at   text,
    exhausted   boolean NOT NULL DEFAULT false,
    waiting     text[] NOT NULL DEFAULT '{}',
    overflowed  boolean NOT NULL DEFAULT false,
    counts      jsonb NOT NULL DEFAULT '{}',
    verdict     text,
    seconds     double precision NOT NULL DEFAULT 0,
    finished_at timestamptz,
    PRIMARY KEY (run_id, entity)
);
CREATE INDEX IF NOT EXISTS validation_entity_latest ON {schema}.validation_entity (entity, run_id)
    WHERE scope = 'full' AND finished_at IS NOT NULL;

-- Keys that differ, or did: open until a later run finds them equal, or a repair makes them so.
CREATE TABLE IF NOT EXISTS {schema}.mismatch (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    entity     text NOT NULL,
    key        text COLLATE "C" NOT NULL,
    kind       text NOT NULL,
    fields     text[] NOT NULL DEFAULT '{}',
    state      text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'gone', 'repaired')),
    first_run  bigint NOT NULL,
    last_run   bigint NOT NULL,
    ended_run  bigint,
    first_seen timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_seen  timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at   timestamptz
);
CREATE UNIQUE INDEX IF NOT EXISTS mismatch_open ON {schema}.mismatch (entity, key) WHERE state = 'open';
CREATE INDEX IF NOT EXISTS mismatch_ended ON {schema}.mismatch (ended_run) WHERE ended_run IS NOT NULL;

-- Who repaired which key, from which side and why. Written before it is tried: "begun" is one whose end was not seen.
-- Values are not kept.
CREATE TABLE IF NOT EXISTS {schema}.repair (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    entity      text NOT NULL,
    key         text COLLATE "C" NOT NULL,
    from_side   text NOT NULL,
    outcome     text NOT NULL,
    detail      text,
    fields      text[] NOT NULL DEFAULT '{}',
    repaired_by text NOT NULL,
    reason      text NOT NULL,
    repaired_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz
);
