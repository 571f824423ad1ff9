-- How many quarters of an hour have sums that are not those of the outcomes that they are made of.
-- {quarter}: the quarter of c.ts.

SELECT count(*)
FROM (
    SELECT t.quarter, sum(t.calls) AS calls, sum(t.pico) AS pico
    FROM litellm_ledger.rollup_15m t JOIN litellm_ledger.rollup_groups g USING (group_id)
    WHERE g.tag_name IS NULL
    GROUP BY 1
) AS kept
FULL JOIN (
    SELECT {quarter} AS quarter, count(*) AS calls, coalesce(sum(c.cost_picousd), 0) AS pico
    FROM litellm_ledger.rollup_marks m
    JOIN litellm_ledger.calls c
        ON c.writer_id = m.writer_id AND c.seq <= m.rolled AND c.line IS NULL
    WHERE m.series = '' AND NOT EXISTS (
        SELECT FROM litellm_ledger.rollup_beaten b
        WHERE b.writer_id = c.writer_id AND b.series = '' AND b.seq = c.seq
    )
    GROUP BY 1
) AS made USING (quarter)
WHERE coalesce(kept.calls, 0) <> coalesce(made.calls, 0)
   OR coalesce(kept.pico, 0) <> coalesce(made.pico, 0)
