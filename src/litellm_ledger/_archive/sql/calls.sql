-- Outcomes, the newest first; one without a time counts as the oldest.

SELECT {columns}
FROM calls
WHERE {where}
ORDER BY ts DESC NULLS LAST, id DESC
LIMIT {limit}
