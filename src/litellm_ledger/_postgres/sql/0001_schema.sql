-- What PostgreSQL holds of ledgers: outcomes by month, calls in flight, books that prove it whole.
--
-- Run by `litellm-ledger database init|migrate`, in one transaction, by the owner.  Every name is
-- qualified.  What plain SQL lacks (partitions, GIN, BRIN, functions) is here, never in the road
-- that a record takes: that is UPDATE ... WHERE, COPY and COMMIT.

CREATE SCHEMA litellm_ledger;  -- fails if anybody else has made one of this name
COMMENT ON SCHEMA litellm_ledger IS 'litellm-ledger: what language model calls used and cost';

CREATE TABLE litellm_ledger.schema_version (
    version int PRIMARY KEY,
    name text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE litellm_ledger.schema_version IS 'The numbered files that made this schema';

-- One opening of a ledger by one process.  Counts are of numbers: a gap line of five counts five.
CREATE TABLE litellm_ledger.writers (
    writer_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    writer text NOT NULL UNIQUE,
    host text,
    shipped bigint NOT NULL DEFAULT 0,
    usage bigint NOT NULL DEFAULT 0,
    started bigint NOT NULL DEFAULT 0,
    added bigint NOT NULL DEFAULT 0,
    gaps bigint NOT NULL DEFAULT 0,
    damaged bigint NOT NULL DEFAULT 0,
    rejected bigint NOT NULL DEFAULT 0,
    unsettled bigint NOT NULL DEFAULT 0,
    cost_picousd numeric NOT NULL DEFAULT 0,
    accepted bigint,
    closed boolean NOT NULL DEFAULT false,
    updated_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    CONSTRAINT every_number_is_accounted_for
        CHECK (usage + started + added + gaps + damaged + rejected = shipped),
    CONSTRAINT counts_are_not_negative
        CHECK (usage >= 0 AND started >= 0 AND added >= 0 AND gaps >= 0 AND damaged >= 0
               AND rejected >= 0)
);
COMMENT ON TABLE litellm_ledger.writers IS 'One opening of a ledger by one process: how far it is shipped';
COMMENT ON COLUMN litellm_ledger.writers.shipped IS 'All numbers from 1 to here are in this database';
COMMENT ON COLUMN litellm_ledger.writers.usage IS 'Numbers of outcomes: rows of calls';
COMMENT ON COLUMN litellm_ledger.writers.started IS 'Numbers of started records; those without an outcome are in in_flight';
COMMENT ON COLUMN litellm_ledger.writers.added IS 'Numbers of adjustments and audits: rows of additions';
COMMENT ON COLUMN litellm_ledger.writers.gaps IS 'Numbers that gap records stand for, and those expired or erased here';
COMMENT ON COLUMN litellm_ledger.writers.damaged IS 'Numbers of lines that hold no record, and that nothing will bring back';
COMMENT ON COLUMN litellm_ledger.writers.rejected IS 'Numbers that PostgreSQL refuses: rows of rejected';
COMMENT ON COLUMN litellm_ledger.writers.unsettled IS 'How many of the outcomes recovery wrote: where there are none, none is beaten';
COMMENT ON COLUMN litellm_ledger.writers.cost_picousd IS 'Sum over its outcomes as shipped, in 10^-12 US dollars';
COMMENT ON COLUMN litellm_ledger.writers.accepted IS 'The last number that its live file was seen to count';
COMMENT ON COLUMN litellm_ledger.writers.closed IS 'It ended, and all its numbers are shipped';

-- What is shipped stays shipped: no role can have it shipped again.
CREATE FUNCTION litellm_ledger.keep_checkpoint() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'the checkpoint of % goes from % to %, and may only go forward',
        OLD.writer, OLD.shipped, NEW.shipped USING ERRCODE = 'check_violation';
END
$$;
COMMENT ON FUNCTION litellm_ledger.keep_checkpoint IS 'Refuse a checkpoint that goes back';
CREATE TRIGGER checkpoint_goes_forward BEFORE UPDATE ON litellm_ledger.writers
    FOR EACH ROW WHEN (NEW.shipped < OLD.shipped)
    EXECUTE FUNCTION litellm_ledger.keep_checkpoint();

-- What was shipped in one transaction.  Its counts are those of the day; writers has those of today.
CREATE TABLE litellm_ledger.batches (
    writer_id int NOT NULL REFERENCES litellm_ledger.writers,
    first bigint NOT NULL,
    last bigint NOT NULL,
    usage bigint NOT NULL,
    started bigint NOT NULL,
    added bigint NOT NULL DEFAULT 0,
    gaps bigint NOT NULL,
    damaged bigint NOT NULL,
    rejected bigint NOT NULL,
    cost_picousd numeric NOT NULL,
    sha256 bytea NOT NULL,
    shipped_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (writer_id, first),
    CONSTRAINT every_number_is_accounted_for
        CHECK (usage + started + added + gaps + damaged + rejected = last - first + 1)
);
COMMENT ON TABLE litellm_ledger.batches IS 'Numbers first to last of a writer, shipped in one transaction';
COMMENT ON COLUMN litellm_ledger.batches.sha256 IS 'Over its lines as they are in the ledger, line feeds included, by number';

-- Outcomes.  By month, and month 0 for what has none: no time, or one that no month was made for.
-- A row of month 0 never stands in the way of its month, which may be made at any time.
CREATE TABLE litellm_ledger.calls (
    writer_id int NOT NULL,
    month int NOT NULL,
    seq bigint NOT NULL,
    ts timestamptz NOT NULL,
    operation_seq bigint,
    cost_picousd bigint,
    input_tokens bigint,
    output_tokens bigint,
    total_tokens bigint,
    cache_read_tokens bigint,
    cache_write_tokens bigint,
    reasoning_tokens bigint,
    latency_ms double precision,
    ttft_ms double precision,
    attempt bigint,
    saved_cost_picousd bigint,
    hold_picousd bigint,
    hold_tokens bigint,
    most_picousd bigint,
    most_tokens bigint,
    images bigint,
    audio_seconds double precision,
    characters bigint,
    pages bigint,
    search_units bigint,
    cache_hit boolean,
    stream boolean,
    call text,
    model text,
    response_model text,
    provider text,
    status text,
    error text,
    usage_source text,
    cost_source text,
    price_version text,
    call_id text,
    response_id text,
    operation text,
    tags jsonb,
    meta json,
    content json,
    line bytea
) PARTITION BY LIST (month);
COMMENT ON TABLE litellm_ledger.calls IS 'Outcomes: one row for each usage record';
COMMENT ON COLUMN litellm_ledger.calls.month IS 'Year and month of ts in UTC, as 202611; 0: no time, or no partition was made for it';
COMMENT ON COLUMN litellm_ledger.calls.ts IS 'When the attempt began; -infinity: not on record';
COMMENT ON COLUMN litellm_ledger.calls.operation_seq IS 'Number of the first record of the call, where that is of the same writer';
COMMENT ON COLUMN litellm_ledger.calls.operation IS 'Id of the call in every other case';
COMMENT ON COLUMN litellm_ledger.calls.line IS 'The line itself, where a column cannot hold its text as it is: U+2400 stands for U+0000, U+FFFD for half a surrogate pair';

CREATE TABLE litellm_ledger.in_flight (
    writer_id int NOT NULL,
    seq bigint NOT NULL,
    ts timestamptz,
    operation_seq bigint,
    operation text,
    attempt bigint,
    hold_picousd bigint,
    hold_tokens bigint,
    line bytea NOT NULL,
    PRIMARY KEY (writer_id, seq)
);
COMMENT ON TABLE litellm_ledger.in_flight IS 'Started records without an outcome; a row goes in the transaction that brings it';

CREATE TABLE litellm_ledger.beaten (
    writer_id int NOT NULL,
    seq bigint NOT NULL,
    PRIMARY KEY (writer_id, seq)
);
COMMENT ON TABLE litellm_ledger.beaten IS 'Unsettled outcomes in calls that another outcome of the same attempt beats: they count nowhere';

CREATE TABLE litellm_ledger.rejected (
    writer_id int NOT NULL,
    seq bigint NOT NULL,
    line bytea NOT NULL,
    why text NOT NULL,
    PRIMARY KEY (writer_id, seq)
);
COMMENT ON TABLE litellm_ledger.rejected IS 'Lines that PostgreSQL refuses, as they are in the ledger';

CREATE TABLE litellm_ledger.gaps (
    writer_id int NOT NULL,
    first bigint NOT NULL,
    last bigint NOT NULL,
    reason text NOT NULL,
    acked_until bigint,
    here boolean NOT NULL DEFAULT false,
    usage bigint NOT NULL DEFAULT 0,
    cost_picousd numeric NOT NULL DEFAULT 0,
    PRIMARY KEY (writer_id, first)
);
COMMENT ON TABLE litellm_ledger.gaps IS 'Numbers without a record';
COMMENT ON COLUMN litellm_ledger.gaps.here IS 'The records were taken away in this database; false: they were gone before';
COMMENT ON COLUMN litellm_ledger.gaps.usage IS 'How many of the numbers were outcomes here, of which the cost was cost_picousd; the others were started records';
COMMENT ON COLUMN litellm_ledger.gaps.reason IS 'lost, quarantined, erased or expired, as in the ledger; damaged: bytes that hold no record';

CREATE TABLE litellm_ledger.additions (
    writer_id int NOT NULL,
    seq bigint NOT NULL,
    kind text NOT NULL,
    ts timestamptz,
    line bytea NOT NULL,
    PRIMARY KEY (writer_id, seq)
);
COMMENT ON TABLE litellm_ledger.additions IS 'Adjustments and audits of ledgers, as they are there';

-- Sums over quarters of an hour.  Made from calls, never the truth; quarter -2147483648: no time.
CREATE TABLE litellm_ledger.rollup_groups (
    group_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest bytea NOT NULL UNIQUE,
    model text,
    provider text,
    call text,
    status text,
    response_model text,
    error text,
    usage_source text,
    cost_source text,
    tag_name text,
    tag_value text
);
COMMENT ON TABLE litellm_ledger.rollup_groups IS 'What outcomes are summed by; tag_name NULL: all of them';

CREATE TABLE litellm_ledger.rollup_15m (
    quarter int NOT NULL,
    group_id int NOT NULL REFERENCES litellm_ledger.rollup_groups,
    cache_hits bigint NOT NULL DEFAULT 0,
    cache_read_tokens numeric NOT NULL DEFAULT 0,
    cache_write_tokens numeric NOT NULL DEFAULT 0,
    calls bigint NOT NULL DEFAULT 0,
    input_tokens numeric NOT NULL DEFAULT 0,
    output_tokens numeric NOT NULL DEFAULT 0,
    pico numeric NOT NULL DEFAULT 0,
    priced bigint NOT NULL DEFAULT 0,
    reasoning_tokens numeric NOT NULL DEFAULT 0,
    retries bigint NOT NULL DEFAULT 0,
    saved numeric NOT NULL DEFAULT 0,
    total_tokens numeric NOT NULL DEFAULT 0,
    PRIMARY KEY (quarter, group_id)
);
COMMENT ON TABLE litellm_ledger.rollup_15m IS 'Sums of outcomes by quarter of an hour since 1970 and group';

CREATE INDEX rollup_15m_of_group ON litellm_ledger.rollup_15m (group_id);

-- Sums by the values of a tag are a series of their own, and so are those without ('').
CREATE TABLE litellm_ledger.rollup_tags (
    tag_name text PRIMARY KEY,
    chosen boolean NOT NULL,
    too_many boolean NOT NULL DEFAULT false,
    distinct_values bigint NOT NULL,
    outcomes bigint NOT NULL,
    measured_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE litellm_ledger.rollup_tags IS 'Tags as measured on the newest outcomes; chosen: there are sums by their values';
COMMENT ON COLUMN litellm_ledger.rollup_tags.too_many IS 'It was chosen once and had too many values; it is not chosen again';

CREATE TABLE litellm_ledger.rollup_marks (
    writer_id int NOT NULL REFERENCES litellm_ledger.writers,
    series text NOT NULL,
    rolled bigint NOT NULL,
    PRIMARY KEY (writer_id, series)
);
COMMENT ON TABLE litellm_ledger.rollup_marks IS 'Up to which number a writer is part of the sums';
COMMENT ON COLUMN litellm_ledger.rollup_marks.series IS 'Empty: the sums without a tag; tag:NAME: those by its values';

CREATE TABLE litellm_ledger.rollup_beaten (
    writer_id int NOT NULL,
    series text NOT NULL,
    seq bigint NOT NULL,
    PRIMARY KEY (writer_id, series, seq)
);
COMMENT ON TABLE litellm_ledger.rollup_beaten IS 'Beaten outcomes that were taken out of the sums again';

-- What outcomes came to whose rows are gone: part of every total, as long as anybody asks.  No role
-- may write it, for nothing could bring it back.  Without what told a person: NULL in its place.
CREATE TABLE litellm_ledger.expired_sums (
    quarter int NOT NULL,
    model text,
    provider text,
    call text,
    status text,
    response_model text,
    error text,
    usage_source text,
    cost_source text,
    tag_name text,
    tag_value text,
    cache_hits bigint NOT NULL,
    cache_read_tokens numeric NOT NULL,
    cache_write_tokens numeric NOT NULL,
    calls bigint NOT NULL,
    input_tokens numeric NOT NULL,
    output_tokens numeric NOT NULL,
    pico numeric NOT NULL,
    priced bigint NOT NULL,
    reasoning_tokens numeric NOT NULL,
    retries bigint NOT NULL,
    saved numeric NOT NULL,
    total_tokens numeric NOT NULL
);
CREATE INDEX expired_sums_of_tag ON litellm_ledger.expired_sums (tag_name, quarter);
COMMENT ON TABLE litellm_ledger.expired_sums IS 'Sums of outcomes that retention took away, by quarter of an hour; as rollup_15m with its groups';

CREATE TABLE litellm_ledger.expired_months (
    month int PRIMARY KEY,
    tags text[] NOT NULL,
    outcomes bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE litellm_ledger.expired_months IS 'Months whose outcomes are gone; what comes late of one has a row all the same';
COMMENT ON COLUMN litellm_ledger.expired_months.tags IS 'Tags by which there are sums of its outcomes; there always are those without a tag';

-- What was done to this database by hand: retention, erasure.
CREATE TABLE litellm_ledger.deeds (
    deed_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    did text NOT NULL,
    who text NOT NULL,
    why text,
    detail json NOT NULL
);
COMMENT ON TABLE litellm_ledger.deeds IS 'What was taken away from this database: when, by which command, and what it came to';

-- The partition of a month, with its indexes.  A unique index of its own in each partition is a
-- tripwire: exactly-once does not rest on it.
CREATE FUNCTION litellm_ledger.make_partition(of_month int) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET client_min_messages = warning
SET datestyle = 'ISO'
SET timezone = 'UTC'
AS $$
DECLARE
    name text := CASE of_month WHEN 0 THEN 'calls_outside' ELSE 'calls_' || of_month END;
    starts timestamptz;
BEGIN
    EXECUTE format('CREATE TABLE litellm_ledger.%I (LIKE litellm_ledger.calls INCLUDING DEFAULTS)', name);
    EXECUTE format('ALTER TABLE litellm_ledger.%I ADD CONSTRAINT %I CHECK (month = %s), '
                   'ADD PRIMARY KEY (writer_id, seq)', name, name || '_month', of_month);
    IF of_month <> 0 THEN
        -- Lets the planner leave out a month by ts alone.
        starts := make_timestamptz(of_month / 100, of_month % 100, 1, 0, 0, 0, 'UTC');
        EXECUTE format('ALTER TABLE litellm_ledger.%I ADD CONSTRAINT %I CHECK (ts >= %L AND ts < %L)',
                       name, name || '_ts', starts, starts + interval '1 month');
    END IF;
    EXECUTE format('CREATE INDEX %I ON litellm_ledger.%I USING gin (tags jsonb_path_ops)',
                   name || '_tags', name);
    EXECUTE format('CREATE INDEX %I ON litellm_ledger.%I USING brin (ts)', name || '_brin', name);
    -- Nearly empty: what sums leave out.
    EXECUTE format('CREATE INDEX %I ON litellm_ledger.%I (writer_id, seq) WHERE line IS NOT NULL',
                   name || '_lines', name);
    -- Attaching a table that is made so takes no lock that a report or a shipper would wait for.
    EXECUTE format('ALTER TABLE litellm_ledger.calls ATTACH PARTITION litellm_ledger.%I FOR VALUES IN (%s)',
                   name, of_month);
END
$$;
COMMENT ON FUNCTION litellm_ledger.make_partition IS 'Make the partition of one month; 0: of what has none';
SELECT litellm_ledger.make_partition(0);

-- Which months have a partition.
CREATE FUNCTION litellm_ledger.partitions() RETURNS SETOF int
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT substr(c.relname, 7)::int
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'litellm_ledger.calls'::regclass AND c.relname ~ '^calls_\d{6}$'
    ORDER BY 1
$$;
COMMENT ON FUNCTION litellm_ledger.partitions IS 'The months that have a partition, as 202611';

-- What shippers may ask for: from ten years ago to a year ahead, so that nobody can make thousands.
CREATE FUNCTION litellm_ledger.make_partitions(months int[]) RETURNS SETOF int
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    today date := (pg_catalog.now() AT TIME ZONE 'UTC')::date;
    wanted int;
BEGIN
    PERFORM pg_advisory_xact_lock(5512117, 2);
    FOR wanted IN
        SELECT m FROM unnest(months) AS m
        WHERE m % 100 BETWEEN 1 AND 12
          AND m BETWEEN to_char(today - interval '10 years', 'YYYYMM')::int
                    AND to_char(today + interval '1 year', 'YYYYMM')::int
        EXCEPT SELECT * FROM litellm_ledger.partitions()
        ORDER BY 1
    LOOP
        PERFORM litellm_ledger.make_partition(wanted);
    END LOOP;
    RETURN QUERY SELECT * FROM litellm_ledger.partitions();
END
$$;
COMMENT ON FUNCTION litellm_ledger.make_partitions IS 'Make the partitions of these months that are missing; returns all that there are';

-- This month and the next three.
CREATE FUNCTION litellm_ledger.make_partitions_ahead() RETURNS SETOF int
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT * FROM litellm_ledger.make_partitions(ARRAY(
        SELECT to_char((now() AT TIME ZONE 'UTC')::date + make_interval(months => n), 'YYYYMM')::int
        FROM generate_series(0, 3) AS n
    ))
$$;
COMMENT ON FUNCTION litellm_ledger.make_partitions_ahead IS 'Make the partitions of this month and the next three';
SELECT litellm_ledger.make_partitions_ahead();

-- Outcomes as people ask for them: with ids, without what counts nowhere.
CREATE VIEW litellm_ledger.usage AS
SELECT
    w.writer || '-' || pg_catalog.lpad(c.seq::text, 16, '0') AS id,
    w.writer,
    c.*
FROM litellm_ledger.calls c
JOIN litellm_ledger.writers w USING (writer_id)
WHERE NOT EXISTS (
    SELECT FROM litellm_ledger.beaten b WHERE b.writer_id = c.writer_id AND b.seq = c.seq
);
COMMENT ON VIEW litellm_ledger.usage IS 'Outcomes that count, with their ids';

-- Roles.  Both are groups without a login: GRANT ledger_writer TO the user that ships.  They are of
-- the whole server, so another database may have made them, even now.
DO $$
DECLARE role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['ledger_writer', 'ledger_reader'] LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = role) THEN
            BEGIN
                EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN', role);
            EXCEPTION
                WHEN duplicate_object OR unique_violation THEN NULL;
                WHEN insufficient_privilege THEN
                    RAISE EXCEPTION 'there is no role %, and % may not create it', role, CURRENT_USER
                        USING ERRCODE = 'insufficient_privilege', HINT = 'have an administrator of '
                        'the server say CREATE ROLE ledger_writer NOLOGIN; CREATE ROLE '
                        'ledger_reader NOLOGIN; and begin again';
            END;
        END IF;
    END LOOP;
END
$$;

REVOKE ALL ON SCHEMA litellm_ledger FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA litellm_ledger FROM PUBLIC;
GRANT USAGE ON SCHEMA litellm_ledger TO ledger_writer, ledger_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA litellm_ledger TO ledger_writer, ledger_reader;
GRANT EXECUTE ON FUNCTION litellm_ledger.partitions() TO ledger_writer, ledger_reader;
GRANT EXECUTE ON FUNCTION litellm_ledger.make_partitions(int[]) TO ledger_writer;
GRANT EXECUTE ON FUNCTION litellm_ledger.make_partitions_ahead() TO ledger_writer;
GRANT INSERT ON litellm_ledger.batches, litellm_ledger.calls, litellm_ledger.beaten,
    litellm_ledger.rejected, litellm_ledger.gaps, litellm_ledger.additions TO ledger_writer;
GRANT INSERT, DELETE ON litellm_ledger.in_flight TO ledger_writer;
GRANT INSERT (writer, host, accepted) ON litellm_ledger.writers TO ledger_writer;
GRANT UPDATE (host, shipped, usage, started, added, gaps, damaged, rejected, unsettled, cost_picousd,
    accepted, closed, updated_at) ON litellm_ledger.writers TO ledger_writer;
GRANT INSERT, UPDATE, DELETE ON litellm_ledger.rollup_groups, litellm_ledger.rollup_15m,
    litellm_ledger.rollup_tags, litellm_ledger.rollup_marks, litellm_ledger.rollup_beaten
    TO ledger_writer;
