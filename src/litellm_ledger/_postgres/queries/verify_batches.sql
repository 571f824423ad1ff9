-- What each batch says, and what is there of its numbers: outcomes, their costs, gaps; and what was
-- taken away here on purpose.

SELECT
    b.writer_id, b.first, b.last, b.usage, b.started, b.added, b.gaps, b.damaged, b.rejected,
    b.cost_picousd, b.sha256, b.rewritten,
    c.rows, c.numbers, c.cost,
    (
        SELECT coalesce(sum(least(g.last, b.last) - greatest(g.first, b.first) + 1), 0)
        FROM litellm_ledger.gaps g
        WHERE g.writer_id = b.writer_id AND g.first <= b.last AND g.last >= b.first
          AND g.reason <> 'damaged' AND NOT g.here
    ) AS gaps_now,
    gone.usage AS gone, gone.cost_picousd AS gone_cost, gone.rejected AS gone_rejected,
    gone.started AS gone_started, gone.beyond,
    (
        SELECT coalesce(sum(least(g.last, b.last) - greatest(g.first, b.first) + 1), 0)
        FROM litellm_ledger.gaps g
        WHERE g.writer_id = b.writer_id AND g.first <= b.last AND g.last >= b.first
          AND g.reason = 'damaged'
    ) AS damaged_now,
    (
        SELECT count(*) FROM litellm_ledger.rejected r
        WHERE r.writer_id = b.writer_id AND r.seq BETWEEN b.first AND b.last
    ) AS rejected_now,
    (
        SELECT count(*) FROM litellm_ledger.additions a
        WHERE a.writer_id = b.writer_id AND a.seq BETWEEN b.first AND b.last
    ) AS added_now
FROM litellm_ledger.batches b
CROSS JOIN LATERAL (
    SELECT
        count(*) AS rows,
        count(DISTINCT c.seq) AS numbers,
        coalesce(sum(c.cost_picousd), 0) AS cost
    FROM litellm_ledger.calls c
    WHERE c.writer_id = b.writer_id AND c.seq BETWEEN b.first AND b.last
) AS c
CROSS JOIN LATERAL (
    SELECT
        coalesce(sum(g.usage), 0)::bigint AS usage,
        coalesce(sum(g.rejected), 0)::bigint AS rejected,
        coalesce(sum(g.last - g.first + 1 - g.usage - g.rejected), 0)::bigint AS started,
        coalesce(sum(g.cost_picousd), 0) AS cost_picousd,
        count(*) FILTER (WHERE g.last > b.last) AS beyond
    FROM litellm_ledger.gaps g
    WHERE g.writer_id = b.writer_id AND g.first BETWEEN b.first AND b.last AND g.here
) AS gone
ORDER BY b.writer_id, b.first
