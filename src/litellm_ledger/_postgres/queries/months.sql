-- Months that have a partition, and those of outcomes that are outside of all; bytes of each partition.
-- Times that no ledger has (the year 10000, infinity) are of no month.

SELECT partitions AS month, true AS partition, pg_catalog.pg_total_relation_size(
    ('litellm_ledger.calls_' || partitions)::regclass) AS bytes
FROM litellm_ledger.partitions()
UNION ALL
SELECT DISTINCT
    (extract(year FROM c.ts AT TIME ZONE 'UTC') * 100
        + extract(month FROM c.ts AT TIME ZONE 'UTC'))::int,
    false,
    0::bigint
FROM litellm_ledger.calls c
WHERE c.month = 0 AND c.ts >= '0001-01-01Z' AND c.ts < '9999-12-01Z'
ORDER BY 1
