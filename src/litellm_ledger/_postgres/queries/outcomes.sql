-- Lines of outcomes that count, without their checksums.  Those that are kept as they are in the
-- ledger come from beside.sql.

SELECT c.writer_id, c.seq, c.seq, pg_catalog.convert_to({line}, 'UTF8')
FROM litellm_ledger.calls c JOIN litellm_ledger.writers w USING (writer_id)
WHERE c.line IS NULL AND {where}
  AND NOT EXISTS (
    SELECT FROM litellm_ledger.beaten b WHERE b.writer_id = c.writer_id AND b.seq = c.seq
  )
ORDER BY 1, 2
