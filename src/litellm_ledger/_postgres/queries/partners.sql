-- Other outcomes of the same attempts: there are some only where recovery wrote one.
-- $1: operations, $2: which attempt of each.

SELECT c.writer_id, c.seq, coalesce(c.cost_picousd, 0) AS cost
FROM litellm_ledger.calls c
JOIN litellm_ledger.writers w ON w.writer_id = c.writer_id AND w.unsettled > 0
JOIN (SELECT DISTINCT * FROM unnest($1::text[], $2::bigint[]) AS u (operation, attempt)) AS k
    ON k.attempt = coalesce(c.attempt, 1)
    AND k.operation = coalesce(
        c.operation, w.writer || '-' || pg_catalog.lpad(coalesce(c.operation_seq, c.seq)::text, 16, '0')
    )
