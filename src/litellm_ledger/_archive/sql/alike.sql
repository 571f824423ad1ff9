-- The operations of records with an id that ends in $1 or, unless $2, any key that begins or ends so;
-- at most $3.

SELECT coalesce(operation, id) AS name
FROM records
WHERE kind <> 'gap' AND (
    ends_with(id, $1)
    OR NOT $2 AND (
        starts_with(id, $1)
        OR starts_with(operation, $1) OR ends_with(operation, $1)
        OR starts_with(call_id, $1) OR ends_with(call_id, $1)
        OR starts_with(response_id, $1) OR ends_with(response_id, $1)
    )
)
GROUP BY name
ORDER BY min(id)
LIMIT $3
