-- The names of all tags on the outcomes that were asked for.

SELECT DISTINCT unnest(map_keys(tags)) FROM calls WHERE {where}
