-- What each batch says, and what is there of its numbers: outcomes, their costs, gaps.

SELECT
    b.writer_id, b.first, b.last, b.usage, b.started, b.added, b.gaps, b.damaged, b.rejected,
    b.cost_picousd, b.sha256,
    c.rows, c.numbers, c.cost,
    (
        SELECT coalesce(sum(least(g.last, b.last) - greatest(g.first, b.first) + 1), 0)
        FROM litellm_ledger.gaps g
        WHERE g.writer_id = b.writer_id AND g.first <= b.last AND g.last >= b.first
          AND g.reason <> 'damaged' AND NOT g.here
    ) AS gaps_now,
    EXISTS (
        SELECT FROM litellm_ledger.gaps g
        WHERE g.writer_id = b.writer_id AND g.first <= b.last AND g.last >= b.first AND g.here
    ) AS thinned,
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
ORDER BY b.writer_id, b.first
