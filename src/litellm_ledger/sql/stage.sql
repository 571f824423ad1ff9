-- Checked lines of one segment into the table that becomes an archive file.

INSERT INTO staged
SELECT {number} AS source, NULL AS line, CAST('0x' || crc AS UINTEGER) AS crc, unnest(record)
FROM (
    SELECT line[-11:-4] AS crc, from_json(line, {struct}) AS record
    FROM (SELECT unnest($1::VARCHAR[]) AS line)
)
