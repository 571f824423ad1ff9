-- Budgets of many machines: what each process may spend of a limit.
--
-- A lease is one process's part of one budget, for one scope, in one window.  Its totals only grow
-- (granted, returned), so that a process that did not hear of a COMMIT asks again and nothing is
-- stranded.  What is lent (granted and not returned) of all leases of a window is never more than
-- the limit; a process spends no more than its lease.  Rolling windows count several keys.

CREATE TABLE litellm_ledger.budget_scopes (
    counts text NOT NULL,
    scope text NOT NULL,
    budget text NOT NULL,
    unit text NOT NULL,
    PRIMARY KEY (counts, scope)
);
COMMENT ON TABLE litellm_ledger.budget_scopes IS 'A budget, for one scope; its row is the lock of its leases';
COMMENT ON COLUMN litellm_ledger.budget_scopes.counts IS 'Digest of all that says what the budget counts';

CREATE TABLE litellm_ledger.budget_windows (
    counts text NOT NULL,
    scope text NOT NULL,
    key bigint NOT NULL,
    leaves timestamptz NOT NULL,
    lent numeric NOT NULL DEFAULT 0,
    used numeric NOT NULL DEFAULT 0,
    PRIMARY KEY (counts, scope, key)
);
COMMENT ON TABLE litellm_ledger.budget_windows IS 'Sums over the leases of one window, or step of a rolling one';
COMMENT ON COLUMN litellm_ledger.budget_windows.key IS 'Start of the window or step, in seconds since 1970';
COMMENT ON COLUMN litellm_ledger.budget_windows.lent IS 'Granted and not returned: picodollars, tokens or calls';
COMMENT ON COLUMN litellm_ledger.budget_windows.used IS 'Spent or held, as the holders said last';

CREATE TABLE litellm_ledger.leases (
    counts text NOT NULL,
    scope text NOT NULL,
    key bigint NOT NULL,
    holder text NOT NULL,
    granted bigint NOT NULL DEFAULT 0,
    returned bigint NOT NULL DEFAULT 0,
    used bigint NOT NULL DEFAULT 0,
    updated_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (counts, scope, key, holder),
    CONSTRAINT no_more_is_returned_than_was_granted CHECK (returned <= granted)
);
COMMENT ON TABLE litellm_ledger.leases IS 'What one process may spend of a budget in one window: granted - returned';
COMMENT ON COLUMN litellm_ledger.leases.holder IS 'The writer of the process';

-- Set what one holder has: to what it has used at least, whatever the limit is.  Under the lock.
CREATE FUNCTION litellm_ledger.tell_lease(
    of_counts text, of_scope text, of_key bigint, of_holder text, has_used bigint,
    has_returned bigint, extra bigint)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    mine litellm_ledger.leases%ROWTYPE;
    was litellm_ledger.leases%ROWTYPE;
BEGIN
    INSERT INTO litellm_ledger.leases (counts, scope, key, holder)
        VALUES (of_counts, of_scope, of_key, of_holder) ON CONFLICT DO NOTHING;
    SELECT * INTO was FROM litellm_ledger.leases AS l
        WHERE (l.counts, l.scope, l.key, l.holder) = (of_counts, of_scope, of_key, of_holder);
    mine := was;
    mine.used := has_used;
    mine.returned := greatest(was.returned, least(has_returned, was.granted));
    mine.granted := greatest(was.granted, mine.returned + has_used) + extra;
    UPDATE litellm_ledger.leases AS l
        SET granted = mine.granted, returned = mine.returned, used = mine.used,
            updated_at = clock_timestamp()
        WHERE (l.counts, l.scope, l.key, l.holder) = (of_counts, of_scope, of_key, of_holder);
    UPDATE litellm_ledger.budget_windows AS w
        SET lent = w.lent + (mine.granted - mine.returned) - (was.granted - was.returned),
            used = w.used + mine.used - was.used
        WHERE (w.counts, w.scope, w.key) = (of_counts, of_scope, of_key);
    RETURN mine.granted;
END
$$;
COMMENT ON FUNCTION litellm_ledger.tell_lease IS 'Part of ask_lease';

