-- The rows of one archive file beside the lines of its sources, in the order of both: for each source
-- and file how many lines and bytes, and how many lines the columns, written one after the other, are
-- not.  {plain}: whether the database writes a row's numbers as a line has them.

SELECT
    rows.source, lines.filename, count(*), sum(strlen(lines.line) + 1),
    count(*) FILTER (
        lines.line IS DISTINCT FROM rows.line OR contains(lines.line, '\') OR NOT rows.plain
    )
FROM (
    SELECT source, concat({pieces}) AS line, {plain} AS plain
    FROM read_parquet({path}, hive_partitioning=false)
) AS rows
POSITIONAL JOIN read_csv(
    {paths},
    columns={{line: 'VARCHAR'}},
    auto_detect=false,
    header=false,
    delim='\x01',
    quote='',
    escape='',
    comment='',
    new_line='\n',
    max_line_size={longest},
    filename=true,
    hive_partitioning=false
) AS lines
GROUP BY ALL
