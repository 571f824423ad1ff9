-- The sums of the {limit} most expensive groups, as Totals orders them; {names} are the group keys.

SELECT status, usage_source, {names}, {fields}
FROM sums SEMI JOIN (
    SELECT {names} FROM sums GROUP BY ALL
    ORDER BY coalesce(sum(pico), 0) DESC, sum(calls) DESC, {names}
    LIMIT {limit}
) USING ({names})
