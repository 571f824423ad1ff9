-- Less that a ledger_writer may do, and whose clock says which window is the one of now.
--
-- What is lent changes by ask_lease alone, which does it with the owner's rights.  A shipper sets no
-- mark that excuses a batch (batches.rewritten), and no time at which one was shipped.

REVOKE INSERT ON litellm_ledger.batches FROM ledger_writer;
GRANT INSERT (writer_id, first, last, usage, started, added, gaps, damaged, rejected, cost_picousd,
    sha256) ON litellm_ledger.batches TO ledger_writer;
REVOKE INSERT (accepted), UPDATE (host) ON litellm_ledger.writers FROM ledger_writer;
REVOKE UPDATE ON litellm_ledger.rollup_beaten, litellm_ledger.rollup_groups FROM ledger_writer;
GRANT UPDATE (digest) ON litellm_ledger.rollup_groups TO ledger_writer;  -- ON CONFLICT locks by it
REVOKE INSERT, UPDATE ON litellm_ledger.budget_scopes, litellm_ledger.budget_windows,
    litellm_ledger.leases FROM ledger_writer;
REVOKE EXECUTE ON FUNCTION litellm_ledger.tell_lease(text, text, bigint, text, bigint, bigint, bigint)
    FROM ledger_writer;

-- As before, and: said is the time by the clock of who asks.  Where that is in the window and the
-- time here is not, nothing is lent: two machines would spend one limit in two windows at once.  A
-- call of a window that has ended may still need more; its machine does not say that it is in it.
-- In a rolling window the steps after this one count as well: a clock may be a little ahead.
DROP FUNCTION litellm_ledger.ask_lease(text, text, bigint, bigint, timestamptz, text, text, text,
    bigint, bigint, bigint, bigint, bigint, text[], bigint[]);
CREATE FUNCTION litellm_ledger.ask_lease(
    of_counts text, of_scope text, of_key bigint, since bigint, leaves timestamptz,
    budget text, unit text, of_holder text, most bigint,
    has_used bigint, has_returned bigint, need bigint, slice bigint,
    others text[], others_used bigint[], said timestamptz,
    OUT granted bigint, OUT lent bigint, OUT used bigint)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tolerance CONSTANT interval := '5 minutes';
    begins CONSTANT timestamptz := to_timestamp(of_key);
    ends CONSTANT timestamptz := leaves - (of_key - since) * interval '1 second';
    other record;
    wanted bigint;
    have bigint;
    free numeric;
BEGIN
    IF least(has_used, has_returned, need, slice, most) < 0
        OR EXISTS (SELECT FROM unnest(others_used) AS o (spent) WHERE spent < 0) THEN
        RAISE EXCEPTION 'an amount below zero' USING ERRCODE = 'check_violation';
    END IF;
    IF need > 0 AND said >= begins AND said < ends
        AND (clock_timestamp() < begins - tolerance OR clock_timestamp() >= ends + tolerance) THEN
        RAISE EXCEPTION 'the clock of this machine (%) and that of the database (%) are not in the '
            'same window of the budget: set the wrong one', said, clock_timestamp()
            USING ERRCODE = 'invalid_datetime_format';
    END IF;
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
        WHERE (w.counts, w.scope) = (of_counts, of_scope) AND w.key >= since
            AND (w.key <= of_key OR since < of_key);
    SELECT l.granted - l.returned - l.used INTO have FROM litellm_ledger.leases AS l
        WHERE (l.counts, l.scope, l.key, l.holder) = (of_counts, of_scope, of_key, of_holder);
    wanted := need - have;
    IF wanted > 0 AND wanted <= free THEN
        granted := litellm_ledger.tell_lease(of_counts, of_scope, of_key, of_holder, has_used,
            has_returned, greatest(wanted, least(slice, floor(free / 4)::bigint)));
    END IF;
    SELECT coalesce(sum(w.lent), 0), coalesce(sum(w.used), 0) INTO lent, used
        FROM litellm_ledger.budget_windows AS w
        WHERE (w.counts, w.scope) = (of_counts, of_scope) AND w.key >= since
            AND (w.key <= of_key OR since < of_key);
END
$$;
COMMENT ON FUNCTION litellm_ledger.ask_lease IS 'Tell what a process has used and returned of a budget, and ask for more';
REVOKE ALL ON FUNCTION litellm_ledger.ask_lease(text, text, bigint, bigint, timestamptz, text, text, text,
    bigint, bigint, bigint, bigint, bigint, text[], bigint[], timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION litellm_ledger.ask_lease(text, text, bigint, bigint, timestamptz, text, text, text,
    bigint, bigint, bigint, bigint, bigint, text[], bigint[], timestamptz) TO ledger_writer;
