-- Numbers that are shipped and not yet in the sums of a series: the sums without tags come first.
-- $1: how many rows at most.

SELECT w.writer_id, s.series, coalesce(m.rolled, 0) AS rolled, w.shipped
FROM (
    SELECT '' AS series
    UNION ALL
    SELECT 'tag:' || tag_name FROM litellm_ledger.rollup_tags WHERE chosen
) AS s
CROSS JOIN litellm_ledger.writers w
LEFT JOIN litellm_ledger.rollup_marks m ON m.writer_id = w.writer_id AND m.series = s.series
WHERE w.shipped > coalesce(m.rolled, 0) AND w.usage > 0
ORDER BY s.series <> '', w.writer_id, s.series
LIMIT $1
