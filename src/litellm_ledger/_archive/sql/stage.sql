-- Checked lines ($1) of the sources of these numbers ($2) into the table of an archive file.

INSERT INTO staged
SELECT source, NULL AS line, CAST('0x' || crc AS UINTEGER) AS crc, unnest(record)
FROM (
    SELECT source, line[-11:-4] AS crc, from_json(line, {struct}) AS record
    FROM (SELECT unnest($1::VARCHAR[]) AS line, unnest($2::INTEGER[]) AS source)
)
