-- Adjustments and audits, as they are in the ledger.

SELECT writer_id, seq, seq, line FROM litellm_ledger.additions ORDER BY 1, 2
