-- Outcomes of writers that are not there.

SELECT count(*) FROM litellm_ledger.calls c
WHERE NOT EXISTS (SELECT FROM litellm_ledger.writers w WHERE w.writer_id = c.writer_id)
