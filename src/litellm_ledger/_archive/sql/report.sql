-- Sums by group, status and who counted; {keys} are the group keys, {sums} one sum a field.

SELECT status, usage_source{keys}, {sums}
FROM calls
WHERE {where}
GROUP BY ALL
