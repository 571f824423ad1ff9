-- All records of the operation $1, in the order in which they were written.

SELECT {columns}
FROM records
WHERE kind <> 'gap' AND (operation = $1 OR id = $1 AND operation IS NULL)
ORDER BY id
