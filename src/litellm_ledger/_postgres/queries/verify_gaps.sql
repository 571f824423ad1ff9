-- The gaps of each writer, and how many of their numbers have an outcome all the same.

SELECT g.writer_id, g.first, g.last, g.reason, g.acked_until, g.here, g.usage, g.cost_picousd,
    (
        SELECT count(*) FROM litellm_ledger.calls c
        WHERE c.writer_id = g.writer_id AND c.seq BETWEEN g.first AND g.last
    ) AS filled
FROM litellm_ledger.gaps g
ORDER BY 1, 2
