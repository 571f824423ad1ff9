-- For each tag of the outcomes that were asked for: calls that have it, its values, and the calls of
-- the {most} values with most calls.

SELECT name, sum(calls)::BIGINT, count(*), coalesce(sum(calls) FILTER (place <= {most}), 0)::BIGINT
FROM (
    SELECT name, calls, row_number() OVER (PARTITION BY name ORDER BY calls DESC) AS place
    FROM (
        SELECT tag.key AS name, tag.value AS value, count(*) AS calls
        FROM (SELECT unnest(map_entries(tags)) AS tag FROM calls WHERE {where})
        GROUP BY ALL
    )
)
GROUP BY name
