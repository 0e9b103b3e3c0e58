-- The whole schema. Payloads are bytea: originals are kept whole, and nothing that Postgres would refuse
-- in jsonb can stop a batch. Columns beside them hold what is searched.

-- A running process. Its connections carry the id as application_name, so that whoever takes over
-- from a stopped node can end the backends that still hold its locks.
CREATE TABLE node (
    id         uuid PRIMARY KEY,
    name       text NOT NULL,
    started    timestamptz NOT NULL DEFAULT now(),
    lease_until timestamptz NOT NULL
);

-- Rule sets as text. The current one has the highest revision; a rollback is a new revision.
CREATE TABLE ruleset (
    revision     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest       text NOT NULL,
    origin       text NOT NULL,          -- host:absolute path it was applied from
    folder       text NOT NULL,          -- absolute folder its relative paths start from
    code_version text NOT NULL,
    applied      timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE ruleset_file (
    revision bigint NOT NULL REFERENCES ruleset ON DELETE CASCADE,
    path     text NOT NULL,
    content  bytea NOT NULL,
    PRIMARY KEY (revision, path)
);

-- One row per source partition: owner, position and counters. The compare-and-set on (epoch, version)
-- is the first statement of every batch. `cursor` is JSON. Counters make `audit` able to notice a
-- missing row: taken = events + broken records ever taken in, retired = those that retention removed.
CREATE TABLE source_partition (
    source      text NOT NULL,
    partition   text NOT NULL,
    origin      text,
    cursor      bytea,
    version     bigint NOT NULL DEFAULT 0,
    epoch       bigint NOT NULL DEFAULT 0,
    batch_id    uuid,
    owner       uuid,
    lease_until timestamptz,
    state       text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'running', 'paused', 'stopped')),
    message     text,
    missing     bytea,                   -- JSON: the range that is gone, of one that has stopped at a gap
    since       timestamptz NOT NULL DEFAULT clock_timestamp(),  -- of the state; also of a claim anew
    unread      timestamptz,             -- since when it could not be read; null again with its next batch
    trouble     text CHECK (trouble IN ('stalled', 'silent', 'stopped')),  -- what was last told, see store/health.py
    troubled    timestamptz,
    reason      text,
    taken       bigint NOT NULL DEFAULT 0,
    duplicates  bigint NOT NULL DEFAULT 0,
    retired     bigint NOT NULL DEFAULT 0,
    last_event  timestamptz,
    rate        double precision NOT NULL DEFAULT 0,  -- events per second as of last_event, over about a minute
    gaps        double precision NOT NULL DEFAULT 0,  -- seconds between batches, summed over about a day
    gaps_square double precision NOT NULL DEFAULT 0,  -- the same of their squares: see store/health.py
    learnt      bigint NOT NULL DEFAULT 0,            -- how many of them there were
    PRIMARY KEY (source, partition)
) WITH (fillfactor = 50);

