-- What stands beside outcomes in a ledger, and the few of them that are kept as they are there.
-- Numbers that lines stand for, and the lines: whole, or without their checksums.

SELECT c.writer_id, c.seq, c.seq, c.line
FROM litellm_ledger.calls c
WHERE {usage} AND c.line IS NOT NULL AND {where}
  AND NOT EXISTS (
    SELECT FROM litellm_ledger.beaten b WHERE b.writer_id = c.writer_id AND b.seq = c.seq
  )
UNION ALL
SELECT r.writer_id, r.seq, r.seq, r.line
FROM litellm_ledger.rejected r
WHERE NOT EXISTS (
    SELECT FROM litellm_ledger.beaten b WHERE b.writer_id = r.writer_id AND b.seq = r.seq
)
UNION ALL
SELECT writer_id, seq, seq, line FROM litellm_ledger.in_flight WHERE {started}
UNION ALL
SELECT
    writer_id,
    g.first,
    g.last,
    pg_catalog.convert_to(
        pg_catalog.concat(
            '{{"v":1,"id":"', writer, '-', pg_catalog.lpad(g.first::text, 16, '0'),
            '","seq":', g.first, ',"kind":"gap","gap_until":', g.last,
            ',"reason":', pg_catalog.to_json(g.reason), ',"acked_until":' || g.acked_until
        ),
        'UTF8'
    )
FROM litellm_ledger.gaps g JOIN litellm_ledger.writers USING (writer_id)
WHERE {gap} AND g.reason <> 'damaged'
ORDER BY 1, 2
