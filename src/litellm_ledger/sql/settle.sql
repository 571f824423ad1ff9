-- Of the calls that are on record as unsettled, those that have a real outcome: that one holds.
-- Unsettled outcomes are never in what the database reads by itself, see _survey and _archive.
-- {lines} is where their calls' real ones may be.

DELETE FROM line_by_line
WHERE status = 'unsettled'
    AND (coalesce(operation, id), coalesce(attempt, 1)) IN (
        SELECT (coalesce(operation, id), coalesce(attempt, 1))
        FROM ({lines})
        WHERE kind = 'usage'
            AND status <> 'unsettled'
            AND coalesce(operation, id) IN (
                SELECT coalesce(operation, id) FROM line_by_line WHERE status = 'unsettled'
            )
    )
