-- Rows of writers that are not there, by table.

SELECT r.name, count(*) AS rows
FROM (
    SELECT 'calls' AS name, writer_id FROM litellm_ledger.calls
    UNION ALL
    SELECT 'in_flight', writer_id FROM litellm_ledger.in_flight
    UNION ALL
    SELECT 'rejected', writer_id FROM litellm_ledger.rejected
    UNION ALL
    SELECT 'gaps', writer_id FROM litellm_ledger.gaps
    UNION ALL
    SELECT 'additions', writer_id FROM litellm_ledger.additions
    UNION ALL
    SELECT 'beaten', writer_id FROM litellm_ledger.beaten
) AS r
WHERE NOT EXISTS (SELECT FROM litellm_ledger.writers w WHERE w.writer_id = r.writer_id)
GROUP BY 1
ORDER BY 1
