-- Groups in the order of a report: {first} is what comes before the most expensive.

SELECT {columns}
FROM groups {places}
ORDER BY {first}groups.pico DESC, groups.calls DESC, {names}
LIMIT {limit}
