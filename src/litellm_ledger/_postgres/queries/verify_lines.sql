-- Lines of the outcomes of some numbers, whether they count or not; and those that were set aside.
-- $1: writer; $2, $3: numbers.

SELECT c.writer_id, c.seq, c.seq, coalesce(c.line, pg_catalog.convert_to({line}, 'UTF8'))
FROM litellm_ledger.calls c JOIN litellm_ledger.writers w USING (writer_id)
WHERE c.writer_id = $1::int AND c.seq BETWEEN $2::bigint AND $3::bigint
UNION ALL
SELECT r.writer_id, r.seq, r.seq, r.line
FROM litellm_ledger.rejected r
WHERE r.writer_id = $1::int AND r.seq BETWEEN $2::bigint AND $3::bigint
ORDER BY 1, 2
