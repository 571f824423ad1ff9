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
    ) AS strange,
    (
        SELECT count(*) FROM litellm_ledger.rejected r
        WHERE r.writer_id = w.writer_id AND (r.seq < 1 OR r.seq > w.shipped)
    ) + (
        SELECT count(*) FROM litellm_ledger.additions a
        WHERE a.writer_id = w.writer_id AND (a.seq < 1 OR a.seq > w.shipped)
    ) AS beyond,
    (
        SELECT count(*) FROM litellm_ledger.beaten b
        WHERE b.writer_id = w.writer_id AND NOT EXISTS (
            SELECT FROM litellm_ledger.calls c
            WHERE c.writer_id = b.writer_id AND c.seq = b.seq AND c.status = 'unsettled'
        )
    ) AS unbeaten
FROM litellm_ledger.writers w
ORDER BY w.writer COLLATE "C"
