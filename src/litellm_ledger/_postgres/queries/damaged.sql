-- Numbers that hold no record, and that nothing will bring back.

SELECT w.writer, g.first, g.last
FROM litellm_ledger.gaps g JOIN litellm_ledger.writers w USING (writer_id)
WHERE g.reason = 'damaged'
ORDER BY 1, 2
