-- Writers that have an outcome in a month: a step from one to the next in the index.  {month}: as in
-- calls; {outside}: the condition of those that are in calls_outside.

WITH RECURSIVE each (writer_id) AS (
    (SELECT min(writer_id) FROM litellm_ledger.calls WHERE month = {month})
    UNION ALL
    SELECT (
        SELECT min(c.writer_id) FROM litellm_ledger.calls c
        WHERE c.month = {month} AND c.writer_id > each.writer_id
    )
    FROM each WHERE each.writer_id IS NOT NULL
)
SELECT writer_id FROM each WHERE writer_id IS NOT NULL
UNION
SELECT c.writer_id FROM litellm_ledger.calls c WHERE c.month = 0 AND {outside}
ORDER BY 1
