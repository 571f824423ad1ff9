-- A record that carries the cost of the job $1, not older than $2 seconds since 1970.

SELECT 1
FROM ({rows})
WHERE response_id = $1 AND epoch(ts) >= $2
    AND 'true' IN (meta->>'$.batch.counted', meta->>'$.background.counted')
LIMIT 1
