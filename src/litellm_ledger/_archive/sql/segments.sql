-- The lines of whole segments as rows of an archive file; numbers is each path with its number.

SELECT numbers.source, CAST(NULL AS VARCHAR) AS line, CAST('0x' || lines.crc AS UINTEGER) AS crc, {members}
FROM read_json(
    {paths},
    columns={columns},
    format='newline_delimited',
    maximum_object_size={longest},
    filename=true,
    hive_partitioning=false
) AS lines
JOIN (VALUES {numbers}) AS numbers (filename, source) USING (filename)
