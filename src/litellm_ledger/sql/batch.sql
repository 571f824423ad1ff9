-- A record that carries the cost of the batch $1, not older than $2 seconds since 1970.

SELECT 1
FROM ({rows})
WHERE response_id = $1 AND epoch(ts) >= $2 AND (meta->>'$.batch.counted') = 'true'
LIMIT 1
