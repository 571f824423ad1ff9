-- The operation that a record with the key $1 belongs to.

SELECT coalesce(operation, id)
FROM records
WHERE kind <> 'gap' AND (id = $1 OR operation = $1 OR call_id = $1 OR response_id = $1)
ORDER BY id
LIMIT 1
