-- Unsettled outcomes from a number on that another of the same attempt beats: a real one, wherever
-- it is, or an unsettled one before it.  $1: the writer, $2: the number.

WITH u AS (
    SELECT
        seq,
        operation,
        coalesce(attempt, 1) AS attempt,
        CASE WHEN operation IS NULL THEN coalesce(operation_seq, seq) END AS operation_seq
    FROM litellm_ledger.calls
    WHERE writer_id = $1 AND seq >= $2 AND status = 'unsettled'
)
INSERT INTO litellm_ledger.beaten (writer_id, seq)
SELECT $1, u.seq
FROM u
WHERE EXISTS (
    SELECT FROM litellm_ledger.calls r
    WHERE r.writer_id = $1
      AND r.seq >= (SELECT min(coalesce(u.operation_seq, 0)) FROM u)
      AND CASE WHEN r.operation IS NULL THEN coalesce(r.operation_seq, r.seq) END
          IS NOT DISTINCT FROM u.operation_seq
      AND r.operation IS NOT DISTINCT FROM u.operation
      AND coalesce(r.attempt, 1) = u.attempt
      AND (r.status IS DISTINCT FROM 'unsettled' OR r.seq < u.seq)
) AND NOT EXISTS (
    SELECT FROM litellm_ledger.beaten b WHERE b.writer_id = $1 AND b.seq = u.seq
)
