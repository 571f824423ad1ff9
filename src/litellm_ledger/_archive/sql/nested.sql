-- The same with a key below the others ({outer}): what has the same of those comes together, in the
-- order {outermost}, where rank is the place of a group among all, and {chosen} the column that was
-- asked for, of which {above} is that of what comes together.

WITH ranks AS (
    SELECT {keys}, pico, calls, {chosen} AS chosen,
        row_number() OVER (ORDER BY {first}pico DESC, calls DESC, {keys}) AS rank
    FROM groups {places}
), above AS (
    SELECT {outer}, sum(pico) AS pico, sum(calls) AS calls, {above}(chosen) AS chosen, min(rank) AS rank
    FROM ranks GROUP BY {outer}
)
SELECT {columns}
FROM groups JOIN ranks USING ({keys}) JOIN above USING ({outer})
ORDER BY {outermost}above.rank, ranks.rank
LIMIT {limit}
