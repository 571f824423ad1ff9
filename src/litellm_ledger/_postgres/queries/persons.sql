-- Lines of outcomes, whether they count or not, as they were; those that fit {where}.

SELECT c.writer_id, c.seq, c.seq, coalesce(c.line, pg_catalog.convert_to({line}, 'UTF8'))
FROM litellm_ledger.calls c JOIN litellm_ledger.writers w USING (writer_id)
WHERE {where}