-- One ask: tell what is used and returned, and be granted what the next calls need.
--   others, others_used: processes of the same ledger that ended, and what they have spent
--   since: the first key that counts (a rolling window has several); leaves: when this one does not
--   most: the limit; need: of the calls that wait; slice: what may be granted beyond, a quarter of
--   what is free at most
CREATE FUNCTION litellm_ledger.ask_lease(
    of_counts text, of_scope text, of_key bigint, since bigint, leaves timestamptz,
    budget text, unit text, of_holder text, most bigint,
    has_used bigint, has_returned bigint, need bigint, slice bigint,
    others text[], others_used bigint[],
    OUT granted bigint, OUT lent bigint, OUT used bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    other record;
    wanted bigint;
    have bigint;
    free numeric;
BEGIN
    INSERT INTO litellm_ledger.budget_scopes VALUES (of_counts, of_scope, budget, unit)
        ON CONFLICT DO NOTHING;
    PERFORM 1 FROM litellm_ledger.budget_scopes AS s
        WHERE (s.counts, s.scope) = (of_counts, of_scope) FOR UPDATE;
    INSERT INTO litellm_ledger.budget_windows VALUES (of_counts, of_scope, of_key, leaves)
        ON CONFLICT DO NOTHING;
    FOR other IN SELECT * FROM unnest(others, others_used) AS o (holder, spent) LOOP
        -- It ended: all that it has not spent comes back.
        PERFORM litellm_ledger.tell_lease(of_counts, of_scope, of_key, other.holder, other.spent,
            (SELECT l.granted - other.spent FROM litellm_ledger.leases AS l
             WHERE (l.counts, l.scope, l.key, l.holder)
                   = (of_counts, of_scope, of_key, other.holder)), 0);
    END LOOP;
    granted := litellm_ledger.tell_lease(of_counts, of_scope, of_key, of_holder, has_used,
        has_returned, 0);
    SELECT most - coalesce(sum(w.lent), 0) INTO free FROM litellm_ledger.budget_windows AS w
        WHERE (w.counts, w.scope) = (of_counts, of_scope) AND w.key >= since AND w.key <= of_key;
    SELECT l.granted - l.returned - l.used INTO have FROM litellm_ledger.leases AS l
        WHERE (l.counts, l.scope, l.key, l.holder) = (of_counts, of_scope, of_key, of_holder);
    wanted := need - have;
    IF wanted > 0 AND wanted <= free THEN
        granted := litellm_ledger.tell_lease(of_counts, of_scope, of_key, of_holder, has_used,
            has_returned, greatest(wanted, least(slice, floor(free / 4)::bigint)));
    END IF;
    SELECT coalesce(sum(w.lent), 0), coalesce(sum(w.used), 0) INTO lent, used
        FROM litellm_ledger.budget_windows AS w
        WHERE (w.counts, w.scope) = (of_counts, of_scope) AND w.key >= since AND w.key <= of_key;
END
$$;
COMMENT ON FUNCTION litellm_ledger.ask_lease IS 'Tell what a process has used and returned of a budget, and ask for more';

REVOKE ALL ON FUNCTION litellm_ledger.tell_lease(text, text, bigint, text, bigint, bigint, bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION litellm_ledger.ask_lease(text, text, bigint, bigint, timestamptz, text, text, text,
    bigint, bigint, bigint, bigint, bigint, text[], bigint[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION litellm_ledger.tell_lease(text, text, bigint, text, bigint, bigint, bigint) TO ledger_writer;
GRANT EXECUTE ON FUNCTION litellm_ledger.ask_lease(text, text, bigint, bigint, timestamptz, text, text, text,
    bigint, bigint, bigint, bigint, bigint, text[], bigint[]) TO ledger_writer;
GRANT SELECT ON litellm_ledger.budget_scopes, litellm_ledger.budget_windows, litellm_ledger.leases
    TO ledger_writer, ledger_reader;
GRANT INSERT, UPDATE ON litellm_ledger.budget_scopes, litellm_ledger.budget_windows, litellm_ledger.leases
    TO ledger_writer;
