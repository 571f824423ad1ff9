-- Of which operation the outcome or the started record is that has this id, call_id or response_id.
-- $1: the key; $2, $3: the writer and the number, if the key is an id.

SELECT w.writer, f.operation_seq, f.operation, f.seq
FROM (
    SELECT writer_id, seq, operation_seq, operation FROM litellm_ledger.calls c
    WHERE (c.call_id = $1 OR c.response_id = $1 OR c.operation = $1)
    UNION ALL
    SELECT c.writer_id, c.seq, c.operation_seq, c.operation
    FROM litellm_ledger.calls c JOIN litellm_ledger.writers USING (writer_id)
    WHERE writer = $2 AND (c.seq = $3 OR c.operation_seq = $3)
    UNION ALL
    SELECT f.writer_id, f.seq, f.operation_seq, f.operation
    FROM litellm_ledger.in_flight f JOIN litellm_ledger.writers USING (writer_id)
    WHERE (writer = $2 AND f.seq = $3) OR f.operation = $1
) AS f JOIN litellm_ledger.writers w USING (writer_id)
ORDER BY w.writer COLLATE "C", f.seq
LIMIT 1
