-- Of the calls that are on record as unsettled, those that have a real outcome of the same writer:
-- that one holds.  Unsettled outcomes are never in what the database reads by itself, see _survey
-- and _archive.  {lines} is where their calls' real ones may be; 17 is the length of a number in an
-- id.

DELETE FROM line_by_line
WHERE status = 'unsettled'
    AND (left(id, -17), coalesce(nullif(operation, ''), id), coalesce(nullif(attempt, 0), 1)) IN (
        SELECT (left(id, -17), coalesce(nullif(operation, ''), id), coalesce(nullif(attempt, 0), 1))
        FROM ({lines})
        WHERE kind = 'usage'
            AND status IS DISTINCT FROM 'unsettled'
            AND coalesce(nullif(operation, ''), id) IN (
                SELECT coalesce(nullif(operation, ''), id) FROM line_by_line WHERE status = 'unsettled'
            )
    )
