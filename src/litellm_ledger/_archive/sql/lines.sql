-- Lines that were read and checked before, as columns.  {struct} is their names and types.

SELECT unnest(record)
FROM (SELECT from_json(line, {struct}) AS record FROM (SELECT unnest($1::VARCHAR[]) AS line))
