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
    request_id  text DEFAULT nullif(current_setting('tandem.unit', true), ''),
    attempts    integer NOT NULL DEFAULT 0,
    waits       integer NOT NULL DEFAULT 0,
    wait_until  timestamptz,
    last_error  text
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 50000,
        autovacuum_analyze_scale_factor = 0.5);
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

-- Whether this side takes the engine's own writes (open) or carries (closed). Epochs only rise.
CREATE TABLE IF NOT EXISTS {schema}.mark (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    state    text NOT NULL CHECK (state IN ('open', 'closed')),
    epoch    bigint NOT NULL
);

-- Keys of this side that could not be carried, until somebody decides.
CREATE TABLE IF NOT EXISTS {schema}.failure (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    entity          text NOT NULL,
    key             text COLLATE "C" NOT NULL,
    direction       text NOT NULL,
    state           text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'closed')),
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

-- What was installed on this side, so that a service can tell that it is the one it was built for.
CREATE TABLE IF NOT EXISTS {schema}.installation (
    only_row     boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    fingerprint  text NOT NULL,
    installed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
