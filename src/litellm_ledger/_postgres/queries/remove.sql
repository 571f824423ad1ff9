-- Gaps in the place of what is about to be deleted, and the counts of its writers.  {gone}: of each row its
-- writer_id, seq, cost_picousd, usage and rejected (1: it is a row of that); {reason}: why.
-- Numbers that follow each other become one gap, those of started records in between as well: these
-- have no row once their call has ended.  A gap ends where a batch does.

WITH gone AS MATERIALIZED ({gone}),
span AS (
    SELECT writer_id, min(seq) AS first, max(seq) AS last FROM gone GROUP BY 1
),
marks AS (
    SELECT writer_id, seq, cost_picousd, usage, rejected, 1 AS gone FROM gone
    UNION ALL
    SELECT s.writer_id, e.seq, NULL, 0, 0, 0
    FROM span s
    CROSS JOIN LATERAL (
        SELECT b.first AS seq FROM litellm_ledger.batches b
        WHERE b.writer_id = s.writer_id AND b.first > s.first AND b.first <= s.last
        UNION ALL
        SELECT c.seq FROM litellm_ledger.calls c
        WHERE c.writer_id = s.writer_id AND c.seq > s.first AND c.seq < s.last
        UNION ALL
        SELECT f.seq FROM litellm_ledger.in_flight f
        WHERE f.writer_id = s.writer_id AND f.seq > s.first AND f.seq < s.last
        UNION ALL
        SELECT r.seq FROM litellm_ledger.rejected r
        WHERE r.writer_id = s.writer_id AND r.seq > s.first AND r.seq < s.last
        UNION ALL
        SELECT g.first FROM litellm_ledger.gaps g
        WHERE g.writer_id = s.writer_id AND g.first > s.first AND g.first < s.last
    ) AS e
    WHERE NOT EXISTS (SELECT FROM gone g WHERE g.writer_id = s.writer_id AND g.seq = e.seq)
       OR EXISTS (
           SELECT FROM litellm_ledger.batches b WHERE b.writer_id = s.writer_id AND b.first = e.seq
       )
),
islands AS (
    SELECT *, sum(1 - gone) OVER (PARTITION BY writer_id ORDER BY seq, gone) AS island FROM marks
),
put AS (
    INSERT INTO litellm_ledger.gaps (writer_id, first, last, reason, here, usage, rejected, cost_picousd)
    SELECT writer_id, min(seq), max(seq), '{reason}', true, sum(usage), sum(rejected),
        coalesce(sum(cost_picousd), 0)
    FROM islands WHERE gone = 1 GROUP BY writer_id, island
    RETURNING writer_id, last - first + 1 AS numbers, usage, rejected, cost_picousd
),
of_writers AS (
    SELECT writer_id, sum(numbers) AS numbers, sum(usage) AS usage, sum(rejected) AS rejected,
        sum(cost_picousd) AS cost_picousd
    FROM put GROUP BY 1
)
UPDATE litellm_ledger.writers w
SET
    usage = w.usage - o.usage,
    rejected = w.rejected - o.rejected,
    started = w.started - (o.numbers - o.usage - o.rejected),
    gaps = w.gaps + o.numbers
FROM of_writers o
WHERE w.writer_id = o.writer_id
RETURNING o.usage::bigint, o.numbers::bigint, o.cost_picousd
