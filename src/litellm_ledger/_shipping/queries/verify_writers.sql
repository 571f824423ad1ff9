-- What each writer says, and what is there of it in all.

SELECT
    w.writer_id, w.writer, w.shipped, w.usage, w.started, w.added, w.gaps, w.damaged, w.rejected,
    w.cost_picousd, coalesce(w.accepted, 0) AS accepted, w.closed,
    (SELECT count(*) FROM litellm_ledger.calls c WHERE c.writer_id = w.writer_id) AS rows,
    (
        SELECT count(*) FROM litellm_ledger.calls c
        WHERE c.writer_id = w.writer_id AND c.status = 'unsettled'
    ) AS unsettled,
    (
        SELECT count(*) FROM litellm_ledger.in_flight f WHERE f.writer_id = w.writer_id
    ) AS in_flight,
    (
        SELECT count(*) FROM litellm_ledger.in_flight f
        WHERE f.writer_id = w.writer_id AND (f.seq < 1 OR f.seq > w.shipped)
    ) AS strange
FROM litellm_ledger.writers w
ORDER BY w.writer COLLATE "C"
