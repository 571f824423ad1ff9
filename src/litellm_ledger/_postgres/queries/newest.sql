-- The newest outcomes that count, as outcomes.sql has them; by ts, then by id.

SELECT writer_id, seq, seq, pg_catalog.convert_to(line, 'UTF8')
FROM (
    SELECT c.writer_id, c.seq, {line} AS line
    FROM litellm_ledger.calls c JOIN litellm_ledger.writers w USING (writer_id)
    WHERE c.line IS NULL AND {where}
      AND NOT EXISTS (
        SELECT FROM litellm_ledger.beaten b WHERE b.writer_id = c.writer_id AND b.seq = c.seq
      )
    ORDER BY c.ts DESC, w.writer COLLATE "C" DESC, c.seq DESC
    LIMIT {limit}
) AS newest
ORDER BY 1, 2