-- What a source's system had when the source was first opened: a partition that is not among them came later.
CREATE TABLE source_beginning (
    source     text PRIMARY KEY,
    partitions text[] NOT NULL,
    at         timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Which sources a person holds back: `since` is null where nobody does. One row per source, which every claim
-- locks shared and every pause for itself, so that a partition which appears meanwhile is paused as well.
CREATE TABLE source_pause (
    source text PRIMARY KEY,
    since  timestamptz
);

-- How far behind its system a partition is, as its owner last measured it. A table of its own, so that
-- measuring never waits for a batch, nor a batch for it.
CREATE TABLE progress (
    source    text NOT NULL,
    partition text NOT NULL,
    lag       bigint,                    -- null: the system does not tell
    unit      text NOT NULL,
    note      text,
    at        timestamptz NOT NULL,
    PRIMARY KEY (source, partition)
);

-- What was passed over when a person let a stopped partition go on elsewhere. `missing`, `before` and
-- `after` are JSON; the positions are cursors.
CREATE TABLE gap (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source    text NOT NULL,
    partition text NOT NULL,
    reason    text,
    missing   bytea NOT NULL,
    before    bytea,
    after     bytea NOT NULL,
    at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    who       text NOT NULL              -- user@host
);

-- The ledger of sources without an order. item_key is a 16-byte digest: names may be longer than an index row.
CREATE TABLE mark (
    source      text NOT NULL,
    item_key    bytea NOT NULL,
    item        bytea NOT NULL,
    fingerprint bytea NOT NULL,
    generation  bigint NOT NULL,
    present     boolean NOT NULL,
    seen        timestamptz NOT NULL,
    PRIMARY KEY (source, item_key)
);

CREATE TABLE dedupe (
    source    text NOT NULL,
    key       bytea NOT NULL,
    event_uid uuid NOT NULL,
    event_id  text NOT NULL,
    expires   timestamptz NOT NULL,
    PRIMARY KEY (source, key)
);
CREATE INDEX dedupe_expires ON dedupe (expires);

-- Events, one partition a day (made ahead by maintenance). `class` is what matching said; an event with
-- a dead letter counts as dead whatever stands here. `attributes` is JSON: the CloudEvents attributes
-- without a column, extensions, meta, lineage.
CREATE TABLE event (
    uid        uuid NOT NULL,
    ingested   timestamptz NOT NULL,
    source     text NOT NULL,
    partition  text NOT NULL,
    id         text NOT NULL,
    type       text NOT NULL,
    subject    text,
    class      "char" NOT NULL CHECK (class IN ('m', 'o', 'l', 'u')),  -- matched, open, late, unmatched
    attributes bytea,
    data       bytea NOT NULL,
    PRIMARY KEY (uid, ingested)
) PARTITION BY RANGE (ingested);
CREATE INDEX event_id_hash ON event (hashtextextended(id, 0));

-- A trigger half met for one key; `due` is the earliest of its deadlines. `trigger` names the compiled
-- trigger (a digest of operator, slots, key and window), so that an edit of anything else keeps the windows.
CREATE TABLE partial_match (
    rule      text NOT NULL,
    trigger   text NOT NULL,
    key_hash  bytea NOT NULL,
    key       bytea NOT NULL,
    seq       bigint NOT NULL DEFAULT 0,
    state     bytea NOT NULL,
    due       timestamptz,
    opened    timestamptz NOT NULL,
    PRIMARY KEY (rule, trigger, key_hash)
) WITH (fillfactor = 70);
CREATE INDEX partial_match_due ON partial_match (due) WHERE due IS NOT NULL;

-- The moment a trigger was satisfied. `events` is null where the firing has the one event `event_uid`.
CREATE TABLE firing (
    id        uuid PRIMARY KEY,
    rule      text NOT NULL,
    revision  bigint NOT NULL,
    state     text NOT NULL CHECK (state IN ('held', 'admitted', 'skipped')),
    event_uid uuid,
    events    uuid[],
    key       bytea,
    seq       bigint,
    reason    text,                      -- why held or skipped
    run_id    uuid,
    replayof  uuid,                      -- the dead letter this firing sends in again
    at        timestamptz NOT NULL
);
CREATE INDEX firing_event ON firing (event_uid);
CREATE INDEX firing_held ON firing (rule, at) WHERE state = 'held';

CREATE TABLE run (
    id        uuid PRIMARY KEY,
    workflow  text NOT NULL,
    revision  bigint NOT NULL,
    rule      text,                      -- null: started by hand
    firing_id uuid,
    event_uid uuid,
    state     text NOT NULL CHECK (state IN ('running', 'succeeded', 'failed', 'cancelled', 'skipped')),
    params    bytea NOT NULL,
    lineage   bytea,
    priority  smallint NOT NULL DEFAULT 0 CHECK (priority BETWEEN 0 AND 9),
    error     text,
    created   timestamptz NOT NULL,
    ended     timestamptz,
    CHECK ((state = 'running') = (ended IS NULL))
) WITH (fillfactor = 80);
CREATE INDEX run_created ON run (created DESC);
CREATE INDEX run_open ON run (id) WHERE state = 'running';

-- Rows are lazy: a run begins with its root tasks, finishing a task inserts what became ready.
-- `attempt` is the fencing token: a result counts only for the attempt that is running.
CREATE TABLE task_run (
    run_id      uuid NOT NULL REFERENCES run ON DELETE CASCADE,
    task        text NOT NULL,
    state       text NOT NULL CHECK (state IN ('ready', 'running', 'succeeded', 'failed', 'cancelled', 'skipped')),
    priority    smallint NOT NULL DEFAULT 0,
    due         timestamptz NOT NULL,    -- not before
    attempt     integer NOT NULL DEFAULT 0,
    failures    integer NOT NULL DEFAULT 0,  -- tries that used up an attempt of `retry`; crashes and hand-backs do not
    crashes     integer NOT NULL DEFAULT 0,
    worker      uuid,
    lease_until timestamptz,
    started     timestamptz,
    ended       timestamptz,
    result      bytea,
    error       text,
    PRIMARY KEY (run_id, task),
    CHECK ((state = 'running') = (lease_until IS NOT NULL))
) WITH (fillfactor = 70);
CREATE INDEX task_run_ready ON task_run (priority DESC, due, run_id) WHERE state = 'ready';
CREATE INDEX task_run_running ON task_run (run_id) WHERE state = 'running';

CREATE TABLE task_log (
    run_id  uuid NOT NULL REFERENCES run ON DELETE CASCADE,
    task    text NOT NULL,
    attempt integer NOT NULL,
    chunk   integer NOT NULL,
    at      timestamptz NOT NULL DEFAULT now(),
    content bytea NOT NULL,
    PRIMARY KEY (run_id, task, attempt, chunk)
);

-- Events of eventflow's own, waiting to be taken in. Claimed with SKIP LOCKED and deleted by the batch
-- that takes them in; never read by a cursor over ids, because commits arrive out of id order.
CREATE TABLE outbox (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event   bytea NOT NULL,
    created timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE dead_letter (
    id         uuid PRIMARY KEY,
    stage      text NOT NULL CHECK (stage IN ('decode', 'match', 'start', 'task', 'run')),
    reason     text NOT NULL,
    state      text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'replayed', 'discarded')),
    source     text,
    partition  text,
    position   bytea,                    -- JSON: where in the source it stood
    event_uid  uuid,                     -- null: the record never became an event
    rule       text,
    firing_id  uuid,
    run_id     uuid,
    task       text,
    raw        bytea NOT NULL,           -- what arrived, byte for byte
    edited     bytea,                    -- what a replay sends in instead, where a person changed it
    attributes bytea,                    -- JSON: the event's other attributes, to send it in again
    attempts   integer NOT NULL DEFAULT 1,
    replays    integer NOT NULL DEFAULT 0,
    created    timestamptz NOT NULL,
    resolved   timestamptz,
    resolution text,                     -- why a person discarded it
    mirrored   timestamptz,              -- when its source wrote a copy of it elsewhere, where it does so
    mirroring  timestamptz               -- until when a node has it in hand to do that
);
CREATE INDEX dead_letter_created ON dead_letter (created DESC);
CREATE INDEX dead_letter_event ON dead_letter (event_uid) WHERE event_uid IS NOT NULL;
CREATE INDEX dead_letter_unmirrored ON dead_letter (source, created, id) WHERE mirrored IS NULL;

-- What rules counted instead of doing: skipped by the loop guard, `where` in error, and the like.
CREATE TABLE rule_counter (
    rule  text NOT NULL,
    name  text NOT NULL,
    value bigint NOT NULL,
    PRIMARY KEY (rule, name)
);
