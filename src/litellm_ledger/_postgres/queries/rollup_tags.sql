-- How the values of each tag are spread over the newest outcomes.
-- $1: of how many writers; $2: of how many of their last numbers; $3: tags at most.

SELECT t.key, count(*) AS outcomes, count(DISTINCT t.value) AS distinct_values
FROM (
    SELECT writer_id, shipped FROM litellm_ledger.writers WHERE usage > 0
    ORDER BY updated_at DESC LIMIT $1
) AS w
CROSS JOIN LATERAL (
    SELECT * FROM litellm_ledger.calls o
    WHERE o.writer_id = w.writer_id AND o.seq > w.shipped - $2 AND o.seq <= w.shipped
    OFFSET 0
) AS c
CROSS JOIN LATERAL pg_catalog.jsonb_each_text(c.tags) AS t
WHERE c.line IS NULL
GROUP BY 1
ORDER BY 2 DESC, 1
LIMIT $3
